"""Publishing on a loopback Hub: a metric, pushed by the script and loaded by a stranger; an adapter."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_stub import HubStub

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.hub import push_adapter
from hf_llava_vqa.metrics import metric_path

SCRIPT = Path(__file__).parents[1] / "scripts" / "push_metric.py"
REPO = "user/vizwiz_accuracy"
Process = subprocess.CompletedProcess[str]


@pytest.fixture
def hub() -> Iterator[HubStub]:
    with HubStub() as stub:
        yield stub


@pytest.fixture
def push(hub: HubStub, tmp_path: Path) -> Callable[..., Process]:
    """Run scripts/push_metric.py against the loopback Hub, with changes to its environment."""

    def run(*arguments: str, **changes: str) -> Process:
        environment = hub.environment(tmp_path / "home") | changes
        command = [sys.executable, str(SCRIPT), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.e2e
def test_a_pushed_metric_is_loaded_by_its_name(hub: HubStub, push: Callable[..., Process], tmp_path: Path) -> None:
    hub.repos["space", REPO] = {"old_rules.py": b"", "examples.csv": b""}
    done = push("vizwiz_accuracy", "--repo", REPO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f'/spaces/{REPO}\nload it with: evaluate.load("{REPO}")\n')

    files = hub.repos["space", REPO]
    folder = {path.name: path.read_bytes() for path in Path(metric_path("vizwiz_accuracy")).iterdir() if path.is_file()}
    del folder["__init__.py"]
    assert files == folder | {"examples.csv": b""}

    program = f"""
import evaluate, json
people = [["cola"] * 3 + ["soda"] * 7]
print(json.dumps(evaluate.load("{REPO}").compute(predictions=["Cola."], references=people)["accuracy"]))
"""
    environment = hub.environment(tmp_path / "stranger")
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout) == 0.9


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (("vizwiz", "--repo", REPO), {}, "no metric named 'vizwiz'; there is: "),
        (("vizwiz_accuracy", "--repo", "user/my_metric"), {}, "so give USER/vizwiz_accuracy"),
        (("vizwiz_accuracy", "--repo", "vizwiz_accuracy"), {}, "so give USER/vizwiz_accuracy"),
        (("vizwiz_accuracy", "--repo", REPO), {"HF_TOKEN": "hf_wrong"}, "401 Unauthorized"),
        (("vizwiz_accuracy", "--repo", REPO), {"HF_HUB_OFFLINE": "1"}, "offline mode is enabled"),
        (("vizwiz_accuracy", "--repo", REPO), {"HF_ENDPOINT": "http://127.0.0.1:9"}, "Connection refused"),
    ],
)
def test_a_push_that_cannot_work_is_one_line(
    hub: HubStub, push: Callable[..., Process], arguments: tuple[str, ...], changes: dict[str, str], message: str
) -> None:
    done = push(*arguments, **changes)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert hub.repos == {}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """The files of a finished run, as far as a push looks at them."""
    folder = tmp_path / "adapter"
    for name in ("adapter_model.safetensors", "README.md", "events.out.tfevents", "checkpoint-3/adapter_config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "llava-hf/llava-1.5-7b-hf"}')
    return folder


@pytest.mark.e2e
def test_an_adapter_is_pushed_without_checkpoints_and_logs(hub: HubStub, adapter: Path, tmp_path: Path) -> None:
    script = SCRIPT.with_name("push_adapter.py")
    environment = hub.environment(tmp_path / "home")
    done = subprocess.run(
        [sys.executable, str(script), str(adapter), "--repo", "user/mine"],
        **{"env": environment, "capture_output": True, "text": True},
    )
    assert done.returncode == 0, done.stderr
    assert set(hub.repos["model", "user/mine"]) == {"adapter_config.json", "adapter_model.safetensors", "README.md"}


def test_an_adapter_that_nobody_could_load_is_refused(adapter: Path) -> None:
    with pytest.raises(ConfigError, match="checkpoint-9: no adapter_config"):
        push_adapter(adapter / "checkpoint-9", "user/mine", files=["*"])
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(adapter)}))
    with pytest.raises(ConfigError, match="a folder that nobody else has"):
        push_adapter(adapter, "user/mine", files=["*"])
