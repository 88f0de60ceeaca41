"""Answer a benchmark's split with a model and score it.

    python scripts/evaluate.py --model outputs/demo/adapter --data outputs/demo/data --split val --out outputs/demo/eval

writes `predictions.jsonl` and `scores.json`; for a split without answers, the benchmark's submission file.
`--model question_only` answers from the training split's majorities, without looking at a picture.
"""

import argparse
from pathlib import Path

from hf_llava_vqa.data import get_benchmark, load_folder
from hf_llava_vqa.errors import cli
from hf_llava_vqa.generation import ENGINES, answer_questions, questions
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.processors import IMAGE_ASPECTS
from hf_llava_vqa.reports.evaluation import (
    PREDICTIONS_FILE,
    QUESTION_ONLY,
    question_only_predictions,
    role_of,
    template_of,
    write_evaluation,
    write_predictions,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="base, adapter or merged model: a folder or a Hub repository")
    parser.add_argument(
        "--benchmark", default="vizwiz", help="which benchmark's files, prompt and metric (default: vizwiz)"
    )
    parser.add_argument("--data", help="folder with the benchmark's files as published, or prepared")
    parser.add_argument(
        "--template",
        metavar="FILE",
        help="published file that a submission fills in, if it is not in --data, or --split has answers",
    )
    parser.add_argument("--split", default="val", help="split to answer (default: val)")
    parser.add_argument("--limit", type=int, help="answer the first so many images only")
    parser.add_argument("--out", required=True, type=Path, help="folder for predictions and scores")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=ENGINES[0],
        help="forest reads each picture once; generate is the stock way",
    )
    parser.add_argument(
        "--batch_size", type=int, default=16, help="pictures, or questions of generate, read together (default: 16)"
    )
    parser.add_argument("--max_new_tokens", type=int, default=128, help="longest answer (default: 128, as LLaVA)")
    parser.add_argument("--dtype", default="auto", help="weights' type: auto, bfloat16, float32 (default: auto)")
    parser.add_argument("--device", default="auto", help="where the model goes (default: auto)")
    parser.add_argument("--image_aspect", choices=IMAGE_ASPECTS, help="default: what the processor was saved with")
    return parser.parse_args()


@cli
def main() -> None:
    args = parse_args()
    benchmark = get_benchmark(args.benchmark)
    records = load_folder(args.benchmark, args.data, split=args.split)
    if args.limit is not None:
        records = records.select(range(min(args.limit, len(records))))
    asked = list(questions(records))
    template = template_of(benchmark, asked, args.data, args.template)
    args.out.mkdir(parents=True, exist_ok=True)

    if args.model == QUESTION_ONLY:
        predictions = question_only_predictions(load_folder(args.benchmark, args.data, split="train"), records)
    else:
        model, processor = load_model(
            args.model, image_aspect=args.image_aspect, dtype=args.dtype, device_map=args.device
        )
        predictions = answer_questions(
            model,
            processor,
            records,
            engine=args.engine,
            batch_size=args.batch_size,
            max_new_tokens=args.max_new_tokens,
        )
    answered = write_predictions(predictions, args.out / PREDICTIONS_FILE, total=len(asked))
    settings = {
        "split": args.split,
        "limit": args.limit,
        "engine": args.engine,
        "max_new_tokens": args.max_new_tokens,
        "dtype": args.dtype,
    }
    role = role_of(args.model)
    scores = write_evaluation(
        args.out, benchmark, asked, answered, model=args.model, role=role, settings=settings, template=template
    )
    for name, entry in scores["benchmarks"].items():
        low, high = entry["interval"]
        print(f"{name}: {entry['score']:.4f} (95 % interval {low:.4f} to {high:.4f}, {entry['n']} questions)")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
