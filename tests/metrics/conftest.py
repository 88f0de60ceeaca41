"""What tests of metrics share: the reference scorers' outputs, and a metric loaded as a stranger loads it."""

import json
import runpy
import sys
import types
from pathlib import Path

import evaluate
import pytest

from hf_llava_vqa.metrics import metric_path

GOLDEN = Path(__file__).parents[1] / "golden" / "scorers"


@pytest.fixture(scope="session")
def golden():
    """Return a function from the name of a golden file to its content."""

    def read(name: str):
        text = (GOLDEN / name).read_text(encoding="utf-8")
        return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]

    return read


@pytest.fixture(scope="session")
def evaluate_cache(tmp_path_factory):
    """A cache of `evaluate`'s own for all tests: a process imports its modules from one folder only."""
    cache = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.utils.file_utils.config.HF_MODULES_CACHE", str(cache / "modules"))
        yield cache


@pytest.fixture(scope="session")
def load_metric(evaluate_cache):
    """Return a function that loads a metric from another folder, copied into `evaluate`'s own cache."""

    def load(name: str):
        with pytest.MonkeyPatch.context() as there:
            there.chdir(evaluate_cache)
            return evaluate.load(metric_path(name), cache_dir=str(evaluate_cache / "data"))

    return load


class Widgets(types.ModuleType):
    """Stands for gradio, which tests do without: every widget is the arguments that it was made with."""

    class Error(Exception):
        def __init__(self, message, print_exception):
            super().__init__(message)

    def __getattr__(self, name):
        return lambda **arguments: types.SimpleNamespace(**arguments)


@pytest.fixture
def load_page(monkeypatch, evaluate_cache):
    """Return a function that runs the page of a metric's Space; its attribute `Error` is what the page shows."""
    monkeypatch.setitem(sys.modules, "gradio", Widgets("gradio"))

    def load(name: str):
        return runpy.run_path(str(Path(metric_path(name)) / "app.py"))["page"]

    load.Error = Widgets.Error
    return load
