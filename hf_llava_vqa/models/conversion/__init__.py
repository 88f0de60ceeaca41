"""Checkpoints of LLaVA's, SQ-LLaVA's and DoRA's own code into ours, and back."""

from pathlib import Path

from hf_llava_vqa.errors import ConfigError, ModelError
from hf_llava_vqa.models.assembling import Assembly
from hf_llava_vqa.models.conversion import layout
from hf_llava_vqa.models.conversion.adapters import TOKENS, adapter_to_original, adapter_to_ours, main_file
from hf_llava_vqa.models.conversion.whole import model_to_original, model_to_ours
from hf_llava_vqa.models.loading import ADAPTER_FILE, ORIGINAL_KEY, adapter_base
from hf_llava_vqa.models.merging import check_new_folder
from hf_llava_vqa.models.projectors.files import name_in_projector, original_kind
from hf_llava_vqa.models.tensor_files import tensor_shapes, weight_files

__all__ = ["to_original", "to_ours"]


def to_ours(
    source: str | Path,
    out: str | Path,
    *,
    model_name_or_path: str | None = None,
    language_model: str | None = None,
    vision_tower: str | None = None,
) -> None:
    """Convert a model, an adapter or a projector of the originals into a folder that `load_model` opens.

    Args:
        source: the folder of a whole model, of an adapter or of an `mm_projector.bin`; or a projector's file.
        out: must not exist, or be empty.
        model_name_or_path: a LLaVA of ours that an adapter or a projector belongs to.
        language_model: instead, what it was trained on; by default what the adapter names.
        vision_tower: by default what the original's configuration names.

    Raises:
        ModelError: nothing of the originals, something that is not whole, or that does not fit its base.
        ConfigError: flags that contradict each other, a base that nothing names, or `out` is taken.
    """
    source, out = Path(source), Path(out)
    check_new_folder(out, "what is converted")
    if _is_ours(source):
        raise ModelError(f"{source} is in our layout already; load_model and the recipes take it as it is")
    if not _is_whole(source):
        adapter_to_ours(source, out, _base(source, model_name_or_path, language_model, vision_tower))
    elif model_name_or_path or language_model:
        raise ConfigError(f"{source} is a whole model; leave out --model_name_or_path and --language_model")
    else:
        model_to_ours(source, out, vision_tower=vision_tower)


def to_original(source: str | Path, out: str | Path, *, vision_tower: str | None = None) -> None:
    """Convert a model or an adapter of ours into what LLaVA's own code opens; raises as `to_ours`.

    Args:
        source: a folder.
        out: must not exist, or be empty.
        vision_tower: the name under which the original code finds the tower; an assembled model knows it.
    """
    source, out = Path(source), Path(out)
    check_new_folder(out, "what is converted")
    if not _is_ours(source):
        raise ModelError(f"{source} is in the originals' layout already; without --to original it becomes ours")
    if not _is_whole(source) and not (source / ADAPTER_FILE).is_file():
        raise ModelError(f"{source} is a projector without its configuration; give the folder of the adapter it is in")
    base = adapter_base(str(source))
    vision_tower = vision_tower or (base.vision_tower if isinstance(base, Assembly) else None)
    if vision_tower is None:
        raise ConfigError("--vision_tower is needed: the CLIP that the original code will find under this name")
    if base is None:
        model_to_original(source, out, vision_tower=vision_tower)
    else:
        adapter_to_original(source, out, base, vision_tower=vision_tower)


def _is_whole(source: Path) -> bool:
    return bool(weight_files(source))


def _is_ours(source: Path) -> bool:
    """Whether a checkpoint has transformers' layout, not LLaVA's; raises `ModelError` for what is no checkpoint."""
    if not source.exists():
        raise ModelError(f"no {source}; download a repository first: hf download REPOSITORY --local-dir FOLDER")
    if _is_whole(source):
        content = layout.read_json(source / layout.CONFIG_FILE)
        if ORIGINAL_KEY not in content and "vision_config" not in content:
            raise ModelError(f"{source} is a {content.get('model_type')!r} model, not a LLaVA")
        return ORIGINAL_KEY not in content
    names = tensor_shapes(main_file(source))
    return any(part in name for name in names for part in ("language_model.", "multi_modal_projector."))


def _base(
    source: Path, model_name_or_path: str | None, language_model: str | None, vision_tower: str | None
) -> str | Assembly:
    """What an original adapter or projector is put on."""
    if model_name_or_path is not None:
        if language_model or vision_tower:
            raise ConfigError(
                "--model_name_or_path is a whole LLaVA; leave it out, or --language_model and --vision_tower"
            )
        return model_name_or_path
    names = tensor_shapes(main_file(source))
    described, adapter = source / layout.CONFIG_FILE, source / ADAPTER_FILE
    if adapter.is_file():
        language_model = language_model or layout.read_json(adapter).get("base_model_name_or_path")
    if described.is_file():
        content = layout.read_json(described)
        vision_tower = vision_tower or content.get(ORIGINAL_KEY)
        kind, _ = layout.original_settings(content, described)
    else:
        kind = original_kind(filter(None, map(name_in_projector, names)))
    if not language_model or not vision_tower:
        raise ConfigError(
            f"{source} does not say what it was trained on; give --language_model and --vision_tower, or a converted "
            "LLaVA as --model_name_or_path"
        )
    return Assembly(language_model, vision_tower, kind, mm_use_im_start_end=TOKENS in names)
