"""The projector as all that is trained, in an adapter's folder: a checkpoint of it holds nothing else."""

from peft import LoraConfig
from peft.utils.constants import DUMMY_TARGET_MODULES

from hf_llava_vqa.models.adapters import PROJECTOR


def projector_adapter() -> LoraConfig:
    """An adapter of PEFT's that adapts no layer, and trains and saves the projector in full; all else is frozen.

    So a projector by itself is resumed, loaded, merged and published like LoRA, and `--pretrained_projector` reads it.
    """
    return LoraConfig(target_modules=DUMMY_TARGET_MODULES, modules_to_save=[PROJECTOR], task_type="CAUSAL_LM")
