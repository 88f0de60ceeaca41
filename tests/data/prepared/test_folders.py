"""Prepared sets in a repository on a loopback Hub, read by processes that know nothing else of it."""

import io
import json
import random
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from hub_stub import HubStub
from PIL import Image

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.order import SetOrder
from hf_llava_vqa.data.prepared.preparation import write_shards
from hf_llava_vqa.data.streams import fingerprint, training_stream
from hf_llava_vqa.records import make_record
from tests.examples import question

URL = "hf://datasets/user/photos"
ALONE = {"seed": 0, "batch_size": 1, "rank": 0, "world_size": 1}


def noise(number):
    """A PNG file of 30 KB: noise cannot be compressed."""
    file = io.BytesIO()
    Image.frombytes("RGB", (100, 100), random.Random(number).randbytes(30_000)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """48 photos in three shards of four row groups."""
    path = tmp_path_factory.mktemp("hub") / "photos"
    records = [
        make_record(image_id=f"{number:02d}", dialogues=[question(f"{number:02d}")], images=[noise(number)])
        for number in range(48)
    ]
    write_shards(records, path, split="train", rows_per_shard=16, row_group_size=4)
    return path


@pytest.fixture
def hub(folder):
    with HubStub() as stub:
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        stub.repos["dataset", "user/photos"] = files
        yield stub


@pytest.fixture
def ask(hub, tmp_path):
    """Run code that prints one JSON value, in a process with the stub for its Hub."""

    def run(code, **changes):
        command = [
            sys.executable,
            "-c",
            f"import json\nfrom hf_llava_vqa.data import load_folder, load_records\n{code}",
        ]
        environment = hub.environment(tmp_path / "home") | changes
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.e2e
def test_a_stream_from_the_hub_is_read_as_the_folder_is(hub, ask, folder):
    found = ask(f"""
from hf_llava_vqa.data.streams import StreamLoader, fingerprint, training_stream
stream = load_folder("vizwiz", "{URL}@main", split="train", streaming=True)
ids = lambda rows: [row["image_id"] for row in rows]
arguments = dict(seed=0, batch_size=1, rank=0, world_size=1, start=40, stop=60)
rows = training_stream(stream, workers=0, **arguments)
batches = StreamLoader(stream, collate_fn=ids, workers=2, **arguments)
print(json.dumps([stream.num_rows, fingerprint(stream), ids(rows), [name for batch in batches for name in batch]]))
""")
    local = load_records("parquet", path=folder, streaming=True)
    names = [row["image_id"] for row in training_stream(local, workers=0, start=40, stop=60, **ALONE)]
    assert found == [48, fingerprint(local), names, names]


@pytest.mark.e2e
def test_a_late_row_costs_its_row_group_and_a_footer(hub, ask, folder):
    (hashes,) = ask(f"""
from hf_llava_vqa.data.streams import training_stream
stream = load_records("parquet", path="{URL}", streaming=True)
arguments = dict(seed=0, batch_size=1, rank=0, world_size=1, workers=0, start=4_800_007, stop=4_800_008)
print(json.dumps([row["image_sha256"] for row in training_stream(stream, **arguments)]))
""")
    local = load_records("parquet", path=folder, streaming=True)
    (row,) = training_stream(local, workers=0, start=4_800_007, stop=4_800_008, **ALONE)
    assert hashes == row["image_sha256"]
    _, group, _ = SetOrder([4] * 12, 64, seed=0).locate(4_800_007)
    shard = f"data/train-{group // 4:05d}-of-00003.parquet"
    wanted = pq.read_metadata(folder / shard).row_group(group % 4)
    columns = [wanted.column(index).total_compressed_size for index in range(wanted.num_columns)]
    # What is read ahead is the group's length from the end of its first column on: a few bytes more than the group.
    assert hub.served[0] == ("manifest.json", len((folder / "manifest.json").read_bytes()))
    assert hub.served[1:] == [(shard, 65536), (shard, sum(columns) + columns[0])]


@pytest.mark.e2e
def test_a_data_set_from_the_hub(ask, folder):
    names = ask(f'print(json.dumps(list(load_records("parquet", path="{URL}")["image_id"])))')
    assert names == list(load_records("parquet", path=folder)["image_id"])


@pytest.mark.e2e
def test_what_is_pushed_later_is_not_mixed_in(hub, ask):
    """The stub forgets earlier commits, so that going on with the one that was opened is an error here."""
    message = ask(f"""
from huggingface_hub import HfApi
from hf_llava_vqa.errors import RecordError
stream = load_records("parquet", path="{URL}", streaming=True)
HfApi().upload_file(path_or_fileobj=b"new", path_in_repo="README.md", repo_id="user/photos", repo_type="dataset")
try:
    next(iter(stream))
except RecordError as error:
    print(json.dumps(str(error)))
""")
    assert message.startswith(f"{URL}@")
    assert "/data/train-00000-of-00003.parquet: cannot be read: " in message
    assert "\n" not in message


@pytest.mark.e2e
def test_places_that_are_none(hub, ask):
    photos = hub.repos["dataset", "user/photos"]
    bytes_of_shard = json.loads(photos["manifest.json"])["splits"]["train"]["shards"][1]["bytes"]
    hub.repos["dataset", "user/files"] = {"README.md": b"Hello."}
    hub.repos["dataset", "user/broken"] = {"manifest.json": b"{"}
    hub.repos["dataset", "user/partial"] = {name: data for name, data in photos.items() if "00001" not in name}
    hub.repos["dataset", "user/short"] = photos | {"data/train-00001-of-00003.parquet": b"PAR1"}
    places = {
        "hf://datasets/user/none": "no such data set on the Hub, or none you may read; check the name, and log in: ",
        f"{URL}@v2": "the repository has no revision v2",
        f"{URL}/train": "no manifest.json, so this is no prepared set; prepare it with scripts/prepare_data.py",
        "hf://user/photos": "a prepared set on the Hub is hf://datasets/USER/NAME[@REVISION]",
        "hf://datasets/photos": "a prepared set on the Hub is hf://datasets/USER/NAME[@REVISION]",
        "hf://datasets/user/files": "no manifest.json, so this is no prepared set; prepare it with",
        "hf://datasets/user/broken": "broken JSON (Expecting property name",
        "hf://datasets/user/partial": "the manifest lists it, but it is missing; copy the folder again",
        "hf://datasets/user/short": f"4 bytes where the manifest says {bytes_of_shard:,}; ",
    }
    messages = ask(f"""
from hf_llava_vqa.errors import VqaError
messages = []
for place in {list(places)}:
    try:
        load_folder("parquet", place, split="train", streaming=True)
    except VqaError as error:
        messages.append(str(error))
print(json.dumps(messages))
""")
    for message, (place, expected) in zip(messages, places.items(), strict=True):
        assert message.startswith(place if place != "hf://datasets/user/short" else "hf://datasets/user/short@")
        assert expected in message
        assert "\n" not in message


@pytest.mark.e2e
@pytest.mark.parametrize("changes", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_hub_that_cannot_be_reached(ask, changes):
    code = f"""
from hf_llava_vqa.errors import ConfigError
try:
    load_records("parquet", path="{URL}")
except ConfigError as error:
    print(json.dumps(str(error)))
"""
    message = ask(code, **changes)
    assert message.startswith(f"{URL}: the Hub cannot be read (")
    assert "\n" not in message
