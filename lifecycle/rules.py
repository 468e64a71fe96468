"""The rules that data ages by, as an operator writes them: three files of JSON, none of which has to be there.

Problem: a rule that is misspelled, of the wrong type or at odds with another is found when data is gone. So all of
them are read together, before any job, and whatever does not fit is refused with its file, its member and a remedy.

    configuration/lifecycle_rules.json       when data moves, and when what is read comes back
    configuration/compression_rules.json     how archives are written
    configuration/retention_policies.json    what is kept

Each is an object of the members in MEMBERS and of "version": 1. Without a file, and for each member that is not there,
the defaults hold; those of a member that another one bounds follow that one, so a single member can be set alone.

GUARANTEE what `rendered` says of a configuration is read as that configuration.
GUARANTEE without reads an hour leaves the hot tier once it is older than recent_days, where half_life_hours is not
set: the half-life is recent_days / limit_bits then, to the microsecond above, and entropy is age in half-lives.
"""

from __future__ import annotations

import difflib
import enum
import json
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, NoReturn

from lifecycle.ageing import Ageing
from lifecycle.archive_facts import Compression
from lifecycle.tiers import Rules
from schemas.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

LIFECYCLE: Final = "configuration/lifecycle_rules.json"
COMPRESSION: Final = "configuration/compression_rules.json"
RETENTION: Final = "configuration/retention_policies.json"
VERSION: Final = 1

_US_PER_HOUR: Final = 3_600_000_000
_HOURS_PER_DAY: Final = 24
#: A hundred years: beyond it a rule is a slip, and null says for ever.
_DAYS_MAX: Final = 36_525
_HOURS_MAX: Final = _DAYS_MAX * _HOURS_PER_DAY
_BITS_MAX: Final = 1_000.0
_MIB: Final = 1024 * 1024
#: Characters of a value that a message repeats.
_SHOWN_MAX: Final = 60
_AGES: Final = ("live_hours", "recent_days", "monthly_days", "yearly_days", "deep_days")
_DEFAULTS: Final = Rules()
_LEDGER_KEEP_HOURS: Final = 168


class LedgerRetention(enum.StrEnum):
    """What becomes of entries of the ledger that are proved archived."""

    KEEP = "keep"
    CUT_WHEN_PROVED = "cut_when_proved"


@dataclass(frozen=True, slots=True)
class Configuration:
    """All rules. archives_days: None for ever; ledger_keep_hours: how much of the proved ledger stays."""

    ages: Rules
    ageing: Ageing
    codec: Compression
    file_bytes_max: int
    archives_days: int | None
    ledger: LedgerRetention
    ledger_keep_hours: int


@dataclass(frozen=True, slots=True)
class _Whole:
    """A whole number, least and greatest included; null where it may be none."""

    least: int
    greatest: int
    nullable: bool = False

    def holds(self, value: Any) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool) and self.least <= value <= self.greatest
        return whole or (value is None and self.nullable)

    def __str__(self) -> str:
        return f"a whole number, {self.least} to {self.greatest}" + (", or null" if self.nullable else "")


@dataclass(frozen=True, slots=True)
class _Number:
    """A number, least and greatest included."""

    least: float
    greatest: float

    def holds(self, value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.least <= value <= self.greatest

    def __str__(self) -> str:
        return f"a number, {self.least:g} to {self.greatest:g}"


@dataclass(frozen=True, slots=True)
class _Word:
    """One of a few words."""

    words: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.words

    def __str__(self) -> str:
        return " or ".join(f'"{word}"' for word in self.words)


_AGE: Final = _Whole(1, _DAYS_MAX)
#: What may be in each file.
MEMBERS: Final[Mapping[str, Mapping[str, _Whole | _Number | _Word]]] = {
    LIFECYCLE: {
        "live_hours": _Whole(1, _HOURS_MAX),
        "recent_days": _AGE,
        "monthly_days": _AGE,
        "yearly_days": _AGE,
        "deep_days": _Whole(1, _DAYS_MAX, nullable=True),
        "half_life_hours": _Number(0.001, _HOURS_MAX),
        "limit_bits": _Number(1.0, _BITS_MAX),
        "hysteresis_bits": _Number(0.0, _BITS_MAX),
        "stay_hours": _Whole(0, _HOURS_MAX),
    },
    COMPRESSION: {
        "codec": _Word(tuple(Compression)),
        "file_bytes_max": _Whole(_MIB, _MIB * _MIB),
    },
    RETENTION: {
        "archives_days": _Whole(1, _DAYS_MAX, nullable=True),
        "ledger": _Word(tuple(LedgerRetention)),
        "ledger_keep_hours": _Whole(0, _HOURS_MAX),
    },
}


def parse(contents: Mapping[str, bytes]) -> Configuration:
    """The configuration that files make, by name as in MEMBERS; those that are not there are left out.

    Raises BadInputError with file, member, value and remedy.
    """
    given: dict[str, Any] = {}
    for file in MEMBERS:
        if file in contents:
            given |= _members(file, contents[file])
    return _together(given)


def rendered(configuration: Configuration) -> dict[str, str]:
    """Each file as it would have to be for exactly that configuration, with all members."""
    ages, ageing = configuration.ages, configuration.ageing
    hours, rest = divmod(ageing.half_life_us, _US_PER_HOUR)
    values: dict[str, dict[str, Any]] = {
        LIFECYCLE: {name: getattr(ages, name) for name in _AGES}
        | {
            "half_life_hours": ageing.half_life_us / _US_PER_HOUR if rest else hours,
            "limit_bits": ageing.limit,
            "hysteresis_bits": ageing.hysteresis,
            "stay_hours": ageing.stay_us // _US_PER_HOUR,
        },
        COMPRESSION: {"codec": configuration.codec, "file_bytes_max": configuration.file_bytes_max},
        RETENTION: {
            "archives_days": configuration.archives_days,
            "ledger": configuration.ledger,
            "ledger_keep_hours": configuration.ledger_keep_hours,
        },
    }
    return {file: json.dumps({"version": VERSION} | members, indent=2) + "\n" for file, members in values.items()}


def _members(file: str, content: bytes) -> dict[str, Any]:
    """Those of a file, each of its type."""
    try:
        document = json.loads(content, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{file} cannot be read: {error}. Mend it, or remove it: all of it has defaults") from error
    if not isinstance(document, dict):
        raise BadInputError(f'{file} is no JSON object. Write for example {{"version": {VERSION}}}')
    version = document.pop("version", None)
    if version != VERSION or isinstance(version, bool):
        raise BadInputError(
            f'{file}: version is {_shown(version)}: this driftledger reads {VERSION}. Write "version": {VERSION}, or '
            "use the driftledger that the file was written for"
        )
    members = MEMBERS[file]
    for name, value in document.items():
        if name not in members:
            near = difflib.get_close_matches(name, members, 1)
            remedy = f"Mend its spelling: {near[0]}" if near else f"Remove it; the members are {', '.join(members)}"
            raise BadInputError(f"{file}: {_shown(name)} is {_shown(value)}: there is no such member. {remedy}")
        if not members[name].holds(value):
            raise BadInputError(
                f"{file}: {name} is {_shown(value)}: it must be {members[name]}. Mend it, or remove it for its default"
            )
    return document


def _together(given: dict[str, Any]) -> Configuration:
    """Members of all files, with defaults for those that are not there. Raises BadInputError where two contradict."""
    recent_days = given.get("recent_days", _DEFAULTS.recent_days)
    archives_days = given.get("archives_days")
    limit = float(given.get("limit_bits", 8.0))
    monthly_days = given.get("monthly_days", max(_DEFAULTS.monthly_days, recent_days))
    ages = {
        "live_hours": given.get("live_hours", _DEFAULTS.live_hours),
        "recent_days": recent_days,
        "monthly_days": monthly_days,
        "yearly_days": given.get("yearly_days", max(_DEFAULTS.yearly_days, monthly_days)),
        "deep_days": given.get("deep_days", _deep_days(recent_days, archives_days)),
    }
    hysteresis = float(given.get("hysteresis_bits", limit))
    kept_hours = _LEDGER_KEEP_HOURS if archives_days is None else archives_days * _HOURS_PER_DAY
    keep_hours = given.get("ledger_keep_hours", min(_LEDGER_KEEP_HOURS, kept_hours))
    _check(ages, limit, hysteresis, archives_days, keep_hours)
    try:
        rules = Rules(**ages)
    except BadInputError as error:
        raise BadInputError(f"{LIFECYCLE}: {error}") from error
    if "half_life_hours" in given:
        half_life_us = round(Fraction(given["half_life_hours"]) * _US_PER_HOUR)
    else:
        half_life_us = math.ceil(recent_days * _HOURS_PER_DAY * _US_PER_HOUR / Fraction(limit))
    return Configuration(
        ages=rules,
        ageing=Ageing(half_life_us, limit, hysteresis, given.get("stay_hours", 24) * _US_PER_HOUR),
        codec=Compression(given.get("codec", Compression.LZ4)),
        file_bytes_max=given.get("file_bytes_max", 1024 * _MIB),
        archives_days=archives_days,
        ledger=LedgerRetention(given.get("ledger", LedgerRetention.CUT_WHEN_PROVED)),
        ledger_keep_hours=keep_hours,
    )


def _deep_days(recent_days: int, archives_days: int | None) -> int | None:
    """Unless it is given: none of what is not kept that long."""
    days = max(_DEFAULTS.deep_days or 0, recent_days)
    return days if archives_days is None or days < archives_days else None


def _check(
    ages: Mapping[str, int | None], limit: float, hysteresis: float, archives_days: int | None, keep_hours: int
) -> None:
    if hysteresis > limit:
        raise BadInputError(
            f"{LIFECYCLE}: hysteresis_bits is {hysteresis:g}, more than limit_bits {limit:g}: nothing would ever come "
            f"back. Make hysteresis_bits {limit:g} at most"
        )
    if archives_days is None:
        return
    recent_days, deep_days = ages["recent_days"], ages["deep_days"]
    if recent_days is not None and archives_days < recent_days:
        raise BadInputError(
            f"{RETENTION}: archives_days is {archives_days}, less than recent_days {recent_days} of {LIFECYCLE}: what "
            f"is kept so long is not archived before. Make archives_days {recent_days} or more, or recent_days "
            f"{archives_days} or less"
        )
    if deep_days is not None and deep_days >= archives_days:
        raise BadInputError(
            f"{LIFECYCLE}: deep_days is {deep_days}, and archives are kept for archives_days {archives_days} of "
            f"{RETENTION}: none would ever be deep. Make deep_days less than {archives_days}, or null"
        )
    if keep_hours > archives_days * _HOURS_PER_DAY:
        raise BadInputError(
            f"{RETENTION}: ledger_keep_hours is {keep_hours}, longer than archives_days {archives_days}: the ledger "
            f"would outlast its archives. Make ledger_keep_hours {archives_days * _HOURS_PER_DAY} or less"
        )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{_shown(next(name for name in names if names.count(name) > 1))} is there twice")
    return document


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _shown(value: Any) -> str:
    """As it stands in the file, if it is not long."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."
