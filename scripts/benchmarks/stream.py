"""Streams: peak memory over short and long runs, and the speed of reading and decoding beside decoding alone.

The set is made on the spot, of JPEGs of blurred noise. Each run reads through `training_stream` in a process of its
own. Decoding alone has the bytes of all images in memory and hands them to Pillow; rounds of both take turns.
"""

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.streams import training_stream
from hf_llava_vqa.flags import positive
from hf_llava_vqa.images import open_image
from scripts.benchmarks.photos import prepare

PACKAGES = ("hf-llava-vqa", "datasets", "pyarrow", "pillow", "torch")
ALONE = {"seed": 0, "batch_size": 1, "rank": 0, "world_size": 1, "workers": 0, "start": 0}

READ = """
import sys
from pathlib import Path
from hf_llava_vqa.data import load_records
from hf_llava_vqa.images import open_image
from scripts.benchmarks.stream import ALONE, training_stream
stream = load_records("parquet", path=sys.argv[1], streaming=True)
for row in training_stream(stream, stop=int(sys.argv[2]), **ALONE):
    open_image(row["images"][0])
(peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(peak.split()[1])
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--records", type=positive, nargs=2, default=[2000, 20_000], metavar="N", help="of the short and long run"
    )
    parser.add_argument("--width", type=positive, default=480, help="of the JPEGs, in pixels (default: 480)")
    parser.add_argument("--rounds", type=positive, default=7, help="of reading and decoding (default: 7)")
    parser.add_argument("--timed", type=positive, default=1000, metavar="N", help="images a round (default: 1000)")


def measure(args: argparse.Namespace) -> tuple[list[list[str]], dict[str, float], dict[str, float]]:
    """Return a table, how near the stream comes to decoding alone and the long run to the short, and the figures."""
    short, long = args.records
    with tempfile.TemporaryDirectory() as folder:
        photos = prepare(Path(folder, "photos"), long, args.width)
        peaks = {records: peak_megabytes(photos, records) for records in (short, long)}
        decoding, streaming = timings(photos, args.timed, args.rounds)
    ratio = statistics.median(alone / both for alone, both in zip(decoding, streaming, strict=True))
    table = [["run", "peak MB", "images a second"]]
    table += [[f"{records:,} records", f"{peak:.0f}", ""] for records, peak in peaks.items()]
    speeds = {"decoding alone": statistics.median(decoding), "reading and decoding": statistics.median(streaming)}
    table += [[name, "", f"{args.timed / seconds:.0f}"] for name, seconds in speeds.items()]
    ratios = {
        "stream_over_decoding_speed": round(ratio, 3),
        "peak_long_over_short": round(peaks[long] / peaks[short], 3),
    }
    figures = {f"peak_mb_{records}": round(peak, 1) for records, peak in peaks.items()}
    figures |= {
        "decode_ms_per_image": round(1000 * speeds["decoding alone"] / args.timed, 4),
        "read_and_decode_ms_per_image": round(1000 * speeds["reading and decoding"] / args.timed, 4),
    }
    return table, ratios, figures


def peak_megabytes(photos: Path, records: int) -> float:
    """Return the most memory of a fresh process that reads and decodes the first rows of a run."""
    command = [sys.executable, "-c", READ, str(photos), str(records)]
    # The kernel's own figure: that of `resource` would include this process, which made the set.
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1000


def timings(photos: Path, count: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of each round for decoding the first images of a run alone, and for reading them as well."""
    stream = load_records("parquet", path=photos, streaming=True)
    files = [row["images"][0]["bytes"] for row in training_stream(stream, stop=count, **ALONE)]
    decoding, streaming = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        for file in files:
            Image.open(io.BytesIO(file)).convert("RGB")
        between = time.perf_counter()
        for row in training_stream(stream, stop=count, **ALONE):
            open_image(row["images"][0])
        decoding.append(between - start)
        streaming.append(time.perf_counter() - between)
    return decoding, streaming
