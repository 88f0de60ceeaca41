"""Preparation: its speed beside copying and hashing the same photos with as many workers, and its memory.

The photos are JPEGs of blurred noise in a folder. The plain way reads each file, hashes it and writes it to another
folder, until all is on the disk; once more, with every photo decoded by Pillow, as preparation has to know that it can
be. Rounds take turns.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from datasets import Dataset
from PIL import Image

from hf_llava_vqa.data.prepared.preparation import CHECKS, worker_context, write_shards
from hf_llava_vqa.flags import positive
from scripts.benchmarks.photos import records_of, write_photos

PACKAGES = ("hf-llava-vqa", "datasets", "pyarrow", "pillow")
PHOTOS_A_TASK = 512  # as many as a shard has rows

TIMINGS = """
import json, sys
from pathlib import Path
from scripts.benchmarks.prepare import timings
photos, out, *numbers = sys.argv[1:]
print(json.dumps(timings(Path(photos), Path(out), *map(int, numbers))))
"""
PEAK = """
import sys
from pathlib import Path
from hf_llava_vqa.data.prepared.preparation import write_shards
from scripts.benchmarks.photos import records_of
write_shards(records_of(Path(sys.argv[1]), int(sys.argv[2])), sys.argv[3], split="train")
(peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(peak.split()[1])
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--records", type=positive, nargs=2, default=[2000, 20_000], metavar="N", help="of the small and large set"
    )
    parser.add_argument("--width", type=positive, default=800, help="of the JPEGs, in pixels (default: 800, 150 KB)")
    parser.add_argument("--rounds", type=positive, default=3, help="of each way on the large set (default: 3)")
    parser.add_argument("--workers", type=positive, default=os.cpu_count(), help="processes (default: one a core)")


def measure(args: argparse.Namespace) -> tuple[list[list[str]], dict[str, float], dict[str, float]]:
    """Return a table, how near preparation comes to the plain ways and the large set to the small, and the figures."""
    small, large = args.records
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = folder / "photos"
        write_photos(photos, large, args.width)
        size = sum(photo.stat().st_size for photo in photos.iterdir())
        # In programs of their own: workers import what the main program does, and this one imports every benchmark.
        seconds = json.loads(output_of(TIMINGS, photos, folder / "out", large, args.workers, args.rounds))
        peaks = {records: peak_megabytes(photos, records, folder / "out") for records in (small, large)}
    medians = {way: statistics.median(rounds) for way, rounds in seconds.items()}
    table = [["way", "photos a second", "MB a second", "peak MB"]]
    table += [[way, f"{large / taken:.0f}", f"{size / taken / 1e6:.0f}", ""] for way, taken in medians.items()]
    table += [[f"{records:,} records", "", "", f"{peak:.0f}"] for records, peak in peaks.items()]
    pairs = [("copy", "header"), ("copy", "decode"), ("copy_decode", "decode")]
    ratios = {
        f"{plain}_over_prepare_{check}_seconds": round(
            statistics.median(a / b for a, b in zip(seconds[plain], seconds[f"prepare_{check}"], strict=True)), 3
        )
        for plain, check in pairs
    }
    ratios["peak_large_over_small"] = round(peaks[large] / peaks[small], 3)
    figures = {f"{way}_ms_per_photo": round(1000 * taken / large, 4) for way, taken in medians.items()}
    figures |= {f"peak_mb_{records}": round(peak, 1) for records, peak in peaks.items()}
    return table, ratios, figures | {"bytes_per_photo": round(size / large)}


def output_of(program: str, *arguments: object) -> str:
    """Run a program of the text given here, and return what it prints."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def timings(photos: Path, out: Path, count: int, workers: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round by the name of the way."""
    ways: dict[str, Callable[[], None]] = {
        "copy": partial(copy, photos, count, out, workers, decode=False),
        "copy_decode": partial(copy, photos, count, out, workers, decode=True),
    }
    records = records_of(photos, count)
    ways |= {f"prepare_{check}": partial(prepare, records, out, workers, check) for check in CHECKS}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            os.sync()  # preparation syncs its shards, so a copy has to reach the disk too
            seconds[way].append(time.perf_counter() - start)
            shutil.rmtree(out)
            os.sync()
    return seconds


def prepare(records: Dataset, out: Path, workers: int, check: str) -> None:
    """Prepare the photos as a user would."""
    write_shards(records, out, split="train", check=check, workers=workers)


def copy(photos: Path, count: int, out: Path, workers: int, *, decode: bool) -> None:
    """Copy and hash the photos, in processes that start as those of preparation do."""
    out.mkdir()
    names = [f"{number}.jpg" for number in range(count)]
    parts = [names[start : start + PHOTOS_A_TASK] for start in range(0, count, PHOTOS_A_TASK)]
    with ProcessPoolExecutor(workers, mp_context=worker_context()) as pool:
        for _ in pool.map(partial(copy_part, photos, out, decode), parts):
            pass


def copy_part(photos: Path, out: Path, decode: bool, names: list[str]) -> None:
    """Copy and hash some photos."""
    for name in names:
        data = (photos / name).read_bytes()
        hashlib.sha256(data).hexdigest()
        if decode:
            Image.open(io.BytesIO(data)).convert("RGB")
        (out / name).write_bytes(data)


def peak_megabytes(photos: Path, records: int, out: Path) -> float:
    """Return the most memory of a fresh process that prepares the first photos by itself."""
    # The kernel's own figure: that of `resource` would include this process.
    peak = int(output_of(PEAK, photos, records, out)) / 1000
    shutil.rmtree(out)
    return peak
