"""Write a benchmark as a prepared set: Parquet shards with the images inside, checked and shuffled once.

    python scripts/prepare_data.py vizwiz --root /data/vizwiz --split train val --out /data/vizwiz_parquet

The folder is then read with --source parquet --data_dir FOLDER, map-style or streamed, or with
`datasets.load_dataset(FOLDER)`. Every mistake in the source is one line that names file and row. A run that was
interrupted goes on when it is repeated.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_llava_vqa.bad_images import BAD_IMAGES_FILE
from hf_llava_vqa.data import BENCHMARKS, load_records
from hf_llava_vqa.data.prepared.preparation import CHECKS, ON_BAD_IMAGE, write_shards
from hf_llava_vqa.data.reading.files import hashes_of_annotations
from hf_llava_vqa.data.skip_list import load_without, read_skip_list
from hf_llava_vqa.errors import ConfigError, cli
from hf_llava_vqa.flags import positive
from hf_llava_vqa.hub import create_dataset_repository, push_prepared_set


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=BENCHMARKS, help="the benchmark whose files these are")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write; splits are added")
    parser.add_argument("--split", nargs="+", required=True, help="splits to write, for example: train val")
    parser.add_argument("--root", metavar="FOLDER", help="folder with annotations and images as published")
    parser.add_argument("--annotations", metavar="FILE", help="annotation file of the one split, if not in --root")
    parser.add_argument("--images", metavar="PLACE", help="folder or zip of its images, if not in --root")
    parser.add_argument(
        "--path",
        type=named_place,
        action="append",
        default=[],
        metavar="NAME=PLACE",
        help="what else the source takes, see docs/data.md, for example bad_rows=bad_rows.jsonl",
    )
    parser.add_argument(
        "--follow_symlinks", action="store_true", help="allow links in the folder of images that lead out of it"
    )
    parser.add_argument(
        "--rows_per_shard", type=positive, default=512, metavar="N", help="images a file (default: 512)"
    )
    parser.add_argument(
        "--row_group_size", type=positive, default=16, metavar="N", help="images read together (default: 16)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of the rows (default: 0)")
    parser.add_argument("--max_side", type=positive, metavar="PIXELS", help="scale down pictures that are larger")
    parser.add_argument(
        "--check",
        choices=CHECKS,
        default="decode",
        help="decode every picture, or look at its header, which is faster and misses damaged ones (default: decode)",
    )
    parser.add_argument(
        "--on_bad_image",
        choices=ON_BAD_IMAGE,
        default="error",
        help="stop, or leave the record out and name it in bad_images.jsonl (default: error)",
    )
    parser.add_argument("--skip_list", metavar="FILE", help="records to leave out, from scripts/inspect_data.py")
    parser.add_argument(
        "--workers", type=positive, default=os.cpu_count(), metavar="N", help="processes (default: one a core)"
    )
    parser.add_argument("--push_to_hub", metavar="USER/NAME", help="publish the set as this data set when it is done")
    parser.add_argument("--private", action="store_true", help="where --push_to_hub makes a new one, hide it")
    return parser.parse_args()


def named_place(text: str) -> tuple[str, str]:
    name, separator, place = text.partition("=")
    if not separator or not place:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PLACE")
    return name, place


@cli
def main() -> None:
    args = parse_args()
    paths: dict[str, Any] = {
        name: getattr(args, name) for name in ("root", "annotations", "images") if getattr(args, name)
    }
    paths |= dict(args.path)
    if len(args.split) > 1 and paths.keys() - {"root"}:
        raise ConfigError(
            "--annotations, --images and --path name the files of one split: give one --split, or --root alone"
        )
    if args.follow_symlinks:
        paths["follow_symlinks"] = True
    if args.private and args.push_to_hub is None:
        raise ConfigError("--private is for --push_to_hub; give that, or leave it out")
    # All splits are read before one is written: a mistake in the last should not cost the time of the first.
    sources = {split: read(args, split, paths) for split in args.split}
    address = create_dataset_repository(args.push_to_hub, private=args.private) if args.push_to_hub else None
    for split, (records, source_files) in sources.items():
        manifest = write_shards(
            records,
            args.out,
            split=split,
            rows_per_shard=args.rows_per_shard,
            row_group_size=args.row_group_size,
            seed=args.seed,
            max_side=args.max_side,
            on_bad_image=args.on_bad_image,
            check=args.check,
            workers=args.workers,
            source_files=source_files,
            progress=True,
        )
        print(summary(split, manifest["splits"][split]))
    print(f"read it with: --source parquet --data_dir {args.out}")
    if address is not None:
        push_prepared_set(args.out, args.push_to_hub)
        print(f"{address}\nread it with: --source parquet --data_dir hf://datasets/{args.push_to_hub}")


def read(args: argparse.Namespace, split: str, paths: dict[str, Any]) -> tuple[Dataset, dict[str, str]]:
    """Return the records of a split, without those on the skip list, and the hashes of the files read."""
    load = partial(load_records, args.source, split=split, **paths)
    with hashes_of_annotations() as hashes:
        if args.skip_list is None:
            return load(), hashes
        return load_without(read_skip_list(args.skip_list, split=split), load), hashes


def summary(split: str, counts: dict[str, Any]) -> str:
    megabytes = sum(shard["bytes"] for shard in counts["shards"]) / 1e6
    files = "1 file" if len(counts["shards"]) == 1 else f"{len(counts['shards'])} files"
    bad = f"; {counts['left_out']:,} left out, see {BAD_IMAGES_FILE}" if counts["left_out"] else ""
    return (
        f"{split}: {counts['rows']:,} images, {counts['dialogues']:,} questions, {counts['answers']:,} answers "
        f"in {files} of {megabytes:,.1f} MB{bad}"
    )


if __name__ == "__main__":
    main()
