"""The runs of jobs that are remembered, from the records of the jobs topic one after another.

GUARANTEE memory: of the RUNS_MAX that began last the last record is kept, of others what they did, summed by job.
GUARANTEE an end stands, whatever is told behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lifecycle.job_record import ENDED, State, told
from lifecycle.steps import Job as Kind
from schemas.instants import US_PER_MS

if TYPE_CHECKING:
    from lifecycle.job_record import Heard, Job

RUNS_MAX: Final = 1_000
#: Of a job that has no name of ours.
OTHER: Final = "other"
_NAMES: Final = frozenset(Kind)
#: Of what went wrong, in a list; and of names.
_ERROR_CHARACTERS: Final = 600
_NAME_CHARACTERS: Final = 100


class JobRow(NamedTuple):
    """All runs of a job that are known. state, started_ms, heard_ms: of the last; rows: of all of them.

    done_ms: when one was done last, None where none was.
    """

    job: str
    runs: int
    rows: int
    state: State
    started_ms: int
    heard_ms: int
    done_ms: int | None


class Runs:
    """By id, in the order in which they began."""

    def __init__(self) -> None:
        self._runs: dict[str, Heard] = {}
        #: By job.
        self._count: dict[str, int] = {}
        self._rows: dict[str, int] = {}
        self._last: dict[str, Heard] = {}
        self._done_ms: dict[str, int] = {}
        #: Whether there were others, which are not kept.
        self.cut = False

    def apply(self, heard: Heard) -> None:
        """One more record."""
        heard = heard._replace(job=_text(heard.job))
        run, name = heard.job, _name(heard.job)
        before = self._runs.get(run.id)
        if before is not None and before.job.state in ENDED:
            return
        self._runs[run.id] = heard
        if before is None:
            self._count[name] = self._count.get(name, 0) + 1
            if len(self._runs) > RUNS_MAX:
                del self._runs[next(iter(self._runs))]
                self.cut = True
        done = 0 if before is None else before.job.did.rows
        self._rows[name] = self._rows.get(name, 0) + max(run.did.rows - done, 0)
        last = self._last.get(name)
        if last is None or last.job.id == run.id or before is None:
            self._last[name] = heard
        if run.state is State.DONE:
            self._done_ms[name] = heard.appended_ms

    def newest(self, now_ms: int) -> list[Heard]:
        """As they stand then, what began last first."""
        return [heard._replace(job=told(heard, now_ms)) for heard in reversed(self._runs.values())]

    def jobs(self, now_ms: int) -> list[JobRow]:
        """A row for each job that ran, in the order of `steps.Job`."""
        names = [*(kind.value for kind in Kind), OTHER]
        return [
            JobRow(
                name,
                self._count[name],
                self._rows[name],
                told(self._last[name], now_ms).state,
                self._last[name].job.started_us // US_PER_MS,
                self._last[name].appended_ms,
                self._done_ms.get(name),
            )
            for name in names
            if name in self._last
        ]


def run_row(heard: Heard) -> dict[str, Any]:
    """A run for a page; of texts as much as a list shows."""
    job = heard.job
    progress = job.progress
    return {
        "job": _short(job.job, _NAME_CHARACTERS),
        "state": str(job.state),
        "by": _short(job.by, _NAME_CHARACTERS),
        "started_ms": job.started_us // US_PER_MS,
        "ended_ms": None if job.ended_us is None else job.ended_us // US_PER_MS,
        "heard_ms": heard.appended_ms,
        "done": None if progress is None else progress.done,
        "of": None if progress is None else progress.of,
        "unit": None if progress is None else _short(progress.unit, _NAME_CHARACTERS),
        **job.did._asdict(),
        "error": _short(job.error),
        "remedy": _short(job.remedy),
    }


def _text(job: Job) -> Job:
    """With texts that are text: half a pair of surrogates, which JSON can say, is none."""
    progress = None if job.progress is None else job.progress._replace(unit=_utf8(job.progress.unit))
    return job._replace(
        id=_utf8(job.id),
        job=_utf8(job.job),
        host=_utf8(job.host),
        progress=progress,
        error=None if job.error is None else _utf8(job.error),
        remedy=None if job.remedy is None else _utf8(job.remedy),
    )


def _utf8(text: str) -> str:
    return text.encode(errors="replace").decode()


def _name(job: Job) -> str:
    return job.job if job.job in _NAMES else OTHER


def _short(text: str | None, most: int = _ERROR_CHARACTERS) -> str | None:
    return text if text is None or len(text) <= most else text[: most - 1] + "…"
