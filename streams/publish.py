"""Files of events, read line by line: JSON lines and CSV.

Problem: a file comes from anywhere, and one bad line must not cost the others, nor be lost without a word. So every
line becomes either an event or a rejection with its number and reason, and reading goes on.

    JSON lines   one object a line, its members those of schemas/event_json.py; empty lines are skipped
    CSV          a header row naming members; an empty cell is an absent member. value and hlc are numbers, causes and
                 exchange JSON, everything else is taken as text (a quoted cell may hold line ends)

What a line may leave out: event_id and local_timestamp (None here; the sender fills them in), and source and kind where
the caller has a default. An instant is RFC 3339 or an integer of microseconds.

GUARANTEE memory is bounded by LINE_BYTES_MAX, whatever the file.
HAZARD in CSV a quote that is never closed takes the lines that follow into its cell, until the file or LINE_BYTES_MAX
ends; they are rejected as one line, the number being that of the first.
"""

from __future__ import annotations

import csv
import enum
import re
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

import orjson

from schemas.errors import BadInputError
from schemas.event_json import event_from_document
from schemas.faults import DecodeError
from schemas.topics import VALUE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What is longer could not be kept as a value either.
LINE_BYTES_MAX: Final = VALUE_BYTES_MAX
COLUMNS: Final = (
    "event_id",
    "source",
    "local_timestamp",
    "kind",
    "value",
    "payload",
    "payload_base64",
    "hlc",
    "causes",
    "exchange",
)
#: Of events that name none, unless who sends them has another.
DEFAULT_KIND: Final = "event"
_MAY_BE_ABSENT: Final = ("event_id", "local_timestamp")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)


class Format(enum.StrEnum):
    """Form of a file."""

    JSONL = "jsonl"
    CSV = "csv"


class Accepted(NamedTuple):
    """An event as codec.encode takes it, but event_id and local_timestamp may be None."""

    number: int
    event: dict[str, Any]


class Rejected(NamedTuple):
    """A line that is no event."""

    number: int
    reason: str


_SUFFIXES: Final = {".csv": Format.CSV, ".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".json": Format.JSONL}


def format_of(file: str, suffix: str) -> Format:
    """The format that the suffix of a file stands for. Raises BadInputError, naming the file, for another."""
    found = _SUFFIXES.get(suffix.lower())
    if found is None:
        why = f"its suffix {suffix}" if suffix else "a name without suffix"
        raise BadInputError(f"{file}: {why} does not say the format. Give --format jsonl or csv")
    return found


def read(stream: BinaryIO, form: Format, defaults: Mapping[str, str]) -> Iterator[Accepted | Rejected]:
    """Every line of the stream that is not empty, in order.

    defaults: members for lines without them. Raises BadInputError, before anything is yielded, when a CSV file has no
    usable header.
    """
    lines = _Lines(stream)
    return _read_json_lines(lines, defaults) if form is Format.JSONL else _read_csv(lines, defaults)


class _LineTooLongError(csv.Error):
    """Raised in place of one line; the iterator goes on after it."""


class _Lines:
    """Lines with a limit, as bytes, and the number of the last one."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> bytes:
        line = self._stream.readline(LINE_BYTES_MAX)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == LINE_BYTES_MAX and not line.endswith(b"\n"):
            while (rest := self._stream.readline(LINE_BYTES_MAX)) and not rest.endswith(b"\n"):
                pass
            raise _LineTooLongError(f"it is longer than {LINE_BYTES_MAX} bytes")
        return line.removeprefix(_BYTE_ORDER_MARK) if self.number == 1 else line


def _read_json_lines(lines: _Lines, defaults: Mapping[str, str]) -> Iterator[Accepted | Rejected]:
    while True:
        try:
            line = next(lines)
        except StopIteration:
            return
        except _LineTooLongError as error:
            yield Rejected(lines.number, str(error))
            continue
        if not line.strip():
            continue
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield Rejected(lines.number, _not_json(line, error))
        else:
            yield _event(lines.number, document, defaults)


def _not_json(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode()
    except UnicodeDecodeError:
        return "it is not UTF-8"
    return f"it is not JSON: {error.msg} at column {error.colno}"


def _read_csv(lines: _Lines, defaults: Mapping[str, str]) -> Iterator[Accepted | Rejected]:
    csv.field_size_limit(LINE_BYTES_MAX)  # of the whole process; the default refuses payloads over 128 KiB
    rows = csv.reader(_Decoded(lines), strict=True)
    header = _header(rows)
    while True:
        number = lines.number + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Rejected(number, str(error))
            continue
        if row:
            yield _csv_event(number, header, row, defaults)


class _Decoded:
    """Lines as text for the csv module, bytes that are not UTF-8 kept as surrogates."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines

    def __iter__(self) -> _Decoded:
        return self

    def __next__(self) -> str:
        return next(self._lines).decode(errors="surrogateescape")


def _header(rows: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise BadInputError(f"the header row cannot be read: {error}") from None
    if not header:
        raise BadInputError(f"there is no header row. Begin with one that names some of {', '.join(COLUMNS)}")
    unknown = [name for name in header if name not in COLUMNS]
    if unknown:
        raise BadInputError(f"the header row names {unknown[0]!r:.80}; the columns are {', '.join(COLUMNS)}. Mend it")
    if len(set(header)) < len(header):
        raise BadInputError("the header row names a column twice. Remove one of the two")
    return header


def _csv_event(number: int, header: list[str], row: list[str], defaults: Mapping[str, str]) -> Accepted | Rejected:
    if len(row) != len(header):
        return Rejected(number, f"it has {len(row)} cells, the header row {len(header)}")
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return Rejected(number, "it is not UTF-8")
    document: dict[str, Any] = {}
    for name, cell in zip(header, row, strict=True):
        if not cell:
            continue
        try:
            document[name] = _cell(name, cell)
        except orjson.JSONDecodeError as error:
            return Rejected(number, f"{name} is not JSON: {error.msg}")
    return _event(number, document, defaults)


def _cell(name: str, cell: str) -> Any:
    """What a cell says; text that should be a number and is none is refused with the other members."""
    if name == "value" and _NUMBER.fullmatch(cell.strip()):
        return float(cell)
    if name == "hlc" and _INTEGER.fullmatch(cell.strip()):
        return int(cell)
    return orjson.loads(cell) if name in {"causes", "exchange"} else cell


def _event(number: int, document: Any, defaults: Mapping[str, str]) -> Accepted | Rejected:
    absent = []
    if isinstance(document, dict):
        absent = [name for name in _MAY_BE_ABSENT if document.get(name) is None]
        if None in document.values():
            document = {name: value for name, value in document.items() if value is not None}
        document = {**defaults, **document, **dict.fromkeys(absent, "0")}
    try:
        event = event_from_document(document)
    except DecodeError as error:
        return Rejected(number, error.detail)
    event.update(dict.fromkeys(absent))
    return Accepted(number, event)
