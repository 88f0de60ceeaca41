"""One folder or several: what a recipe's `--data_dir` and `--data_weights` load."""

from pathlib import Path

import pytest
from examples import dataset, question, record

from hf_llava_vqa.data import load_folders
from hf_llava_vqa.data.prepared.preparation import write_shards
from hf_llava_vqa.data.streams import RecordStream
from hf_llava_vqa.errors import ConfigError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two prepared sets, of 6 and of 2 rows."""
    root = tmp_path_factory.mktemp("sets")
    for name, rows in (("a", 6), ("b", 2)):
        records = dataset([record(f"{name}{n}", [question(f"{name}{n}")]) for n in range(rows)])
        write_shards(records, root / name, split="train")
    return [root / "a", root / "b"]


def test_one_folder_is_read_as_it_is(folders: list[Path]) -> None:
    assert len(load_folders("parquet", folders[:1], split="train")) == 6


def test_several_are_mixed_by_their_rows_or_by_weight(folders: list[Path]) -> None:
    by_rows = load_folders("parquet", folders, split="train", streaming=True)
    assert isinstance(by_rows, RecordStream)
    assert by_rows.num_rows == 8
    assert by_rows.weights == (6, 2)
    assert load_folders("parquet", folders, split="train", streaming=True, weights=[1, 1]).weights == (1, 1)


@pytest.mark.parametrize(
    ("choice", "options", "told"),
    [
        (slice(2), {}, "add --streaming True"),
        (slice(1), {"weights": [1.0]}, "weights are for a mixture"),
        (slice(2), {"streaming": True, "weights": [1.0]}, "weights"),
    ],
)
def test_what_cannot_be_mixed_is_refused(folders: list[Path], choice, options, told) -> None:
    with pytest.raises(ConfigError, match=told):
        load_folders("parquet", folders[choice], split="train", **options)
