"""The shape of what benchmarks report. Nothing here looks at a clock."""

import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch

from hf_llava_vqa.errors import ConfigError
from scripts.benchmarks import turns
from scripts.benchmarks.turns import Meter, take_turns
from scripts.benchmarks.ways import Workbench

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"


def benchmark(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    environment = {**os.environ, "HF_HOME": str(home)}
    return subprocess.run(command, cwd=home, capture_output=True, text=True, env=environment)


def test_metrics_reports_every_variant_against_the_loop(tmp_path: Path) -> None:
    done = benchmark("metrics", "--questions", "20", "30", home=tmp_path)
    assert done.returncode == 0, done.stderr
    header, *table, line = done.stdout.splitlines()
    assert header.split() == ["questions", "way", "CPU", "seconds", "times", "faster"]
    result = json.loads(line)
    assert set(result) == {"benchmark", "ratios", "figures", "machine", "versions"}
    assert result["benchmark"] == "metrics"
    scored = [f"score_{name}" for name in ("vizwiz", "vqa", "m4c", "competition", "competition_fixed")]
    rows = [(way, size) for size in (20, 30) for way in ("loop_vqa", *scored, "compute_vqa")]
    assert set(result["ratios"]) == {f"loop_over_{way}_{size}" for way, size in rows}
    peaks = {"score_vqa_20_peak_mb", "score_vqa_30_peak_mb"}
    assert set(result["figures"]) == {f"{way}_{size}_cpu_s" for way, size in rows} | peaks
    assert [line.split()[1] for line in table if "takes" not in line] == [way for way, _ in rows]
    assert {"processor", "cores"} <= set(result["machine"])
    assert {"python", "evaluate"} <= set(result["versions"])


def test_stream_reports_memory_and_speed(tmp_path: Path) -> None:
    sizes = ["--records", "20", "40", "--timed", "10", "--rounds", "2", "--width", "32"]
    done = benchmark("stream", *sizes, home=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["ratios"]) == {"stream_over_decoding_speed", "peak_long_over_short"}
    speeds = {"decode_ms_per_image", "read_and_decode_ms_per_image"}
    assert set(result["figures"]) == {"peak_mb_20", "peak_mb_40"} | speeds
    assert all(figure > 0 for figure in result["figures"].values())


def test_prepare_reports_speed_and_memory(tmp_path: Path) -> None:
    sizes = ["--records", "10", "20", "--rounds", "1", "--width", "32", "--workers", "1"]
    done = benchmark("prepare", *sizes, home=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    pairs = [("copy", "header"), ("copy", "decode"), ("copy_decode", "decode")]
    ratios = {f"{plain}_over_prepare_{check}_seconds" for plain, check in pairs}
    assert set(result["ratios"]) == ratios | {"peak_large_over_small"}
    ways = ("copy", "copy_decode", "prepare_decode", "prepare_header")
    speeds = {f"{way}_ms_per_photo" for way in ways}
    assert set(result["figures"]) == speeds | {"peak_mb_10", "peak_mb_20", "bytes_per_photo"}
    assert all(figure > 0 for figure in result["figures"].values())


def test_resume_opens_as_many_groups_late_as_early(tmp_path: Path) -> None:
    sizes = ["--records", "100", "--steps", "1", "500", "--rounds", "1", "--batch", "4", "--width", "32"]
    done = benchmark("resume", *sizes, home=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["ratios"]) == {"late_over_early_seconds", "skipping_over_late_seconds"}
    groups = {name: figure for name, figure in result["figures"].items() if name.endswith("row_groups")}
    assert groups == {"step_1_row_groups": 4, "step_500_row_groups": 4}


def test_generate_reports_speed_memory_and_bound(tmp_path: Path) -> None:
    sizes = ["--images", "2", "--rounds", "1", "--sizes", "1", "2", "--small"]
    done = benchmark("generate", *sizes, home=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    shapes, ways = ("easy_vqa", "dacon", "vizwiz"), ("forest", "generate")
    assert set(result["ratios"]["questions_per_second_vs_generate"]) == set(shapes)
    measured = {
        f"{shape}_{way}_{what}" for shape in shapes for way in ways for what in ("questions_per_second", "peak_mb")
    }
    known = {f"{shape}_{what}" for shape in shapes for what in ("bound", "questions")}
    assert set(result["figures"]) == measured | known | {f"{way}_batch_size" for way in ways}
    assert result["figures"]["easy_vqa_questions"] == 13
    assert (
        result["figures"]["easy_vqa_bound"] > result["figures"]["dacon_bound"] > result["figures"]["vizwiz_bound"] == 1
    )


TINY = ("--hidden", "32", "--layers", "1", "--image_tokens", "64")


def test_train_compares_the_ways_with_equal_losses(tmp_path: Path) -> None:
    few = ["--data", "vizwiz", "mixed", "--batch_sizes", "4", "--rounds", "2", "--tokens", "1000"]
    done = benchmark("train", *TINY, *few, home=tmp_path)
    assert done.returncode == 0, done.stderr
    settings, header, *table, line = done.stdout.splitlines()
    assert "ddp_find_unused_parameters False" in settings
    assert header.split()[:3] == ["data", "way", "batch"]
    result = json.loads(line)
    assert set(result["ratios"]["questions_per_second_vs_trl"]) == {"vizwiz", "mixed"}
    assert result["ratios"]["all_answers_vs_trl_majority"] > 0
    assert len(table) == 4 + 3
    figures = result["figures"]
    assert figures["vizwiz_stock_trl_tokens"] == figures["vizwiz_image_each_time_tokens"]
    expected = figures["vizwiz_stock_trl_tokens"] / figures["vizwiz_image_once_tokens"]
    assert figures["vizwiz_token_bound"] == round(expected, 3) > 2
    assert figures["mixed_token_bound"] == 1
    assert figures["mixed_image_once_padding"] > 0
    assert max(figures["vizwiz_loss_difference"], figures["mixed_loss_difference"]) < 1e-5


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU trainings run one after the other")
def test_trainings_take_turns_and_one_that_fails_does_not_stop_the_others() -> None:
    meters = [Meter(warm_up=0, micro_batch=1) for _ in range(3)]
    log: list[str] = []

    def train(name: str, meter: Meter, turns: int) -> None:
        for _ in range(turns):
            log.append(name)
            meter.hand_over()
        if name == "b":
            raise ValueError("b failed")

    trainings = [partial(train, name, meter, n) for name, meter, n in zip("abc", meters, (3, 1, 4), strict=True)]
    with pytest.raises(ValueError, match="b failed"):
        take_turns([*zip(meters, trainings, strict=True)])
    assert "".join(log) == "abcacacc"


def test_a_meter_leaves_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return input_ids

    clock = [7.0]
    monkeypatch.setattr(turns, "seconds", lambda: clock[0])
    model, meter = Model(), Meter(warm_up=150, micro_batch=1)
    meter.on_train_begin(model=model)
    for took, places in ((60, 100), (50, 100), (6, 200), (4, 300)):
        model(input_ids=torch.zeros(1, places))
        clock[0] += took
        meter.on_substep_end()
    meter.on_train_end()
    assert meter.places == 700
    assert meter.seconds_per_place == pytest.approx(10 / 500)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (("--model", "7b"), "--model 7b needs a GPU, of 80 GB; use --model tiny"),
        (("--attention", "flex_attention"), "--attention flex_attention cannot train on a CPU; use sdpa"),
    ],
)
def test_what_needs_a_gpu_is_refused(tmp_path: Path, flag: tuple[str, str], message: str) -> None:
    done = benchmark("train", *flag, home=tmp_path)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == f"error: {message}"


@pytest.mark.parametrize("width", [0, -128, 12, 448])
def test_a_width_without_whole_heads_is_refused(width: int) -> None:
    args = Namespace(model="tiny", attention="sdpa", hidden=width, scale=1)
    with pytest.raises(ConfigError, match=f"--hidden {width} does not divide into heads; use a multiple of 128"):
        Workbench.of(args, [])


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("generate", "--sizes"),
        ("metrics", "--questions"),
        ("prepare", "--rounds"),
        ("projectors", "--seeds"),
        ("resume", "--records"),
        ("self_questioning", "--steps"),
        ("step", "--steps"),
        ("stream", "--timed"),
        ("targets", "--timed_steps"),
        *[("train", flag) for flag in ("--batch_sizes", "--rounds", "--tokens", "--scale", "--layers")],
    ],
)
def test_nothing_to_measure_is_refused(name: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    import_module(f"scripts.benchmarks.{name}").add_arguments(parser)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args([flag, "0"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"argument {flag}: 0 is not positive")


def test_step_splits_a_step_into_parts(tmp_path: Path) -> None:
    done = benchmark("step", *TINY, "--steps", "2", "--data", "mixed", home=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["ratios"]) == {"loader_wait_share", "loader_idle_share"}
    figures = result["figures"]
    step = figures.pop("step_ms")
    assert figures.pop("collate_ms") > 0
    assert abs(sum(figures.values()) - step) < 0.1
    assert min(figures["language_model_ms"], figures["backward_ms"], figures["optimizer_ms"]) > 0


def test_an_unknown_benchmark_lists_those_there_are(tmp_path: Path) -> None:
    done = benchmark("metric", home=tmp_path)
    assert done.returncode == 2
    names = "'generate', 'metrics', 'prepare', 'projectors', 'resume', 'self_questioning', 'step', 'stream', "
    names += "'targets', 'train'"
    assert f"invalid choice: 'metric' (choose from {names})" in done.stderr


def test_projectors_are_compared_with_the_mlp(tmp_path: Path) -> None:
    sizes = ["--seeds", "2", "--train_images", "16", "--held_out_images", "2", "--num_prototypes", "4"]
    done = benchmark("projectors", "--projectors", "prototype", *sizes, home=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["ratios"]) == {"mlp_over_prototype_loss"}
    names = ("accuracy", "loss", "step_ms", "parameters")
    runs = [(kind, seed) for kind in ("mlp", "prototype") for seed in (0, 1)]
    assert set(result["figures"]) == {f"{kind}_{name}_{seed}" for kind, seed in runs for name in names}
    assert all(0 <= result["figures"][f"{kind}_accuracy_{seed}"] <= 1 for kind, seed in runs)
    assert result["figures"]["prototype_parameters_0"] > result["figures"]["mlp_parameters_0"]
