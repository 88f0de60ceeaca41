"""Put evaluations side by side: a table on the terminal, and with --page an HTML page to look at.

    python scripts/compare.py outputs/demo/eval/* --data outputs/demo/data --run outputs/demo/adapter \
        --page outputs/demo/report.html

The evaluations are folders written by scripts/evaluate.py on one split.
"""

import argparse
from pathlib import Path

from hf_llava_vqa.data import load_folder
from hf_llava_vqa.errors import cli
from hf_llava_vqa.reports.comparison import read_evaluations, score_table, write_comparison_page


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", type=Path, help="folders with scores.json and predictions.jsonl")
    parser.add_argument("--benchmark", default="vizwiz", help="benchmark to compare on (default: vizwiz)")
    parser.add_argument("--data", help="folder with the benchmark's files; needed for --page")
    parser.add_argument("--run", type=Path, help="training output folder, for the curves")
    parser.add_argument("--page", type=Path, help="write this HTML page")
    parser.add_argument("--title", default="VizWiz fine-tuning", help="the page's title")
    parser.add_argument("--examples", type=int, default=24, help="questions shown on the page (default: 24)")
    return parser.parse_args()


@cli
def main() -> None:
    args = parse_args()
    evaluations = read_evaluations(args.evaluations, args.benchmark)
    print(score_table(evaluations))
    if args.page is not None:
        records = load_folder(args.benchmark, args.data, split=evaluations[0].split)
        write_comparison_page(args.page, evaluations, records, title=args.title, run=args.run, examples=args.examples)
        print(f"look at it: {args.page}")


if __name__ == "__main__":
    main()
