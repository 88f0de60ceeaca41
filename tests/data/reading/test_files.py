"""Places with images: folders and archives, what lies in them, and links that lead out."""

import inspect
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from examples import png

from hf_llava_vqa.data import BENCHMARKS, get_benchmark, load_records
from hf_llava_vqa.data.prepared.folders import LocalFolder
from hf_llava_vqa.data.reading.files import find_images, open_images
from hf_llava_vqa.errors import ImageError, RecordError
from hf_llava_vqa.images import open_image

NAMES = ["coco/train2017/1.png", "coco/train2017/2.png", "gqa/1.png"]
COLOURS = dict(zip(NAMES, [(1, 0, 0), (2, 0, 0), (3, 0, 0)], strict=True))


def fill_folder(path: Path) -> Path:
    for name, colour in COLOURS.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(png(colour))
    return path


def fill_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, colour in COLOURS.items():
            archive.writestr(name, png(colour))
    return path


def fill_tar(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, colour in COLOURS.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(png(colour))
            archive.addfile(info, io.BytesIO(png(colour)))
    return path


PLACES = {"images": fill_folder, "images.zip": fill_zip, "images.tar": fill_tar}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_gives_the_same_pictures(tmp_path: Path, place: str) -> None:
    PLACES[place](tmp_path / place)
    store = find_images(tmp_path, None, "images")
    assert store.place == f"{tmp_path}/{place}"
    for name, colour in COLOURS.items():
        path = store.locate(name)
        assert path is not None
        assert open_image(path).getpixel((0, 0)) == colour
    assert store.locate("coco/train2017/3.png") is None
    for name in ("../images/gqa/1.png", "/gqa/1.png", ""):
        with pytest.raises(ImageError, match="unsafe name"):
            store.locate(name)


def test_a_folder_comes_before_archives_and_zip_before_tar(tmp_path: Path) -> None:
    for expected, fill in reversed(PLACES.items()):
        fill(tmp_path / expected)
        assert find_images(tmp_path, None, "images").place == f"{tmp_path}/{expected}"


@pytest.mark.parametrize("place", ["images.zip", "images.tar"])
def test_a_short_name_must_fit_one_member(tmp_path: Path, place: str) -> None:
    store = open_images(PLACES[place](tmp_path / place))
    path = store.locate("2.png")
    assert path is not None
    assert path.endswith(f"coco/train2017/2.png::{tmp_path}/{place}")
    with pytest.raises(
        RecordError, match=r"1\.png could be coco/train2017/1\.png or gqa/1\.png; unpack the right folder"
    ):
        store.locate("1.png")


@pytest.mark.parametrize(
    ("name", "reason"), [("a.tar", "not a readable plain tar"), ("a.tgz", "a compressed tar cannot")]
)
def test_archives_that_cannot_be_read_in_place(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b compressed")
    with pytest.raises(RecordError, match=reason):
        open_images(tmp_path / name)


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder whose `coco` is a link to another disk, and with a link to a single file there."""
    store = fill_folder(tmp_path / "other_disk")
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "coco").symlink_to(store / "coco")
    (folder / "one.png").symlink_to(store / "gqa" / "1.png")
    return folder


def test_links_that_lead_out_are_refused_unless_allowed(linked: Path) -> None:
    strict, trusting = open_images(linked), open_images(linked, follow_symlinks=True)
    for name, colour in (("coco/train2017/2.png", (2, 0, 0)), ("one.png", (3, 0, 0))):
        with pytest.raises(
            ImageError, match=r"through a symbolic link; if the folder is yours, allow it with follow_sym"
        ):
            strict.locate(name)
        path = trusting.locate(name)
        assert path is not None
        assert open_image(path).getpixel((0, 0)) == colour
    with pytest.raises(ImageError, match="unsafe name"):
        trusting.locate("../images/one.png")


def test_every_reader_takes_the_permission(linked: Path) -> None:
    for name in BENCHMARKS:
        if name not in ("easy_vqa", "mmbench", "mmbench_cn"):  # these read no folders of images
            assert "follow_symlinks" in inspect.signature(get_benchmark(name).read).parameters
    turns = [{"from": "human", "value": "<image>\nWhy?"}, {"from": "gpt", "value": "So."}]
    rows = [{"id": "1", "image": "coco/train2017/2.png", "conversations": turns}]
    (linked.parent / "train.json").write_text(json.dumps(rows))
    places = {"annotations": linked.parent / "train.json", "images": linked}
    with pytest.raises(RecordError, match="allow it with follow_symlinks"):
        load_records("llava_json", split="train", **places)
    (record,) = load_records("llava_json", split="train", follow_symlinks=True, **places)
    assert open_image(record["images"][0]).getpixel((0, 0)) == (2, 0, 0)


def test_a_place_that_is_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(fill_folder(tmp_path / "other_disk"))
    path = find_images(tmp_path, None, "images").locate("gqa/1.png")
    assert path is not None
    assert open_image(path).getpixel((0, 0)) == (3, 0, 0)


def test_a_prepared_set_may_consist_of_links(tmp_path: Path) -> None:
    """As a downloaded set lies in the cache of huggingface_hub; the name of a shard still may not lead out."""
    (tmp_path / "blob").write_bytes(b"shard")
    (tmp_path / "snapshot" / "data").mkdir(parents=True)
    (tmp_path / "snapshot" / "data" / "a.parquet").symlink_to(tmp_path / "blob")
    folder = LocalFolder(tmp_path / "snapshot")
    assert folder.find("data/a.parquet") == (f"{tmp_path}/snapshot/data/a.parquet", 5)
    with pytest.raises(ImageError, match="unsafe name"):
        folder.find("../blob")
