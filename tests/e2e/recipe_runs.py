"""Starts the recipe as a user does."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
RECIPE = REPOSITORY / "recipes" / "sft_vizwiz.py"
SETTINGS = {
    "num_train_epochs": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": 5e-3,
    "projector_learning_rate": 1e-3,
    "lora_r": 8,
    "eval_strategy": "epoch",
    "eval_split": "val",
    "save_strategy": "epoch",
    "metric_for_best_model": "eval_vizwiz_accuracy",
    "load_best_model_at_end": True,
    "logging_steps": 1,
    "report_to": "tensorboard",
    "dataloader_num_workers": 1,
    "activation_checkpointing": True,
}


def flags(model: Path, data: Path, output: Path, **changes: object) -> list[str]:
    settings = {
        "model_name_or_path": model,
        "source": "vizwiz",
        "data_dir": data,
        "output_dir": output,
        "use_peft": True,
        "use_cpu": True,
        **SETTINGS,
        **changes,
    }
    return [item for name, value in settings.items() if value is not None for item in (f"--{name}", str(value))]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("TENSORBOARD_LOGGING_DIR", None)
    return subprocess.run(
        [str(part) for part in command], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600
    )


def launch(*arguments: object, recipe: Path = RECIPE) -> subprocess.CompletedProcess[str]:
    accelerate = Path(sys.executable).with_name("accelerate")
    return run(accelerate, "launch", "--config_file", "accelerate_configs/cpu.yaml", recipe, *arguments)
