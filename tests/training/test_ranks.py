"""Answering during evaluation on two ranks: they take the same steps and give the answers of one process."""

import json
import subprocess
import sys
from os import environ, pathsep
from pathlib import Path

import pytest
from examples import build_outspoken_llava

RANK = """
import json, sys
from pathlib import Path
import torch
from accelerate.utils import gather_object
from examples import MIXED, chain, colour, dataset, question, record
from trl import ModelConfig
from hf_llava_vqa import VqaConfig, VqaTrainer
from hf_llava_vqa.generation import answer_questions, questions
from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.models.loading import training_model, training_processor

folder = Path(sys.argv[1])
MANY = record("many", [question(f"many.{k}", f"Is there a dog in box {k}?") for k in range(18)], colours=[colour(3)])
TALK = record("talk", [chain("talk.0", "Hello?", "Hi.", "Why?", answers=["so"])])
SINGLE = record("single", [question("single.0", "Why?")], colours=[colour(200)])
RECORDS = [*MIXED, MANY, TALK, SINGLE]
flags = ModelConfig(model_name_or_path=str(folder), dtype="float32", use_peft=True, lora_r=4)
settings = {"use_cpu": True, "max_steps": 1, "report_to": "none", "eval_max_new_tokens": 30}
trainer = VqaTrainer(
    training_model(flags),
    VqaConfig(output_dir=str(folder / "output"), per_device_eval_batch_size=2, **settings),
    train_dataset=dataset(RECORDS),
    processing_class=training_processor(flags),
    peft_config=lora_config(flags),
)
assert trainer.accelerator.num_processes == 2
model = trainer.model.eval()
passes = {"head": 0, "tower": 0}

def favour_the_end(_module, _inputs, logits):
    passes["head"] += 1
    logits[..., 2] += 6  # </s>, so that answers end after very different numbers of tokens
    return logits

def count(*_):
    passes["tower"] += 1

base = model.get_base_model()
base.lm_head.register_forward_hook(favour_the_end)
base.model.vision_tower.register_forward_hook(count)
asked = list(questions(RECORDS))
together = trainer._answer_on_all_ranks(asked)
counted = gather_object([dict(passes)])
if trainer.accelerator.is_main_process:
    alone = answer_questions(
        model, trainer.processing_class, RECORDS, engine="generate", batch_size=1, max_new_tokens=30
    )
    result = {"together": together, "alone": {p["id"]: p["answer"] for p in alone}, "passes": counted}
    (folder / "result.json").write_text(json.dumps(result))
trainer.accelerator.end_training()
"""


@pytest.mark.e2e
def test_two_ranks_agree_with_one_process(tmp_path: Path) -> None:
    """Seven records, two of them without a picture, with 1 to 18 questions."""
    build_outspoken_llava(tmp_path)
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, tmp_path]
    run = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**environ, "PYTHONPATH": pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["together"] == result["alone"]
    assert len({len(answer) for answer in result["alone"].values()}) > 5
    first, second = result["passes"]
    assert first == second
    assert first["head"] > first["tower"] > 1
