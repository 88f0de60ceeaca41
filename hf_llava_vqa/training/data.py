"""What `DataArguments` say to train and to evaluate on."""

from datasets import Dataset, IterableDataset

from hf_llava_vqa.data import load_folders
from hf_llava_vqa.data.skip_list import load_folder_without, read_skip_list
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.training.config import DataArguments


def load_training_data(args: DataArguments) -> tuple[Dataset | IterableDataset, Dataset | None]:
    """Load the training split, as a stream if asked for, and the evaluation split of the first folder, if there is one.

    Raises:
        VqaError: as `load_folders` and `load_folder_without`.
    """
    train = _load(args, args.data_dir, args.train_split, streaming=args.streaming, weights=args.data_weights)
    if args.eval_split is None:
        return train, None
    held_out = _load(args, args.data_dir and args.data_dir[:1], args.eval_split)
    if args.eval_limit is not None:
        held_out = held_out.select(range(min(args.eval_limit, len(held_out))))
    return train, held_out


def _load(
    args: DataArguments,
    folders: list[str] | None,
    split: str,
    *,
    streaming: bool = False,
    weights: list[float] | None = None,
) -> Dataset | IterableDataset:
    if args.skip_list is None:
        return load_folders(
            args.source,
            folders,
            split=split,
            streaming=streaming,
            weights=weights,
            follow_symlinks=args.follow_symlinks,
        )
    if streaming or (folders and len(folders) > 1):
        raise ConfigError("--skip_list cannot change a stream: give it to scripts/prepare_data.py, or do not stream")
    skip = read_skip_list(args.skip_list, split=split)
    folder = folders[0] if folders else None
    return load_folder_without(skip, args.source, folder, split=split, follow_symlinks=args.follow_symlinks)
