"""VizWiz's second task: how sure a model is that a question can be answered from its picture.

    python scripts/answerability.py --model runs/lora --data data/vizwiz --split test --out runs/answerability

writes `answerability.jsonl`, and for a split without answers the server's file, `answerability.json`. For a split that
says what can be answered it prints average precision and F1 of finding what cannot, and writes them to `scores.json`.
"""

import argparse
import json
from pathlib import Path

from hf_llava_vqa.data import load_folder
from hf_llava_vqa.data.benchmarks.vizwiz import submit_answerability
from hf_llava_vqa.errors import cli
from hf_llava_vqa.generation import questions, score_answerability
from hf_llava_vqa.metrics.answerability.answerability_rules import score
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.processors import IMAGE_ASPECTS
from hf_llava_vqa.reports.predictions import write_predictions
from hf_llava_vqa.reports.scores import SCORES_FILE


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="base, adapter or merged model: a folder or a Hub repository")
    parser.add_argument("--data", required=True, help="folder with VizWiz's files as published, or prepared")
    parser.add_argument("--split", default="val", help="split to answer (default: val)")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the files go")
    parser.add_argument("--batch_size", type=int, default=16, help="pictures read together (default: 16)")
    parser.add_argument("--dtype", default="auto", help="weights' type: auto, bfloat16, float32 (default: auto)")
    parser.add_argument("--device", default="auto", help="where the model goes (default: auto)")
    parser.add_argument("--image_aspect", choices=IMAGE_ASPECTS, help="default: what the processor was saved with")
    return parser.parse_args()


@cli
def main() -> None:
    args = parse_args()
    records = load_folder("vizwiz", args.data, split=args.split)
    asked = list(questions(records))
    model, processor = load_model(args.model, image_aspect=args.image_aspect, dtype=args.dtype, device_map=args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "answerability.jsonl"
    path.unlink(missing_ok=True)
    predictions = write_predictions(
        score_answerability(model, processor, records, batch_size=args.batch_size), path, asked, known={}
    )
    labels = [dialogue["answerable"] for _, dialogue in asked]
    if -1 not in labels:
        found = score([prediction["answerable"] for prediction in predictions], labels)
        (args.out / SCORES_FILE).write_text(json.dumps({"model": args.model, "split": args.split, **found}) + "\n")
        print(f"average precision {found['average_precision']:.4f}, F1 {found['f1']:.4f}, {found['n']} questions")
    if not any(dialogue["answers"] for _, dialogue in asked):
        submit_answerability(predictions, args.out / "answerability.json", [record["image_id"] for record, _ in asked])
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
