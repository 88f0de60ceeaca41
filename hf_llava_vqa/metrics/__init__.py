"""Scores as `evaluate` modules: one folder a metric, complete in itself, so that it can be pushed as a Space.

Nothing in here imports the rest of the package.
"""

from pathlib import Path


def metric_path(name: str) -> str:
    """Return the folder of one of our metrics, as `evaluate.load` takes it.

    Raises:
        ValueError: there is no metric of this name; the message lists those there are.
    """
    scripts = Path(__file__).parent.glob("*/*.py")
    folders = {script.stem: script.parent for script in scripts if script.stem == script.parent.name}
    if name not in folders:
        raise ValueError(f"no metric named {name!r}; there is: {', '.join(sorted(folders))}")
    return str(folders[name])
