"""Rows with TRL's columns, from a folder of Parquet or JSON Lines files or from the Hub.

TRL's vision data sets have `image` or `images`, and `messages` or `prompt` with `completion`. The collator takes such
rows as they are; here they are only found, checked for their columns, numbered and left undecoded.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetInfo, Features, Image, IterableDataset, List, load_dataset
from datasets.exceptions import DatasetsError

from hf_llava_vqa.data.prepared.folders import is_on_hub
from hf_llava_vqa.errors import ConfigError, RecordError

_PICTURES = {"image": Image(decode=False), "images": List(Image(decode=False))}


def read_trl_rows(path: str | Path, *, split: str | None = None, streaming: bool = False) -> Dataset | IterableDataset:
    """Load a split of a data set with TRL's columns; other columns stay. Images are left as `{"bytes", "path"}`.

    Rows without an `id` get their number as one, unless they are streamed.

    Args:
        path: a folder, or a data set of the Hub as `USER/NAME` or `hf://datasets/USER/NAME[@REVISION]`.
        split: may be left out if there is only one.
        streaming: read rows when they are asked for, without a copy in the cache of `datasets`.

    Raises:
        ConfigError: several splits, of which none is named.
        RecordError: nothing there, no such split, a damaged file, or other columns.
    """
    place = str(path)
    name, _, revision = place.partition("@") if is_on_hub(place) else (place, "", "")
    try:
        loaded = load_dataset(name, revision=revision or None, split=split, streaming=streaming)
    except (OSError, ValueError, DatasetsError) as error:
        raise RecordError(f"{place}: {_reason(error)}") from error
    rows = loaded if split is not None else _only_split(loaded, place)
    _check_text(rows.features, place)
    features = _undecoded(rows.features, place)
    if isinstance(rows, IterableDataset):
        return rows.cast(features)
    rows = Dataset(rows.data, info=DatasetInfo(features=features), split=rows.split)  # `cast` would copy all pictures
    return rows if "id" in features else rows.add_column("id", [str(number) for number in range(len(rows))])


def _reason(error: Exception) -> str:
    """What is wrong, in one line; `datasets` hides the reason for a damaged file behind another error."""
    reason = error.__cause__ if isinstance(error, DatasetsError) and error.__cause__ else error
    return " ".join(str(reason).split())


def _only_split(splits: Any, place: str) -> Dataset | IterableDataset:
    if len(splits) > 1:
        raise ConfigError(f"{place}: split must be one of {', '.join(map(str, splits))}")
    (rows,) = splits.values()
    return rows


def _check_text(features: Features, place: str) -> None:
    if "messages" not in features and not {"prompt", "completion"} <= features.keys():
        raise RecordError(f"{place}: no column messages, nor both prompt and completion; found {', '.join(features)}")


def _undecoded(features: Features, place: str) -> Features:
    """The same columns, with pictures left as they are stored."""
    undecoded = features.copy()
    for name, stored in _PICTURES.items():
        if name in features:
            if _undecoded_type(features[name]) != stored:
                raise RecordError(f"{place}: column {name} holds {features[name]}, not images; cast it to {stored}")
            undecoded[name] = stored
    return undecoded


def _undecoded_type(feature: Any) -> Any:
    if isinstance(feature, List):
        return List(_undecoded_type(feature.feature))
    return Image(decode=False) if isinstance(feature, Image) else feature
