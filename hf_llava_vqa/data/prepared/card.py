"""The card of a prepared set: the README that the Hub shows, with the header that tells `datasets` where splits lie."""

from collections.abc import Iterator
from typing import Any

from huggingface_hub import DatasetCardData

from hf_llava_vqa.data import BENCHMARKS, get_benchmark
from hf_llava_vqa.data.benchmark import Benchmark

CARD = "README.md"
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}


def card(manifest: dict[str, Any]) -> str:
    """Write the card of the set that a manifest describes."""
    source = manifest["source"]
    benchmark = get_benchmark(source) if source in BENCHMARKS else None
    return f"---\n{_header(manifest, benchmark)}\n---\n\n" + "\n".join(_text(manifest, benchmark))


def _header(manifest: dict[str, Any], benchmark: Benchmark | None) -> str:
    splits = manifest["splits"]
    rows = sum(counts["rows"] for counts in splits.values())
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    return DatasetCardData(
        license=benchmark.licence if benchmark and benchmark.licence else "other",
        task_categories=["visual-question-answering"],
        size_categories=next((size for limit, size in _SIZES.items() if rows < limit), "10M<n<100M"),
        configs=[{"config_name": "default", "data_files": files}],
    ).to_yaml()


def _text(manifest: dict[str, Any], benchmark: Benchmark | None) -> Iterator[str]:
    name = manifest["source"] or "Images"
    yield f"# {name} with questions and answers, prepared for training\n"
    yield "Each row is an image with everything that is asked about it: `images`, `image_sha256`, and `dialogues` with"
    yield "their `turns` and human `answers`. Rows are shuffled. `manifest.json` lists every file with its hash.\n"
    yield "| split | rows | dialogues | answers | left out | files | MB |"
    yield "|---|---|---|---|---|---|---|"
    for split, counts in manifest["splits"].items():
        numbers = [f"{counts[key]:,}" for key in ("rows", "dialogues", "answers")]
        numbers.append(f"{counts.get('left_out', 0):,}")  # splits of earlier versions do without
        megabytes = sum(shard["bytes"] for shard in counts["shards"]) / 1e6
        yield f"| {' | '.join([split, *numbers, str(len(counts['shards'])), f'{megabytes:,.1f}'])} |"
    yield ""
    for split, counts in manifest["splits"].items():
        if counts.get("max_side") is not None:
            yield f"Pictures of {split} are scaled down to {counts['max_side']:,} pixels on their longer side.\n"
    yield from _use(manifest, benchmark)
    yield from _origin(manifest, benchmark)


def _use(manifest: dict[str, Any], benchmark: Benchmark | None) -> Iterator[str]:
    split = next(iter(manifest["splits"]))
    yield "## Use\n"
    yield "```python"
    yield "from datasets import load_dataset\n"
    yield f'rows = load_dataset("USER/NAME", split="{split}")  # or the folder of the set'
    yield "```\n"
    yield "With hf-llava-vqa, `load_records('parquet', path='hf://datasets/USER/NAME', streaming=True)` streams it,"
    source = benchmark.name if benchmark else "parquet"
    yield f"and recipes take it as `--source {source} --data_dir hf://datasets/USER/NAME --streaming True`.\n"


def _origin(manifest: dict[str, Any], benchmark: Benchmark | None) -> Iterator[str]:
    yield "## Origin and licence\n"
    if benchmark and benchmark.homepage:
        yield f"The data are of {benchmark.homepage}."
    if benchmark and benchmark.licence:
        yield f"Their licence is {benchmark.licence}; this set only repacks them.\n"
    else:
        yield "See the owner's terms for what may be done with annotations and images; this set only repacks them.\n"
    read = {split: counts.get("source_files", {}) for split, counts in manifest["splits"].items()}
    hashes = [(split, *item) for split, files in read.items() for item in files.items()]
    if hashes:
        yield "| split | read from | SHA-256 |"
        yield "|---|---|---|"
        yield from (f"| {split} | {file} | `{sha256}` |" for split, file, sha256 in hashes)
        yield ""
