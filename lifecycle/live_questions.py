"""What a page asks to be shown: the parameters of /live and /csv, and what they mean.

    /live/fleet    sort, desc, search, severity, cause, partition*, offset, limit
    /live/source   source, partition
    /live/alerts   open, search, severity, cause, offset, limit
    /live/log      source, limit
    /live/status
    /live/lifecycle   limit

    sort       state, source, cause, offset, bound, skew, samples, delta, last, sequence or partition
    desc       1 (unless given): the largest first; 0: the least
    search     a part of a name, whatever the capitals; of alerts also of their text
    severity   of the open alert: RED,YELLOW,GREEN by commas; all unless given
    cause      AHEAD,BEHIND and so on by commas; all unless given
    open       1: open alerts alone; 0: closed ones alone
    offset     how many rows are passed over
    limit      rows, 200 at most and unless given

The one with a star may be given more than once. /csv has the same paths and parameters but offset and limit: there the
whole list is the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from lifecycle.parameters import Given, natural, positive
from schemas.errors import BadInputError
from schemas.faults import MAX_SOURCE_BYTES
from streams.alert_shelf import AlertsQuestion
from streams.causes import Cause
from streams.fleet_view import ROWS_MAX, FleetQuestion, Sort
from streams.severity import Severity

if TYPE_CHECKING:
    import enum
    from collections.abc import Iterable

    Member = TypeVar("Member", bound=enum.Enum)

VIEWS: Final = ("fleet", "source", "alerts", "log", "status", "lifecycle")


@dataclass(frozen=True, slots=True)
class SourceQuestion:
    """One source of one partition."""

    source: str
    partition: int


@dataclass(frozen=True, slots=True)
class LogQuestion:
    """The newest entries of the drift log: of all sources, or of one."""

    source: str | None = None
    limit: int = ROWS_MAX


@dataclass(frozen=True, slots=True)
class StatusQuestion:
    """How partitions and lanes stand."""


@dataclass(frozen=True, slots=True)
class LifecycleQuestion:
    """How data lies in tiers, and the runs of jobs, what began last first."""

    limit: int = ROWS_MAX


LiveQuestion = FleetQuestion | SourceQuestion | AlertsQuestion | LogQuestion | StatusQuestion | LifecycleQuestion


def parse(view: str, pairs: Iterable[tuple[str, str]]) -> LiveQuestion:
    """The question that parameters ask of one of VIEWS. Raises BadInputError, which names the parameter."""
    given = Given(pairs)
    match view:
        case "fleet":
            given.check("sort", "desc", "search", "severity", "cause", "partition", "offset", "limit")
            return FleetQuestion(
                given.member("sort", Sort, Sort.STATE),
                _flag(given, "desc") is not False,
                _search(given),
                _members(given, "severity", Severity),
                _members(given, "cause", Cause),
                frozenset(given.partitions() or ()),
                *_page(given),
            )
        case "source":
            given.check("source", "partition")
            if len(given.all("source")) != 1 or len(given.all("partition")) != 1:
                raise BadInputError("source and partition say which one to show. Give each once")
            return SourceQuestion(given.all("source")[0], natural("partition", given.all("partition")[0]))
        case "alerts":
            given.check("open", "search", "severity", "cause", "offset", "limit")
            return AlertsQuestion(
                _flag(given, "open"),
                _search(given),
                _members(given, "severity", Severity),
                _members(given, "cause", Cause),
                *_page(given),
            )
        case "log":
            given.check("source", "limit")
            if len(given.all("source")) > 1:
                raise BadInputError(f"source is given {len(given.all('source'))} times. Give one, or none for all")
            return LogQuestion(given.one("source", str), _page(given)[1])
        case "lifecycle":
            given.check("limit")
            return LifecycleQuestion(_page(given)[1])
        case _:
            given.check()
            return StatusQuestion()


def _page(given: Given) -> tuple[int, int]:
    """Offset and limit."""
    offset = given.one("offset", lambda text: natural("it", text))
    limit = given.one("limit", positive)
    return offset or 0, ROWS_MAX if limit is None else min(limit, ROWS_MAX)


def _search(given: Given) -> str:
    text = given.one("search", str) or ""
    if len(text) > MAX_SOURCE_BYTES:
        raise BadInputError(f"search has {len(text)} characters, more than a name. Give at most {MAX_SOURCE_BYTES}")
    return text


def _flag(given: Given, name: str) -> bool | None:
    text = given.one(name, str)
    if text not in (None, "0", "1"):
        raise BadInputError(f"{name} is {text!r:.40}. Give 0 or 1")
    return None if text is None else text == "1"


def _members(given: Given, name: str, closed: type[Member]) -> frozenset[Member]:
    text = given.one(name, str) or ""
    found = [part.strip() for part in text.split(",") if part.strip()]
    for part in found:
        if part not in closed.__members__:
            raise BadInputError(f"{name}: {part!r:.40} is none of {', '.join(closed.__members__)}. Give one of them")
    return frozenset(closed[part] for part in found)
