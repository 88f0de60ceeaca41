"""The README.md a training run writes beside its adapter."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from peft import PeftModel
from transformers import LlavaConfig, Trainer

from hf_llava_vqa.metrics import metric_names, metric_title
from hf_llava_vqa.models.adapters import trained_by_part
from hf_llava_vqa.training.training_recipe import global_batch, versions

_BODY = """---
{header}
---

# {name}

A LLaVA fine-tuned on visual question answering with [hf_llava_vqa](https://pypi.org/project/hf-llava-vqa/){on_data}.

## Ask it

```python
{loading}
question = [{{"role": "user", "content": [{{"type": "image"}}, {{"type": "text", "text": "What is this?"}}]}}]
prompt = processor.apply_chat_template(question, add_generation_prompt=True)
inputs = processor(images=Image.open("photo.jpg"), text=prompt, add_special_tokens=False, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=32)
print(processor.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```

## Training

{facts}

## Evaluation during training

{scores}
"""

_STOCK_LOADING = """from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

model = LlavaForConditionalGeneration.from_pretrained("{repository}")
processor = AutoProcessor.from_pretrained("{repository}")"""

_OUR_LOADING = """from hf_llava_vqa import load_model
from PIL import Image

model, processor = load_model("{repository}")"""


def write_model_card(
    trainer: Trainer, folder: str | Path, *, model_name: str | None, dataset_name: str | None, tags: list[str]
) -> None:
    """Write `README.md` into a folder, with the scores logged so far."""
    base = _base_model(trainer)
    assembled = getattr(trainer.model, "assembly", None) is not None
    stock = trainer.model.config.model_type == LlavaConfig.model_type and not assembled
    name = model_name or Path(trainer.args.output_dir).name
    header = ModelCardData(
        base_model=base,
        library_name="peft" if isinstance(trainer.model, PeftModel) else "transformers",
        pipeline_tag="image-text-to-text",
        tags=sorted(tags),
        datasets=[dataset_name] if dataset_name else None,
        model_name=name,
    )
    card = _BODY.format(
        header=header.to_yaml(),
        name=name,
        on_data=f", on {dataset_name}" if dataset_name else "",
        loading=(_STOCK_LOADING if stock else _OUR_LOADING).format(repository=trainer.args.hub_model_id or name),
        facts=_facts(trainer),
        scores=_scores(trainer.state.log_history),
    )
    ModelCard(card, ignore_metadata_errors=True).save(Path(folder) / "README.md")


def _base_model(trainer: Trainer) -> str | None:
    path = trainer.model.config._name_or_path
    return path if path and not Path(path).exists() else None  # a local folder means nothing to a reader


def _facts(trainer: Trainer) -> str:
    args = trainer.args
    trained = ", ".join(f"{part} {count:,}" for part, (count, _) in trained_by_part(trainer.model).items() if count)
    facts = {
        "Trained parameters": trained,
        "Learning rate": args.learning_rate,
        "Projector's learning rate": args.projector_learning_rate or args.learning_rate,
        "Images a step": global_batch(args),
        "Steps": trainer.state.global_step,
        "Answer target": args.answer_target,
        "Seed": args.seed,
        "Versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())])


def _scores(history: list[dict[str, float]]) -> str:
    keys = [f"eval_{name}" for name in metric_names() if any(f"eval_{name}" in entry for entry in history)]
    if not keys:
        return "No evaluation was run."
    [key, *_] = keys
    title = metric_title(key.removeprefix("eval_"))
    lines = [f"| {row['step']} | {row[key]:.4f} | {row['eval_loss']:.4f} |" for row in history if key in row]
    return "\n".join([f"| step | {title} | loss |", "|---|---|---|", *lines])
