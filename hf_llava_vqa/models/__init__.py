"""Loading, assembling and adapting LLaVA models."""

from hf_llava_vqa.models import projectors  # so that transformers knows them before anything is loaded
from hf_llava_vqa.models.loading import load_model

__all__ = ["load_model", "projectors"]
