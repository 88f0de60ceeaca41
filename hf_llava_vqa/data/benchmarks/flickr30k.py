"""Flickr30k in Karpathy's splits: five captions a photo, about 1,000 photos each for `val` and `test`."""

from collections.abc import Iterator

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
        root: folder with `dataset_flickr30k.json` or `caption_datasets.zip`, and with `flickr30k-images/` or
            `flickr30k_images/`, or such a zip or tar archive.
        annotations: the JSON file.
        images: the folder, zip or tar archive with the photos.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Raises:
        ConfigError: too few paths.
        RecordError: as `read_karpathy`.
    """
    file = find_file(root, annotations, "dataset_flickr30k.json", archive=ARCHIVE, keyword="annotations")
    store = find_images(root, images, "flickr30k-images", "flickr30k_images", follow_symlinks=follow_symlinks)
    yield from read_karpathy(file, store, source="flickr30k", split=split)


BENCHMARK = Benchmark(
    name="flickr30k",
    homepage="https://shannon.cs.illinois.edu/DenotationGraph/",
    splits=SPLITS,
    read=read,
    instruction="",
    metric="captions",
    metric_variant="plain",
    evaluation_split="test",
    score_answers=score_captions,
)
