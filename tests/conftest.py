"""What every test stands on: an offline environment, set before Hugging Face is imported; a tiny LLaVA."""

import os

EXPLORE = "CI" not in os.environ

os.environ.update(
    CI="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
)

from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: a slow machine is not a failure. On CI the examples are fixed, elsewhere they explore.
settings.register_profile("suite", deadline=None, derandomize=not EXPLORE)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a complete LLaVA with random weights and 4 image tokens; shared, so do not write into it."""
    from hf_llava_vqa.models.tiny import SAMPLE_TEXTS, TinyConfig, build_tiny_llava

    folder = tmp_path_factory.mktemp("tiny_llava")
    build_tiny_llava(folder, TinyConfig(), SAMPLE_TEXTS, seed=0)
    return folder
