"""The plot of a calibration: confidence against credit, and the risk of answering at each coverage."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from matplotlib.typing import RcKeyType

from hf_llava_vqa.reports.calibration import Answered, reliability, risk_coverage, with_temperature

BEFORE, AFTER, INK, RULE = "#c2500f", "#1f5fd0", "#59636e", "#dde1e6"  # as the light page of base.css
_STYLE: dict[RcKeyType, object] = {
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": RULE,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "font.size": 9,
}


def write_plot(path: Path, answered: Answered, *, temperature: float, threshold: float) -> None:
    """Write the plot as PNG, of the answers that temperature and threshold were fitted to."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.6), dpi=160, layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_reliability(left, answered, temperature)
        _draw_risk(right, answered, threshold)
        figure.savefig(path)


def _draw_reliability(axes: Axes, answered: Answered, temperature: float) -> None:
    axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1)
    calibrated = with_temperature(answered.confidence, temperature)
    for confidence, color, label in (
        (answered.confidence, BEFORE, "as the model says"),
        (calibrated, AFTER, f"at temperature {temperature:.2f}"),
    ):
        sure, right, share = reliability(confidence, answered.credit).T
        axes.plot(sure, right, color=color, linewidth=1.5, label=label)
        axes.scatter(sure, right, s=12 + 300 * share, color=color, alpha=0.6, linewidth=0)
    axes.set(xlabel="confidence", ylabel="credit", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, handlelength=1, columnspacing=1, borderpad=0)


def _draw_risk(axes: Axes, answered: Answered, threshold: float) -> None:
    coverage, risk = risk_coverage(answered.confidence, answered.credit)
    axes.step(np.append(0, coverage), np.append(risk[:1], risk), where="pre", color=AFTER, linewidth=1.5)
    kept = float((answered.confidence >= threshold).mean())
    axes.axvline(kept, color=INK, linestyle="--", linewidth=1)
    axes.annotate(
        f"threshold: {100 * kept:.0f} % answered",
        xy=(kept, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if kept > 0.5 else 4, -4),
        textcoords="offset points",
        horizontalalignment="right" if kept > 0.5 else "left",
        verticalalignment="top",
        color=INK,
    )
    axes.set(xlabel="share answered, the surest first", ylabel="credit lost on them", xlim=(0, 1.02))
    axes.set_ylim(bottom=0, top=1.15 * max(float(risk.max()), 0.01))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
