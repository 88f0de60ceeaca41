"""A tiny model that has something different to say about everything."""

import pytest
from examples import Loaded, build_outspoken_llava

from hf_llava_vqa.models import load_model


@pytest.fixture(scope="package")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("outspoken")
    build_outspoken_llava(folder)
    return load_model(str(folder))
