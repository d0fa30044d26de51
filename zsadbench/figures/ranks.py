"""The critical-difference figure: methods on a line by average rank, with bars over those that no test tells apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zsadbench.analysis import significance
from zsadbench.analysis.significance import MethodRanking
from zsadbench.figures import drawing
from zsadbench.figures.drawing import Drawing
from zsadbench.tables import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = 0.17  # inches: height of a method's line
RANK, AXIS = 0.18, 1.7  # inches: from one rank to the next, so that two digits fit; at least of the axis
LETTER = 0.058  # inches: of a name in 7 pt
BAR = 0.55  # lines between two bars


def draw(ranking: MethodRanking) -> Drawing:
    """Draw a ranking: the best method stands left, as in Demsar (JMLR 7, 2006), figure 1."""
    methods, groups = len(ranking.names), ranking.tests.groups() if ranking.tests else []
    left = (methods + 1) // 2
    first = 1 + BAR * (len(groups) + 1)  # lines from the axis to the first name
    lines = first + left
    with drawing.style():
        from matplotlib.figure import Figure

        head = 4 if ranking.tests else 2.5  # lines above the axis
        axis = max(AXIS, RANK * methods)
        side = LETTER * (max(len(name.title) for name in ranking.names) + len("  10.00 "))
        width = axis + 2 * side
        figure = Figure((width, (lines + head + 0.4) * LINE))
        axes = figure.add_axes((side / width, 0, axis / width, 1))
        axes.set(xlim=(1, methods), ylim=(lines, -head - 0.4))
        axes.set_axis_off()
        _draw_axis(axes, methods, f"Average rank, {_label(ranking)}", head)
        for index, rank in enumerate(ranking.average_ranks):
            row = first + (index if index < left else methods - 1 - index)
            _draw_method(axes, float(rank), row, ranking.names[index].title, index < left, methods)
        for index, (best, worst) in enumerate(groups):
            ends = ranking.average_ranks[best], ranking.average_ranks[worst]
            axes.plot(ends, [1 + BAR * index] * 2, color="black", linewidth=3, solid_capstyle="round", clip_on=False)
        if ranking.tests:
            _draw_difference(axes, ranking.tests.critical_difference, methods)
    return Drawing(figure, caption(ranking))


def caption(ranking: MethodRanking) -> str:
    """Return what was compared, over what, and what the bars mean."""
    kind = "categories" if ranking.kind == "category" else "datasets"
    settings = " and ".join(dict.fromkeys(ranking.settings))
    text = f"Average ranks of {settings} methods on {_label(ranking)} over {len(ranking.blocks)} {kind}; 1 is best."
    tests = ranking.tests
    if tests is None:
        return f"{text} No test is made over fewer than {significance.FEWEST_BLOCKS} {kind}."
    alike = "Bars join methods that Nemenyi's test does not tell apart"
    friedman = f" Friedman's test: p = {tests.friedman_p:.2g}." if tests.friedman_p is not None else ""
    return f"{text} {alike} (level {significance.ALPHA:g}, CD = {tests.critical_difference:.2f}).{friedman}"


def _label(ranking: MethodRanking) -> str:
    return words.label((ranking.level, ranking.metric))


def _draw_axis(axes: Axes, methods: int, label: str, head: float) -> None:
    axes.plot((1, methods), (0, 0), color="black", linewidth=0.8, clip_on=False)
    for rank in range(1, methods + 1):
        axes.plot((rank, rank), (-0.35, 0), color="black", linewidth=0.8, clip_on=False)
        axes.text(rank, -0.5, str(rank), ha="center", va="bottom", fontsize=7)
    axes.text((1 + methods) / 2, -head, label, ha="center", va="top", fontsize=8)


def _draw_method(axes: Axes, rank: float, row: float, name: str, left: bool, methods: int) -> None:
    """Draw a line from the axis down to the method's row, and out to its name."""
    end, shift, side = (1, -1, "right") if left else (methods, 1, "left")
    axes.plot((rank, rank, end), (0, row, row), color="0.4", linewidth=0.8, clip_on=False)
    axes.annotate(
        f"{name}  {rank:.2f}" if left else f"{rank:.2f}  {name}",
        (end, row), (3 * shift, 0), textcoords="offset points", ha=side, va="center", fontsize=7, annotation_clip=False,
    )  # fmt: skip


def _draw_difference(axes: Axes, difference: float, methods: int) -> None:
    """Draw the length of the critical difference above the axis; it may be longer than the axis."""
    end = 1 + difference
    axes.plot(
        (1, 1, 1, end, end, end), (-2.1, -1.7, -1.9, -1.9, -2.1, -1.7), color="black", linewidth=0.8, clip_on=False
    )
    axes.text(
        1 + min(difference, methods - 1) / 2, -2.1, f"CD = {difference:.2f}", ha="center", va="bottom", fontsize=7
    )
