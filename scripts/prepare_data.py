"""Write a benchmark as a prepared set: Parquet shards with the images inside, checked and shuffled once.

    python scripts/prepare_data.py vizwiz --root /data/vizwiz --split train val --out /data/vizwiz_parquet

The folder is then read with --source parquet --data_dir FOLDER, map-style or streamed, or with
`datasets.load_dataset("parquet", ...)`. Every mistake in the source is one line that names file and row.
"""

import argparse
from pathlib import Path
from typing import Any

from hf_llava_vqa.data import BENCHMARKS, load_records
from hf_llava_vqa.data.preparation import write_shards
from hf_llava_vqa.errors import ConfigError, cli


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
    return parser.parse_args()


def named_place(text: str) -> tuple[str, str]:
    name, separator, place = text.partition("=")
    if not separator or not place:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PLACE")
    return name, place


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


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
    # All splits are read before one is written: a mistake in the last should not cost the time of the first.
    records = {split: load_records(args.source, split=split, **paths) for split in args.split}
    for split in records:
        manifest = write_shards(
            records[split],
            args.out,
            split=split,
            rows_per_shard=args.rows_per_shard,
            row_group_size=args.row_group_size,
            seed=args.seed,
            progress=True,
        )
        print(summary(split, manifest["splits"][split]))
    print(f"read it with: --source parquet --data_dir {args.out}")


def summary(split: str, counts: dict[str, Any]) -> str:
    megabytes = sum(shard["bytes"] for shard in counts["shards"]) / 1e6
    files = "1 file" if len(counts["shards"]) == 1 else f"{len(counts['shards'])} files"
    return (
        f"{split}: {counts['rows']:,} images, {counts['dialogues']:,} questions, {counts['answers']:,} answers "
        f"in {files} of {megabytes:,.1f} MB"
    )


if __name__ == "__main__":
    main()
