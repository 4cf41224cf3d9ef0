"""The picture of docs/spillovers.md: `python docs/figures/estimands.py` writes estimands.png beside this file."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.figure import DPI, STYLE

TREATED, UNTREATED = "#1f3b73", "#e07b1a"
S = 0.6  # an exposure
SLOPE_TREATED, SLOPE_CONTROL, TAU = 0.9, 0.5, 0.5


def arrow(axis: Axes, x: float, low: float, high: float, words: str, colour: str, side: str = "left") -> None:
    """A vertical arrow from one expected outcome to another, its name beside it."""
    axis.annotate("", (x, high), (x, low), arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.6})
    gap = 0.012 if side == "left" else -0.012
    axis.text(x + gap, (low + high) / 2, words, color=colour, ha=side, va="center", fontsize=9)


def main() -> None:
    """Draw expected outcomes against exposure, and the estimands between them."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.2), dpi=DPI, layout="constrained")
        axis = figure.subplots()
        axis.plot([0, 1], [TAU, TAU + SLOPE_TREATED], color=TREATED, linewidth=2, label="has adopted: mu(1, S)")
        axis.plot([0, 1], [0, SLOPE_CONTROL], color=UNTREATED, linewidth=2, label="has not: mu(0, S)")
        high, low = TAU + SLOPE_TREATED * S, SLOPE_CONTROL * S
        for y in (0, TAU):
            axis.axhline(y, xmax=0.97, color="#b9bcc4", linewidth=0.8, linestyle=":")
        axis.axvline(S, color="#b9bcc4", linewidth=0.8, linestyle=":")
        axis.plot([0, 0, S, S], [0, TAU, low, high], "o", color="black", markersize=5, zorder=3)
        arrow(axis, 0.0, 0.02, TAU - 0.02, "direct = att", "black")
        arrow(axis, S, low + 0.02, high - 0.02, "switching", "black")
        arrow(axis, S + 0.16, 0.0, high, "total_treated", TREATED)
        arrow(axis, S - 0.04, TAU, high, "spill_treated", TREATED, side="right")
        arrow(axis, S - 0.04, 0.0, low, "spill_control", UNTREATED, side="right")
        axis.set(xlim=(-0.03, 1), ylim=(-0.1, 1.5), xlabel="exposure S to others' adoption", ylabel="expected outcome")
        axis.set_xticks([0, S], ["0", "S of the data"])
        axis.set_yticks([])
        axis.legend(loc="upper left")
        figure.savefig(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
