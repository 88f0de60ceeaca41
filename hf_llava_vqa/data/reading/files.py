"""Finding and reading what benchmarks publish: annotation files, folders of images and archives as downloaded.

Files are only located here; images are opened by `hf_llava_vqa.images` when they are needed.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from hf_llava_vqa.archives import list_members, member_path, read_member
from hf_llava_vqa.errors import ConfigError, ImageError, RecordError, in_line
from hf_llava_vqa.images import check_name, decode_base64, path_inside

_LONGEST_TAR_MEMBER = 2**31  # bytes; text in a tar is not compressed, so this is no bomb but the wrong file
_JSON_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "null"}

Place = str | Path | None
"""Where a file or images lie, or None to look for them in the source's folder."""


class ImageStore(Protocol):
    """A place with images."""

    place: str

    def locate(self, name: str) -> str | bytes | None:
        """Return what `images.open_image` opens, or None if there is no such image."""


class ImageFolder:
    """A folder of images, in itself or in folders below. Each is listed once: no image is touched to be found.

    The folder may be a symbolic link. Links in it must not lead out, unless `follow_symlinks` allows it.
    """

    def __init__(self, folder: Path, *, follow_symlinks: bool = False) -> None:
        self.place = os.path.abspath(folder)
        self._follow = follow_symlinks
        self._files: dict[str, set[str]] = {}  # by folder below the place

    def locate(self, name: str) -> str | None:
        """Return the absolute path of the image, or None. Raises ImageError for a name that leads out."""
        folder, _, file = name.rpartition("/")
        if file in self._files_in(folder):
            return os.path.join(self.place, name)
        path = self._path(name)
        return str(path) if os.path.isfile(path) else None

    def _path(self, name: str) -> Path:
        return path_inside(self.place, name, follow_symlinks=self._follow)

    def _files_in(self, folder: str) -> set[str]:
        if folder not in self._files:
            self._files[folder] = self._list(folder)
        return self._files[folder]

    def _list(self, folder: str) -> set[str]:
        try:
            with os.scandir(self._path(folder) if folder else self.place) as entries:
                return {entry.name for entry in entries if entry.is_file(follow_symlinks=self._follow)}
        except (ImageError, OSError):  # whatever is wrong with it, `locate` says it of the image's full name
            return set()


class ImageArchive:
    """A zip or tar archive of images, which may sit in folders of their own, as in `train.zip` with `train/*.jpg`."""

    def __init__(self, archive: Path) -> None:
        self.place = os.path.abspath(archive)
        self._members: dict[str, list[str]] = {}  # by the last part of their names, and by the last two
        for member in list_archive(archive):
            for key in dict.fromkeys((_ending(member, 1), _ending(member, 2))):
                self._members.setdefault(key, []).append(member)

    def locate(self, name: str) -> str | None:
        """Return the `zip://` or `tar://` path of the image, or None.

        Raises:
            RecordError: several members fit.
            ImageError: a name that leads out.
        """
        check_name(name)
        candidates = self._members.get(_ending(name, 2), [])
        fitting = [member for member in candidates if f"/{member}".endswith(f"/{name}")]
        if len(fitting) > 1:
            first, second = map(in_line, fitting[:2])
            raise RecordError(f"{self.place}: {in_line(name)} could be {first} or {second}; unpack the right folder")
        return member_path(self.place, fitting[0]) if fitting else None


class EmbeddedImages:
    """Images that stand in an annotation file itself, in base64. One that stands there several times is kept once."""

    def __init__(self, file: str) -> None:
        self.place = file
        self._images: dict[str, bytes] = {}  # by their hashes

    def add(self, text: str, where: str) -> str:
        """Decode an image and return the name to locate it by; raises RecordError, naming `where`, if it is none."""
        try:
            image = decode_base64(text)
        except ImageError as error:
            raise RecordError(f"{where}: {error}") from error
        name = hashlib.sha256(image).hexdigest()
        self._images[name] = image
        return name

    def locate(self, name: str) -> bytes | None:
        """Return the bytes of the image, or None."""
        return self._images.get(name)


def _ending(path: str, parts: int) -> str:
    return "/".join(path.rsplit("/", parts)[-parts:])


def open_images(path: str | Path, *, follow_symlinks: bool = False) -> ImageStore:
    """Open a folder, a zip archive or a plain tar archive of images.

    Args:
        follow_symlinks: allow symbolic links in the folder that lead out of it.

    Raises:
        RecordError: it is none of them, or a damaged archive.
    """
    path = Path(path)
    if path.is_dir():
        return ImageFolder(path, follow_symlinks=follow_symlinks)
    if path.is_file():
        return ImageArchive(path)
    raise RecordError(f"{path}: no such folder, zip or tar archive of images")


def find_source(
    split: str,
    root: str | Path | None,
    annotations: str | Path | None,
    images: str | Path | None,
    *,
    follow_symlinks: bool = False,
) -> tuple[str, ImageStore]:
    """Find the annotation file and the images of a split, in `root` or as named by `annotations` and `images`.

    Raises:
        ConfigError: neither is given.
        RecordError: something is missing.
    """
    if root is None and (annotations is None or images is None):
        raise ConfigError("give root (the folder with the files as published), or both annotations and images")
    name = f"{split}.json"
    file = find_file(root, annotations, name, f"Annotations/{name}", archive="Annotations.zip", keyword="annotations")
    return file, find_images(root, images, split, follow_symlinks=follow_symlinks)


def find_file(root: Place, given: Place, *names: str, archive: str = "", keyword: str) -> str:
    """Find an annotation file: `given`, the first of `names` in `root`, or a file of that name anywhere in `archive`.

    Raises:
        ConfigError: there is neither `given` nor `root`.
        RecordError: there is no such file; says what was looked for, and by which `keyword` the file can be named.
    """
    if given is not None:
        return str(given)
    root = _checked_root(root, keyword)
    for name in names:
        if (root / name).is_file():
            return str(root / name)
    if archive and (root / archive).is_file():
        files = {name.rpartition("/")[2] for name in names}
        for member in list_archive(root / archive):
            if member.rpartition("/")[2] in files:
                return member_path(root / archive, member)
    places = f"{', '.join(names)} or {archive} holding it" if archive else " or ".join(names)
    raise RecordError(f"{root}: no {places}; download the annotations into it, or name the file as {keyword}")


def find_images(root: Place, given: Place, *names: str, follow_symlinks: bool = False) -> ImageStore:
    """Open a place with images: `given`, or the first folder of one of these names in `root`, or else zip or tar.

    Raises:
        ConfigError: there is neither `given` nor `root`.
        RecordError: there is no such place.
    """
    if given is not None:
        return open_images(given, follow_symlinks=follow_symlinks)
    root = _checked_root(root, "images")
    archives = [f"{name}{suffix}" for suffix in (".zip", ".tar") for name in names]
    for name in (*names, *archives):
        if (root / name).exists():
            return open_images(root / name, follow_symlinks=follow_symlinks)
    raise RecordError(
        f"{root}: no folder {' or '.join(names)} and no {' or '.join(archives)}; "
        "download the images into it, or name their place as images"
    )


def _checked_root(root: Place, keyword: str) -> Path:
    if root is None:
        raise ConfigError(f"give root (the folder with the files as published), or {keyword}")
    if not Path(root).is_dir():
        raise RecordError(f"{root}: no such folder")
    return Path(root)


def list_archive(archive: Path) -> list[str]:
    """The names of an archive's members; raises RecordError if it is damaged."""
    try:
        return list_members(archive)
    except ImageError as error:
        raise RecordError(str(error)) from error


# Not an argument: it would pass through the signature of every reader, none of which does anything with it.
_hashes: ContextVar[dict[str, str] | None] = ContextVar("hashes", default=None)


@contextmanager
def hashes_of_annotations() -> Iterator[dict[str, str]]:
    """Take down which annotation files are read.

    Yields:
        A dictionary that is filled meanwhile: the name of each file, without its folder -> the SHA-256 of its bytes.
    """
    hashes: dict[str, str] = {}
    token = _hashes.set(hashes)
    try:
        yield hashes
    finally:
        _hashes.reset(token)


def read_json(file: str) -> Any:
    """Parse a JSON file, or a member of an archive named by `archives.member_path`. A byte order mark is skipped.

    Raises:
        RecordError: the file is missing, not UTF-8 or not JSON; with line and column.
    """
    return _parse_json(read_text(file), file)


def read_json_lines(file: str) -> list[tuple[int, Any]]:
    """Parse a file that holds one JSON value a line; empty lines are skipped. Raises as `read_json`.

    Returns:
        The number of each line, counted from 1, and its value.
    """
    lines = enumerate(read_text(file).split("\n"), start=1)
    return [(number, _parse_json(line, file, number)) for number, line in lines if line.strip()]


def read_text(file: str) -> str:
    """Read a UTF-8 file, or a member of an archive named by `archives.member_path`. A byte order mark is skipped.

    Raises:
        RecordError: it is missing, damaged or not UTF-8; with byte and line.
    """
    data = _read_bytes(file)
    hashes = _hashes.get()
    if hashes is not None:
        hashes[PurePosixPath(file.partition("::")[0]).name] = hashlib.sha256(data).hexdigest()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RecordError(f"{file}: not UTF-8 at byte {error.start} (line {line}); save it as UTF-8") from error


def _parse_json(text: str, file: str, first_line: int = 1) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {first_line + error.lineno - 1}, column {error.colno}"
        raise RecordError(f"{file}: broken JSON at {where}: {error.msg}; download it again") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{file}: JSON that cannot be read: {error}") from error


def _read_bytes(file: str) -> bytes:
    try:
        if file.startswith("tar://"):
            return read_member(file, _LONGEST_TAR_MEMBER)
        if not file.startswith("zip://"):
            return Path(file).read_bytes()
        member, _, archive = file.removeprefix("zip://").rpartition("::")
        with zipfile.ZipFile(archive) as opened:
            return opened.read(member)
    except FileNotFoundError:
        raise RecordError(f"{file}: no such annotation file") from None
    except (ImageError, OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise RecordError(f"{file}: cannot be read: {error}") from error


def kind_of(value: Any) -> str:
    """Name the JSON type of a value in plain words, for messages."""
    return _JSON_KINDS.get(type(value), "a number")
