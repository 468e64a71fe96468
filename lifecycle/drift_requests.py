"""Questions about the drift log and warnings as they travel: the parameters of a URL, and what they mean.

    /drift/log        partition, source, from, to, after, before, newest, limit
    /drift/warnings   the same, first, last

    partition      the one that is asked; several are merged by who asks
    from, to       authority time: RFC 3339, or integer microseconds since 1970, both included
    first, last    sequences, both included
    after, before  indexes, neither included: where a page goes on
    newest         1: the last entries before that index, in place of the first after it
    limit          entries of a page, 65,536 at most and unless given

GUARANTEE `parse(path, encode(question))` is the question, times cut to 64 bits of microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lifecycle.drift_question import PAGE_ENTRIES, DriftQuestion
from lifecycle.parameters import Given, natural, positive
from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN, US_PER_MS, parse_us

if TYPE_CHECKING:
    from collections.abc import Iterable

LOG: Final = "/drift/log"
WARNINGS: Final = "/drift/warnings"
PATHS: Final = (LOG, WARNINGS)
_BOTH: Final = ("partition", "source", "from", "to", "after", "before", "newest", "limit")
_SEQUENCES: Final = ("first", "last")


def path_of(asked: DriftQuestion) -> str:
    """Where it is asked."""
    return WARNINGS if asked.warned else LOG


def encode(asked: DriftQuestion) -> list[tuple[str, str]]:
    """Its parameters."""
    pairs = [("partition", str(asked.partition)), ("limit", str(asked.limit))]
    if asked.source is not None:
        pairs.append(("source", asked.source.decode()))
    for name, instant_ms, none in (("from", asked.first_ms, INT64_MIN), ("to", asked.last_ms, INT64_MAX)):
        if instant_ms != none:
            pairs.append((name, str(max(min(instant_ms * US_PER_MS, INT64_MAX), INT64_MIN))))
    for name, number, none in (
        ("first", asked.first, 0), ("last", asked.last, INT64_MAX), ("after", asked.after, 0),
        ("before", asked.before, INT64_MAX), ("newest", int(asked.newest), 0),
    ):  # fmt: skip
        if number != none:
            pairs.append((name, str(number)))
    return pairs


def parse(path: str, pairs: Iterable[tuple[str, str]]) -> DriftQuestion:
    """The question that parameters ask. Raises BadInputError, which names the parameter and what to give."""
    given = Given(pairs)
    given.check(*_BOTH, *(_SEQUENCES if path == WARNINGS else ()))
    if len(given.all("partition")) != 1:
        raise BadInputError(f"partition is given {len(given.all('partition'))} times. Give the one that is asked")
    if len(given.all("source")) > 1:
        raise BadInputError(f"source is given {len(given.all('source'))} times. Give one, or none for all")
    from_us, to_us = given.one("from", parse_us), given.one("to", parse_us)
    numbers = {name: given.one(name, lambda text: natural("it", text)) for name in (*_SEQUENCES, "after", "before")}
    source, limit = given.one("source", str.encode), given.one("limit", positive)
    newest = given.one("newest", _flag)
    return DriftQuestion(
        partition=natural("partition", given.all("partition")[0]),
        warned=path == WARNINGS,
        source=source,
        first_ms=INT64_MIN if from_us is None else -(-from_us // US_PER_MS),
        last_ms=INT64_MAX if to_us is None else to_us // US_PER_MS,
        newest=bool(newest),
        limit=PAGE_ENTRIES if limit is None else limit,
        **{name: number for name, number in numbers.items() if number is not None},
    )


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise BadInputError(f"it is {text!r:.40}. Give 0 or 1")
    return text == "1"
