"""MMBench-CN: MMBench in Chinese, in files of the same form; LLaVA-1.5 is asked for the letter in Chinese."""

from functools import partial

from hf_llava_vqa.data.benchmark import Benchmark
from hf_llava_vqa.data.benchmarks.mmbench import find_template, reader, score_answers, submit

FILES = {
    "dev": ("mmbench_dev_cn_20231003.tsv", "MMBench_DEV_CN.tsv"),
    "test": ("mmbench_test_cn_20231003.tsv", "MMBench_TEST_CN.tsv"),
}

BENCHMARK = Benchmark(
    name="mmbench_cn",
    homepage="https://github.com/open-compass/MMBench",
    splits=tuple(FILES),
    read=reader("mmbench_cn", FILES),
    instruction="请直接回答选项字母。",
    metric="mmbench",
    metric_variant="vlmevalkit",
    evaluation_split="dev",
    score_answers=score_answers,
    submission_file="submission.xlsx",
    submit=submit,
    find_template=partial(find_template, FILES["test"]),
)
