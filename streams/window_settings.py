"""The [[window]] tables of driftledger.toml, read into definitions.

Problem: tomllib says what a file holds and not where, and a window has seventeen keys that must fit one another.
Whoever mends one wants the line. So the text is scanned beside the parsed tables: the n-th [[window]] header is that of
the n-th table, and a key is looked for below it.

    [[window]]
    name = "source_10s"
    size_ms = 10_000
    slide_ms = 5_000                # hopping; absent: tumbling. sliding = true instead: one result for each event time
    frame = "local"                 # or "authority", "corrected"
    by = "source"                   # or "kind", "all"
    whole = false                   # true: partitions are merged as well
    functions = ["count", "sum"]    # of Function; count is always there
    percentiles = [50, 99.9]
    lateness_ms = 5_000
    max_behind_ms = 60_000
    max_ahead_ms = 60_000
    late = "drop"                   # or "update", "side"
    update_ms = 60_000              # with late = "update"
    early_ms = 0
    red = "correct"                 # with frame = "corrected"; or "authority", "exclude", "side"
    unknown = "authority"           # likewise; or "exclude", "side"

GUARANTEE a fault is told with file, line, window, key, value, reason and remedy.
HAZARD tables that are written inline (window = [{...}]) have no header each: their faults are told with the line of the
key `window`, and without one where that key is spelled with escapes.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from schemas.errors import BadInputError
from streams.windows import PERCENTILE_UNIT, Kind, WindowDefinition, WindowFieldError, check_together, from_fields

KEYS: Final = (
    "name",
    "size_ms",
    "slide_ms",
    "sliding",
    "frame",
    "by",
    "whole",
    "functions",
    "percentiles",
    "lateness_ms",
    "max_behind_ms",
    "max_ahead_ms",
    "late",
    "update_ms",
    "early_ms",
    "red",
    "unknown",
)
_REQUIRED: Final = ("name", "size_ms")
#: Beyond these bits an integer is out of any range in any unit; Python cannot even print the longest.
_INTEGER_BITS: Final = 64
_PERCENT_MAX: Final = 100

#: Strings and comments: what is in them is no header and no key.
_OPAQUE: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:\\.|[^"\\\n])*"|' r"'[^'\n]*'|" r"#[^\n]*", re.DOTALL
)
_HEADER: Final = re.compile(r"\s*\[\[?([\w\s.\"'-]+)\]\]?\s*")
_WINDOW_KEY: Final = re.compile(r"(?:^|[{,])\s*[\"']?window[\"']?\s*[=.]")


def read_windows(tables: Any, text: str, file: str, ledger: int | None = None) -> tuple[WindowDefinition, ...]:
    """Definitions of the windows of a file, in its order.

    tables: what TOML made of the key `window`. text: the whole file; file: its name, for messages. ledger: the number,
    from 0, of the [[ledger]] table that they stand in; None for those of the top level. Raises BadInputError.
    """
    target = ("window",) if ledger is None else ("ledger", "window")
    title = f"[[{'.'.join(target)}]]"
    lines = _Lines.of(text)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        shown = f"[{'.'.join(target)}]" if isinstance(tables, dict) else f"window = {tables!r}"
        raise BadInputError(
            f"{_place(file, lines.of_list(target, ledger))}: {shown} is not how a window is written. Write {title} and "
            "below it its keys, or window = [] for none"
        )
    definitions: list[WindowDefinition] = []
    for number, table in enumerate(tables):
        try:
            definitions.append(_definition(table))
            check_together(definitions)
        except WindowFieldError as error:
            key = error.field if error.field in table else _key(error.field)
            place = _place(file, lines.of_key(target, ledger, number, len(tables), key))
            name = table.get("name")
            window = f"{title} {name!r}" if isinstance(name, str) else f"{title} number {number + 1}"
            given = f"{key} = {table[key]!r}" if key in table else key
            raise BadInputError(f"{place}: {window}: {given} {error.reason}. {error.remedy}") from error
    return tuple(definitions)


def _definition(table: dict[str, Any]) -> WindowDefinition:
    """Raises WindowFieldError, of which the field is one of WindowDefinition or a key of the table."""
    for key, value in table.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, 1)
            remedy = f"Mend its spelling: {near[0]}" if near else f"Remove it; the keys are {', '.join(KEYS)}"
            raise WindowFieldError(key, value, "is no key of a window", remedy)
    for key in _REQUIRED:
        if key not in table:
            raise WindowFieldError(key, None, "is missing", "Every window has one")
    fields: dict[str, Any] = {_field(key): _microseconds(value) for key, value in table.items() if key.endswith("_ms")}
    fields |= {key: value for key, value in table.items() if not key.endswith("_ms")}
    sliding = fields.pop("sliding", False)
    if type(sliding) is not bool:
        raise WindowFieldError("sliding", sliding, "is neither true nor false", "Give one of the two")
    if sliding and "slide_us" in fields:
        reason = "contradicts sliding = true, which has a result for each event time"
        raise WindowFieldError("slide_us", fields["slide_us"], reason, "Leave one of the two out")
    hopping = fields.get("slide_us", fields["size_us"]) != fields["size_us"]
    fields["kind"] = Kind.SLIDING if sliding else Kind.HOPPING if hopping else Kind.TUMBLING
    if isinstance(fields.get("percentiles"), list):
        fields["percentiles"] = [_thousandths(item, fields["percentiles"]) for item in fields["percentiles"]]
    return from_fields(fields)


def _field(key: str) -> str:
    """The field of WindowDefinition that a key fills; durations are microseconds there."""
    return f"{key.removesuffix('_ms')}_us" if key.endswith("_ms") else key


def _key(field: str) -> str:
    """The key that fills a field of WindowDefinition."""
    return f"{field.removesuffix('_us')}_ms" if field.endswith("_us") else field


def _microseconds(value: Any) -> Any:
    """Of milliseconds; what is none is left for the check of the field to refuse."""
    return value * 1_000 if type(value) is int and value.bit_length() < _INTEGER_BITS else value


def _thousandths(item: Any, percentiles: list[Any]) -> int:
    """A percentile as an integer; a float counts as the decimal it is shown as."""
    remedy = "List percentiles above 0 and at most 100, with 3 decimals at most"
    if type(item) not in (int, float):
        raise WindowFieldError("percentiles", percentiles, f"holds {item!r}, which is no number", remedy)
    if not 0 < item <= _PERCENT_MAX:
        raise WindowFieldError("percentiles", percentiles, f"holds {item!r}, which is out of range", remedy)
    exact = Decimal(str(item)) * PERCENTILE_UNIT
    if exact != int(exact):
        raise WindowFieldError("percentiles", percentiles, f"holds {item!r}, which has more decimals", remedy)
    return int(exact)


def _place(file: str, line: int | None) -> str:
    return file if line is None else f"{file}, line {line}"


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of a file, without comments and long texts, and the table that a line is the header of."""

    lines: list[str]
    headers: dict[int, tuple[str, ...]]

    @classmethod
    def of(cls, text: str) -> _Lines:
        lines = _OPAQUE.sub(_without_content, text).split("\n")
        found = ((line, _HEADER.fullmatch(content)) for line, content in enumerate(lines))
        return cls(lines, {line: _path(header[1]) for line, header in found if header is not None})

    def of_key(self, target: tuple[str, ...], ledger: int | None, number: int, count: int, key: str) -> int | None:
        """Where the key of that table stands; the table's header where it does not, the list's line without one."""
        region = self._region(ledger)
        starts = [line for line in region if self.headers.get(line) == target]
        if len(starts) != count:
            return self.of_list(target, ledger)
        written = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]")
        for line in range(starts[number] + 1, region.stop):
            path = self.headers.get(line)
            if path == (*target, key) or written.match(self.lines[line]):
                return line + 1
            if path is not None and (path == target or path[: len(target)] != target):
                break
        return starts[number] + 1

    def of_list(self, target: tuple[str, ...], ledger: int | None) -> int | None:
        """Where the windows begin, however they are written; None where no line shows it."""
        for line in self._region(ledger):
            if self.headers.get(line, ())[: len(target)] == target or _WINDOW_KEY.search(self.lines[line]):
                return line + 1
        return None

    def _region(self, ledger: int | None) -> range:
        """The lines from a [[ledger]] header to the next; all of the file for the top level."""
        starts = [line for line, path in self.headers.items() if path == ("ledger",)]
        if ledger is None or ledger >= len(starts):
            return range(len(self.lines))
        return range(starts[ledger], [*starts, len(self.lines)][ledger + 1])


def _without_content(opaque: re.Match[str]) -> str:
    """A comment goes, of a text over many lines its lines stay, any other text may be a key."""
    text = opaque[0]
    if text.startswith("#"):
        return ""
    return '""' + "\n" * text.count("\n") if text.startswith(('"""', "'''")) else text


def _path(header: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in header.split("."))
