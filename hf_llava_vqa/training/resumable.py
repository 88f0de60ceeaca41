"""`ResumableTrainer`: TRL's `SFTTrainer` made to survive its machine. It knows nothing of what is trained.

It overrides, each for one reason:

- `train`: "auto" finds the newest whole checkpoint, another run's is refused, a signal ends in a checkpoint;
- `set_initial_training_values`: a run that has made all its steps makes no more;
- `get_train_dataloader`: streams in an exact order, from any row on;
- `_save_checkpoint`: whole or not at all;
- `_load_from_checkpoint`, `_load_best_model`: whole models are read by the names under which they were saved;
- `_load_optimizer_and_scheduler`: learning rates of this run, which may be longer than the one before;
- `_push_from_checkpoint`, `push_to_hub`: the model of a whole checkpoint is published, without pickles and logs.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset, IterableDataset
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import HubStrategy, SaveStrategy, TrainOutput, rotate_checkpoints
from transformers.utils.hub import PushInProgress
from trl import SFTTrainer

from hf_llava_vqa.data.streams import RecordStream, StreamLoader
from hf_llava_vqa.errors import ConfigError, TrainingStopped
from hf_llava_vqa.training.callbacks import StreamEpoch
from hf_llava_vqa.training.checkpoints import (
    checkpoint_folder,
    clear_staging,
    publish,
    seal,
    staging_folder,
    write_failure,
)
from hf_llava_vqa.training.config import VqaConfig
from hf_llava_vqa.training.guards import (
    Heartbeat,
    NonFiniteGuard,
    StopOnSignal,
    WatchedCollator,
    check_output_folder,
    checkpoint_bytes,
)
from hf_llava_vqa.training.publishing import upload_checkpoint, upload_model
from hf_llava_vqa.training.resume import check_complete, check_same_run, choose_checkpoint
from hf_llava_vqa.training.training_recipe import (
    global_batch,
    read_training_recipe,
    run_identity,
    save_training_recipe,
)


class ResumableTrainer(SFTTrainer):
    """`SFTTrainer` with whole checkpoints, exact streams and an exact resume.

    Attributes:
        identity: what must stay the same for a checkpoint to be continued, see `run_identity`.
    """

    push_in_progress: PushInProgress | None

    def __init__(
        self,
        model: torch.nn.Module,
        args: VqaConfig,
        *,
        train_dataset: Dataset | IterableDataset,
        data_collator: Callable[[Sequence[dict[str, Any]]], dict[str, Any]],
        **kwargs: Any,
    ) -> None:
        _set_max_steps(args, train_dataset)
        self._watched_collator = WatchedCollator(data_collator, args.dataloader_num_workers)
        super().__init__(model, args, train_dataset=train_dataset, data_collator=self._watched_collator, **kwargs)
        self._nonfinite_guard = NonFiniteGuard(args.on_nan, self.accelerator)
        self._stop_on_signal = StopOnSignal(self.accelerator)
        self._heartbeat = Heartbeat(0.9 * args.ddp_timeout)
        for guard in (self._nonfinite_guard, self._stop_on_signal, self._heartbeat):
            self.add_callback(guard)
        if isinstance(train_dataset, IterableDataset):
            self.add_callback(StreamEpoch(_rows_of_a_pass(args, train_dataset)))
        self.identity = run_identity(self)
        self._first_step = self._first_row = 0  # of this call of `train`

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train, from the beginning or on from a checkpoint.

        Args:
            resume_from_checkpoint: a folder, or "auto" for the newest whole checkpoint of the output folder; with
                none there, "auto" begins at step 0.
            trial, ignore_keys_for_eval: as in `Trainer.train`.

        Raises:
            ConfigError: no such whole checkpoint, one of another run, or a new run among an earlier one's checkpoints.
            TrainingError: the run cannot go on; names what stopped it.
            TrainingStopped: SIGTERM or SIGINT came; a checkpoint of the step it came in was saved.
        """
        checkpoint = self._checkpoint_to_resume(resume_from_checkpoint)
        try:
            with self._stop_on_signal:
                output = super().train(checkpoint and str(checkpoint), trial, ignore_keys_for_eval)
        except RuntimeError as error:
            if told := self._watched_collator.explain(error):
                raise told from error
            raise
        finally:
            self._heartbeat.close()
        if self._stop_on_signal.received is None:
            return output
        raise TrainingStopped(
            f"{self._stop_on_signal.received} after step {self.state.global_step} of {self.state.max_steps}; "
            "go on with --resume_from_checkpoint auto",
            signal_number=Signals[self._stop_on_signal.received],
        )

    def _checkpoint_to_resume(self, wish: str | bool | None) -> Path | None:
        """Choose on rank 0, for all; set where the stream goes on."""
        chosen: list[Path | None] = [None]
        if self.is_world_process_zero():
            clear_staging(self.args.output_dir)
            check_output_folder(self.args.output_dir, 2 * checkpoint_bytes(self.model) if self._saves() else 0)
            chosen = [choose_checkpoint(wish, self.args.output_dir)] if self._saves() or wish else [None]
        (checkpoint,) = broadcast_object_list(chosen)
        if checkpoint is not None:
            check_same_run(checkpoint, self.identity, force=self.args.force_resume)
            check_complete(checkpoint, force=self.args.force_resume)
        self._first_step, self._first_row = self._start_of_stream(checkpoint)
        if isinstance(self.train_dataset, IterableDataset):
            self.args.ignore_data_skip = True  # nothing to skip: the stream itself begins at the row
        return checkpoint

    def _start_of_stream(self, checkpoint: Path | None) -> tuple[int, int]:
        """Steps made and rows read before; a batch that was changed by force begins at its next multiple."""
        if checkpoint is None:
            return 0, 0
        recipe, batch = read_training_recipe(checkpoint), global_batch(self.args)
        return recipe["global_step"], math.ceil(recipe["rows"] / batch) * batch

    def _saves(self) -> bool:
        return self.args.save_strategy != SaveStrategy.NO

    def set_initial_training_values(
        self, args: VqaConfig, dataloader: DataLoader
    ) -> tuple[int, int, int, int, int, int | None, int]:
        """The Trainer's, without a pass when no step is left: it looks at `max_steps` only after it made one."""
        passes, *others = super().set_initial_training_values(args, dataloader)
        return (0 if 0 < args.max_steps <= self._first_step else passes, *others)

    def get_train_dataloader(self) -> DataLoader:
        """TRL's for a data set; for a stream one that deals an exact order to ranks and workers, see `data.order`."""
        if not isinstance(self.train_dataset, IterableDataset):
            return super().get_train_dataloader()
        args = self.args
        rows_left = (args.max_steps - self._first_step) * global_batch(args)
        return StreamLoader(
            self.train_dataset,
            collate_fn=self.data_collator,
            batch_size=args.per_device_train_batch_size,
            workers=args.dataloader_num_workers,
            rank=args.process_index,
            world_size=args.world_size,
            seed=args.seed if args.data_seed is None else args.data_seed,
            start=self._first_row,
            stop=self._first_row + rows_left,
            pin_memory=args.dataloader_pin_memory,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """The Trainer's for adapters. A whole model it would leave as it was, since it looks for other names.

        `save_pretrained` writes the names of the published checkpoints, which only `from_pretrained` translates.
        """
        model = model or self.model
        if not isinstance(model, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        # In float32: it holds every trained weight and every 16-bit one exactly.
        saved = type(model).from_pretrained(resume_from_checkpoint, dtype=torch.float32)
        model.load_state_dict(saved.state_dict())

    def _load_best_model(self) -> None:
        if self.is_deepspeed_enabled or not isinstance(self.model, PreTrainedModel):
            super()._load_best_model()
        else:
            self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The Trainer's, with learning rates as this run's schedule has them, from the first step on.

        A checkpoint holds the rates of its own schedule: at its end, 0. With the same arguments they are the same.
        """
        schedule = self.lr_scheduler
        rates = list(schedule.base_lrs) if isinstance(schedule, LambdaLR) else []
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or not isinstance(schedule, LambdaLR):
            return
        schedule.base_lrs = rates
        for group, rate, factor in zip(schedule.optimizer.param_groups, rates, schedule.lr_lambdas, strict=True):
            group["initial_lr"] = rate
            group["lr"] = rate * factor(schedule.last_epoch)
        schedule._last_lr = [group["lr"] for group in schedule.optimizer.param_groups]

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """The Trainer's own parts, written aside by all ranks and put in place, whole, by rank 0."""
        self._heartbeat.beat("saving a checkpoint")
        checkpoint = checkpoint_folder(self._get_output_dir(trial), self.state.global_step)
        staged = staging_folder(checkpoint)
        if self.args.should_save:
            clear_staging(checkpoint.parent)
            staged.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        try:
            self._write_checkpoint(staged, checkpoint)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                seal(staged)
                publish(staged, checkpoint)
                self._rotate_checkpoints(checkpoint.parent)
        except (OSError, SafetensorError, RuntimeError) as error:
            if told := write_failure(error, checkpoint):
                raise told from error
            raise
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(checkpoint))

    def _write_checkpoint(self, staged: Path, checkpoint: Path) -> None:
        """Write all that `checkpoint` shall hold into `staged`; every rank writes its own random state."""
        self.store_flos()
        self.save_model(str(staged), _internal_call=True)
        if not self.args.save_only_model:
            self._save_optimizer_and_scheduler(str(staged))
            self._save_scaler(str(staged))
            self._save_rng_state(str(staged))
        self._name_best_checkpoint(checkpoint)
        if self.args.should_save:
            self._save_trainer_state(staged)
            rows = self._first_row + (self.state.global_step - self._first_step) * global_batch(self.args)
            save_training_recipe(self, staged, rows=rows)

    def _name_best_checkpoint(self, checkpoint: Path) -> None:
        """Put the best checkpoint's place into the state; `checkpoint`, which is being written, by its place to be."""
        if self.state.best_global_step:
            best = checkpoint_folder(checkpoint.parent, self.state.best_global_step)
            if best == checkpoint or best.is_dir():
                self.state.best_model_checkpoint = str(best)

    def _save_trainer_state(self, folder: Path) -> None:
        """The Trainer's state, with that of its callbacks and control."""
        for holder in [*self.callback_handler.callbacks, self.control]:
            if isinstance(holder, ExportableState):
                saved = self.state.stateful_callbacks
                name = type(holder).__name__
                if isinstance(saved[name], list):
                    saved[name].append(holder.state())
                else:
                    saved[name] = holder.state()
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))

    def _rotate_checkpoints(self, folder: Path) -> None:
        """Delete what is over `save_total_limit`, never the newest or the best."""
        if self.args.save_total_limit:
            self._finish_current_push()  # it may be uploading what would be deleted
        rotate_checkpoints(
            output_dir=str(folder),
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
            use_mtime=True,
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload a whole checkpoint's model, and all of it where `hub_strategy` says so, while training goes on.

        The Trainer's own would first pickle its arguments, the Hub token among them, into what it uploads.
        """
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        running = self.push_in_progress.jobs if self.push_in_progress and not self.push_in_progress.is_done() else []
        if running and not self.args.hub_always_push:
            return
        message = f"Training in progress, step {self.state.global_step}"
        jobs = upload_checkpoint(self, Path(checkpoint_folder), message)
        self.push_in_progress = PushInProgress([*running, *jobs])

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        **card: Any,
    ) -> Any:
        """Save and upload the model, its card and its recipe; `card` is for `create_model_card`.

        The Trainer's own uploads whatever else lies in the output folder: logs name files and hosts of this machine.
        """
        if self.hub_model_id is None:
            self.init_hf_repo(token=token)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**card)
        self._finish_current_push()
        given = {name: value for name, value in (("token", token), ("revision", revision)) if value is not None}
        return upload_model(self, self.args.output_dir, commit_message, run_as_future=not blocking, **given)


def _set_max_steps(args: VqaConfig, train_dataset: Dataset | IterableDataset) -> None:
    """Give a run over a stream its length, which the Trainer wants in steps: epochs times rows, if they are known."""
    if args.max_steps > 0 or not isinstance(train_dataset, IterableDataset):
        return
    if not isinstance(train_dataset, RecordStream):
        raise ConfigError("--max_steps is missing: the length of this stream is not known")
    args.max_steps = math.ceil(args.num_train_epochs * train_dataset.num_rows / global_batch(args))


def _rows_of_a_pass(args: VqaConfig, stream: IterableDataset) -> int:
    """Rows that count as one epoch: where they are not known, the whole run, as for the Trainer."""
    return stream.num_rows if isinstance(stream, RecordStream) else args.max_steps * global_batch(args)
