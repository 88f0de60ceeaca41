"""Make what the demo needs.

    python scripts/make_demo.py data --out outputs/demo/data --seed 0

writes VizWiz-format questions on easy-VQA pictures with simulated annotators, and prints the ceiling: the best score
that any fixed answer per question can get. It takes seconds, and is what is made if nothing is named.

    python scripts/make_demo.py base --out recipes/demo/base --seed 0

trains the tiny LLaVA that the demo fine-tunes, on one core; the repository carries the result.
"""

import argparse
from pathlib import Path

import torch

from hf_llava_vqa.data import get_benchmark, load_records
from hf_llava_vqa.data.scoring import ceiling, human_answers
from hf_llava_vqa.demo.base import BaseConfig, make_base
from hf_llava_vqa.demo.data import DemoData, write_vizwiz_demo
from hf_llava_vqa.errors import cli
from hf_llava_vqa.flags import positive
from hf_llava_vqa.generation import questions

FOLDERS = {"data": Path("outputs/demo/data"), "base": Path("outputs/demo/base")}


def parse_args() -> argparse.Namespace:
    defaults = DemoData()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=FOLDERS, default="data", help="what to make (default: data)")
    parser.add_argument("--out", type=Path, help="folder (default: outputs/demo/data or outputs/demo/base)")
    parser.add_argument("--seed", type=int, default=0, help="decides everything that is drawn (default: 0)")
    for flag in ("train_images", "held_out_images", "questions_per_image"):
        number = getattr(defaults, flag)
        parser.add_argument(f"--{flag}", type=positive, default=number, help=f"of the data (default: {number})")
    return parser.parse_args()


def make_data(folder: Path, args: argparse.Namespace) -> None:
    config = DemoData(args.train_images, args.held_out_images, args.questions_per_image)
    for split, counts in write_vizwiz_demo(folder, config, seed=args.seed).items():
        print(f"{split}: {counts.total()} questions ({', '.join(f'{n} {kind}' for kind, n in counts.most_common())})")
    print(
        f"ten simulated annotators a question, {config.crowd.disagreement:.0%} of answers differ from the truth; "
        f"{config.blurred_share:.0%} of the pictures are blurred"
    )
    variant = get_benchmark("vizwiz").metric_variant
    best = [
        ceiling(human_answers(dialogue), variant)
        for _, dialogue in questions(load_records("vizwiz", split="val", root=folder))
    ]
    print(f"ceiling on val: {sum(best) / len(best):.4f}, the best score any fixed answer per question can get")


@cli
def main() -> None:
    args = parse_args()
    folder = args.out or FOLDERS[args.what]
    if args.what == "data":
        make_data(folder, args)
    else:
        torch.set_num_threads(1)  # sums in one order: the same seed gives the same base
        make_base(folder, BaseConfig(), seed=args.seed)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
