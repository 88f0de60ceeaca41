"""The launch files: what accelerate reads out of each, and one real launch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

FOLDER = Path(__file__).parents[1] / "accelerate_configs"

# name -> (processes, distributed type, ZeRO stage, where the optimizer state lives)
EXPECTED = {
    "cpu": (1, DistributedType.NO, None, None),
    "gpu_1": (1, DistributedType.NO, None, None),
    "ddp_2": (2, DistributedType.MULTI_GPU, None, None),
    "ddp_4": (4, DistributedType.MULTI_GPU, None, None),
    "ddp_8": (8, DistributedType.MULTI_GPU, None, None),
    "zero2_8": (8, DistributedType.DEEPSPEED, 2, "none"),
    "zero3_1": (1, DistributedType.DEEPSPEED, 3, "none"),
    "zero3_2": (2, DistributedType.DEEPSPEED, 3, "none"),
    "zero3_4": (4, DistributedType.DEEPSPEED, 3, "none"),
    "zero3_8": (8, DistributedType.DEEPSPEED, 3, "none"),
    "zero3_offload_1": (1, DistributedType.DEEPSPEED, 3, "cpu"),
}


def test_every_launch_file_is_listed() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_reads_what_the_name_says(name: str) -> None:
    processes, distributed_type, stage, offload = EXPECTED[name]
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.num_processes == processes
    assert config.distributed_type == distributed_type
    assert config.deepspeed_config.get("zero_stage") == stage
    assert config.deepspeed_config.get("offload_optimizer_device") == offload
    assert config.deepspeed_config.get("offload_param_device") == offload
    assert config.use_cpu == (name == "cpu")
    assert config.mixed_precision == ("no" if name == "cpu" else "bf16")


@pytest.mark.parametrize("name", [name for name, (_, _, stage, _) in EXPECTED.items() if stage == 3])
def test_zero3_saves_whole_tensors(name: str) -> None:
    settings = load_config_from_file(str(FOLDER / f"{name}.yaml")).deepspeed_config
    assert settings["zero3_save_16bit_model"] is True
    assert settings["zero3_init_flag"] is True


@pytest.mark.parametrize("name", EXPECTED)
def test_accumulation_stays_with_the_recipe(name: str) -> None:
    """DeepSpeed refuses a run whose launch file and recipe name different numbers."""
    assert "gradient_accumulation_steps" not in load_config_from_file(str(FOLDER / f"{name}.yaml")).deepspeed_config


@pytest.mark.parametrize("name", EXPECTED)
def test_a_launch_file_opens_with_when_to_use_it(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = [line for line in lines if line.startswith("#")]
    assert 2 <= len(comment) <= 4
    assert lines[: len(comment)] == comment


@pytest.mark.e2e
def test_cpu_launch_runs_one_cpu_process(tmp_path: Path) -> None:
    script = tmp_path / "where.py"
    script.write_text(
        "from accelerate import Accelerator\n"
        "state = Accelerator().state\n"
        "print(state.num_processes, state.device.type, state.mixed_precision)\n",
        encoding="utf-8",
    )
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(FOLDER / "cpu.yaml"),
        str(script),
    ]
    done = subprocess.run(launch, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "cpu", "no"]
