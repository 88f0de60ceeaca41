import os
import pickle
import subprocess
import sys

import pytest
from datasets import Dataset, IterableDataset

from hf_llava_vqa.data import BENCHMARKS, get_benchmark, load_records
from hf_llava_vqa.data.prepared.preparation import write_shards
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.images import open_image
from hf_llava_vqa.metrics import metric_path
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import VARIANTS
from hf_llava_vqa.records import UNDECODED_FEATURES, validate_record


@pytest.fixture(params=["vizwiz", "vizwiz_competition", "easy_vqa", "parquet"])
def source(request, tmp_path):
    """A source with the arguments that load one of its splits."""
    if request.param == "vizwiz":
        return {"source": "vizwiz", "split": "val", "root": request.getfixturevalue("vizwiz_root")}
    if request.param == "vizwiz_competition":
        root = request.getfixturevalue("competition_root")
        return {"source": "vizwiz_competition", "split": "valid", "root": str(root)}
    if request.param == "easy_vqa":
        pytest.importorskip("easy_vqa")
        return {"source": "easy_vqa", "split": "test"}
    root = request.getfixturevalue("vizwiz_root")
    records = load_records("vizwiz", split="train", root=root)
    write_shards(records, tmp_path / "set", split="train", rows_per_shard=2, row_group_size=1)
    return {"source": "parquet", "split": "train", "path": tmp_path / "set"}


def test_streaming_gives_the_same_rows_in_the_same_order(source):
    rows = load_records(**source)
    stream = load_records(**source, streaming=True)
    assert isinstance(rows, Dataset)
    assert isinstance(stream, IterableDataset)
    assert rows.features == stream.features == UNDECODED_FEATURES
    assert list(stream) == list(rows)
    assert len(rows) > 0
    for row in rows:
        validate_record(row)
        assert row["split"] == source["split"]


def test_images_open_after_loading(source):
    row = load_records(**source)[0]
    assert set(row["images"][0]) == {"bytes", "path"}
    assert open_image(row["images"][0]).mode == "RGB"


def test_a_stream_can_be_dealt_to_workers(source):
    stream = load_records(**source, streaming=True)
    count = stream.num_shards
    assert count == -(-stream.num_rows // (1 if source["source"] == "parquet" else 16))
    parts = [list(stream.shard(count, index)) for index in range(count)]
    assert [row for part in parts for row in part] == list(stream)


def test_data_sets_travel_to_spawned_workers(source):
    rows = load_records(**source)
    assert list(pickle.loads(pickle.dumps(rows))) == list(rows)
    stream = load_records(**source, streaming=True)
    assert list(pickle.loads(pickle.dumps(stream))) == list(rows)


def test_raw_sources_leave_nothing_in_the_cache(vizwiz_root, tmp_path):
    code = f"""
from hf_llava_vqa.data import load_records
for streaming in (False, True):
    rows = load_records("vizwiz", split="train", root={str(vizwiz_root)!r}, streaming=streaming)
    assert len(list(rows)) == 5
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "HF_HOME": str(tmp_path / "home")})
    assert not (tmp_path / "home").exists()


def test_mistakes_in_the_data_are_found_before_a_stream_is_read(vizwiz_root):
    (vizwiz_root / "train" / "VizWiz_train_00000004.jpg").unlink()
    with pytest.raises(RecordError, match="row 4: image VizWiz_train_00000004"):
        load_records("vizwiz", split="train", root=vizwiz_root, streaming=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "coco"}, "unknown source 'coco'; there are vizwiz, vizwiz_competition, easy_vqa, "),
        ({"source": "vizwiz", "root": "."}, "vizwiz: split must be one of train, val, test, not None"),
        ({"source": "vizwiz", "split": "valid", "root": "."}, "must be one of train, val, test, not 'valid'"),
        ({"source": "vizwiz", "split": "val", "path": "."}, "does not take 'path'; it takes root, annotations, images"),
        ({"source": "easy_vqa", "split": "test", "root": "."}, "easy_vqa does not take 'root'; it takes no paths"),
        ({"source": "parquet", "root": "."}, "parquet does not take 'root'; it takes path"),
        ({"source": "parquet"}, "parquet needs path: the folder written by scripts/prepare_data.py"),
    ],
)
def test_mistakes_in_the_call(arguments, message):
    with pytest.raises(ConfigError) as caught:
        load_records(**arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_are_complete(name):
    benchmark = get_benchmark(name)
    assert benchmark.name == name
    assert not benchmark.metric or metric_path(benchmark.metric)
    assert benchmark.metric != "vizwiz_accuracy" or benchmark.metric_variant in VARIANTS
    assert benchmark.score_answers is None or benchmark.metric
    assert (benchmark.submit is None) == (benchmark.submission_file == "")
    assert benchmark.find_template is None or benchmark.submit is not None


def test_unknown_benchmarks_are_refused():
    with pytest.raises(
        ConfigError, match="unknown benchmark 'parquet'; there are vizwiz, vizwiz_competition, easy_vqa"
    ):
        get_benchmark("parquet")


def test_benchmarks_are_imported_on_demand():
    code = "import sys, hf_llava_vqa.data; print([m for m in sys.modules if m.startswith('hf_llava_vqa.data.')])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "vizwiz" not in loaded
    assert "easy_vqa" not in loaded
