"""`VqaTrainer`: TRL's `SFTTrainer` on image-once trees, with weighted answers and the task's metric.

It overrides, each for one reason:

- `_set_signature_columns_if_needed`: our records reach the collator;
- `_get_train_sampler`: rows grouped by length are grouped by modality too, as LLaVA groups its instruction mix;
- `_get_num_items_in_batch`, `compute_loss`: answer weights and the tree mask;
- `get_eval_dataloader`: data that are measured are the same at every step;
- `evaluation_loop`: the task's metric beside the loss, in time for loggers, early stopping and the best checkpoint;
- `create_optimizer`: learning rates of the projector and of the vision tower;
- `_save`: folders that anybody can load, without pickles;
- `create_model_card`.

What makes a run survive its machine is one level below, in `ResumableTrainer`.
"""

import time
from copy import copy
from itertools import groupby, islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from peft import PeftConfig, PeftModel
from torch.utils.data import DataLoader, Sampler
from transformers import LlavaForConditionalGeneration, LlavaProcessor
from transformers.trainer_utils import EvalLoopOutput

from hf_llava_vqa import forest
from hf_llava_vqa.bad_images import BAD_IMAGES_FILE
from hf_llava_vqa.collate import VqaCollator
from hf_llava_vqa.data import get_benchmark
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.generation import Question, answer_questions, questions
from hf_llava_vqa.models.adapters import (
    PROJECTOR,
    VISION_TOWER,
    check_adapter_targets,
    check_dora_rows,
    keep_trained_weights_in_float32,
)
from hf_llava_vqa.models.assembling import save_assembly
from hf_llava_vqa.models.attention import masked_attention, use_tree_attention
from hf_llava_vqa.models.vision import freeze_unread_layers, run_without_autograd
from hf_llava_vqa.training.callbacks import CurrentEpoch, StartUpReport
from hf_llava_vqa.training.config import VqaConfig, check_attention
from hf_llava_vqa.training.guards import WatchedCollator
from hf_llava_vqa.training.losses import LossesApart, sums_apart
from hf_llava_vqa.training.model_card import write_model_card
from hf_llava_vqa.training.publishing import make_portable
from hf_llava_vqa.training.resumable import ResumableTrainer
from hf_llava_vqa.training.sampling import grouped_sampler

RECORD_COLUMNS = ["image_id", "images", "source", "dialogues", "image", "messages", "prompt", "completion"]


class VqaTrainer(ResumableTrainer):
    """Fine-tune a LLaVA on records, reading every image once.

    Args:
        model: a loaded LLaVA, or one already wrapped by PEFT.
        args: the configuration.
        train_dataset, eval_dataset: records (see `load_records`), map-style or streamed, or TRL's vision rows.
        processing_class: the processor `load_model` or `prepare_processor` returned.
        data_collator: made from `args` if not given; its `mask` is set to what the model's attention reads.
        peft_config: usually `models.adapters.lora_config(...)`.
        **kwargs: for `SFTTrainer`.

    Raises:
        ConfigError: an attention backend that cannot read the trees, an adapter on the vision tower, a base weight
            that DoRA cannot scale.
    """

    data_collator: WatchedCollator
    _signature_columns: list[str] | None
    _tag_names: ClassVar[list[str]] = ["trl", "sft", "llava", "visual-question-answering"]

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        args: VqaConfig,
        *,
        train_dataset: Dataset | IterableDataset,
        processing_class: LlavaProcessor,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset] | None = None,
        data_collator: VqaCollator | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        mask = check_attention(model.config.get_text_config()._attn_implementation, args)
        if args.train_sampling_strategy != "random" and isinstance(train_dataset, IterableDataset):
            raise ConfigError(
                f"--train_sampling_strategy {args.train_sampling_strategy} cannot reorder a stream; use random"
            )
        collator = data_collator or training_collator(args, processing_class)
        collator.mask = mask
        self._eval_collator = collator.for_evaluation()
        self._losses_apart = {"train": LossesApart(), "eval": LossesApart()}
        super().__init__(
            model,
            args,
            data_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            peft_config=peft_config,
            **kwargs,
        )
        check_adapter_targets(self.model, peft_config)
        check_dora_rows(self.model)
        base = _base_model(self.model)
        freeze_unread_layers(base.model)
        if not self.is_deepspeed_enabled:  # DeepSpeed keeps float32 masters of its own
            keep_trained_weights_in_float32(self.model)
        use_tree_attention(base)
        if not _is_trained(base.model.vision_tower):
            run_without_autograd(base.model.vision_tower)
        # Ranks call collectives in the projector together, DeepSpeed also when it is one.
        collator.picture_in_every_batch = args.world_size > 1 or self.is_deepspeed_enabled
        self.add_callback(CurrentEpoch(collator))
        self.add_callback(StartUpReport(collator))

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            self._signature_columns = RECORD_COLUMNS

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """TRL's, but "group_by_length" groups as LLaVA does: the Trainer's own knows no pictures."""
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        return grouped_sampler(
            self.train_dataset,  # the argument has lost the columns that no collator reads
            length_column=self.args.length_column_name,
            batch_size=self.args.per_device_train_batch_size,
            batches=self.args.gradient_accumulation_steps * self.args.world_size,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
        )

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        """Sum of the token weights of one optimizer step, over micro-batches and ranks; above 0 also without any."""
        self._heartbeat.beat("computing")  # a rank that waits in the gather below is not the one that hangs
        total = torch.stack([batch["weights"].sum() for batch in batch_samples]).sum().to(device)
        if self.args.average_tokens_across_devices:
            total = self.accelerator.gather(total).sum()
        return total.clamp(min=torch.finfo(total.dtype).tiny)  # every picture of the step was bad, and skipped

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """`sum(weight * nll) / sum(weight)`; with unit weights exactly TRL's mean over tokens."""
        inputs = dict(inputs)
        dialogue_ids = inputs.pop("dialogue_ids")
        weights = inputs.pop("weights")[:, 1:]  # shifted like the labels: the log-probabilities are [R, L - 1]
        own_questions = inputs.pop("own_questions", None)
        if "chain" in inputs:
            inputs["attention_mask"] = forest.attention_mask(inputs.pop("subtree_end"), inputs["chain"])
        elif "subtree_end" in inputs:  # else all trees are paths, and need no mask
            inputs["attention_mask"] = forest.block_mask(inputs.pop("subtree_end"))
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        total = weights.sum() if num_items_in_batch is None else num_items_in_batch
        losses = -weights * outputs.log_probs
        loss = losses.sum() / total
        if "pixel_values" not in inputs:
            loss = loss + self._unread_picture()
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # DDP averages gradients; the total is over all ranks
        if self.model.training:
            self._nonfinite_guard.note(loss, dialogue_ids)
        apart = None if own_questions is None else sums_apart(losses.detach(), weights, own_questions[:, 1:])
        self._record_token_metrics(outputs, inputs["position_ids"], apart)
        return (loss, outputs) if return_outputs else loss

    def _unread_picture(self) -> torch.Tensor | int:
        """0 with a gradient of 0 for what reads pictures, as an unlabelled one gives: Adam moves by momentum then."""
        seeing = _base_model(self.model).model
        parts = (*seeing.vision_tower.parameters(), *seeing.multi_modal_projector.parameters())
        return sum(0 * parameter.sum() for parameter in parts if parameter.requires_grad)

    def _record_token_metrics(self, outputs: Any, position_ids: torch.Tensor, apart: torch.Tensor | None) -> None:
        """TRL's own logged figures (entropy, token accuracy, tokens seen), in one gather; the state keeps the count.

        With `apart`, of `sums_apart`, the losses of answers and of the model's own questions too.
        """
        mode = "train" if self.model.training else "eval"
        roots = (position_ids[:, :-1] == 0) & (position_ids[:, 1:] == 1)  # padding has position 0 too
        figures = (
            outputs.label_mask.sum(),
            outputs.entropy.detach().sum(),
            outputs.is_top1.sum(),
            (position_ids > 0).sum() + roots.sum(),
        )
        sums = torch.stack([figure.float() for figure in figures])
        if apart is not None:
            sums = torch.cat([sums, apart])
        # Not gather_for_metrics: it takes ranks for rows, and drops some at the end of a pass.
        supervised, entropy, correct, tokens, *by_kind = self.accelerator.gather(sums[None]).sum(0).tolist()
        self._metrics[mode]["entropy"].append(entropy / max(supervised, 1))
        self._metrics[mode]["mean_token_accuracy"].append(correct / max(supervised, 1))
        if mode == "train" and self.args.include_num_input_tokens_seen == "no":  # else the Trainer counts
            self.state.num_input_tokens_seen += int(tokens)
        self._metrics[mode]["num_tokens"] = [self.state.num_input_tokens_seen]
        if by_kind:
            self._losses_apart[mode].add(by_kind, self._metrics[mode])
        if mode == "train" and self._nonfinite_guard.skipped:
            self._metrics[mode]["skipped_steps"] = [self._nonfinite_guard.skipped]

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """TRL's, with pictures as they are and drawn answers that do not change with the epoch."""
        training, measuring = self.data_collator, copy(self.data_collator)
        measuring.collate = self._eval_collator  # the watch over the loader's workers stays
        self.data_collator = measuring
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The loss, then the task: every question with answers is answered and scored by its benchmark's metric."""
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        output.metrics.update(self._answer_and_score(dataloader.dataset, metric_key_prefix))
        return output

    def _answer_and_score(self, records: Any, prefix: str) -> dict[str, float]:
        """Metrics of an iterable of records; none for rows without questions to score."""
        asked = [(r, d) for r, d in questions(r for r in records if "dialogues" in r) if d["answers"]]
        if not asked:
            return {}
        started = time.perf_counter()
        answers = self._answer_on_all_ranks(asked)
        benchmark = get_benchmark(asked[0][0]["source"] or "vizwiz")  # records of no benchmark are scored as VizWiz
        return {
            f"{prefix}_{benchmark.metric}": benchmark.score(answers, asked).score,
            f"{prefix}_answering_seconds": round(time.perf_counter() - started, 2),
        }

    def _answer_on_all_ranks(self, asked: list[Question]) -> dict[str, str]:
        """Dialogue id -> answer. Ranks get whole records, and take their steps together whatever they hold."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        by_record = [list(group) for _, group in groupby(asked, key=lambda question: id(question[0]))]
        mine = [
            {**group[0][0], "dialogues": [dialogue for _, dialogue in group]}
            for group in islice(by_record, rank, None, world)
        ]
        # Answering goes past the forward that accelerate wrapped.
        with self.accelerator.autocast(), masked_attention(_base_model(self.model)):
            answered = answer_questions(
                self.accelerator.unwrap_model(self.model),
                self.processing_class,
                mine,
                template=self.args.template,
                batch_size=self.args.per_device_eval_batch_size,
                max_questions_per_row=self.args.max_questions_per_row,
                max_new_tokens=self.args.eval_max_new_tokens,
                anyone=self._any_rank if world > 1 else None,
            )
            pairs = [(prediction["id"], prediction["answer"]) for prediction in answered]
        return dict(gather_object(pairs))

    def _any_rank(self, mine: bool) -> bool:
        """Whether any rank says yes; all ranks come here equally often."""
        self._heartbeat.beat("answering")
        return bool(self.accelerator.gather(torch.tensor([mine], device=self.accelerator.device)).any())

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """TRL's optimizer, with each part that has a learning rate of its own in groups of its own."""
        optimizer = super().create_optimizer(model)
        rates = {PROJECTOR: self.args.projector_learning_rate, VISION_TOWER: self.args.vision_learning_rate}
        for part, rate in rates.items():
            if rate is not None:
                named = (self.model if model is None else model).named_parameters()
                _set_apart(optimizer, {id(parameter) for name, parameter in named if part in name}, rate)
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        folder = output_dir or self.args.output_dir
        if self.args.should_save:
            make_portable(folder)
            save_assembly(_base_model(self.model), folder)
            write_model_card(self, folder, model_name=None, dataset_name=None, tags=list(self._tag_names))

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: str | list[str] | None = None,
    ) -> None:
        """Write README.md: what was trained on what, how to ask it questions, and the scores so far."""
        if self.is_world_process_zero():
            extra = [tags] if isinstance(tags, str) else list(tags or [])
            tags = [*self._tag_names, *extra]
            write_model_card(self, self.args.output_dir, model_name=model_name, dataset_name=dataset_name, tags=tags)


def training_collator(args: VqaConfig, processor: LlavaProcessor) -> VqaCollator:
    """The collator that `args` describe; `VqaTrainer` sets the mask that its model reads."""
    return VqaCollator(
        processor,
        template=args.template,
        answer_target=args.answer_target,
        answer_confidence_weights=args.answer_confidence_weights,
        max_length=args.max_length,
        max_questions_per_row=args.max_questions_per_row,
        mask="compact",
        self_question_ratio=args.self_question_ratio,
        self_question_weight=args.self_question_weight,
        pad_to_multiple_of=args.pad_to_multiple_of,
        augmentation=args.image_augmentation,
        on_bad_image=args.on_bad_image,
        bad_images_file=Path(args.output_dir, BAD_IMAGES_FILE),
        seed=args.seed,
    )


def _base_model(model: LlavaForConditionalGeneration | PeftModel) -> LlavaForConditionalGeneration:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _set_apart(optimizer: torch.optim.Optimizer, ids: set[int], rate: float) -> None:
    """Move the parameters of these `id`s into groups with another learning rate."""
    for group in list(optimizer.param_groups):
        moved = [parameter for parameter in group["params"] if id(parameter) in ids]
        if moved:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in ids]
            optimizer.add_param_group({**group, "params": moved, "lr": rate})


def _is_trained(module: torch.nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
