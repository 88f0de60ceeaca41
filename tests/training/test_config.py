"""What `VqaConfig` refuses: values that cannot work, and flags of TRL's that would be ignored."""

from pathlib import Path
from typing import Any

import pytest

from hf_llava_vqa import VqaConfig
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.training import config as configuration
from hf_llava_vqa.training import parse_recipe_args


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_questions_per_row": 0}, "--max_questions_per_row is 0; it must be at least 1"),
        ({"eval_max_new_tokens": 0}, "--eval_max_new_tokens is 0; it must be at least 1"),
        ({"self_question_ratio": 0.5}, "self_question_ratio 0.5 with the template v1: use the template v1_sq"),
        (
            {"self_question_ratio": 0.5, "template": "v1_sq", "dataloader_persistent_workers": True},
            "--dataloader_persistent_workers: leave it off with .*--self_question_ratio",
        ),
        ({"packing": True}, "--packing and --padding_free: leave them off"),
        ({"padding_free": True}, "--packing and --padding_free: leave them off"),
        ({"loss_type": "dft"}, "--loss_type dft and --label_smoothing_factor: leave them off"),
        ({"answer_confidence_weights": [1.0, -1.0, 0.0]}, "answer_confidence_weights is 1.0 -1.0 0.0; give three"),
        ({"label_smoothing_factor": 0.1}, "--loss_type dft and --label_smoothing_factor: leave them off"),
    ],
)
def test_flags_that_cannot_work_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        VqaConfig(output_dir=str(tmp_path), use_cpu=True, **changes)
    assert "\n" not in str(caught.value)


def test_defaults_suit_the_cpu_and_never_cut(tmp_path: Path) -> None:
    config = VqaConfig(output_dir=str(tmp_path), use_cpu=True)
    assert (config.bf16, config.max_length, config.answer_target) == (False, None, "majority")
    assert config.ddp_find_unused_parameters is False


def test_a_card_without_bfloat16_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(configuration.torch.cuda, "get_device_name", lambda: "Tesla V100")
    monkeypatch.setattr(configuration, "is_torch_bf16_gpu_available", lambda: False)
    with pytest.raises(ConfigError, match=r"Tesla V100 has no bfloat16.*--bf16 False --dtype float32"):
        VqaConfig(output_dir=str(tmp_path))


def test_a_recipe_has_defaults_the_file_wins_over_them_and_the_command_line_over_both(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("trainable: dora\nseed: 1\n")
    always = ["--model_name_or_path", "base", "--data_dir", str(tmp_path), "--use_cpu", "True"]
    defaults = {"source": "dacon", "trainable": "projector", "seed": 7}
    for arguments, expected in (
        ([], ("dacon", "projector", 7)),
        (["--config", str(file)], ("dacon", "dora", 1)),
        (["--config", str(file), "--trainable", "full", "--source", "ubiai"], ("ubiai", "full", 1)),
    ):
        data, config, model = parse_recipe_args([*always, *arguments], **defaults)
        assert (data.source, model.trainable, config.seed) == expected
