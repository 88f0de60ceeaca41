"""COCO captions in Karpathy's splits: five captions a photo, 5,000 photos each for `val` and `test`."""

from collections.abc import Iterator
from pathlib import Path

from hf_llava_vqa.data.benchmark import Benchmark
from hf_llava_vqa.data.benchmarks.captions import ARCHIVE, SPLITS, read_karpathy, score_captions
from hf_llava_vqa.data.reading.files import Place, find_file, find_images
from hf_llava_vqa.records import Record


def read(
    split: str,
    *,
    root: Place = None,
    annotations: Place = None,
    images: Place = None,
    follow_symlinks: bool = False,
) -> Iterator[Record]:
    """Read a split, from `root` or from the files named by `annotations` and `images`; records as `read_karpathy`.

    Args:
        root: folder with `dataset_coco.json` or `caption_datasets.zip`, and with `train2014/` and `val2014/`; `val` and
            `test` need `val2014/` or `val2014.zip` only.
        annotations: the JSON file.
        images: the folder, zip or tar archive that holds `train2014/` and `val2014/`.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Raises:
        ConfigError: too few paths.
        RecordError: as `read_karpathy`.
    """
    file = find_file(root, annotations, "dataset_coco.json", archive=ARCHIVE, keyword="annotations")
    if images is None and root is not None and (Path(root) / "val2014").is_dir():
        images = root
    store = find_images(root, images, "val2014", follow_symlinks=follow_symlinks)
    yield from read_karpathy(file, store, source="coco_captions", split=split)


BENCHMARK = Benchmark(
    name="coco_captions",
    homepage="https://cocodataset.org/#captions-2015",
    splits=SPLITS,
    read=read,
    instruction="",
    metric="captions",
    metric_variant="plain",
    evaluation_split="test",
    score_answers=score_captions,
)
