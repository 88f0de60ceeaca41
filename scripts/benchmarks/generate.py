"""Answering: questions a second, each picture read once, beside the stock `generate` with one question a row.

Both answer the same questions with the same random model, at LLaVA's 576 tokens an image, on one core; rounds of both
take turns. Seconds are those of the processor, so that other work on the machine counts for little.
`generate` gets batches of about one length, of the size that is best for it. Three shapes: many questions an image, as
in easy-VQA's test set; 3.4, as in Dacon's; and 1, as in VizWiz. The bound is what reading fewer tokens alone can give.
"""

import argparse
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hf_llava_vqa.data import get_benchmark
from hf_llava_vqa.flags import positive
from hf_llava_vqa.generation import answer_questions
from hf_llava_vqa.generation.questions import prompt_trees
from hf_llava_vqa.models.tiny import SAMPLE_TEXTS, TinyConfig, tiny_model, tiny_processor, tiny_tokenizer
from hf_llava_vqa.records import Record, make_dialogue, make_record
from scripts.benchmarks.photos import jpeg

PACKAGES = ("hf-llava-vqa", "torch", "transformers")
SHAPES = {  # questions of each image
    "easy_vqa": (5, 8, 9, 10, 11, 15),  # its test set has 2 to 20, 9.7 on average
    "dacon": (3, 4, 3, 4, 3, 4, 3),
    "vizwiz": (1,) * 12,
}
FORMS = (
    "what color is the {}?",
    "is there a {} in the image?",
    "does the image contain a red {}?",
    "what does the {} next to the {} say?",
    "how many of the {} are there, and is one a {}?",
)
THINGS = ("box", "bottle", "can", "shape", "label", "screen", "shirt", "sign")
ANSWER_TOKENS = 16  # at most
FAVOUR = 6.0  # added to the logit of `</s>`, so that a random model gives answers of a few tokens
# Parts in LLaVA-1.5's proportions: its tower has 5 % of the language model's weights, its head 2 %.
VISION = {"vision_hidden": 128, "vision_intermediate": 512, "vision_layers": 4, "vision_heads": 2}
LANGUAGE = {"hidden": 512, "intermediate": 1376, "layers": 4, "heads": 8, "vocab_size": 700}
LARGE = TinyConfig(image_size=336, initializer_range=0.1, **VISION, **LANGUAGE)

Loaded = tuple[LlavaForConditionalGeneration, LlavaProcessor]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=positive, default=3, help="of answering each shape both ways (default: 3)")
    parser.add_argument("--images", type=positive, metavar="N", help="only the first so many of each shape")
    parser.add_argument(
        "--sizes",
        type=positive,
        nargs="+",
        default=[1, 4, 16],
        metavar="N",
        help="batches tried first (default: 1 4 16)",
    )
    parser.add_argument("--small", action="store_true", help="a model of 4 tokens an image: shows only that this runs")


def measure(args: argparse.Namespace) -> tuple[list[list[str]], dict[str, Any], dict[str, Any]]:
    """Return a table, how many times as many questions a second as `generate` answers, and the figures."""
    shapes = {name: records_of(name, counts[: args.images]) for name, counts in SHAPES.items()}
    torch.set_num_threads(1)
    loaded = build(TinyConfig() if args.small else LARGE, shapes)
    table = [["shape", "way", "questions/s", "peak MB", "times generate", "bound"]]
    ratios, figures = {}, {}
    with short_answers(*loaded):
        sizes = {way: best_size(loaded, way, shapes["vizwiz"], args.sizes) for way in ("forest", "generate")}
        for shape, records in shapes.items():
            seconds, peaks = rounds(loaded, records, sizes, args.rounds)
            asked = sum(len(record["dialogues"]) for record in records)
            pairs = zip(seconds["generate"], seconds["forest"], strict=True)
            ratios[shape] = round(statistics.median(stock / ours for stock, ours in pairs), 3)
            bound = round(token_bound(loaded[1], records), 3)
            for way, values in seconds.items():
                speed = asked / statistics.median(values)
                last = [f"{ratios[shape]:.2f}", f"{bound:.2f}"] if way == "forest" else ["", ""]
                table.append([shape, f"{way}, batches of {sizes[way]}", f"{speed:.2f}", f"{peaks[way]:.0f}", *last])
                figures |= {f"{shape}_{way}_questions_per_second": round(speed, 3)}
                figures |= {f"{shape}_{way}_peak_mb": round(peaks[way], 1)}
            figures |= {f"{shape}_bound": bound, f"{shape}_questions": asked}
    figures |= {f"{way}_batch_size": size for way, size in sizes.items()}
    return table, {"questions_per_second_vs_generate": ratios}, figures


def records_of(shape: str, counts: Sequence[int]) -> list[Record]:
    """Return records whose images have so many invented questions, asked as the benchmark `shape` asks."""
    draw = random.Random(shape)
    records = []
    for number, count in enumerate(counts):
        asked = [draw.choice(FORMS).format(*draw.sample(THINGS, 2)) for _ in range(count)]
        dialogues = [make_dialogue(id=f"{number}.{k}", question=text) for k, text in enumerate(asked)]
        image = jpeg(number, 480)
        records.append(make_record(image_id=str(number), images=[image], dialogues=dialogues, source=shape))
    return records


def build(config: TinyConfig, shapes: dict[str, list[Record]]) -> Loaded:
    """Return a random model and a processor whose tokenizer knows the shapes' words, as Llama's does."""
    texts = [form.format(*THINGS) for form in FORMS] + [get_benchmark(shape).instruction for shape in shapes]
    processor = tiny_processor(config, tiny_tokenizer([*SAMPLE_TEXTS, *THINGS, *texts], config.vocab_size))
    return tiny_model(config, processor.tokenizer, seed=0), processor


@contextmanager
def short_answers(model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> Iterator[None]:
    """Within the context, answers end after a few tokens: most after 1 to 5."""

    def favour_the_end(_module: torch.nn.Module, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[..., processor.tokenizer.eos_token_id] += FAVOUR
        return logits

    with model.lm_head.register_forward_hook(favour_the_end):
        yield


def answer(loaded: Loaded, way: str, records: list[Record], batch_size: int) -> tuple[float, float]:
    """Return the seconds of the processor that answering takes, and the most memory it adds, in megabytes."""
    Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the highest figure so far
    before = memory("VmRSS")
    start = time.process_time()
    for _ in answer_questions(*loaded, records, engine=way, batch_size=batch_size, max_new_tokens=ANSWER_TOKENS):
        pass
    return time.process_time() - start, memory("VmHWM") - before


def memory(name: str) -> float:
    """Return a figure of this process's memory, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(value) / 1000


def best_size(loaded: Loaded, way: str, records: list[Record], sizes: Sequence[int]) -> int:
    """Return the batch size that answers soonest, by the faster of two tries; the first run of all warms up."""
    answer(loaded, way, records[:1], 1)
    tries = [{size: answer(loaded, way, records, size)[0] for size in sizes} for _ in range(2)]
    return min(sizes, key=lambda size: min(seconds[size] for seconds in tries))


def rounds(
    loaded: Loaded, records: list[Record], sizes: dict[str, int], count: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return each way's seconds of every round, and its highest memory."""
    seconds: dict[str, list[float]] = {way: [] for way in sizes}
    peaks = dict.fromkeys(sizes, 0.0)
    for _ in range(count):
        for way, size in sizes.items():
            taken, peak = answer(loaded, way, records, size)
            seconds[way].append(taken)
            peaks[way] = max(peaks[way], peak)
    return seconds, peaks


def token_bound(processor: LlavaProcessor, records: list[Record]) -> float:
    """Return how many times as many prompt tokens one question a row takes as trees do."""
    lengths = []
    for branches in (1, 16):
        trees = prompt_trees(processor, records, template="v1", instruction=None, max_branches=branches)
        lengths.append(sum(map(len, trees)))
    return lengths[0] / lengths[1]
