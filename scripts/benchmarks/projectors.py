"""Projectors on easy-VQA: each trained from new, with LoRA on the language model, and scored on held-out pictures.

Tower and language model are those of the demo's base, data and settings those of the demo, except that the projector
is new and so learns as fast as the adapter. A seed decides the projector's first weights, the adapter's, and the order
of the pictures, and is the same for all projectors. The language model learned to read pictures through an MLP; what
it knows about its features is lost to all of them alike, but what it expects of them is not.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from datasets import Dataset
from transformers import LlamaForCausalLM, set_seed
from trl import ModelConfig

from hf_llava_vqa.data import load_records
from hf_llava_vqa.demo.data import DemoData, write_vizwiz_demo
from hf_llava_vqa.flags import positive
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.models.assembling import Assembly, assemble, assembled_config, assembled_processor
from hf_llava_vqa.models.processors import prepare_processor
from hf_llava_vqa.models.projectors import PROJECTORS
from hf_llava_vqa.training import VqaConfig, VqaTrainer

PACKAGES = ("hf-llava-vqa", "torch", "transformers", "trl", "peft", "easy-vqa")
BASE = Path(__file__).parents[2] / "recipes" / "demo" / "base"
METRIC = "eval_vizwiz_accuracy"
MLP = "mlp"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--projectors", nargs="+", choices=PROJECTORS, default=list(PROJECTORS), help="beside mlp (default: all)"
    )
    parser.add_argument("--seeds", type=positive, default=3, help="trainings of each projector (default: 3)")
    parser.add_argument("--epochs", type=float, default=1, help="passes over the pictures (default: 1)")
    parser.add_argument("--train_images", type=positive, default=1000, help="with four questions each (default: 1000)")
    parser.add_argument("--held_out_images", type=positive, default=300, help="with four questions each (default: 300)")
    parser.add_argument(
        "--num_prototypes", type=positive, default=28, help="for 64 patches (default: 28, as 256 for 576)"
    )


def measure(args: argparse.Namespace) -> tuple[list[list[str]], dict[str, float], dict[str, float]]:
    """Return a table, how many times smaller the held-out loss is than with the MLP, and figures of every training."""
    kinds = list(dict.fromkeys([MLP, *args.projectors]))
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_vizwiz_demo(Path(folder, "data"), DemoData(args.train_images, args.held_out_images), seed=0)
        train, held_out = (load_records("vizwiz", split=split, root=f"{folder}/data") for split in ("train", "val"))
        parts = _save_parts(Path(folder))
        for seed in range(args.seeds):
            for kind in kinds:
                assembly = Assembly(*parts, projector=kind, num_prototypes=args.num_prototypes)
                for name, value in _train(assembly, train, held_out, seed, args.epochs, folder).items():
                    figures[f"{kind}_{name}_{seed}"] = value
    accuracy = {kind: [figures[f"{kind}_accuracy_{seed}"] for seed in range(args.seeds)] for kind in kinds}
    table = [["projector", "parameters", "accuracy", "over the MLP", "held-out loss", "ms a step"]]
    table += [_row(kind, accuracy, figures) for kind in kinds]
    loss = {kind: statistics.mean(figures[f"{kind}_loss_{seed}"] for seed in range(args.seeds)) for kind in kinds}
    ratios = {f"mlp_over_{kind}_loss": round(loss[MLP] / loss[kind], 4) for kind in kinds[1:]}
    return table, ratios, figures


def _save_parts(folder: Path) -> tuple[str, str]:
    """The base's language model and tower in folders of their own."""
    base, processor = load_model(str(BASE))
    language = LlamaForCausalLM(base.config.text_config)
    language.model, language.lm_head = base.model.language_model, base.lm_head
    for name, parts in {
        "language": (language, processor.tokenizer),
        "tower": (base.model.vision_tower, processor.image_processor),
    }.items():
        for part in parts:
            part.save_pretrained(folder / name)
    return str(folder / "language"), str(folder / "tower")


def _train(
    assembly: Assembly, train: Dataset, held_out: Dataset, seed: int, epochs: float, folder: str
) -> dict[str, float]:
    processor = assembled_processor(assembly)
    processor = prepare_processor(processor, assembled_config(assembly, processor.tokenizer), image_aspect="pad")
    model = assemble(assembly, processor, seed=seed)
    model.model.vision_tower.requires_grad_(False)
    set_seed(seed)
    trainer = VqaTrainer(
        model,
        VqaConfig(
            output_dir=f"{folder}/run",
            seed=seed,
            num_train_epochs=epochs,
            learning_rate=3e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.03,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=64,
            eval_max_new_tokens=8,
            activation_checkpointing=False,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=train,
        processing_class=processor,
        peft_config=lora_config(ModelConfig(use_peft=True, lora_r=16, lora_alpha=32, lora_dropout=0.0)),
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    scores = trainer.evaluate(held_out)
    return {
        "accuracy": round(scores[METRIC], 4),
        "loss": round(scores["eval_loss"], 4),
        "step_ms": round(1000 * seconds / trainer.state.global_step, 1),
        "parameters": sum(p.numel() for n, p in model.named_parameters() if "modules_to_save" in n),
    }


def _row(kind: str, accuracy: dict[str, list[float]], figures: dict[str, float]) -> list[str]:
    def values(name: str) -> list[float]:
        return [figures[f"{kind}_{name}_{seed}"] for seed in range(len(accuracy[kind]))]

    differences = [ours - mlp for ours, mlp in zip(accuracy[kind], accuracy[MLP], strict=True)]
    return [
        kind,
        f"{values('parameters')[0]:,.0f}",
        _mean(accuracy[kind]),
        "" if kind == MLP else _mean(differences, sign="+"),
        _mean(values("loss")),
        f"{statistics.median(values('step_ms')):.0f}",
    ]


def _mean(values: list[float], sign: str = "") -> str:
    """Mean and, of several, standard error."""
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.4f}{error}"
