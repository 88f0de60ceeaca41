"""`--trainable` beside TRL's flags: what it implies, what implies it, and what contradicts it."""

from typing import Any

import pytest

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.models.adapters import lora_config
from hf_llava_vqa.models.trainable import TRAINABLE, VqaModelConfig


@pytest.mark.parametrize(
    ("flags", "trainable", "use_peft", "use_dora"),
    [
        ({}, "full", False, False),
        ({"use_peft": True}, "lora", True, False),
        ({"use_peft": True, "use_dora": True}, "dora", True, True),
        ({"trainable": "projector"}, "projector", True, False),
        ({"trainable": "full"}, "full", False, False),
        ({"trainable": "lora"}, "lora", True, False),
        ({"trainable": "dora"}, "dora", True, True),
        ({"trainable": "dora", "use_dora": True}, "dora", True, True),
        ({"trainable": "lora+vision", "use_peft": True}, "lora+vision", True, False),
        ({"trainable": "dora", "load_in_4bit": True}, "dora", True, True),
    ],
)
def test_the_word_and_the_flags_of_trl_agree(
    flags: dict[str, Any], trainable: str, use_peft: bool, use_dora: bool
) -> None:
    args = VqaModelConfig(**flags)
    assert (args.trainable, args.use_peft, args.use_dora) == (trainable, use_peft, use_dora)
    assert (lora_config(args) is not None) == use_peft


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"use_dora": True}, "--use_dora needs --use_peft"),
        ({"trainable": "lora", "use_dora": True}, "--trainable lora and --use_dora contradict each other"),
        ({"trainable": "lora+vision", "use_dora": True}, r"--trainable lora\+vision and --use_dora contradict"),
        ({"trainable": "full", "use_peft": True}, "--trainable full has no adapter, and --use_peft asks for one"),
        ({"trainable": "full", "load_in_8bit": True}, "--trainable full cannot go with --load_in_4bit or --load_in_8b"),
        ({"load_in_4bit": True}, "--trainable full cannot go with --load_in_4bit"),
        ({"trainable": "everything"}, f"unknown --trainable 'everything'; use one of: {', '.join(TRAINABLE[:2])}"),
    ],
)
def test_contradictions_are_refused_in_one_line(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        VqaModelConfig(**flags)
    assert "\n" not in str(caught.value)


def test_the_tower_has_a_rank_of_its_own() -> None:
    config = lora_config(VqaModelConfig(trainable="lora+vision", lora_r=128, lora_alpha=256))
    assert (config.r, config.lora_alpha) == (128, 256)
    assert set(config.rank_pattern.values()) == {32}
    assert set(config.alpha_pattern.values()) == {64}
