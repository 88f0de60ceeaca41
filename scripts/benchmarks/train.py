"""Training: questions a second of stock TRL and of image trees, on four kinds of data, beside what token counts allow.

Stock TRL reads the picture once for every answer, in batches of the size that is fastest for it; ours does the same,
and then reads it once for all its questions and answers. The model has random weights, in LLaVA's proportions, and all
ways have the same adapter, settings and questions. They train side by side in turns (see `turns`) with about as many
tokens each, several times from the beginning, and are compared round by round; ours with the picture read for every
answer is there for its losses, and in the first round only.
"""

import argparse
import contextlib
import ctypes
import gc
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from hf_llava_vqa.flags import positive
from scripts.benchmarks.flops import Arithmetic, peak_flops
from scripts.benchmarks.question_sets import QuestionSet, question_sets
from scripts.benchmarks.turns import SHORTEST, Meter, steady_processor, take_turns
from scripts.benchmarks.ways import SETTINGS, Way, Workbench, add_model_arguments, ours, stock

PACKAGES = ("hf-llava-vqa", "torch", "transformers", "trl", "peft", "accelerate")
PROBE_ROWS, PROBE_TOKENS, PROBES = 16, 9_000, 2  # that each batch size is tried on, and how often
AS_FAST = 1.03  # times what the fastest batch size takes: tries differ by as much
STOCK, EACH_TIME, ONCE, MAJORITY = "stock TRL", "image each time", "image once", "stock TRL, majority"
HEADER = ["data", "way", "batch", "questions/s", "answers/s", "tokens/s", "padding", "peak MB", "MFU", "HFU"]
HEADER += ["times TRL", "token bound", "share of bound"]
WARM_UP = 2 * SHORTEST  # tokens
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}  # of losses, relative


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    names = list(question_sets(1))
    parser.add_argument("--data", nargs="+", choices=names, default=names, help="sets to measure (default: all)")
    parser.add_argument("--batch_sizes", type=positive, nargs="+", default=[1, 2, 4, 8, 16], metavar="N", help="tried")
    parser.add_argument("--rounds", type=positive, default=3, help="of training, each from the beginning (default: 3)")
    parser.add_argument(
        "--tokens", type=positive, default=60_000, metavar="N", help="of each way in a round, about (default: 60000)"
    )


@dataclass
class Measured:
    """A way on a set with a batch size, and what it took."""

    way: Way
    questions: QuestionSet
    batch_size: int
    seconds: list[float] = field(default_factory=list)  # of a step, by round
    losses: list[float] = field(default_factory=list)  # of every step of a training
    places: int = 0  # tokens of a step, padding included
    images: int = 0  # of a step
    peak_megabytes: float = 0.0
    flops: Arithmetic | None = None

    @property
    def second(self) -> float:
        """What a step takes."""
        return statistics.median(self.seconds)

    @property
    def tokens(self) -> int:
        """Real tokens of a step."""
        return sum(self.way.lengths)

    @property
    def questions_per_second(self) -> float:
        return self.questions.questions / self.second

    def times(self, other: "Measured") -> float:
        """How many times as many questions a second as another way: the median of the rounds it was in."""
        a_step = statistics.median(theirs / ours for theirs, ours in zip(other.seconds, self.seconds, strict=False))
        return a_step * self.questions.questions / other.questions.questions


def measure(args: argparse.Namespace) -> tuple[list[list[str]], dict[str, object], dict[str, float]]:
    """Return a table, how many times as many questions a second as stock TRL, and the figures behind it."""
    steady_processor()
    bench = Workbench.of(args, args.data)
    print(settings(bench))
    table = [HEADER]
    ratios: dict[str, object] = {}
    figures: dict[str, float] = {}
    faster: dict[str, float] = {}
    for name, questions in bench.sets.items():
        measured = run_set(name, questions, bench)
        figures[f"{name}_loss_difference"] = loss_difference(measured)
        for label, result in measured.items():
            table.append(table_row(name, label, result, measured[STOCK], bench))
            figures |= figures_of(name, label, result, bench)
        faster[name] = round(measured[ONCE].times(measured[STOCK]), 3)
        bound = measured[STOCK].tokens / measured[ONCE].tokens
        figures[f"{name}_token_bound"] = round(bound, 3)
        figures[f"{name}_share_of_bound"] = round(faster[name] / bound, 3)
        if MAJORITY in measured:
            ratios["all_answers_vs_trl_majority"] = round(measured[ONCE].times(measured[MAJORITY]), 3)
    return table, {"questions_per_second_vs_trl": faster, **ratios}, figures


def settings(bench: Workbench) -> str:
    """What the trainers of all ways are told, in one line."""
    lora = bench.lora
    told = {
        "LoRA r": lora.r,
        "alpha": lora.lora_alpha,
        "dropout": lora.lora_dropout,
        "projector": "in full",
        "activation_checkpointing": bench.args.gradient_checkpointing,
        "precision": "bf16" if torch.cuda.is_available() else "fp32",
        "attention": f"sdpa, ours {bench.args.attention}",
        "threads": torch.get_num_threads(),
        **SETTINGS,
    }
    return "settings: " + ", ".join(f"{name} {value}" for name, value in told.items())


def run_set(name: str, questions: QuestionSet, bench: Workbench) -> dict[str, Measured]:
    """Find the fastest batch sizes and what they need alone, then let the ways train side by side."""
    trl = fastest(stock(questions, bench), questions, bench)
    measured = {
        STOCK: trl,
        ONCE: fastest(ours(questions, bench, image_once=True), questions, bench),
        EACH_TIME: Measured(ours(questions, bench, image_once=False), questions, trl.batch_size),
    }
    if name == "vizwiz":
        fewer = questions.majority()
        measured[MAJORITY] = fastest(stock(fewer, bench), fewer, bench)
    for result in measured.values():
        with peak_memory() as peak:
            train_in_turns([result], bench, result.tokens)
        result.peak_megabytes = peak[0]
        result.seconds.clear()
    for number in range(bench.args.rounds):
        beside = [result for label, result in measured.items() if label != EACH_TIME or number == 0]
        train_in_turns(beside, bench, max(bench.args.tokens, trl.tokens), warm_up=True)
    return measured


def fastest(way: Way, questions: QuestionSet, bench: Workbench) -> Measured:
    """The way with the smallest batch size with which the first rows go as fast as with any, by the best of its tries.

    A try may be one batch: too few turns to be slowed as the others are, so what slowed it is left out.
    """
    few = way.head(PROBE_ROWS)
    tried = [size for size in bench.args.batch_sizes if size <= len(few.rows)] or [1]
    probes = [Measured(few, questions, size) for size in tried]
    for _ in range(PROBES if len(tried) > 1 else 0):
        train_in_turns(probes, bench, PROBE_TOKENS)
    best = [min(probe.seconds, default=0) for probe in probes]
    as_fast = [probe.batch_size for probe, seconds in zip(probes, best, strict=True) if seconds <= AS_FAST * min(best)]
    return Measured(way, questions, min(as_fast))


def train_in_turns(results: Sequence[Measured], bench: Workbench, tokens: int, *, warm_up: bool = False) -> None:
    """Train all side by side, each for the steps that take about so many tokens, and add what a step took."""
    micro_batch = max(result.batch_size * min(result.way.lengths) for result in results)
    trainings: list[tuple[Meter, Callable[[], None]]] = []
    for result in results:
        before = untimed(result) if warm_up else 0
        steps = max(1 + warm_up, round((before + tokens) / result.tokens))
        meter = Meter(before, micro_batch)
        trainings.append((meter, partial(train, result, bench, steps, meter)))
    with contextlib.redirect_stdout(sys.stderr):
        take_turns(trainings)


def untimed(result: Measured) -> int:
    """Tokens to warm up: on a GPU, which may compile every shape, one pass; on a CPU what fills the memory."""
    return result.tokens if torch.cuda.is_available() else min(WARM_UP, result.tokens)


def train(result: Measured, bench: Workbench, steps: int, meter: Meter) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = result.way.trainer(bench, result.batch_size, steps, folder, meter)
        trainer.train()
    result.losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    result.places, result.images = meter.places // steps, meter.images // steps
    result.seconds.append(meter.seconds_per_place * result.places)
    result.flops = Arithmetic.of(trainer.model)


@contextlib.contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Collect the most megabytes held at once inside: of the GPU, or of the whole process on the CPU."""
    gc.collect()
    peak: list[float] = []
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.append(torch.cuda.max_memory_allocated() / 1e6)
        return
    ctypes.CDLL(None).malloc_trim(0)  # what earlier trainings held goes back to the system
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the highest size so far is forgotten
    yield peak
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    peak.append(int(line.split()[1]) / 1000)


def loss_difference(measured: dict[str, Measured]) -> float:
    """The largest relative difference between the losses of all ways at the same step."""
    curves = [result.losses for name, result in measured.items() if name != MAJORITY]
    steps = zip(*curves, strict=False)  # some ways make more
    worst = max(max(losses) / min(losses) - 1 for losses in steps)
    tolerance = TOLERANCE[torch.bfloat16 if torch.cuda.is_available() else torch.float32]
    assert worst <= tolerance, f"the ways do not compute the same losses: {curves}"
    return worst


def table_row(name: str, label: str, result: Measured, trl: Measured, bench: Workbench) -> list[str]:
    """What `HEADER` names."""
    faster = result.times(trl)
    bound = trl.tokens / result.tokens
    utilised = utilisation(result, bench)
    return [
        *(name, label, str(result.batch_size)),
        f"{result.questions_per_second:.2f}",
        f"{result.questions.answers / result.second:.2f}",
        f"{result.tokens / result.second:,.0f}",
        f"{1 - result.tokens / result.places:.1%}",
        f"{result.peak_megabytes:,.0f}",
        *([f"{share:.1%}" for share in utilised] if utilised else ["-", "-"]),
        *(f"{faster:.2f}", f"{bound:.2f}", f"{faster / bound:.1%}"),
    ]


def figures_of(name: str, label: str, result: Measured, bench: Workbench) -> dict[str, float]:
    """The measurements of a way, by `SET_WAY_WHAT`."""
    way = label.replace(" ", "_").replace(",", "").lower()
    figures = {
        "seconds": round(result.second, 4),
        "questions_per_second": round(result.questions_per_second, 3),
        "tokens": result.tokens,
        "padding": round(1 - result.tokens / result.places, 4),
        "peak_mb": round(result.peak_megabytes, 1),
    }
    if utilised := utilisation(result, bench):
        figures |= {"mfu": round(utilised[0], 4), "hfu": round(utilised[1], 4)}
    return {f"{name}_{way}_{what}": value for what, value in figures.items()}


def utilisation(result: Measured, bench: Workbench) -> tuple[float, float] | None:
    """Share of the GPU's peak that real tokens need, and the share with padding and recomputation."""
    peak = peak_flops()
    if peak is None or result.flops is None:
        return None
    pairs = sum(map(bench.pairs, result.way.records))
    useful = result.flops.flops(result.tokens, pairs, result.images)
    busy = result.flops.flops(result.places, pairs, result.images, recompute=bench.args.gradient_checkpointing)
    return useful / result.second / peak, busy / result.second / peak
