"""Publishing on the Hub: metrics as Spaces."""

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
    try:
        url = api.create_repo(repo, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            repo_type="space",
            folder_path=folder,
            ignore_patterns=["__init__.py", "__pycache__/*"],
            delete_patterns="*.py",
            commit_message=f"Upload {name}",
        )
    except (HTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"the Hub did not take {repo} ({reason}); check the name, and log in: hf auth login"
        ) from error
    return str(url)
