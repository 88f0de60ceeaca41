"""Fold an adapter into its base: a whole LLaVA that needs no PEFT, answers the same and costs no extra products.

    python scripts/merge_adapter.py runs/ubiai_lora_7b --out runs/ubiai_merged_7b

The sums are made in float32, which takes 4 bytes a parameter of memory (28 GB for 7B), and rounded once, to `--dtype`.
"""

import argparse
from pathlib import Path

from hf_llava_vqa.errors import cli
from hf_llava_vqa.models.merging import merge_adapter


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", help="what a recipe wrote: a folder or a Hub repository")
    parser.add_argument("--out", required=True, type=Path, help="folder for the merged model; it must not exist yet")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        default="bfloat16",
        help="type of the merged weights (default: bfloat16; LLaVA may overflow in float16)",
    )
    return parser.parse_args()


@cli
def main() -> None:
    args = parse_args()
    merge_adapter(args.adapter, args.out, dtype=args.dtype)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
