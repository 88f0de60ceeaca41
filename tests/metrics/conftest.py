"""What tests of metrics share: the reference scorers' outputs, and a metric loaded as a stranger loads it."""

import json
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
def load_metric(tmp_path_factory):
    """Return a function that loads a metric from another folder, copied into `evaluate`'s own cache."""
    cache = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.utils.file_utils.config.HF_MODULES_CACHE", str(cache / "modules"))

        def load(name: str):
            with patch.context() as there:
                there.chdir(cache)
                return evaluate.load(metric_path(name), cache_dir=str(cache / "data"))

        yield load
