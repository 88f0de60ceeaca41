import datasets
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.prepared.preparation import write_shards
from hf_llava_vqa.data.prepared.shards import read_shards
from hf_llava_vqa.errors import ConfigError, ImageError, RecordError
from hf_llava_vqa.records import FEATURES, UNDECODED_FEATURES, make_dialogue, make_record


@pytest.fixture
def train(vizwiz_root):
    return load_records("vizwiz", split="train", root=vizwiz_root)


def text_record(name, **fields):
    return make_record(
        image_id=name, dialogues=[make_dialogue(id=name, question="Why?", answers=["so", "thus"])], **fields
    )


def test_the_published_form_loads_with_plain_datasets(train, tmp_path):
    write_shards(train, tmp_path / "set", split="train", rows_per_shard=2)
    files = str(tmp_path / "set" / "data" / "train-*.parquet")
    rows = datasets.load_dataset("parquet", data_files=files, split="train")
    assert rows.features == FEATURES
    assert isinstance(rows[0]["images"][0], Image.Image)
    found = datasets.load_dataset(str(tmp_path / "set"), split="train")
    assert list(found["image_id"]) == list(rows["image_id"])


def test_a_set_that_was_never_finished(tmp_path):
    broken = [text_record("a", images=[b"no image"])]
    with pytest.raises(ImageError):
        write_shards(broken, tmp_path, split="train")
    with pytest.raises(ConfigError, match="has no split 'train'; it is empty, as preparing it did not finish"):
        read_shards(tmp_path, split="train")


@pytest.mark.parametrize("streaming", [False, True])
def test_shards_are_checked_against_the_manifest(tmp_path, streaming):
    write_shards([text_record(f"{number}") for number in range(3)], tmp_path, split="train", rows_per_shard=1)
    shard = tmp_path / "data" / "train-00001-of-00003.parquet"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    with pytest.raises(RecordError) as caught:
        read_shards(tmp_path, streaming=streaming)
    expected = f"{shard}: {len(data) - 1:,} bytes where the manifest says {len(data):,}; copy the folder again"
    assert str(caught.value).startswith(expected)
    shard.unlink()
    with pytest.raises(RecordError, match="the manifest lists it, but it is missing; copy the folder again"):
        read_shards(tmp_path, streaming=streaming)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "no manifest.json, so this is no prepared set"),
        (lambda path: path.write_text("[]"), "not the manifest of a prepared set (no schema_version)"),
        (lambda path: path.write_text('{"schema_version": 1}'), "not the manifest of a prepared set (no source)"),
        (
            lambda path: path.write_text(path.read_text().replace('"row_group_size": 16', '"row_group_size": 0')),
            "row_group_size is 0, not a positive number; copy the folder again",
        ),
        (
            lambda path: path.write_text(path.read_text().replace('"virtual_readers": 64', '"virtual_readers": "64"')),
            "virtual_readers is '64', not a positive number; copy the folder again",
        ),
        (lambda path: path.write_text('{"schema'), "broken JSON at line 1"),
        (
            lambda path: path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2')),
            "schema_version is 2, this version reads 1: upgrade hf-llava-vqa",
        ),
        (
            lambda path: path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 0')),
            "schema_version is 0, this version reads 1: prepare the data again",
        ),
        (
            lambda path: path.write_text(path.read_text().replace("data/train", "../other/train")),
            "manifest.json: unsafe name '../other/train-00000-of-00001.parquet'",
        ),
    ],
)
def test_a_manifest_that_cannot_be_used(tmp_path, change, message):
    write_shards([text_record("a")], tmp_path, split="train")
    change(tmp_path / "manifest.json")
    with pytest.raises(RecordError) as caught:
        read_shards(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_folders_with_odd_names(tmp_path, streaming):
    folder = tmp_path / "my [set] * é"
    write_shards([text_record("a")], folder, split="train")
    assert [row["image_id"] for row in read_shards(folder, streaming=streaming)] == ["a"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_whose_files_are_links(tmp_path, streaming):
    """As a downloaded set lies in the cache of huggingface_hub."""
    write_shards([text_record("a")], tmp_path / "blobs", split="train")
    snapshot = tmp_path / "snapshots" / "1"
    (snapshot / "data").mkdir(parents=True)
    for path in (tmp_path / "blobs").rglob("*.*"):
        (snapshot / path.relative_to(tmp_path / "blobs")).symlink_to(path)
    assert [row["image_id"] for row in read_shards(snapshot, streaming=streaming)] == ["a"]


def test_the_schema_does_not_change_by_accident(tmp_path):
    write_shards([text_record("a")], tmp_path, split="train")
    schema = pq.read_schema(tmp_path / "data" / "train-00000-of-00001.parquet")
    assert datasets.Features.from_arrow_schema(schema) == FEATURES
    assert read_shards(tmp_path).features == UNDECODED_FEATURES
    text = {"dtype": "string", "_type": "Value"}
    assert FEATURES.to_dict() == {
        "schema_version": {"dtype": "int32", "_type": "Value"},
        "image_id": text,
        "images": {"feature": {"_type": "Image"}, "_type": "List"},
        "image_sha256": {"feature": text, "_type": "List"},
        "source": text,
        "split": text,
        "dialogues": {
            "feature": {
                "id": text,
                "turns": {"feature": {"role": text, "content": text}, "_type": "List"},
                "answers": {"feature": {"answer": text, "answer_confidence": text}, "_type": "List"},
                "answer_type": text,
                "answerable": {"dtype": "int8", "_type": "Value"},
                "choices": {"feature": text, "_type": "List"},
                "context": text,
                "metadata": text,
            },
            "_type": "List",
        },
    }
