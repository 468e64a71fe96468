"""How data lies in tiers, and the runs of jobs, as a page is told: facts, and a row for each run.

GUARANTEE facts have always the same names; those of tiers are null until they are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lifecycle.run_view import run_row
from schemas.instants import format_ms
from streams.live_view import View

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lifecycle.job_record import Heard
    from lifecycle.run_view import JobRow
    from lifecycle.tier_view import TierView

_UNKNOWN: Final[Mapping[str, Any]] = dict.fromkeys(("now_ms", "tiers", "picture", "entropy", "limits"))


class Lifecycle(NamedTuple):
    """What is known. tiers: None until it was read; runs: what began last first, as they stand.

    facts: of `tiers`, for a page; cut: whether there were runs that are not kept; error: what cannot be read now.
    """

    tiers: TierView | None = None
    facts: Mapping[str, Any] | None = None
    jobs: tuple[JobRow, ...] = ()
    runs: tuple[Heard, ...] = ()
    cut: bool = False
    commit: int = 0
    error: str | None = None


def view_of(known: Lifecycle, limit: int) -> View:
    """With so many runs."""
    facts = {
        **(known.facts or _UNKNOWN),
        "jobs": [row._asdict() for row in known.jobs],
        "commit": known.commit,
        "found": len(known.runs),
        "cut": known.cut,
        "error": known.error,
    }
    rows = {heard.job.id: run_row(heard) for heard in known.runs[:limit]}
    return View(facts, tuple(rows), rows)


def rows_of(known: Lifecycle) -> Iterator[dict[str, Any]]:
    """Of all runs that are kept, for a file."""
    for heard in known.runs:
        row = run_row(heard)
        instants = {f"{name}_at": format_ms(row[f"{name}_ms"]) for name in ("started", "ended") if row[f"{name}_ms"]}
        yield {"id": heard.job.id, **row, "started_at": None, "ended_at": None, **instants}
