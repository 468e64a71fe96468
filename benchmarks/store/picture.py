"""The picture of a run: for each question, how long each store takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.store.ours import Archive, Hot
from benchmarks.store.questions import Kind, label
from docs.style import BAND, EVENT, GREY, INK, STYLE, WATERMARK

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.store.report import StoreFigures

KINDS: Final = (Kind.MOST, Kind.TUMBLING, Kind.ONE_SOURCE, Kind.ROWS_OUT)
_COLOURS: Final = {Hot.name: WATERMARK, Archive.name: EVENT}
_WIDTH, _ROW, _MARGIN, _DPI = 11.0, 0.32, 0.9, 110
#: Of the axis, behind the last line, for its number.
_ROOM: Final = 4.0


def draw(stores: Sequence[StoreFigures], path: Path) -> None:
    """Write a PNG; dots are medians, lines reach to the 95th percentile."""
    with rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, 2 * (_ROW * len(stores) + _MARGIN)), layout="constrained")
        for axes, kind in zip(figure.subplots(2, 2, sharey=True).flat, KINDS, strict=True):
            _panel(axes, stores, kind)
        rows, threads = stores[0].rows, stores[0].threads
        figure.suptitle(f"{rows:,} rows of 50 sources, warm, {threads} threads", x=0.01, ha="left", fontsize=11)
        figure.savefig(path, dpi=_DPI, metadata={"Software": None})


def _panel(axes: Axes, stores: Sequence[StoreFigures], kind: Kind) -> None:
    places = range(len(stores))
    medians = [store.timings[kind].p50_ms for store in stores]
    ends = [store.timings[kind].p95_ms for store in stores]
    axes.hlines(places, medians, ends, color=GREY, linewidth=1.0)
    axes.scatter(medians, places, s=42, color=[_COLOURS.get(store.name, INK) for store in stores], zorder=3)
    for place, median, end in zip(places, medians, ends, strict=True):
        axes.text(max(end, median) * 1.12, place, f"{median:.2g}" if median < 10 else f"{median:,.0f}", va="center")  # noqa: PLR2004 - digits
    axes.set_xscale("log")
    axes.set_xlim(min(medians) / 2, max(ends) * _ROOM)
    axes.grid(axis="x", color=BAND)
    axes.set_axisbelow(True)
    axes.set_yticks(places, [store.name for store in stores])
    axes.set_ylim(len(stores) - 0.5, -0.5)
    axes.set_title(label(kind, stores[0].rows))
    axes.set_xlabel("ms")
