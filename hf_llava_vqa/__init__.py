"""The public names, imported on first use so that `import hf_llava_vqa` costs nothing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .collate import VqaCollator
    from .data import load_records
    from .generation import answer_questions, score_candidates
    from .metrics import metric_path
    from .models import load_model
    from .training import VqaConfig, VqaTrainer

__version__ = "0.1.0"

_ROOMS = {
    "VqaCollator": "collate",
    "VqaConfig": "training",
    "VqaTrainer": "training",
    "answer_questions": "generation",
    "load_model": "models",
    "load_records": "data",
    "metric_path": "metrics",
    "score_candidates": "generation",
}

__all__ = [
    "VqaCollator",
    "VqaConfig",
    "VqaTrainer",
    "__version__",
    "answer_questions",
    "load_model",
    "load_records",
    "metric_path",
    "score_candidates",
]


def __getattr__(name: str) -> Any:
    """Import a public name's room on first access."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return __all__
