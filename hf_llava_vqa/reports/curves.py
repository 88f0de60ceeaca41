"""Training curves as SVG text for the HTML page, drawn by matplotlib from the Trainer's log history.

Colours are the page's CSS variables, so that a curve follows the reader's light or dark mode.
"""

import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.typing import RcKeyType

from hf_llava_vqa.metrics import metric_names

History = Sequence[Mapping[str, Any]]

# matplotlib writes colours as hex numbers: each of these stands for a variable of base.css.
INK, RULE, SERIES = "#010101", "#020202", ("#030303", "#040404", "#050505", "#060606")
_VARIABLES = {INK: "var(--muted)", RULE: "var(--rule)"}
_VARIABLES |= {color: f"var(--series-{number})" for number, color in enumerate(SERIES, start=1)}
_STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "legend.frameon": False,
}


def loss_curve(history: History) -> str | None:
    """Return the curve of training and held-out loss over steps, or None if no loss was logged."""
    return _draw({"training": _series(history, "loss"), "held-out": _series(history, "eval_loss")})


def accuracy_curve(history: History, ceiling: float | None) -> str | None:
    """Return the curve of every logged score over steps, such as `eval_vizwiz_accuracy`, or None if there is none.

    Args:
        history: `log_history` of a `trainer_state.json`; scores from 0 to 1.
        ceiling: the best score that can be reached, drawn as a dashed line.
    """
    scores = re.compile(rf"eval_(.*_)?({'|'.join(metric_names())})")
    keys = sorted({key for entry in history for key in entry if scores.fullmatch(key)})
    series = {key.removeprefix("eval_").replace("_", " "): _series(history, key) for key in keys}
    return _draw(series, percent=True, ceiling=ceiling)


def _series(history: History, key: str) -> list[tuple[int, float]]:
    return [(entry["step"], entry[key]) for entry in history if key in entry]


def _draw(
    series: Mapping[str, list[tuple[int, float]]], *, percent: bool = False, ceiling: float | None = None
) -> str | None:
    drawn = {label: points for label, points in series.items() if points}
    if not drawn:
        return None
    with rc_context({**_STYLE, "svg.hashsalt": " ".join(drawn)}):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
        axes = figure.add_subplot()
        for color, (label, points) in zip(itertools.cycle(SERIES), drawn.items(), strict=False):
            _draw_line(axes, points, label, color)
        axes.set_xlabel("optimizer step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(y=0.1)
        axes.set_ylim(bottom=0, top=1 if percent else None)
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
        if ceiling is not None:
            _draw_ceiling(axes, ceiling)
        if len(drawn) > 1:
            axes.legend()
        return _to_svg(figure)


def _draw_line(axes: Axes, points: Iterable[tuple[int, float]], label: str, color: str) -> None:
    steps, values = zip(*points, strict=True)
    marker = "o" if len(steps) < 30 else ""
    axes.plot(steps, values, label=label, color=color, linewidth=2, marker=marker, markersize=4)


def _draw_ceiling(axes: Axes, ceiling: float) -> None:
    axes.axhline(ceiling, color=INK, linestyle="--", linewidth=1)
    axes.annotate(
        f"ceiling {100 * ceiling:.1f} %",
        xy=(0, ceiling),
        xycoords=("axes fraction", "data"),
        xytext=(4, -4),
        textcoords="offset points",
        verticalalignment="top",
    )


def _to_svg(figure: Figure) -> str:
    """Return the `<svg>` element: the same text for the same figure, without ids two figures would share."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    used = set(re.findall(r"#(\w+)", svg))
    svg = re.sub(r' id="(\w+)"', lambda name: name[0] if name[1] in used else "", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg
