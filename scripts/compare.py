"""Put evaluations side by side: a table on the terminal, and with --page an HTML page to look at.

    python scripts/compare.py outputs/demo/eval/* --data outputs/demo/data --run outputs/demo/adapter \
        --page outputs/demo/report.html

The evaluations are folders written by scripts/evaluate.py on one split. Evaluations on several benchmarks become a row
a model and a column a benchmark, VQAv2, GQA, VizWiz, ScienceQA, TextVQA, POPE, MMBench and their average first:

    python scripts/compare.py outputs/eval/base outputs/eval/lora outputs/eval/dora --table outputs/eval/table.md
"""

import argparse
from pathlib import Path

from hf_llava_vqa.data import load_folder
from hf_llava_vqa.errors import ConfigError, cli
from hf_llava_vqa.reports.comparison import read_evaluations, score_table, write_comparison_page
from hf_llava_vqa.reports.results import read_results, results_table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", type=Path, help="folders with scores.json and predictions.jsonl")
    parser.add_argument("--benchmark", help="compare on this one, with intervals (default: all in one table)")
    parser.add_argument("--table", type=Path, help="write the table of all benchmarks to this file, in Markdown")
    parser.add_argument("--data", help="folder with the benchmark's files; needed for --page")
    parser.add_argument("--run", type=Path, help="training output folder, for the curves")
    parser.add_argument("--page", type=Path, help="write this HTML page, of one benchmark")
    parser.add_argument("--title", default="VizWiz fine-tuning", help="the page's title")
    parser.add_argument("--examples", type=int, default=24, help="questions shown on the page (default: 24)")
    return parser.parse_args()


@cli
def main() -> None:
    args = parse_args()
    results = read_results(args.evaluations)
    benchmarks = {name for content in results for name in content["benchmarks"]}
    table = results_table(results)
    if args.table is not None:
        args.table.parent.mkdir(parents=True, exist_ok=True)
        args.table.write_text(table, encoding="utf-8")
    if args.benchmark is None and len(benchmarks) != 1:
        if args.page is not None:
            names = ", ".join(sorted(benchmarks)) or "none"
            raise ConfigError(f"--page shows one benchmark: name it with --benchmark; there are scores of {names}")
        print(table, end="")
        return
    evaluations = read_evaluations(args.evaluations, args.benchmark or benchmarks.pop())
    print(score_table(evaluations))
    if args.page is not None:
        records = load_folder(evaluations[0].benchmark, args.data, split=evaluations[0].split)
        write_comparison_page(args.page, evaluations, records, title=args.title, run=args.run, examples=args.examples)
        print(f"look at it: {args.page}")


if __name__ == "__main__":
    main()
