"""What of a LLaVA is trained, said in one word beside TRL's flags."""

from dataclasses import dataclass, field

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.models.assembling import AssemblyConfig

PROJECTOR_ONLY, LORA, DORA, FULL, LORA_AND_VISION = "projector", "lora", "dora", "full", "lora+vision"
TRAINABLE = (PROJECTOR_ONLY, LORA, DORA, FULL, LORA_AND_VISION)


@dataclass
class VqaModelConfig(AssemblyConfig):
    """Which LLaVA, and with `--trainable` what of it; TRL's `use_peft` and `use_dora` follow from it, or it from them.

    | trainable | language model | projector | vision tower | TRL's flags |
    |---|---|---|---|---|
    | `projector` | frozen | in full | frozen | `use_peft` |
    | `lora`, `dora` | adapter | in full | frozen | `use_peft`, for DoRA with `use_dora` |
    | `lora+vision` | adapter | in full | adapter | `use_peft` |
    | `full` | in full | in full | frozen | neither |

    The projector by itself is an adapter's folder too: it holds the projector and the name of the base.

    Raises:
        ConfigError: an unknown word, flags that contradict each other, a quantised base to be trained in full.
    """

    use_peft: bool = field(default=False, metadata={"help": "Train an adapter; --trainable says it too."})
    use_dora: bool = field(default=False, metadata={"help": "The adapter is DoRA; --trainable dora says it too."})
    trainable: str | None = field(
        default=None,
        metadata={"help": "What is trained; by default what --use_peft and --use_dora say.", "choices": TRAINABLE},
    )
    vision_lora_r: int = field(default=32, metadata={"help": "LoRA rank in the vision tower, with lora+vision."})
    vision_lora_alpha: int = field(default=64, metadata={"help": "LoRA alpha in the vision tower, with lora+vision."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_dora and not (self.use_peft or self.trainable):
            raise ConfigError("--use_dora needs --use_peft; or say --trainable dora for both")
        if self.trainable is None:
            self.trainable = (DORA if self.use_dora else LORA) if self.use_peft else FULL
        if self.trainable not in TRAINABLE:
            raise ConfigError(f"unknown --trainable {self.trainable!r}; use one of: {', '.join(TRAINABLE)}")
        self._refuse_contradictions(self.trainable)
        self.use_peft = self.trainable != FULL
        self.use_dora = self.trainable == DORA

    def _refuse_contradictions(self, trainable: str) -> None:
        if self.use_dora and trainable != DORA:
            raise ConfigError(f"--trainable {trainable} and --use_dora contradict each other; leave one of them out")
        if self.use_peft and trainable == FULL:
            raise ConfigError("--trainable full has no adapter, and --use_peft asks for one; leave one of them out")
        if (self.load_in_4bit or self.load_in_8bit) and trainable == FULL:
            raise ConfigError(
                "--trainable full cannot go with --load_in_4bit or --load_in_8bit: quantised weights stay as they are; "
                "use lora or dora"
            )
