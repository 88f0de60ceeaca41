"""easy-VQA's pictures, taken apart once a session."""

import pytest

from hf_llava_vqa.demo.pictures import Scene, read_scenes


@pytest.fixture(scope="session")
def train_scenes() -> list[Scene]:
    return read_scenes("train")


@pytest.fixture(scope="session")
def held_out_scenes() -> list[Scene]:
    return read_scenes("test")
