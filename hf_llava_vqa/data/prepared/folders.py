"""Where a prepared set may lie: in a folder, or in a data repository of the Hub, which is read in place over HTTP."""

import json
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from huggingface_hub import HfApi, HfFileSystem, parse_hf_uri
from huggingface_hub.errors import HfUriError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from hf_llava_vqa.data.reading.files import read_json
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.images import path_inside

HUB = "hf://"
HUB_ERRORS = (HTTPError, OSError)  # what huggingface_hub raises for answers, and for want of one


class Folder(Protocol):
    """A folder of files, which have relative names."""

    def find(self, name: str) -> tuple[str, int] | None:
        """Return where a file is and how many bytes it has, or None. Raises ImageError for a name that leads out."""

    def read_json(self, name: str) -> Any:
        """Parse a file that is there. Raises RecordError if it is no JSON."""


def open_folder(path: str | Path) -> Folder:
    """Open a folder of this machine, or `hf://datasets/USER/NAME[@REVISION][/FOLDER]`.

    Raises:
        ConfigError: no such name on the Hub, or the Hub cannot be reached.
    """
    return HubFolder(path) if is_on_hub(path) else LocalFolder(path)


def is_on_hub(path: str | Path) -> bool:
    """Whether a folder or a file is named by its place on the Hub."""
    return str(path).startswith(HUB)


class LocalFolder:
    """A folder of this machine."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def __str__(self) -> str:
        return str(self._path)

    def find(self, name: str) -> tuple[str, int] | None:
        """Return the absolute path of a file and its bytes, or None. Raises ImageError for a name that leads out."""
        # Links are the user's own, as in the cache of huggingface_hub; a published manifest cannot bring any.
        path = path_inside(self._path, name, follow_symlinks=True)
        return (str(path.absolute()), path.stat().st_size) if path.is_file() else None

    def read_json(self, name: str) -> Any:
        """Parse a file. Raises RecordError if it is missing or no JSON."""
        return read_json(str(self._path / name))


class HubFolder:
    """A folder of a data repository at the commit its revision named when it was opened: later pushes are not seen."""

    def __init__(self, url: str | Path) -> None:
        self._name = str(url)
        try:
            asked = parse_hf_uri(self._name)
            if asked.type != "dataset":
                raise HfUriError(self._name, "it names no data set")
        except HfUriError as error:
            raise ConfigError(f"{url}: a prepared set on the Hub is hf://datasets/USER/NAME[@REVISION]") from error
        try:
            commit = HfApi().repo_info(asked.id, revision=asked.revision, repo_type="dataset").sha
            tree = HfApi().list_repo_tree(asked.id, recursive=True, revision=commit, repo_type="dataset")
            files = {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}
        except RevisionNotFoundError as error:
            raise ConfigError(f"{url}: the repository has no revision {asked.revision}") from error
        except RepositoryNotFoundError as error:
            reason = "no such data set on the Hub, or none you may read; check the name, and log in: hf auth login"
            raise ConfigError(f"{url}: {reason}") from error
        except HUB_ERRORS as error:
            raise ConfigError(f"{url}: the Hub cannot be read ({first_line(error)})") from error
        self._root = f"{HUB}datasets/{asked.id}@{commit}"
        self._prefix = f"{asked.path_in_repo}/" if asked.path_in_repo else ""
        self._sizes = files

    def __str__(self) -> str:
        return self._name

    def find(self, name: str) -> tuple[str, int] | None:
        """Return the URL of a file at the commit and its bytes, or None."""
        size = self._sizes.get(self._prefix + name)
        return None if size is None else (f"{self._root}/{self._prefix}{name}", size)

    def read_json(self, name: str) -> Any:
        """Parse a file. Raises RecordError if it is no JSON, ConfigError if the Hub does not send it."""
        try:
            text = HfFileSystem().cat_file(f"{self._root}/{self._prefix}{name}")
        except HUB_ERRORS as error:
            raise ConfigError(f"{self._name}: the Hub cannot be read ({first_line(error)})") from error
        try:
            return json.loads(text)
        except ValueError as error:
            raise RecordError(f"{self._name}/{name}: broken JSON ({error}); push it again") from error


def open_on_hub(url: str, *, size: int, ahead: int) -> BinaryIO:
    """Open a file of the Hub whose size is known. Of what is not read yet, a read asks for `ahead` bytes more."""
    return HfFileSystem().open(url, size=size, block_size=ahead)


def first_line(error: BaseException) -> str:
    """The first line of what a library says about an error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
