"""Questions as they travel: the parameters of a URL, and what they mean.

    /get        source, at, frame, partition*, columns
    /range      frame, unknown, from, to, last, source*, kind*, partition*, sequences*, columns, limit
    /aggregate  frame, unknown, from, to, last, source*, kind*, partition*, sequences*, by, window_ms, slide_ms,
                functions, percentiles, exact

    frame        local (the source's clock, unless given), authority (the broker's) or corrected (the source's clock
                 less its estimated offset)
    unknown      in frame corrected, events without an estimate: authority (dated by the broker; unless given) or
                 exclude (left out)
    at           the last event at this instant or before it
    from, to     instants: RFC 3339, or integer microseconds since 1970; `to` itself is not in the range
    last         in place of both: the time up to now, as 90s, 15m, 1h, 2d or 500ms
    sequences    PARTITION:FIRST-LAST, both ends included; FIRST- has no end
    columns, functions, percentiles   several by commas: value,source; sum,max; 50,99.9
    columns      as answers call them, or their fields: local_timestamp or local_us, authority_timestamp or authority_ms
    functions    sum, min, max, mean; count may be among them, and is always in the answer
    exact        1: percentiles are exact, however many the values; 0, unless given: as windows tell them, see `spread`

Those with a star may be given more than once. GUARANTEE `parse(encode(question))` is the question, cut to 64 bits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final, TypeVar

from lifecycle.parameters import Given, member_of, positive, utf8_of
from lifecycle.planner import Aggregation, Field, Function, Question, Window, field_of
from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN, US_PER_MS, US_PER_S, LocalUs, parse_us
from streams.windows import PERCENTILE_MAX, By, Doubtful, Frame, percentile_text

if TYPE_CHECKING:
    import enum
    from collections.abc import Iterable, Sequence

    Member = TypeVar("Member", bound=enum.StrEnum)

T = TypeVar("T")

#: Rows of an answer unless asked otherwise, and at most: what is left is asked for by another question.
LIMIT: Final = 1_000
LIMIT_MAX: Final = 100_000_000
#: A question as a URL: some ten thousand names.
URL_BYTES_MAX: Final = 262_144
#: Columns unless asked otherwise: what says which event it is, and what it says.
FIELDS: Final = (
    Field.PARTITION, Field.SEQUENCE, Field.INDEX, Field.AUTHORITY_MS, Field.LOCAL_US, Field.DELTA_MS, Field.SEVERITY,
    Field.CAUSE, Field.OFFSET_US, Field.BOUND_US, Field.FLAGS, Field.FAULT, Field.SOURCE, Field.KIND, Field.EVENT_ID,
    Field.VALUE, Field.PAYLOAD,
)  # fmt: skip

_PERCENT: Final = PERCENTILE_MAX // 100
_SEQUENCES = re.compile(r"([0-9]{1,9}):([0-9]{1,18})-([0-9]{1,18})?", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)", re.ASCII)
_UNITS_US: Final = {"ms": US_PER_MS, "s": US_PER_S, "m": 60 * US_PER_S, "h": 3_600 * US_PER_S, "d": 86_400 * US_PER_S}
_COMMON: Final = ("frame", "unknown", "from", "to", "last", "source", "kind", "partition", "sequences")


@dataclass(frozen=True, slots=True)
class Get:
    """The last counted event of a source at or before an instant, None: of all."""

    source: bytes
    at_us: int | None = None
    frame: Frame = Frame.LOCAL
    partitions: tuple[int, ...] | None = None
    fields: tuple[Field, ...] = FIELDS


@dataclass(frozen=True, slots=True)
class Range:
    """Rows in order, at most so many."""

    question: Question
    fields: tuple[Field, ...] = FIELDS
    limit: int = LIMIT


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What is computed of counted rows."""

    question: Question
    aggregation: Aggregation


Request = Get | Range | Aggregate


def path_of(request: Request) -> str:
    """Where it is asked."""
    return {Get: "/get", Range: "/range", Aggregate: "/aggregate"}[type(request)]


def encode(request: Request) -> list[tuple[str, str]]:
    """Its parameters."""
    if isinstance(request, Get):
        pairs = [("source", request.source.decode()), ("frame", request.frame.value)]
        if request.at_us is not None and request.at_us < INT64_MAX:
            pairs.append(("at", str(max(request.at_us, INT64_MIN))))
        pairs += [("partition", str(partition)) for partition in request.partitions or ()]
        return [*pairs, ("columns", ",".join(request.fields))]
    pairs = _encode_question(request.question)
    if isinstance(request, Range):
        return [*pairs, ("columns", ",".join(request.fields)), ("limit", str(request.limit))]
    aggregation = request.aggregation
    pairs.append(("by", aggregation.by.value))
    if aggregation.window is not None:
        pairs.append(("window_ms", str(aggregation.window.size_us // US_PER_MS)))
        pairs.append(("slide_ms", str(aggregation.window.slide_us // US_PER_MS)))
    functions = [function.value for function in Function if function in aggregation.functions]
    pairs.append(("functions", ",".join(functions)))
    if aggregation.percentiles:
        pairs.append(("percentiles", ",".join(map(percentile_text, aggregation.percentiles))))
    if aggregation.exact:
        pairs.append(("exact", "1"))
    return pairs


def parse(path: str, pairs: Iterable[tuple[str, str]], now_us: int) -> Request:
    """The question that parameters ask. Raises BadInputError, which names the parameter and what to give."""
    given = Given(pairs)
    if path == "/get":
        given.check("source", "at", "frame", "partition", "columns")
        sources = given.all("source")
        if len(sources) != 1:
            raise BadInputError(f"source is given {len(sources)} times. Give the one whose last event is asked for")
        at_us, frame = given.one("at", parse_us), given.member("frame", Frame, Frame.LOCAL)
        return Get(utf8_of("source", sources[0]), at_us, frame, given.partitions(), _fields(given, frame))
    if path == "/range":
        given.check(*_COMMON, "columns", "limit")
        limit = given.one("limit", positive)
        if limit is not None and limit > LIMIT_MAX:
            raise BadInputError(f"limit {limit} is above {LIMIT_MAX}. Ask for the rest by sequences")
        question = _question(given, now_us)
        return Range(question, _fields(given, question.frame), LIMIT if limit is None else limit)
    given.check(*_COMMON, "by", "window_ms", "slide_ms", "functions", "percentiles", "exact")
    return Aggregate(_question(given, now_us), _aggregation(given))


def parse_duration(text: str) -> int:
    """Microseconds of 90s, 15m, 1h, 2d or 500ms."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise BadInputError(f"{text!r:.40} is no duration. Write for example 90s, 15m, 1h, 2d or 500ms")
    return int(found[1]) * _UNITS_US[found[2]]


def parse_percentiles(text: str) -> tuple[int, ...]:
    """Thousandths of a percent of numbers by commas."""
    found = []
    for part in _parts(text):
        try:
            thousandths = Decimal(part) * _PERCENT
            whole = int(thousandths) if abs(thousandths) <= PERCENTILE_MAX else 0
        except ArithmeticError:  # no number, NaN, or beyond what a Decimal holds
            raise BadInputError(f"{part!r:.40} is no percentile. Give numbers above 0 and up to 100") from None
        if thousandths != whole or not 0 < whole <= PERCENTILE_MAX:
            raise BadInputError(f"the percentile {part:.40} is not above 0 and up to 100, of at most three decimals")
        found.append(whole)
    return tuple(sorted(set(found)))


def parse_members(text: str, closed: type[Member]) -> tuple[Member, ...]:
    """Members by commas, each once, as they are given."""
    return tuple(dict.fromkeys(member_of(part, closed) for part in _parts(text)))


def parse_sequences(texts: Sequence[str]) -> dict[int, tuple[int, int]]:
    """Spans by partition of PARTITION:FIRST-LAST."""
    spans: dict[int, tuple[int, int]] = {}
    for text in texts:
        found = _SEQUENCES.fullmatch(text.strip())
        if found is None:
            raise BadInputError(f"sequences {text!r:.60} is none. Write PARTITION:FIRST-LAST, as 0:1-1000 or 0:500-")
        partition = int(found[1])
        if partition in spans:
            raise BadInputError(f"sequences of partition {partition} are given twice. Give one span of each")
        spans[partition] = int(found[2]), INT64_MAX if found[3] is None else int(found[3])
    return spans


def _question(given: Given, now_us: int) -> Question:
    from_us, to_us, last_us = given.one("from", parse_us), given.one("to", parse_us), given.one("last", parse_duration)
    if last_us is not None:
        if from_us is not None or to_us is not None:
            raise BadInputError("last is the time up to now, from and to name a range. Give one or the other")
        from_us, to_us = LocalUs(max(now_us - last_us, INT64_MIN)), LocalUs(now_us)
    names = [tuple(utf8_of(name, text) for text in given.all(name)) or None for name in ("source", "kind")]
    sequences = parse_sequences(given.all("sequences"))
    frame = given.member("frame", Frame, Frame.LOCAL)
    unknown = given.member("unknown", Doubtful, Doubtful.AUTHORITY)
    return Question(frame, from_us, to_us, names[0], names[1], given.partitions(), sequences, unknown)


def _aggregation(given: Given) -> Aggregation:
    size_ms, slide_ms = given.one("window_ms", positive), given.one("slide_ms", positive)
    if size_ms is None and slide_ms is not None:
        raise BadInputError("slide_ms moves a window, and there is none. Give window_ms too")
    functions = given.one("functions", _functions)
    return Aggregation(
        given.member("by", By, By.ALL),
        None if size_ms is None else Window(size_ms * US_PER_MS, (slide_ms or 0) * US_PER_MS),
        frozenset(Function) if functions is None else frozenset(functions),
        given.one("percentiles", parse_percentiles) or (),
        given.one("exact", _flag) or False,
    )


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise BadInputError(f"{text!r:.40} is neither. Give 0 or 1")
    return text == "1"


def _functions(text: str) -> tuple[Function, ...]:
    """Those to compute: a count, which a window's functions may name, is always told."""
    return parse_members(",".join(part for part in _parts(text) if part != "count"), Function)


def _encode_question(question: Question) -> list[tuple[str, str]]:
    pairs = [("frame", question.frame.value)]
    if question.unknown is not Doubtful.AUTHORITY:
        pairs.append(("unknown", question.unknown.value))
    if question.from_us is not None and question.from_us > INT64_MIN:
        pairs.append(("from", str(min(question.from_us, INT64_MAX))))
    if question.to_us is not None and question.to_us <= INT64_MAX:
        pairs.append(("to", str(max(question.to_us, INT64_MIN))))
    pairs += [("source", name.decode()) for name in question.sources or ()]
    pairs += [("kind", name.decode()) for name in question.kinds or ()]
    pairs += [("partition", str(partition)) for partition in question.partitions or ()]
    for partition, (first, last) in sorted(question.sequences.items()):
        end = "" if last == INT64_MAX else str(max(last, 0))
        pairs.append(("sequences", f"{partition}:{max(first, 0)}-{end}"))
    return pairs


def usual_fields(frame: Frame) -> tuple[Field, ...]:
    """Columns unless asked otherwise."""
    return (*FIELDS, Field.CORRECTED_US) if frame is Frame.CORRECTED else FIELDS


def _fields(given: Given, frame: Frame) -> tuple[Field, ...]:
    return given.one("columns", _columns) or usual_fields(frame)


def _columns(text: str) -> tuple[Field, ...]:
    return tuple(dict.fromkeys(field_of(part) for part in _parts(text)))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
