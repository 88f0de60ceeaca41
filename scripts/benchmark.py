"""Measure ourselves against a plain way to do the same, in one run: a table, and in the last line a JSON object.

    python scripts/benchmark.py metrics

Each benchmark is a file of scripts/benchmarks, with a line in BENCHMARKS below. The object holds `benchmark`, `ratios`
(how many times faster or smaller than the plain way), `figures`, `machine` and `versions`.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

# The script's own folder comes first, and there evaluate.py would stand in for the package `evaluate`.
sys.path.pop(0)

from hf_llava_vqa.errors import cli
from scripts.benchmarks import (
    generate,
    metrics,
    prepare,
    projectors,
    resume,
    self_questioning,
    step,
    stream,
    targets,
    train,
)

BENCHMARKS = {
    "generate": generate,
    "metrics": metrics,
    "prepare": prepare,
    "projectors": projectors,
    "resume": resume,
    "self_questioning": self_questioning,
    "step": step,
    "stream": stream,
    "targets": targets,
    "train": train,
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = parser.add_subparsers(dest="benchmark", required=True, metavar="NAME")
    for name, benchmark in BENCHMARKS.items():
        summary = (benchmark.__doc__ or "").splitlines()[0]
        benchmark.add_arguments(names.add_parser(name, help=summary, description=benchmark.__doc__))
    return parser.parse_args()


def machine() -> dict[str, str | int]:
    """The processor by name, how many cores this process may use, and what runs on it."""
    cpuinfo = Path("/proc/cpuinfo")  # on Linux `platform` knows the architecture only
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
    }


@cli
def main() -> None:
    args = parse_args()
    benchmark = BENCHMARKS[args.benchmark]
    table, ratios, figures = benchmark.measure(args)
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    versions = {name: importlib.metadata.version(name) for name in benchmark.PACKAGES}
    result = {"benchmark": args.benchmark, "ratios": ratios, "figures": figures, "machine": machine()}
    print(json.dumps(result | {"versions": {"python": platform.python_version(), **versions}}))


if __name__ == "__main__":
    main()
