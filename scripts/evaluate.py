"""Answer benchmarks with a model and score the answers.

    python scripts/evaluate.py --model outputs/demo/adapter --data outputs/demo/data --split val --out outputs/demo/eval

writes `predictions.jsonl` and `scores.json`; for a split without answers, the benchmark's submission file. The same
command goes on with a run that was interrupted.

    python scripts/evaluate.py --benchmark vqav2,gqa,vizwiz,scienceqa,textvqa,pope,mmbench --data playground/data/eval \
        --model llava-hf/llava-1.5-7b-hf --out outputs/eval/base

answers several with one load of the model. Each has its files in the folder of --data that is called as it is, and its
predictions in such a folder of --out. --data, --split and --template take NAME=VALUE for single benchmarks, as in
`--split vqav2=testdev vizwiz=test`.

`--model question_only` answers from the training split's majorities, without looking at a picture.
"""

import argparse
from collections.abc import Collection, Iterable, Sequence
from functools import cache, partial
from pathlib import Path

from hf_llava_vqa.data import BENCHMARKS, load_folder
from hf_llava_vqa.errors import ConfigError, cli
from hf_llava_vqa.generation import ENGINES, VLLM_BATCH, Asking, answer_after_asking, answer_questions, load_vllm
from hf_llava_vqa.generation.questions import check_limits
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.identity import model_identity
from hf_llava_vqa.models.processors import IMAGE_ASPECTS
from hf_llava_vqa.prompts import TEMPLATES, V1, V1_SQ
from hf_llava_vqa.reports.evaluation import (
    QUESTION_ONLY,
    Answerer,
    Part,
    evaluate,
    load_part,
    question_only_predictions,
    role_of,
)
from hf_llava_vqa.reports.predictions import Prediction
from hf_llava_vqa.reports.results import results_table
from hf_llava_vqa.reports.scores import Scores


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="base, adapter or merged model: a folder or a Hub repository")
    parser.add_argument(
        "--benchmark",
        default="vizwiz",
        metavar="NAME[,NAME...]",
        help="whose files, prompt and metric (default: vizwiz)",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="with the benchmark's files as published, or prepared; of several benchmarks, with a folder for each",
    )
    parser.add_argument(
        "--template",
        nargs="+",
        default=[],
        metavar="FILE",
        help="published file that a submission fills in, if it is not in --data, or --split has answers",
    )
    parser.add_argument(
        "--split",
        nargs="+",
        default=[],
        help="split to answer (default: the one whose score is usually reported and known without a server)",
    )
    parser.add_argument("--limit", type=int, help="answer all questions about the first so many images only")
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
    parser.add_argument(
        "--prompt_template",
        choices=sorted(TEMPLATES),
        help="that the model was trained in (default: v1; with --self_questions, v1_sq)",
    )
    parser.add_argument(
        "--self_questions",
        type=int,
        default=0,
        metavar="N",
        help="let the model describe each picture, ask itself N questions about it and answer them first (default: 0)",
    )
    parser.add_argument("--max_new_tokens", type=int, default=128, help="longest answer (default: 128, as LLaVA)")
    parser.add_argument("--dtype", default="auto", help="weights' type: auto, bfloat16, float32 (default: auto)")
    parser.add_argument("--device", default="auto", help="where the model goes (default: auto)")
    parser.add_argument("--image_aspect", choices=IMAGE_ASPECTS, help="default: what the processor was saved with")
    return parser.parse_args()


def by_benchmark(flag: str, values: Sequence[str], benchmarks: Sequence[str]) -> dict[str, str]:
    """What a flag says for single benchmarks (NAME=VALUE), and under "" for all others (VALUE).

    Raises:
        ConfigError: two values for one, or one for a benchmark that is not evaluated.
    """
    chosen: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        name, rest = (name, rest) if equals and name in BENCHMARKS else ("", value)
        if name in chosen:
            raise ConfigError(f"--{flag} {' '.join(values)}: two values for {name or 'all'}; give one")
        if name and name not in benchmarks:
            raise ConfigError(f"--{flag} {value}: {name} is not in --benchmark {','.join(benchmarks)}")
        chosen[name] = rest
    return chosen


def load_parts(args: argparse.Namespace) -> list[Part]:
    """All benchmarks, before the first question is answered: mistakes should show early."""
    names = args.benchmark.split(",")
    if len(set(names)) < len(names):
        raise ConfigError(f"--benchmark {args.benchmark}: name each once")
    if args.template and args.limit is not None:
        raise ConfigError("--template asks for a submission, which is of a whole split: leave out --limit")
    data, splits, templates = (by_benchmark(flag, getattr(args, flag), names) for flag in ("data", "split", "template"))
    if len(names) > 1:
        if "" in templates:
            raise ConfigError(f"--template {templates['']}: of several benchmarks, say whose: NAME=FILE")
        data = {name: f"{data['']}/{name}" for name in names if "" in data} | data
    return [
        load_part(
            name,
            data=data.get(name, data.get("")),
            split=splits.get(name, splits.get("")),
            limit=args.limit,
            template=templates.get(name, templates.get("")),
        )
        for name in names
    ]


def answerer(args: argparse.Namespace) -> Answerer:
    """What answers: the model, which is loaded when there is something to answer, or the question alone."""
    load = load_vllm if args.engine == "vllm" else partial(load_model, device_map=args.device)
    told = {"image_aspect": args.image_aspect, "template": args.prompt_template}
    loaded = cache(partial(load, args.model, dtype=args.dtype, **told))
    ask = answer_questions
    if args.self_questions:
        ask = partial(answer_after_asking, asking=Asking(questions=args.self_questions))
    batch = VLLM_BATCH if args.engine == "vllm" else {"batch_size": args.batch_size}

    def answer(part: Part, known: Collection[str]) -> Iterable[Prediction]:
        if args.model == QUESTION_ONLY:
            train = load_folder(part.benchmark.name, part.data, split="train")
            given = question_only_predictions(train, part.records)
            return (prediction for prediction in given if prediction["id"] not in known)
        return ask(
            *loaded(),
            part.records,
            template=args.prompt_template,
            engine=args.engine,
            max_new_tokens=args.max_new_tokens,
            known=known,
            **batch,
        )

    return answer


def report(part: Part, scores: Scores, submission: Path | None) -> None:
    """Say on the terminal what came of a benchmark."""
    name = part.benchmark.name
    if name in scores.content["benchmarks"]:
        entry = scores.content["benchmarks"][name]
        low, high = entry["interval"]
        print(f"{name}: {entry['score']:.4f} (95 % interval {low:.4f} to {high:.4f}, {entry['n']} questions)")
    elif submission is None:
        reason = "no server's file is known" if part.whole else "--limit leaves out a part, and a server takes it whole"
        print(f"{name}: {part.split} has no answers to score by; nothing to submit: {reason}")
    if submission is not None:
        print(f"{name}: to submit, {submission}")


@cli
def main() -> None:
    args = parse_args()
    if args.limit is not None:
        check_limits(limit=args.limit)
    args.prompt_template = args.prompt_template or (V1_SQ if args.self_questions else V1).name
    parts = load_parts(args)
    scores = Scores(
        args.out,
        model=args.model,
        role=role_of(args.model),
        settings={
            "weights": None if args.model == QUESTION_ONLY else model_identity(args.model),
            "limit": args.limit,
            "engine": args.engine,
            "max_new_tokens": args.max_new_tokens,
            "dtype": args.dtype,
            "image_aspect": args.image_aspect,
            "prompt_template": args.prompt_template,
            "self_questions": args.self_questions,
        },
        benchmarks={
            part.benchmark.name: {"split": part.split, "instruction": part.benchmark.instruction} for part in parts
        },
    )
    answer = answerer(args)
    for part in parts:
        report(part, scores, evaluate(part, scores, answer))
    if len(parts) > 1:
        print(results_table([scores.content]))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
