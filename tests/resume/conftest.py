"""What the resume tests share: a zygote for each pytest worker, and records in uneven shards."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from examples import ANSWERS, QUESTIONS, colour, question, record
from oracle import READERS
from runs import Zygote

from hf_llava_vqa.data.prepared.preparation import write_shards

ROWS = 17  # a prime: nothing divides it


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    zygote = Zygote(tmp_path_factory.mktemp("datasets"))
    yield zygote
    zygote.close()


def make_row(number: int) -> dict[str, Any]:
    name = f"{number:02d}"
    questions = [
        question(f"{name}.{k}", QUESTIONS[k], [ANSWERS[(number + k + shift) % len(ANSWERS)] for shift in range(3)])
        for k in range(1 + number % 3)
    ]
    return record(name, questions, colours=[colour(number + 1)])


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set of 17 pictures with 1-3 questions each: shards of 7, 7 and 3 rows in row groups of 3 and 1.

    A second split, `more`, has 5 rows for mixtures.
    """
    folder = tmp_path_factory.mktemp("data") / "set"
    write_shards(map(make_row, range(ROWS)), folder, split="train", rows_per_shard=7, row_group_size=3)
    write_shards(map(make_row, range(ROWS, ROWS + 5)), folder, split="more", rows_per_shard=4, row_group_size=3)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"virtual_readers": READERS}))
    return folder
