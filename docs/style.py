"""How all pictures look: the settings of matplotlib, and the colours by what they stand for."""

from __future__ import annotations

from typing import Any, Final

STYLE: Final[Any] = {
    "svg.hashsalt": "driftledger",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#57606a",
    "axes.labelcolor": "#24292f",
    "axes.facecolor": "#fcfcfb",
    "figure.facecolor": "#fcfcfb",
    "text.color": "#24292f",
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
INK: Final = "#24292f"
GREY: Final = "#8c959f"
BAND: Final = "#eceff2"
EVENT: Final = "#2f6fb3"
FAULTY: Final = "#b56b00"
SLOW: Final = "#8250df"
LATE: Final = "#cf222e"
WATERMARK: Final = "#1a7f5a"
