"""Scores as `evaluate` modules: one folder a metric, complete in itself, so that it can be pushed as a Space.

Nothing in here imports the rest of the package.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent


def metric_path(name: str) -> str:
    """Return the folder of one of our metrics, as `evaluate.load` takes it.

    Raises:
        ValueError: there is no metric of this name; the message lists those there are.
    """
    if name not in metric_names():
        raise ValueError(f"no metric named {name!r}; there is: {', '.join(metric_names())}")
    return str(_FOLDER / name)


def metric_names() -> list[str]:
    """Return the names of our metrics, sorted."""
    return sorted(script.stem for script in _FOLDER.glob("*/*.py") if script.stem == script.parent.name)


def metric_title(name: str) -> str:
    """Return what a metric is called where people read it."""
    return "VizWiz accuracy" if name == "vizwiz_accuracy" else name
