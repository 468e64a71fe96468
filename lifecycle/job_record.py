"""What a job tells of a run of it: one record whenever something of it changed, and a beat while it works.

Each record is whole: whoever has the last one of a run knows all of it. docs/lifecycle.md has the fields.

    planned --> running --> done | failed | cancelled
        `------------------------^

GUARANTEE `decode` gives a Job or raises JobRecordError. Fields that it does not know are let pass: a later release may
tell more.
"""

from __future__ import annotations

import enum
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lifecycle.json_members import count_in, text_in, truth_in
from lifecycle.told_steps import Told, told_in
from schemas.errors import DriftledgerError
from schemas.instants import US_PER_S, format_us

if TYPE_CHECKING:
    from collections.abc import Iterable

#: A run that has not been heard of for so long, and has no end, is lost: it beats three times in that time.
LOST_MS: Final = 15_000
#: Of what went wrong, and of names.
_TEXT_CHARACTERS_MAX: Final = 4_000
_RECORD_BYTES_MAX: Final = 65_536


class JobRecordError(DriftledgerError):
    """A record of the jobs topic that is none."""


class State(enum.StrEnum):
    """How a run stands."""

    #: It has said that it will begin, and asks whether it may.
    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    #: It was ended by who began it, or did not begin because another ran.
    CANCELLED = "cancelled"
    #: In no record: what is told of a run that has no end and is not heard of any more.
    LOST = "lost"


ENDED: Final = frozenset({State.DONE, State.FAILED, State.CANCELLED})


class Progress(NamedTuple):
    """How far a run is: done of so many (None: nobody knows) of a unit, as rows or files."""

    done: int
    of: int | None
    unit: str


class Did(NamedTuple):
    """What a run has done so far. added, dropped: files of the archive."""

    rows: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    added: int = 0
    dropped: int = 0
    commits: int = 0


class Asked(NamedTuple):
    """What a run says that was asked for. ask: the id of that; lane: whose part of it this is.

    code: the exit code of who asked, None before the end. told: the steps, once they are done, or known in a dry run.
    """

    ask: str
    lane: int
    code: int | None = None
    told: Told = Told()


class Job(NamedTuple):
    """One record. id: of the run, a UUIDv7; host, pid: of its process; at_us: when this was told, by its clock.

    lease: it holds the manifest's, or asks for it. beats: how often it has told that it runs; 0 is the first time.
    asked: None where nobody asked a worker for it.
    """

    id: str
    job: str
    state: State
    host: str
    pid: int
    at_us: int
    started_us: int
    ended_us: int | None = None
    lease: bool = False
    beats: int = 0
    progress: Progress | None = None
    did: Did = Did()
    error: str | None = None
    remedy: str | None = None
    asked: Asked | None = None

    @property
    def by(self) -> str:
        """Who runs it."""
        return f"{self.host}:{self.pid}"

    def row(self) -> dict[str, Any]:
        """For a listing."""
        row: dict[str, Any] = {
            "id": self.id,
            "job": self.job,
            "state": self.state,
            "by": self.by,
            "started": format_us(self.started_us),
            "ended": None if self.ended_us is None else format_us(self.ended_us),
            "seconds": round(self.lasted_us / US_PER_S, 1),
            "rows_per_s": self._rate(self.did.rows),
            "bytes_per_s": self._rate(self.did.bytes_in + self.did.bytes_out),
            "progress": None if self.progress is None else _told(self.progress),
        }
        asked = None if self.asked is None else {"ask": self.asked.ask, "lane": self.asked.lane}
        return row | self.did._asdict() | {"error": self.error, "remedy": self.remedy, "asked": asked}

    @property
    def lasted_us(self) -> int:
        """From its beginning to its end, or to when it was last heard of."""
        return max(0, (self.at_us if self.ended_us is None else self.ended_us) - self.started_us)

    def _rate(self, count: int) -> int | None:
        """So many in a second; None where there is nothing to divide."""
        return round(count * US_PER_S / self.lasted_us) if count and self.lasted_us else None


class Heard(NamedTuple):
    """A record and where it stands. appended_ms: when the broker took it."""

    offset: int
    appended_ms: int
    job: Job


def encode(job: Job) -> bytes:
    """As it stands in the topic: one JSON object. What is too long of error and remedy is cut."""
    document = job._asdict() | {
        "progress": None if job.progress is None else job.progress._asdict(),
        "did": job.did._asdict(),
        "error": _cut(job.error),
        "remedy": _cut(job.remedy),
        "asked": None if job.asked is None else job.asked._asdict() | {"told": job.asked.told._asdict()},
    }
    if job.asked is None:
        del document["asked"]
    return json.dumps(document, separators=(",", ":")).encode()


def decode(content: bytes) -> Job:
    """A record of the topic. Raises JobRecordError."""
    try:
        if len(content) > _RECORD_BYTES_MAX:
            raise ValueError(f"it has {len(content):,} bytes, more than {_RECORD_BYTES_MAX:,}")  # noqa: TRY301
        document = json.loads(content)
        return _job(document)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise JobRecordError(f"a record of a job is none: {type(error).__name__} {error}") from error


def folded(heard: Iterable[Heard]) -> dict[str, Heard]:
    """The last record of each run, in the order of these; an end stands, whatever is told behind it."""
    last: dict[str, Heard] = {}
    for each in heard:
        before = last.get(each.job.id)
        if before is not None and before.job.state in ENDED:
            continue
        last.pop(each.job.id, None)
        last[each.job.id] = each
    return last


def told(heard: Heard, now_ms: int) -> Job:
    """The run as it stands then: LOST where it has no end and has not been heard of for LOST_MS."""
    if heard.job.state in ENDED or now_ms - heard.appended_ms <= LOST_MS:
        return heard.job
    return heard.job._replace(state=State.LOST)


def lives(heard: Heard, now_ms: int) -> bool:
    """Whether a run works, as far as anybody knows."""
    return told(heard, now_ms).state in (State.PLANNED, State.RUNNING)


def _told(progress: Progress) -> str:
    of = "" if progress.of is None else f" of {progress.of:,}"
    return f"{progress.done:,}{of} {progress.unit}"


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= _TEXT_CHARACTERS_MAX else text[: _TEXT_CHARACTERS_MAX - 1] + "…"


def _job(document: Any) -> Job:
    state = State(document["state"])
    if state is State.LOST:
        raise ValueError("a run that tells that it is lost")
    progress = document["progress"]
    return Job(
        _text(document["id"]),
        _text(document["job"]),
        state,
        _text(document["host"]),
        count_in(document["pid"]),
        count_in(document["at_us"]),
        count_in(document["started_us"]),
        None if document["ended_us"] is None else count_in(document["ended_us"]),
        truth_in(document["lease"]),
        count_in(document["beats"]),
        None if progress is None else _progress(progress),
        Did(*(count_in(document["did"][name]) for name in Did._fields)),
        None if document["error"] is None else _text(document["error"]),
        None if document["remedy"] is None else _text(document["remedy"]),
        None if document.get("asked") is None else _asked(document["asked"]),
    )


def _asked(document: Any) -> Asked:
    code = document["code"]
    return Asked(
        _text(document["ask"]),
        count_in(document["lane"]),
        None if code is None else count_in(code),
        told_in(document["told"]),
    )


def _progress(document: Any) -> Progress:
    of = document["of"]
    return Progress(count_in(document["done"]), None if of is None else count_in(of), _text(document["unit"]))


def _text(value: Any) -> str:
    return text_in(value, _TEXT_CHARACTERS_MAX)
