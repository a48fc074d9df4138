"""What the pictures have in common: matplotlib's settings, the frame of a panel, and PNG bytes that are the same twice.

matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any

from distill_dagster.evaluation import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
#: Dagster's dialog cuts a wider picture, in pixels.
WIDEST = 1150


def settings() -> dict[str, Any]:
    """matplotlib's own defaults, whatever the user's file says, with ours on top."""
    import matplotlib

    mine = {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "text.color": style.INK,
        "axes.labelcolor": style.MUTED,
        "axes.edgecolor": style.GRID,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "xtick.color": style.MUTED,
        "ytick.color": style.INK,
        "grid.color": style.GRID,
    }
    kept = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    return {**kept, **mine}


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure's bytes without date or software name."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=0.1, h_pad=0.1, wspace=0.03)  # pyright: ignore[reportCallIssue, reportArgumentType]
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None}, facecolor="white")
    return buffer.getvalue()


def bare(axes: Axes) -> None:
    """No frame: a grid along x alone."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)


def title(axes: Axes, text: str, width: int) -> None:
    """A title of at most two lines of `width` characters."""
    axes.set_title(wrapped(text, width), pad=10)


def wrapped(text: str, width: int) -> str:
    """Text in at most two lines of `width` characters."""
    return "\n".join(textwrap.wrap(text, width, max_lines=2, placeholder=" …")) or " "
