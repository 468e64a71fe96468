"""What a ledger has been told to do, as entries of the ledger itself.

Problem: a verdict must be recomputable years later by somebody who has the ledger and nothing else, so no fold may
look at a file, a variable or an option. Whatever may influence it is a DEFINITION entry: a name and a body of
canonical JSON, in force from its own index on. When a lane opens it compares what is configured with what is in force
and writes a new entry where they differ.

GUARANTEE a JudgeSettings object is valid; settings are equal if and only if their canonical JSON is.
Canonical JSON here is: all fields present, keys in ascending order, no spaces, integers plain.
HAZARD the limits below are part of what `parse` accepts: a release that narrows one refuses entries an earlier one
wrote. Widen them only, or raise the judge's fold version.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from schemas.codec import Framing
from schemas.errors import BadInputError
from streams.severity import THRESHOLD_LIMIT_US, YELLOW_FROM_MS

#: Events of a source that its alerts look back on.
OF_EVENTS_MAX: Final = 62
#: Name of the judge's DEFINITION entries.
JUDGE: Final = "judge"

#: Of a calm run: it is hours for most sources; beyond it an alert would never close.
CLEAR_EVENTS_MAX: Final = 10_000
#: Times of alerts, in ms: a day.
HOLD_MAX_MS: Final = 86_400_000
#: 48 bytes for each sequence of the horizon, in memory and per partition: 96 MB at the limit.
DEDUPE_HORIZON_MAX: Final = 2_000_000
#: Longer than it takes any clock to become wrong.
ESTIMATE_INTERVAL_MAX_MS: Final = 86_400_000
#: About 1.3 KB for each source, and its name: 1.3 GB at the limit.
SOURCES_MAX: Final = 1_000_000
#: Fields that came later, and what holds where a body was written without them.
_LATER: Final = {
    "estimate_interval_ms": 60_000,
    "of_events": 5,
    "clear_events": 5,
    "hysteresis_ms": 100,
    "hold_ms": 10_000,
    "fleet_hold_ms": 5_000,
}


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """All that the judge can be told. The defaults hold before the first DEFINITION entry.

    framing: how input values are framed. threshold_us: a warning is given strictly beyond it. confirm_events,
    of_events: so many of the last so many events of a source must be over a limit before an alert opens or rises.
    clear_events: so many in a row must be below it, by hysteresis_ms, before one falls or closes. hold_ms,
    fleet_hold_ms: of authority time, how long an alert stays open at least, and how long one waits that is not proved.
    dedupe_horizon: sequences within which a repeated (source, event_id) is recognised; 0 recognises none. sources_max:
    sources judged one by one in a partition. estimate_interval_ms: of authority time, in which the estimate of a clock
    is told once. Raises BadInputError naming the field.
    """

    framing: Framing = Framing.SINGLE_OBJECT
    threshold_us: int = 5_000_000
    confirm_events: int = 3
    dedupe_horizon: int = 100_000
    sources_max: int = 200_000
    estimate_interval_ms: int = 60_000
    of_events: int = 5
    clear_events: int = 5
    hysteresis_ms: int = 100
    hold_ms: int = 10_000
    fleet_hold_ms: int = 5_000

    def __post_init__(self) -> None:
        if not isinstance(self.framing, Framing):
            raise BadInputError(f"framing = {self.framing!r} is not one of {', '.join(Framing)}. Name one of them")
        _check("threshold_us", self.threshold_us, 0, THRESHOLD_LIMIT_US)
        _check("of_events", self.of_events, 1, OF_EVENTS_MAX)
        _check("confirm_events", self.confirm_events, 1, self.of_events, " = of_events")
        _check("clear_events", self.clear_events, 1, CLEAR_EVENTS_MAX)
        _check("hysteresis_ms", self.hysteresis_ms, 0, YELLOW_FROM_MS - 1)
        _check("hold_ms", self.hold_ms, 0, HOLD_MAX_MS)
        _check("fleet_hold_ms", self.fleet_hold_ms, 0, HOLD_MAX_MS)
        _check("dedupe_horizon", self.dedupe_horizon, 0, DEDUPE_HORIZON_MAX)
        _check("sources_max", self.sources_max, 1, SOURCES_MAX)
        _check("estimate_interval_ms", self.estimate_interval_ms, 1, ESTIMATE_INTERVAL_MAX_MS)

    def canonical(self) -> str:
        """The body of a DEFINITION entry."""
        return _canonical(asdict(self))

    @classmethod
    def parse(cls, body: str) -> JudgeSettings:
        """Settings from canonical JSON; anything else, also the same object written differently, is a BadInputError.

        A body from before a field was added lacks it, and its default holds.
        """
        try:
            fields: Any = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadInputError(f"judge settings are not JSON: {error}. Write JudgeSettings.canonical()") from error
        if not isinstance(fields, dict) or sorted({**_LATER, **fields}) != sorted(cls.__slots__):
            raise BadInputError(f"judge settings must have exactly the fields {', '.join(sorted(cls.__slots__))}")
        if fields["framing"] not in tuple(Framing):
            raise BadInputError(f"framing = {fields['framing']!r} is not one of {', '.join(Framing)}. Name one of them")
        settings = cls(**{**_LATER, **fields, "framing": Framing(fields["framing"])})
        if _canonical(fields) != body:
            raise BadInputError("judge settings are not in canonical form: keys ascending, no spaces, plain integers")
        return settings


def _canonical(fields: dict[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def threshold_us_from_ms(threshold_ms: float | Decimal | str) -> int:
    """The whole microseconds of a threshold in milliseconds, rounded down.

    Distances are whole microseconds, so "more than 0.0015 ms" and "more than 1 us" say the same. A float counts as the
    decimal it is shown as. Raises BadInputError for a negative threshold, NaN, infinity, or what is no number.
    """
    try:
        exact = Decimal(str(threshold_ms))
    except InvalidOperation as error:
        raise BadInputError(f"drift threshold {threshold_ms!r} is no number. Give milliseconds, 0 or more") from error
    if not exact.is_finite() or exact < 0:
        raise BadInputError(f"drift threshold {threshold_ms} ms is not a length of time. Give milliseconds, 0 or more")
    threshold_us = math.floor(exact * 1_000)
    _check("drift threshold in microseconds", threshold_us, 0, THRESHOLD_LIMIT_US)
    return threshold_us


def _check(name: str, value: object, least: int, most: int, what: str = "") -> None:
    if type(value) is not int:
        raise BadInputError(f"{name} = {value!r} is not an integer. Give one from {least} to {most}{what}")
    if not least <= value <= most:
        raise BadInputError(f"{name} = {value} is out of range. Give an integer from {least} to {most}{what}")
