"""Learn from a split with answers how far confidences can be trusted, and when `unanswerable` is the better answer.

    python scripts/calibrate.py outputs/eval/val --data data/vizwiz --out outputs/calibration

takes a folder written by scripts/evaluate.py and writes `calibration.json` (temperature, threshold, and what they bring
on pictures that they were not fitted to) and `calibration.png`. With

    --apply outputs/eval/test

another split's answers below the threshold become `unanswerable`, in a folder of the split's name below --out, with the
submission file.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from hf_llava_vqa.errors import cli
from hf_llava_vqa.reports.abstention import check_applicable, credited, read_evaluated, write_abstained
from hf_llava_vqa.reports.calibration import calibrate
from hf_llava_vqa.reports.calibration_plot import write_plot


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path, help="folder of scripts/evaluate.py, for a split with answers")
    parser.add_argument("--benchmark", default="vizwiz", help="the benchmark that was answered (default: vizwiz)")
    parser.add_argument("--data", help="folder with the benchmark's files as published, or prepared")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where everything is written")
    parser.add_argument("--apply", type=Path, metavar="FOLDER", help="evaluation of another split, to abstain in")
    parser.add_argument("--template", metavar="FILE", help="published file that its submission fills in")
    parser.add_argument("--seed", type=int, default=0, help="of parts and intervals (default: 0)")
    return parser.parse_args()


def summary(found: dict[str, Any]) -> str:
    error, accuracy, gain = (found[name] for name in ("expected_calibration_error", "accuracy", "gain"))
    low, high = gain["interval"]
    return (
        f"temperature {found['temperature']:.3f}, calibration error {error['before']:.3f} -> {error['after']:.3f}\n"
        f"threshold {found['threshold']:.3f}, {100 * found['abstained']:.1f} % of the answers below it, "
        f"score {accuracy['before']:.4f} -> {accuracy['after']:.4f}: "
        f"{gain['difference']:+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
    )


@cli
def main() -> None:
    args = parse_args()
    fitted, applied = read_evaluated(args.evaluation, args.benchmark, args.data), None
    if args.apply is not None:
        applied = read_evaluated(args.apply, args.benchmark, args.data, args.template)
        check_applicable(fitted, applied)
    answered = credited(fitted)
    found = calibrate(answered, seed=args.seed)
    parameters = {name: found[name] for name in ("temperature", "threshold")}
    args.out.mkdir(parents=True, exist_ok=True)
    fitted_to = {"model": fitted.scores["model"], "benchmark": args.benchmark, "split": fitted.part.split}
    (args.out / "calibration.json").write_text(json.dumps({**fitted_to, **found, "seed": args.seed}, indent=2) + "\n")
    write_plot(args.out / "calibration.png", answered, **parameters)
    print(summary(found))
    if applied is not None:
        folder = args.out / applied.part.split
        predictions = write_abstained(folder, applied, **parameters)
        replaced = sum("withheld" in prediction for prediction in predictions)
        print(f"{applied.part.split}: {replaced} of {len(predictions)} answers are now unanswerable, see {folder}")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
