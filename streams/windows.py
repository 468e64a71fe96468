"""Windows that a ledger's events are gathered into, as definitions.

Problem: an aggregate is worth what can be said about it years later: over which events, by whose clock, until when it
waited. So a window is a definition in the ledger (see `definitions`), never an option of the program that computes it:
a DEFINITION entry named "window/NAME", in force from its own index on, and that index is its version. The body "null"
withdraws it.

Instants are integers of microseconds, windows half-open: [start, start + size). A tumbling or hopping window begins at
a multiple of its slide, also before 1970 (floor division); a sliding one ends with the event it belongs to:

    tumbling   [k * size, (k + 1) * size)     an event is in one window
    hopping    [k * slide, k * slide + size)  an event is in ceil(size / slide) windows at most
    sliding    (t - size, t]                  one window for each event time t: [t - size + 1, t + 1) in microseconds

GUARANTEE a WindowDefinition is valid, and definitions are equal if and only if their canonical JSON is: what follows
from other fields is filled in, functions and percentiles stand in one order, and a field that would have no effect has
one value only.
HAZARD the limits below are part of what `parse` accepts: a release that narrows one refuses entries an earlier one
wrote. Widen them only, or raise the fold version of derive.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from schemas.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Kind(enum.StrEnum):
    """How windows follow one another."""

    TUMBLING = "tumbling"
    HOPPING = "hopping"
    SLIDING = "sliding"


class Frame(enum.StrEnum):
    """Whose clock says when an event was: its source's, the broker's that appended it, or its source's put right.

    Corrected time is local time less the estimated offset of the source's clock, as judge knows it after the event (see
    `estimate`), so it has a bound.
    """

    LOCAL = "local"
    AUTHORITY = "authority"
    CORRECTED = "corrected"


class Doubtful(enum.StrEnum):
    """What becomes, in frame corrected, of an event whose source's clock is RED, or not known.

    It is corrected all the same, dated by the broker, left out, or left out with a dead letter.
    """

    CORRECT = "correct"
    AUTHORITY = "authority"
    EXCLUDE = "exclude"
    SIDE = "side"


class By(enum.StrEnum):
    """What the events of one window have in common, besides their time and their partition."""

    SOURCE = "source"
    KIND = "kind"
    ALL = "all"


class Late(enum.StrEnum):
    """What becomes of an event that comes when its window is closed; it is counted in any case."""

    DROP = "drop"
    UPDATE = "update"
    SIDE = "side"


class Function(enum.StrEnum):
    """What is computed over a window, in the order of the results' fields; variance is that of the population.

    Another one is a field of schemas/aggregate.v1.avsc and a column of `results`. Tumbling and hopping windows make it
    in `window_kernel`, in a word of `window_table` that `derive_dump` keeps (with a new version) and `window_results`
    copies; sliding ones in `sliding_kernel`; `merge` for a whole; `recount_windows` again in SQL; cli/aggregates lists
    it. What `driftledger aggregate` computes of stored events is another matter: see lifecycle/planner.py.
    """

    COUNT = "count"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    MEAN = "mean"
    VARIANCE = "variance"
    FIRST = "first"
    LAST = "last"


#: What the names of the DEFINITION entries of windows begin with.
ENTRY_PREFIX: Final = "window/"
#: The body that withdraws a definition.
WITHDRAWN: Final = "null"
#: A name is the first part of the keys of results: short, and nothing in it needs escaping.
NAME_PATTERN: Final = "[a-z0-9_]+"
NAME_MAX: Final = 64
#: Each definition is one more pass over a batch, with open windows of its own.
DEFINITIONS_MAX: Final = 64
#: Authority time is told in milliseconds: a shorter window could not be told from its neighbour.
DURATION_MIN_US: Final = 1_000
#: A year of any length: a window stays in memory.
DURATION_MAX_US: Final = 366 * 86_400_000_000
#: The work and memory of one event; 1,000 is a day that moves on each minute and a half.
WINDOWS_PER_EVENT_MAX: Final = 1_000
#: Each is a number in every result.
PERCENTILES_MAX: Final = 8
#: Percentiles are integers of thousandths of a percent: p99.9 is 99,900.
PERCENTILE_UNIT: Final = 1_000
PERCENTILE_MAX: Final = 100 * PERCENTILE_UNIT

DEFAULT_FUNCTIONS: Final = (Function.COUNT, Function.SUM, Function.MIN, Function.MAX, Function.MEAN)
DEFAULT_PERCENTILES: Final = (50 * PERCENTILE_UNIT, 99 * PERCENTILE_UNIT)
#: In frame local; the broker's clock needs neither, nor can an event be ahead of it.
LOCAL_LATENESS_US: Final = 5_000_000
LOCAL_BEHIND_US: Final = 60_000_000
LOCAL_AHEAD_US: Final = 60_000_000
#: With late = "update".
DEFAULT_UPDATE_US: Final = 60_000_000

#: Fields whose value is one of a few.
_MEMBERS: Final[dict[str, type[enum.StrEnum]]] = {
    "kind": Kind,
    "frame": Frame,
    "by": By,
    "late": Late,
    "red": Doubtful,
    "unknown": Doubtful,
}
#: Fields that have a meaning in frame corrected alone.
_OF_CORRECTED: Final = ("red", "unknown")
#: A duration that is not given: what follows from kind, frame and late.
_FOLLOWS: Final = -1
_DURATIONS: Final = ("size_us", "slide_us", "lateness_us", "max_behind_us", "max_ahead_us", "update_us", "early_us")
_MS_US: Final = 1_000
_NAME: Final = re.compile(NAME_PATTERN, re.ASCII)


class WindowFieldError(BadInputError):
    """A field that a window cannot have. Reason and remedy name no unit, so they hold for every spelling of it.

    Attributes: field (of WindowDefinition), reason, remedy.
    """

    def __init__(self, field: str, value: object, reason: str, remedy: str) -> None:
        super().__init__(f"{field} = {value!r} {reason}. {remedy}")
        self.field = field
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class WindowDefinition:
    """One window as it is defined. Raises WindowFieldError naming field, value and remedy.

    name: [a-z0-9_]+. size_us: how long a window is; slide_us: from one start to the next (tumbling: the size; sliding:
    0; hopping: to be given). whole: results of the partitions are also merged into one. functions: in any order, count
    is always among them; percentiles: in thousandths of a percent. lateness_us: how far the watermark stays behind the
    event times seen; max_behind_us: behind the authority frontier; max_ahead_us: an event further ahead of authority is
    in no window (0 in frame authority, where there is none). red, unknown: in frame corrected, what becomes of an event
    of a source whose clock is off by 5 s and more, and of one of which there is no estimate yet. update_us: how long
    after its closing a window takes late events (0 unless late is update). early_us: grid of authority time at which
    open windows tell what they have; 0 for none. A duration that is left out is the one that follows from kind, frame
    and late.
    """

    name: str
    size_us: int
    kind: Kind = Kind.TUMBLING
    slide_us: int = _FOLLOWS
    frame: Frame = Frame.LOCAL
    by: By = By.SOURCE
    whole: bool = False
    functions: tuple[Function, ...] = DEFAULT_FUNCTIONS
    percentiles: tuple[int, ...] = DEFAULT_PERCENTILES
    lateness_us: int = _FOLLOWS
    max_behind_us: int = _FOLLOWS
    max_ahead_us: int = _FOLLOWS
    late: Late = Late.DROP
    update_us: int = _FOLLOWS
    early_us: int = 0
    red: Doubtful = Doubtful.CORRECT
    unknown: Doubtful = Doubtful.AUTHORITY

    def __post_init__(self) -> None:
        _check_name(self.name)
        for field, closed in _MEMBERS.items():
            _check_member(field, getattr(self, field), closed)
        if type(self.whole) is not bool:
            raise WindowFieldError("whole", self.whole, "is neither true nor false", "Give one of the two")
        object.__setattr__(self, "functions", _ordered_functions(self.functions))
        object.__setattr__(self, "percentiles", _ordered_percentiles(self.percentiles))
        for field, value in self._following().items():
            given = getattr(self, field)
            if type(given) is int and given == _FOLLOWS:
                object.__setattr__(self, field, value)
        positive = ("size_us", "slide_us") if self.kind is Kind.HOPPING else ("size_us",)
        for field in _DURATIONS:
            _check_duration(field, getattr(self, field), least=DURATION_MIN_US if field in positive else 0)
        self._check_slide()
        self._check_relations()

    @property
    def windows_per_event(self) -> int:
        """The most windows that one event can be in."""
        return 1 if self.kind is Kind.SLIDING else -(-self.size_us // self.slide_us)

    def canonical(self) -> str:
        """The body of a DEFINITION entry; red and unknown are in it where they have a meaning."""
        left_out = () if self.frame is Frame.CORRECTED else _OF_CORRECTED
        fields = {name: value for name, value in asdict(self).items() if name not in left_out}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def parse(cls, body: str) -> WindowDefinition:
        """A definition from canonical JSON; anything else, also the same written differently, is a BadInputError."""
        try:
            fields: Any = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadInputError(
                f"window definition is not JSON: {error}. Write WindowDefinition.canonical()"
            ) from error
        wanted = set(cls.__slots__)
        if not isinstance(fields, dict) or fields.get("frame") != Frame.CORRECTED:
            wanted -= set(_OF_CORRECTED)
        if not isinstance(fields, dict) or set(fields) != wanted:
            raise BadInputError(f"a window definition must have exactly the fields {', '.join(sorted(wanted))}")
        definition = from_fields(fields)
        if definition.canonical() != body:
            raise BadInputError(
                "window definition is not in canonical form: keys ascending, no spaces, plain integers, functions and "
                "percentiles in order"
            )
        return definition

    def _following(self) -> dict[str, int]:
        """Durations that follow from other fields."""
        local = self.frame is not Frame.AUTHORITY
        return {
            "slide_us": {Kind.TUMBLING: self.size_us, Kind.HOPPING: _FOLLOWS, Kind.SLIDING: 0}[self.kind],
            "lateness_us": LOCAL_LATENESS_US if local else 0,
            "max_behind_us": LOCAL_BEHIND_US if local else 0,
            "max_ahead_us": LOCAL_AHEAD_US if local else 0,
            "update_us": DEFAULT_UPDATE_US if self.late is Late.UPDATE else 0,
        }

    def _check_slide(self) -> None:
        """The slide fits kind and size."""
        if self.kind is Kind.TUMBLING and self.slide_us != self.size_us:
            reason = "is not the size of a tumbling window"
            raise WindowFieldError("slide_us", self.slide_us, reason, "Leave it out, or let the window hop")
        if self.kind is Kind.SLIDING and self.slide_us:
            reason = "has no meaning: a sliding window ends at each event"
            raise WindowFieldError("slide_us", self.slide_us, reason, "Leave it out")
        if self.kind is not Kind.HOPPING:
            return
        if self.slide_us >= self.size_us:
            reason = f"is not below the size, {_shown(self.size_us)}: windows that do not overlap are tumbling"
            raise WindowFieldError("slide_us", self.slide_us, reason, "Give a shorter one, or none")
        if self.windows_per_event > WINDOWS_PER_EVENT_MAX:
            reason = f"puts each event into {self.windows_per_event} windows, more than {WINDOWS_PER_EVENT_MAX}"
            least_ms = -(-self.size_us // (WINDOWS_PER_EVENT_MAX * _MS_US))
            remedy = f"Give at least {_shown(least_ms * _MS_US)}"
            raise WindowFieldError("slide_us", self.slide_us, reason, remedy)

    def _check_relations(self) -> None:
        """No field says what cannot be, or what would have no effect."""
        if self.frame is Frame.AUTHORITY and self.max_ahead_us:
            reason = "has no meaning in frame authority: no event is ahead of the clock that stamped it"
            raise WindowFieldError("max_ahead_us", self.max_ahead_us, reason, 'Leave it out, or set frame = "local"')
        self._check_doubtful()
        if self.late is not Late.UPDATE and self.update_us:
            reason = f'has no meaning with late = "{self.late}": a closed window stays closed'
            raise WindowFieldError("update_us", self.update_us, reason, 'Leave it out, or set late = "update"')
        if self.late is Late.UPDATE and not self.update_us:
            reason = "leaves no time for an update"
            raise WindowFieldError("update_us", self.update_us, reason, 'Give a longer one, or set late = "drop"')
        if self.kind is not Kind.SLIDING:
            return
        if self.early_us:
            reason = "has no meaning for a sliding window: it has one result, at its end"
            raise WindowFieldError("early_us", self.early_us, reason, "Leave it out, or let the window hop")
        if self.late is Late.UPDATE:
            reason = "would give a new result for each event time of a size after the late one"
            raise WindowFieldError("late", str(self.late), reason, 'Set late = "drop" or "side", or let the window hop')
        if self.whole:
            reason = "has no meaning for a sliding window: those of two partitions end at different events"
            raise WindowFieldError("whole", self.whole, reason, "Leave it out, or let the window hop")

    def _check_doubtful(self) -> None:
        """What frame corrected has beside the others, and what it cannot have."""
        if self.frame is Frame.CORRECTED:
            if self.unknown is Doubtful.CORRECT:
                reason = "cannot be done: there is no estimate to correct by"
                raise WindowFieldError("unknown", str(self.unknown), reason, "Date it by authority, or leave it out")
            if self.kind is Kind.SLIDING:
                reason = "has no meaning for a sliding window: it ends with an event, whose instant has a bound"
                raise WindowFieldError("frame", str(self.frame), reason, "Let the window hop, or take another frame")
            return
        for field, nothing in (("red", Doubtful.CORRECT), ("unknown", Doubtful.AUTHORITY)):
            value = getattr(self, field)
            if value is not nothing:
                reason = f"has no meaning in frame {self.frame}, where no clock is corrected"
                raise WindowFieldError(field, str(value), reason, 'Leave it out, or set frame = "corrected"')


def from_fields(fields: Mapping[str, Any]) -> WindowDefinition:
    """A definition from plain values: text for the members of enums, lists for tuples. Raises WindowFieldError."""
    plain = dict(fields)
    for field, closed in _MEMBERS.items():
        if field in plain:
            plain[field] = _member(plain[field], closed)
    if isinstance(plain.get("functions"), list):
        plain["functions"] = tuple(_member(function, Function) for function in plain["functions"])
    if isinstance(plain.get("percentiles"), list):
        plain["percentiles"] = tuple(plain["percentiles"])
    return WindowDefinition(**plain)


def check_together(definitions: Iterable[WindowDefinition]) -> None:
    """Refuse definitions that one ledger cannot have together: of one name, or too many."""
    names = [definition.name for definition in definitions]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise WindowFieldError("name", name, "is that of an earlier window", "Rename one of the two")
    if len(names) > DEFINITIONS_MAX:
        reason = f"is one window more than the {DEFINITIONS_MAX} that a ledger may have"
        raise WindowFieldError("name", names[DEFINITIONS_MAX], reason, "Leave some out")


def entry_name(name: str) -> str:
    """Name of the DEFINITION entries of that window."""
    return f"{ENTRY_PREFIX}{name}"


def window_name(entry: str) -> str | None:
    """Name of the window that a DEFINITION entry of that name is about; None where it is about something else."""
    return entry.removeprefix(ENTRY_PREFIX) if entry.startswith(ENTRY_PREFIX) else None


def read_entry(entry: str, body: str) -> WindowDefinition | None:
    """What the DEFINITION entry of a window says; None where it withdraws it. Raises BadInputError."""
    if body == WITHDRAWN:
        return None
    definition = WindowDefinition.parse(body)
    if entry != entry_name(definition.name):
        raise BadInputError(f"DEFINITION {entry!r} has the body of window {definition.name!r}. Name it as its body")
    return definition


def percentile_text(thousandths: int) -> str:
    """A percentile as it is written: 99,900 is "99.9"; no zeros at the end."""
    whole, rest = divmod(thousandths, PERCENTILE_UNIT)
    return f"{whole}.{rest:03d}".rstrip("0").rstrip(".")


def _check_name(value: object) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value) or len(value) > NAME_MAX:
        reason = f"is not 1 to {NAME_MAX} lower-case letters, digits and underscores"
        raise WindowFieldError("name", value, reason, "Give a name that is")


def _member(value: object, closed: type[enum.StrEnum]) -> object:
    """The member that a text names; anything else as it is, for the check to refuse."""
    return next((member for member in closed if value == member), value)


def _check_member(field: str, value: object, closed: type[enum.StrEnum]) -> None:
    if not isinstance(value, closed):
        raise WindowFieldError(field, value, f"is not one of {', '.join(closed)}", "Name one of them")


def _check_duration(field: str, value: object, *, least: int) -> None:
    shortest = _shown(least) if least else "0"
    remedy = f"Give {shortest} to {_shown(DURATION_MAX_US)}, as an integer"
    if type(value) is not int:
        raise WindowFieldError(field, value, "is not an integer", remedy)
    if value < least:
        raise WindowFieldError(field, value, f"is less than {shortest}", remedy)
    if value > DURATION_MAX_US:
        raise WindowFieldError(field, value, f"is more than {_shown(DURATION_MAX_US)}", remedy)


def _ordered_functions(functions: object) -> tuple[Function, ...]:
    """In the order of the results, count among them."""
    remedy = f"List some of {', '.join(Function)}"
    if not isinstance(functions, tuple):
        raise WindowFieldError("functions", functions, "is no list of functions", remedy)
    for place, function in enumerate(functions):
        if not isinstance(function, Function):
            raise WindowFieldError("functions", _plain(functions), f"holds {function!r}, which is none", remedy)
        if function in functions[:place]:
            raise WindowFieldError("functions", _plain(functions), f"holds {str(function)!r} twice", "Name it once")
    return tuple(function for function in Function if function in functions or function is Function.COUNT)


def _ordered_percentiles(percentiles: object) -> tuple[int, ...]:
    """Ascending."""
    remedy = f"List up to {PERCENTILES_MAX}, each above 0 and at most 100, with 3 decimals at most; [] for none"
    if not isinstance(percentiles, tuple):
        raise WindowFieldError("percentiles", percentiles, "is no list of percentiles", remedy)
    for place, percentile in enumerate(percentiles):
        if type(percentile) is not int:
            reason = f"holds {percentile!r}, which is no whole number of thousandths of a percent"
            raise WindowFieldError("percentiles", list(percentiles), reason, remedy)
        if not 0 < percentile <= PERCENTILE_MAX:
            raise WindowFieldError("percentiles", list(percentiles), "holds one out of range", remedy)
        if percentile in percentiles[:place]:
            reason = f"holds {percentile_text(percentile)} twice"
            raise WindowFieldError("percentiles", list(percentiles), reason, "Name it once")
    if len(percentiles) > PERCENTILES_MAX:
        reason = f"holds {len(percentiles)}, more than {PERCENTILES_MAX}"
        raise WindowFieldError("percentiles", list(percentiles), reason, remedy)
    return tuple(sorted(percentiles))


def _plain(functions: Iterable[object]) -> list[object]:
    """As a user wrote them."""
    return [str(function) if isinstance(function, Function) else function for function in functions]


def _shown(duration_us: int) -> str:
    """A duration in the largest unit that leaves no fraction."""
    for unit, name in ((86_400_000_000, "d"), (1_000_000, "s"), (_MS_US, "ms")):
        if duration_us % unit == 0:
            return f"{duration_us // unit} {name}"
    return f"{duration_us} us"


#: What a ledger has whose deployment defines no window: each source by its own clock, and the whole by the broker's.
DEFAULT_WINDOWS: Final = (
    WindowDefinition("source_minute", size_us=60_000_000),
    WindowDefinition("all_10s", size_us=10_000_000, frame=Frame.AUTHORITY, by=By.ALL),
)
