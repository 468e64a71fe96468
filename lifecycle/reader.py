"""Questions from Python: the last event of a source, rows in order, aggregates; as Arrow tables.

    reader = Reader(load())                        # or Reader("http://127.0.0.1:8411"): that worker alone
    reader.temporal_get("pump-7")
    reader.temporal_range_query("2026-01-31T12:00:00Z", "2026-01-31T13:00:00Z", sources=["pump-7"])
    reader.aggregate(window_ms=60_000, by="source", percentiles=[50, 99])
    explanation(table)                             # how it was found

Every worker of the ledger on this machine is asked for the partitions that it holds; those that none holds are answered
from what lies in the data directory and the ledger behind it (see `local`), which needs the broker.

GUARANTEE the answer is that of one store that held all partitions: rows stand in order across them, sums are rounded
once. HAZARD exact percentiles of a group of millions of events in partitions of several workers are refused: see
`partial`.
Instants are datetimes with a time zone, RFC 3339, or integer microseconds since 1970; ranges do not include their end.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import urlencode

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from lifecycle.answers import ORDER, SPREAD, SUM_EXACT, TIME_FIELDS, fields_of, parts_of, total_of
from lifecycle.archived_chunks import archives_of
from lifecycle.arrow import aggregates_table
from lifecycle.arrow_stream import ENDING, Ending, read_arrow
from lifecycle.chunks import StoreDamagedError
from lifecycle.fetch import TIMEOUT_S, WAIT_S, error_in, fetch
from lifecycle.holders import furthest
from lifecycle.local import LocalPartitions
from lifecycle.owned import NOT_KEPT
from lifecycle.parameters import utf8_of
from lifecycle.partial import merge, needed
from lifecycle.planner import Aggregation, Field, Function, Question, Window, field_of
from lifecycle.requests import (
    LIMIT,
    URL_BYTES_MAX,
    Aggregate,
    Get,
    Range,
    encode,
    parse_percentiles,
    path_of,
    usual_fields,
)
from lifecycle.spread import Spread
from lifecycle.tally import DOUBT, Aggregates
from schemas.clock import SystemTime
from schemas.errors import BadInputError, UnreachableError
from schemas.instants import NS_PER_S, US_PER_MS, parse_us
from streams.address import ASK_TIMEOUT_S, find_workers, parse_address
from streams.broker import reach
from streams.windows import By, Doubtful, Frame, percentile_text

if TYPE_CHECKING:
    import enum
    from collections.abc import Iterable, Mapping, Sequence

    from lifecycle.arrow_stream import Part
    from lifecycle.requests import Request
    from streams.settings import Settings

    Instant = datetime | str | int
    Member = TypeVar("Member", bound=enum.StrEnum)
    Given = TypeVar("Given")

_OK, _ELSEWHERE, _UNAVAILABLE = 200, 404, 503
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: A worker is waited for in true time, whatever dates the events.
_system: Final = SystemTime()
_logger = structlog.get_logger()


class Answer(NamedTuple):
    """A table, what is known at its end, and who gave it: a worker's address, or the data directory."""

    table: pa.Table
    ending: Ending
    by: str


class _MovedError(UnreachableError):
    """A worker does not hold the partitions any more."""


class Reader:
    """Asks a ledger's hot tiers. worker: the ledger's settings, or the address of the one worker to ask.

    token: what workers ask for, `http_token`; that of the settings unless given.

    Every question raises BadInputError for what cannot be asked, UnreachableError where no answer comes in time.
    """

    def __init__(
        self,
        worker: Settings | str,
        *,
        timeout_s: float = TIMEOUT_S,
        wait_s: float = WAIT_S,
        token: str | None = None,
    ) -> None:
        self._worker = parse_address(worker) if isinstance(worker, str) else worker
        self._token = token if isinstance(worker, str) else token or worker.token
        self._timeout_s, self._wait_s = timeout_s, wait_s

    def temporal_get(
        self,
        source: str,
        at: Instant | None = None,
        *,
        frame: Frame | str = Frame.LOCAL,
        partitions: Iterable[int] | None = None,
        columns: Iterable[Field | str] | None = None,
    ) -> pa.Table:
        """The last counted event of a source at an instant or before it (None: of all): a table of one row, or none."""
        chosen = _member(frame, Frame)
        fields = _fields(columns, chosen)
        return self.ask(Get(utf8_of("source", source), _us(at), chosen, _chosen(partitions), fields))

    def temporal_range_query(
        self,
        start: Instant | None = None,
        end: Instant | None = None,
        *,
        sources: Iterable[str] | None = None,
        kinds: Iterable[str] | None = None,
        partitions: Iterable[int] | None = None,
        sequences: Mapping[int, tuple[int, int]] | None = None,
        frame: Frame | str = Frame.LOCAL,
        unknown: Doubtful | str = Doubtful.AUTHORITY,
        columns: Iterable[Field | str] | None = None,
        limit: int = LIMIT,
    ) -> pa.Table:
        """The first rows in order across partitions with start <= time < end, at most `limit`.

        sequences: first and last, inclusive, by partition. explanation(table)["more"]: whether the limit cut it.
        unknown: in frame corrected, what becomes of events without an estimate, "authority" or "exclude"; columns: as
        answers call them, or members of Field; None for the usual ones.
        """
        question = _question(start, end, sources, kinds, partitions, sequences, frame, unknown)
        return self.ask(Range(question, _fields(columns, question.frame), limit))

    def aggregate(
        self,
        start: Instant | None = None,
        end: Instant | None = None,
        *,
        by: By | str = By.ALL,
        window_ms: int | None = None,
        slide_ms: int | None = None,
        functions: Iterable[Function | str] = tuple(Function),
        percentiles: Iterable[float | str] = (),
        exact: bool = False,
        sources: Iterable[str] | None = None,
        kinds: Iterable[str] | None = None,
        partitions: Iterable[int] | None = None,
        sequences: Mapping[int, tuple[int, int]] | None = None,
        frame: Frame | str = Frame.LOCAL,
        unknown: Doubtful | str = Doubtful.AUTHORITY,
    ) -> pa.Table:
        """Counts and functions of values over the counted rows, a line for each window and name that has any.

        by: source, kind or all; windows are tumbling unless slide_ms is given. A count, which functions may name, is
        always told. Percentiles of more than 256 values are within 1 % of the value at their rank, and the same that a
        window of the ledger tells of them, unless they are to be exact: columns method and relative_error say it, and
        explanation(table)["rows_scanned"] and ["readings"] what it took. In frame corrected told are near_edge, the
        events that may belong elsewhere, and unknown, those without an estimate; explanation(table)["rows_left_out"]:
        how many of these unknown="exclude" left out.
        """
        question = _question(start, end, sources, kinds, partitions, sequences, frame, unknown)
        window = None if window_ms is None else Window(window_ms * US_PER_MS, (slide_ms or 0) * US_PER_MS)
        chosen = frozenset(_member(name, Function) for name in _several(functions, "functions") if name != "count")
        thousandths = parse_percentiles(",".join(map(str, _several(percentiles, "percentiles"))))
        return self.ask(Aggregate(question, Aggregation(_member(by, By), window, chosen, thousandths, exact)))

    def ask(self, request: Request) -> pa.Table:
        """The answer to any question; see `explanation`."""
        wanted = _partitions_of(request)
        deadline_ns = _system.monotonic_ns() + int(self._wait_s * NS_PER_S)
        while True:
            try:
                answers = self._answers(request, self.assigned(wanted), deadline_ns)
            except _MovedError:
                if _system.monotonic_ns() > deadline_ns:
                    raise
            else:
                return _merged(request, answers)

    def assigned(self, wanted: tuple[int, ...] | None) -> dict[str | None, tuple[int, ...] | None]:
        """Partitions by the address of the worker that holds them; those of nobody under None. wanted: None for all."""
        if isinstance(self._worker, str):
            return {self._worker: wanted}
        there = range(self._worker.partitions)
        told = ((worker.address, _places(worker.address, self._token)) for worker in find_workers(self._worker))
        holders = {
            number: address for number, (place, address) in furthest(told).items() if place["standing"] != NOT_KEPT
        }
        if unknown := sorted(number for number in holders if number not in there):
            raise BadInputError(
                f"the workers hold partitions {unknown}, and the settings say that there are {len(there)}. Set "
                "partitions to what the ledger has"
            )
        partitions = there if wanted is None else wanted
        if missing := [number for number in partitions if number not in there]:
            raise BadInputError(f"there are no partitions {missing}: the ledger has 0 to {len(there) - 1}. Name those")
        assigned: dict[str | None, tuple[int, ...] | None] = {}
        for number in partitions:
            address = holders.get(number)
            assigned[address] = (*(assigned.get(address) or ()), number)
        return assigned

    def _answers(
        self, request: Request, assigned: Mapping[str | None, tuple[int, ...] | None], deadline_ns: int
    ) -> list[Answer]:
        partial = len(assigned) > 1
        answers = []
        for address, partitions in assigned.items():
            asked = _with_partitions(request, partitions)
            if address is None:
                answers.append(self._locally(asked, partitions or (), partial=partial))
            else:
                answers.append(self._of_worker(address, asked, deadline_ns, partial=partial))
        return answers

    def _of_worker(self, address: str, request: Request, deadline_ns: int, *, partial: bool) -> Answer:
        path = f"{path_of(request)}?{urlencode([*encode(request), ('partial', str(int(partial)))])}"
        if len(path) > URL_BYTES_MAX:
            raise BadInputError(f"a question of {len(path)} bytes is too long. Name fewer sources, kinds or sequences")
        while True:
            status, after_s, body = fetch(address, path, self._timeout_s, token=self._token)
            if status == _OK:
                return Answer(*read_arrow(body), address)
            error = error_in(status, body)
            if status == _ELSEWHERE and not isinstance(self._worker, str):
                raise _MovedError(error)
            if status != _UNAVAILABLE:
                raise BadInputError(error)
            if after_s is None or _system.monotonic_ns() + int(after_s * NS_PER_S) > deadline_ns:
                raise UnreachableError(f"the worker at {address} does not answer yet: {error}")
            _system.sleep_s(after_s)

    def _locally(self, request: Request, partitions: Sequence[int], *, partial: bool) -> Answer:
        settings = self._worker
        if isinstance(settings, str):
            raise UnreachableError(f"the worker at {settings} holds no partitions. Ask another")
        try:
            local, parts = _local_parts(settings, request, partitions, partial=partial, stored=True)
        except StoreDamagedError as error:  # in a chunk that no opening reads
            _logger.warning("hot_store_passed_over", error=str(error))
            local, parts = _local_parts(settings, request, partitions, partial=partial, stored=False)
        ending = parts[-1].ending or Ending({}, False, ())  # noqa: FBT003 - of a tuple
        found = [place._asdict() for place in local.found]
        table = pa.concat_tables([part.table for part in parts]).unify_dictionaries()
        return Answer(table, ending._replace(explain={**ending.explain, "local": found}), str(settings.data_dir))


def _places(address: str, token: str | None) -> list[dict[str, Any]]:
    """How the partitions of a worker stand; none where it has gone, or is paused."""
    try:
        status, _, body = fetch(address, "/hot", ASK_TIMEOUT_S, token=token)
    except UnreachableError:
        return []
    places: list[dict[str, Any]] = orjson.loads(body)["partitions"] if status == _OK else []
    return places


def _local_parts(
    settings: Settings, request: Request, partitions: Sequence[int], *, partial: bool, stored: bool
) -> tuple[LocalPartitions, list[Part]]:
    """What lies in the data directory says; without `stored` from the ledger alone."""
    bootstrap = reach(settings)
    with (
        archives_of(settings, bootstrap) as archives,
        LocalPartitions(settings, bootstrap, partitions, stored=stored, archives=archives) as local,
    ):
        return local, list(parts_of(request, partitions, local.ask, partial=partial))


def explanation(table: pa.Table) -> dict[str, Any]:
    """How an answer was found.

    The members of `planner.Explain`, of all answers together, and: more (the limit cut it), answers (by whom, of which
    partitions, and of a data directory how far each store went and how many entries were read behind it).
    """
    found: dict[str, Any] = orjson.loads((table.schema.metadata or {}).get(ENDING, b"{}"))
    return found


def _merged(request: Request, answers: list[Answer]) -> pa.Table:
    told = [{k: v for k, v in answer.ending.explain.items() if k != "local"} for answer in answers]
    total = total_of(told)
    more = any(answer.ending.more for answer in answers)
    if len(answers) == 1:
        table = answers[0].table
    elif isinstance(request, Aggregate):
        aggregation = request.aggregation
        found = [_read_partial(aggregation, answer.table) for answer in answers]
        table = aggregates_table(merge(aggregation, found, total))
    else:
        table, more = merged_rows(request, [answer.table for answer in answers], more=more)
    explained = {
        **asdict(total),
        "more": more,
        "answers": [
            {"by": answer.by, "partitions": answer.ending.partitions}
            | ({"local": answer.ending.explain["local"]} if "local" in answer.ending.explain else {})
            for answer in answers
        ],
    }
    return table.replace_schema_metadata({ENDING: orjson.dumps(explained)})


def merged_rows(request: Get | Range, tables: list[pa.Table], *, more: bool) -> tuple[pa.Table, bool]:
    """Rows of several answers in order across partitions; of `get` the last one."""
    table = pa.concat_tables(tables).unify_dictionaries()
    names = dict(zip(fields_of(request), table.column_names, strict=False))
    place = names[Field.PARTITION], names[Field.SEQUENCE]
    if isinstance(request, Get):
        time = names[TIME_FIELDS[request.frame]]
        keys, limit = [(name, "descending") for name in (time, *place)], 1
    else:
        keys, limit = [(name, "ascending") for name in (ORDER, *place)], request.limit
        more = more or table.num_rows > limit
    table = table.take(pc.sort_indices(table, sort_keys=keys)).slice(0, limit)
    return table.select([names[field] for field in request.fields]).combine_chunks(), more


def _read_partial(aggregation: Aggregation, table: pa.Table) -> tuple[Aggregates, list[int]]:
    """What `answers` wrote for merging."""

    def integers(name: str) -> Any:
        return np.asarray(table[name].cast(pa.int64()).to_numpy(), np.int64)

    def doubles(name: str) -> Any:
        return np.array([np.nan if value is None else value for value in table[name].to_pylist()], np.float64)

    windowed = aggregation.window is not None
    texts = [] if aggregation.by is By.ALL else [text.encode() for text in table[aggregation.by.value].to_pylist()]
    names = tuple(sorted(set(texts)))
    ranks = {name: rank for rank, name in enumerate(names)}
    answer = Aggregates(
        aggregation.by,
        integers("window_start") if windowed else None,
        integers("window_end") if windowed else None,
        None if aggregation.by is By.ALL else np.array([ranks[text] for text in texts], np.int32),
        names,
        integers("count"),
        integers("values"),
        {function: doubles(function.value) for function in needed(aggregation)},
        {percentile: doubles(f"p{percentile_text(percentile)}") for percentile in aggregation.percentiles},
        total_of([]),
        {name: integers(name) for name in DOUBT if name in table.column_names},
        spreads=_spreads_in(table) if aggregation.percentiles else (),
    )
    sums = [int.from_bytes(content, "little", signed=True) for content in table[SUM_EXACT].to_pylist()]
    return answer, sums


def _spreads_in(table: pa.Table) -> list[Spread]:
    return [Spread.unpacked(*pair) for pair in zip(*(table[name].to_pylist() for name in SPREAD), strict=True)]


def _question(
    start: Instant | None,
    end: Instant | None,
    sources: Iterable[str] | None,
    kinds: Iterable[str] | None,
    partitions: Iterable[int] | None,
    sequences: Mapping[int, tuple[int, int]] | None,
    frame: Frame | str,
    unknown: Doubtful | str,
) -> Question:
    names = [
        None if some is None else tuple(utf8_of(what, name) for name in _several(some, what))
        for some, what in ((sources, "sources"), (kinds, "kinds"))
    ]
    if () in names:
        raise BadInputError("no source or kind is named, so nothing is asked for. Name one, or give None for all")
    return Question(
        _member(frame, Frame), _us(start), _us(end), names[0], names[1], _chosen(partitions), dict(sequences or {}),
        _member(unknown, Doubtful),
    )  # fmt: skip


def _fields(columns: Iterable[Field | str] | None, frame: Frame) -> tuple[Field, ...]:
    if columns is None:
        return usual_fields(frame)
    return tuple(dict.fromkeys(field_of(str(name)) for name in _several(columns, "columns")))


def _several(given: Iterable[Given], what: str) -> Iterable[Given]:
    """Itself; a text is none: its letters would be taken for names."""
    if isinstance(given, str):
        raise BadInputError(f"{what} is the text {given!r:.80}. Give a list: [{given!r:.80}]")
    return given


def _chosen(partitions: Iterable[int] | None) -> tuple[int, ...] | None:
    chosen = None if partitions is None else tuple(sorted(set(partitions)))
    if chosen == ():
        raise BadInputError("no partition is named, so nothing is asked for. Name one, or give None for all")
    return chosen


def _partitions_of(request: Request) -> tuple[int, ...] | None:
    if isinstance(request, Get):
        return request.partitions
    return request.question.partitions or (tuple(sorted(request.question.sequences)) or None)


def _with_partitions(request: Request, partitions: tuple[int, ...] | None) -> Request:
    if isinstance(request, Get):
        return replace(request, partitions=partitions)
    question = request.question
    sequences = {
        number: span for number, span in question.sequences.items() if partitions is None or number in partitions
    }
    return replace(request, question=replace(question, partitions=partitions, sequences=sequences))


def _us(instant: Instant | None) -> int | None:
    if isinstance(instant, datetime):
        if instant.tzinfo is None:
            raise BadInputError(f"{instant} has no time zone. Give one, for example datetime.now(UTC)")
        return (instant - _EPOCH) // timedelta(microseconds=1)
    return parse_us(instant) if isinstance(instant, str) else instant


def _member(name: Member | str, closed: type[Member]) -> Member:
    try:
        return closed(name)
    except ValueError:
        raise BadInputError(f"{name!r} is none of {', '.join(member.value for member in closed)}") from None
