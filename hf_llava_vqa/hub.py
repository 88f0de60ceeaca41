"""Publishing on the Hub: metrics as Spaces, prepared sets as data sets, adapters as models."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, HTTPError

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.metrics import metric_path


def push_metric(name: str, repo: str, *, private: bool = False) -> str:
    """Publish a metric as a Space, which `evaluate.load(repo)` then loads; files of an earlier version are replaced.

    Args:
        name: the metric, as for `metric_path`.
        repo: `user/NAME`. `evaluate` looks in a Space for a script of the Space's name, so it is the metric's.

    Returns:
        The Space's address.

    Raises:
        ConfigError: there is no such metric, `repo` has another name, or the Hub refuses or cannot be reached.
    """
    try:
        folder = metric_path(name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if repo.split("/")[1:] != [name]:
        raise ConfigError(f"--repo {repo}: evaluate finds a metric by the Space's name, so give USER/{name}")
    api = HfApi()
    with _refusals_of(repo):
        url = api.create_repo(repo, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            repo_type="space",
            folder_path=folder,
            ignore_patterns=["__init__.py", "__pycache__/*"],
            delete_patterns="*.py",
            commit_message=f"Upload {name}",
        )
    return str(url)


def create_dataset_repository(repo: str, *, private: bool = False) -> str:
    """Make a data repository, unless there is one already, and return its address.

    Raises:
        ConfigError: the Hub refuses or cannot be reached.
    """
    with _refusals_of(repo):
        return str(HfApi().create_repo(repo, repo_type="dataset", private=private, exist_ok=True))


def push_prepared_set(folder: str | Path, repo: str) -> None:
    """Publish a prepared set in its data repository, in one commit; shards of an earlier version are removed.

    The list of bad images stays behind: it names files of this machine.

    Raises:
        ConfigError: the Hub refuses or cannot be reached.
    """
    with _refusals_of(repo):
        HfApi().upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=["README.md", "manifest.json", "data/*.parquet"],
            delete_patterns="data/*.parquet",
            commit_message="Upload a prepared set",
        )


def push_adapter(folder: str | Path, repo: str, *, files: Sequence[str], private: bool = False) -> str:
    """Publish what a recipe left in its output folder, in one commit.

    Args:
        folder: the adapter with its processor and card.
        repo: `user/name`.
        files: patterns of what is published of the folder; nothing of what lies below it is.

    Returns:
        The repository's address.

    Raises:
        ConfigError: no adapter, one whose base is a folder of this machine, or the Hub refuses or cannot be reached.
    """
    config = Path(folder, "adapter_config.json")
    if not config.is_file():
        raise ConfigError(
            f"{folder}: no adapter_config.json; name the output folder of a recipe that trains an adapter"
        )
    base = json.loads(config.read_text())["base_model_name_or_path"]
    if Path(base).exists():
        raise ConfigError(
            f"{config}: base_model_name_or_path is {base}, a folder that nobody else has; push that model and put its "
            "name there, or merge the adapter"
        )
    api = HfApi()
    with _refusals_of(repo):
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(files),
            ignore_patterns="*/*",
            commit_message="Upload an adapter",
        )
    return str(url)


@contextmanager
def _refusals_of(repo: str) -> Iterator[None]:
    try:
        yield
    except (HTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"the Hub did not take {repo} ({reason}); check the name, and log in: hf auth login"
        ) from error
