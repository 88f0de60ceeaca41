"""Look at a set before training on it: pictures, answers, tokens, leaks, and which records to leave out.

    python scripts/inspect_data.py --source vizwiz --data_dir outputs/demo/data --model recipes/demo/base \
        --out outputs/demo/inspection

writes `inspection.html` to look at, `inspection.json` with all that was found, and `skip_list.txt`, which training
accepts. The exit code is 0 if nothing has to be left out, 1 if something is on the skip list, 2 for a mistake.
"""

import argparse
import os
import sys
from pathlib import Path

from trl import ModelConfig

from hf_llava_vqa.augmentation import AUGMENTATIONS, SIDE
from hf_llava_vqa.collate import VqaCollator
from hf_llava_vqa.data import load_folder
from hf_llava_vqa.data.reading.missing import keep_missing_images
from hf_llava_vqa.errors import cli
from hf_llava_vqa.flags import positive
from hf_llava_vqa.models.loading import training_processor
from hf_llava_vqa.reports.inspection.page import PAGE_FILE, write_inspection_page
from hf_llava_vqa.reports.inspection.report import inspect_set, make_folder
from hf_llava_vqa.reports.inspection.summary import marked_rows, summary


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="vizwiz", help="whose files these are (default: vizwiz)")
    parser.add_argument("--data_dir", metavar="FOLDER", help="folder with the files as published, or prepared")
    parser.add_argument(
        "--splits", nargs="+", default=["train", "val"], help="training splits first (default: train val)"
    )
    parser.add_argument("--model", help="base model whose tokenizer counts tokens; its weights are not read")
    parser.add_argument(
        "--batch_size", type=positive, default=128, help="records a step, of all devices (default: 128)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the three files go")
    parser.add_argument("--workers", type=positive, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--augmentation", choices=AUGMENTATIONS, default="none", help="show what it does to pictures")
    parser.add_argument("--follow_symlinks", action="store_true", help="allow links that lead out of image folders")
    parser.add_argument("--limit", type=positive, metavar="N", help="look at the first N records of each split only")
    return parser.parse_args()


@cli
def main() -> None:
    args = parse_args()
    collator = None
    if args.model is not None:
        collator = VqaCollator(training_processor(ModelConfig(model_name_or_path=args.model)))
    with keep_missing_images():
        splits = {
            split: load_folder(args.source, args.data_dir, split=split, follow_symlinks=args.follow_symlinks)
            for split in args.splits
        }
    if args.limit is not None:
        splits = {split: records.select(range(min(args.limit, len(records)))) for split, records in splits.items()}
    make_folder(args.out)
    inspection = inspect_set(
        splits, source=args.source, batch_size=args.batch_size, collator=collator, workers=args.workers
    )
    inspection.write(args.out)
    side = collator.processor.image_processor.crop_size["height"] if collator is not None else SIDE
    write_inspection_page(args.out / PAGE_FILE, inspection, augmentation=args.augmentation, side=side)
    if collator is not None:
        print(marked_rows(inspection.report))
    print(summary(inspection.report))
    print(f"look at it: {args.out / PAGE_FILE}")
    sys.exit(1 if inspection.skipped else 0)


if __name__ == "__main__":
    main()
