"""Let a model describe pictures, ask itself about them and answer: training data in LLaVA's JSON form.

    python scripts/ask.py --model runs/sq_llava_7b --source vizwiz --data_dir data/vizwiz --out outputs/asked

writes `train.jsonl` and `images/`, which `--source llava_json --data_dir outputs/asked` trains on. The pictures are
copied, so the folder is complete.
"""

import argparse
from pathlib import Path

from tqdm.auto import tqdm

from hf_llava_vqa.data import load_folder
from hf_llava_vqa.errors import cli
from hf_llava_vqa.flags import positive
from hf_llava_vqa.generation import Asking, ask_questions
from hf_llava_vqa.generation.asked_data import write_asked
from hf_llava_vqa.generation.self_questions import TEMPLATE
from hf_llava_vqa.models import load_model


def parse_args() -> argparse.Namespace:
    asking = Asking()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="base, adapter or merged model: a folder or a Hub repository")
    parser.add_argument("--source", default="vizwiz", help="whose files these are (default: vizwiz)")
    parser.add_argument("--data_dir", metavar="FOLDER", help="folder with the files as published, or prepared")
    parser.add_argument("--split", default="train", help="split whose pictures are asked about (default: train)")
    parser.add_argument("--limit", type=positive, help="the first so many records only")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the data go")
    numbers = parser.add_argument_group("how the model asks")
    numbers.add_argument("--self_questions", type=int, default=asking.questions, help="a picture (default: 3)")
    numbers.add_argument("--describe", default=asking.describe, help="asked first; '' asks from the bare picture")
    numbers.add_argument("--temperature", type=float, default=asking.temperature, help="of questions (default: 1)")
    numbers.add_argument("--top_k", type=int, default=asking.top_k, help="of questions (default: 50)")
    numbers.add_argument("--top_p", type=float, default=asking.top_p, help="of questions (default: 0.65)")
    numbers.add_argument("--seed", type=int, default=asking.seed, help="of questions (default: 0)")
    numbers.add_argument("--max_question_tokens", type=int, default=asking.max_question_tokens, help="default: 100")
    numbers.add_argument("--max_answer_tokens", type=int, default=asking.max_answer_tokens, help="default: 128")
    parser.add_argument("--batch_size", type=int, default=16, help="pictures read together (default: 16)")
    parser.add_argument("--dtype", default="auto", help="weights' type: auto, bfloat16, float32 (default: auto)")
    parser.add_argument("--device", default="auto", help="where the model goes (default: auto)")
    return parser.parse_args()


@cli
def main() -> None:
    args = parse_args()
    asking = Asking(
        questions=args.self_questions,
        describe=args.describe,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        seed=args.seed,
        max_question_tokens=args.max_question_tokens,
        max_answer_tokens=args.max_answer_tokens,
    )
    records = load_folder(args.source, args.data_dir, split=args.split)
    if args.limit is not None:
        records = records.select(range(min(args.limit, len(records))))
    model, processor = load_model(args.model, template=TEMPLATE, dtype=args.dtype, device_map=args.device)
    asked = ask_questions(model, processor, records, asking, batch_size=args.batch_size)
    counts = write_asked(tqdm(asked, total=len(records), desc="asking", unit="record", disable=None), args.out)
    print("{questions} questions about {records} pictures written to {folder}".format(folder=args.out, **counts))
    print("left out: {empty} empty, {repeated} repeated; {silent} records of which nothing came".format(**counts))


if __name__ == "__main__":
    main()
