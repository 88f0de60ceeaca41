"""Whole models: what LLaVA's own code saved into what `load_model` opens, and back."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from hf_llava_vqa.errors import ModelError
from hf_llava_vqa.models.assembling import (
    Assembly,
    assembled_processor,
    generation_config,
    grown,
    joined_config,
    vision_state,
)
from hf_llava_vqa.models.conversion import layout
from hf_llava_vqa.models.conversion.layout import CONFIG_FILE, PROJECTOR, TOWER, VOCABULARY
from hf_llava_vqa.models.conversion.shards import write_shards
from hf_llava_vqa.models.loading import ORIGINAL_KEY, describe
from hf_llava_vqa.models.processors import prepare_processor
from hf_llava_vqa.models.projectors.files import fitted_projector, original_projector
from hf_llava_vqa.models.tensor_files import TensorFiles, weight_files


def model_to_ours(source: Path, out: Path, *, vision_tower: str | None = None) -> None:
    """Write a LLaVA with its processor; the tower is the checkpoint's own, or `vision_tower` if it holds none."""
    content = layout.read_json(source / CONFIG_FILE)
    kind, aspect = layout.original_settings(content, source / CONFIG_FILE)
    text = layout.text_config(content, source / CONFIG_FILE)
    assembly = Assembly(str(source), vision_tower or content[ORIGINAL_KEY], kind)
    processor, rows = assembled_processor(assembly, text), text.vocab_size
    config = joined_config(assembly, text, processor.tokenizer)
    if config.image_token_id != rows:
        raise ModelError(
            f"{source}: the tokenizer has {config.image_token_id} tokens, the model rows for {rows}; put the tokenizer "
            "beside it that it was saved with"
        )
    files = TensorFiles(weight_files(source), layout.our_name)
    projector = {name.removeprefix(PROJECTOR): value for name, value in files.read(PROJECTOR)}
    projector = fitted_projector(projector, config, source)
    tower = {} if any(name.startswith(TOWER) for name in files.shapes) else vision_state(assembly, None)
    _check_original(source, files, layout.model_shapes(config), rows, tower.keys())
    config.dtype = _dtype(files)
    config.architectures = [MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)].__name__]

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, value in files.read(but=PROJECTOR):
            yield name, grown(value, config.text_config.vocab_size) if name in VOCABULARY else value
        yield from ((PROJECTOR + name, value) for name, value in projector.items())
        yield from ((name, value.to(config.dtype)) for name, value in tower.items())

    write_shards(out, tensors(), total=len(files.shapes) + len(tower))
    processor = prepare_processor(processor, config, image_aspect=aspect)
    for part in (config, generation_config(processor.tokenizer), processor):
        part.save_pretrained(out)


def model_to_original(source: Path, out: Path, *, vision_tower: str) -> None:
    """Write weights and configuration, which names the tower; the tokenizer is the language model's own."""
    config, processor = describe(str(source))
    layout.check_last_token(config, processor, source)
    content = layout.original_config(config, processor, source, vision_tower)
    files = TensorFiles(weight_files(source), layout.module_name)
    layout.check_fit(source, files.shapes, layout.model_shapes(config))
    projector = {name.removeprefix(PROJECTOR): value for name, value in files.read(PROJECTOR)}
    theirs = original_projector(projector, layout.projector_kind(config))

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, value in files.read(but=PROJECTOR):
            yield layout.original_name(name), value[: content["vocab_size"]] if name in VOCABULARY else value
        yield from ((layout.original_name(PROJECTOR + name), value) for name, value in theirs.items())

    content["torch_dtype"] = str(_dtype(files)).removeprefix("torch.")
    content["unfreeze_mm_vision_tower"] = True  # else the tower's weights would come from `vision_tower`
    write_shards(out, tensors(), total=len(files.shapes))
    layout.write_json(out / CONFIG_FILE, content)


def _check_original(
    source: Path, files: TensorFiles, shapes: dict[str, torch.Size], rows: int, added: Iterable[str]
) -> None:
    """`check_fit` without the projector and what is added, under the names the files have."""
    expected = {name: shape for name, shape in shapes.items() if name not in added}
    for name in VOCABULARY:
        expected[name] = torch.Size([rows, expected[name][1]])
    found, wanted = (
        {layout.original_name(name): shape for name, shape in named.items() if not name.startswith(PROJECTOR)}
        for named in (files.shapes, expected)
    )
    layout.check_fit(source, found, wanted)


def _dtype(files: TensorFiles) -> torch.dtype:
    return next(value.dtype for _, value in files.read("lm_head."))
