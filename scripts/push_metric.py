"""Publish one of the metrics as a Space on the Hugging Face Hub, for `evaluate.load("user/name")`.

    python scripts/push_metric.py vizwiz_accuracy --repo user/vizwiz_accuracy

Log in once before, with `hf auth login`, or set HF_TOKEN.
"""

import argparse

from hf_llava_vqa.errors import cli
from hf_llava_vqa.hub import push_metric


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the metric: a folder of hf_llava_vqa/metrics")
    parser.add_argument("--repo", required=True, metavar="USER/NAME", help="the Space; NAME is the metric's")
    parser.add_argument("--private", action="store_true", help="only for you, if the Space is new")
    return parser.parse_args()


@cli
def main() -> None:
    args = parse_args()
    url = push_metric(args.name, args.repo, private=args.private)
    print(f'{url}\nload it with: evaluate.load("{args.repo}")')


if __name__ == "__main__":
    main()
