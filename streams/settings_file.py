"""Where the settings of a ledger are read: driftledger.toml, the environment, a command's options.

The file is the one of the working directory, or the one given by --config. A deployment with many ledgers lists them
there; what stands above the tables holds for all, what stands in one overrides it there:

    prefix = "plant"

    [[ledger]]
    name = "events"

    [[ledger]]
    name = "meters"
    input_topic = "meters.raw"
    framing = "json"

Windows are tables, too, and stand in the file only: [[window]] for all ledgers, [[ledger.window]] below a ledger for
that one, in place of those for all; `window = []` for none (see `window_settings`).

GUARANTEE a value that is refused is named with the place it came from and the remedy; nothing has been started by then.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from pydantic import ValidationError

from schemas.errors import BadInputError
from streams.settings import DEFAULT_LEDGER, DERIVED, ENVIRONMENT_PREFIX, FROM_TABLES, NOT_REPEATED, Settings
from streams.window_settings import read_windows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from streams.windows import WindowDefinition

DEFAULT_CONFIG: Final = Path("driftledger.toml")

#: Variables of our prefix that the tests read, by their beginning.
_TEST_VARIABLES: Final = ("DRIFTLEDGER_TEST_", "DRIFTLEDGER_REQUIRE_")
#: How much of a name must agree for the other to be meant; difflib's ratio.
_RESEMBLES: Final = 0.8


def load(config: Path | None = None, ledger: str | None = None, **overrides: Any) -> Settings:
    """Settings of one ledger, from the environment, the file and the defaults.

    config: the file; None is driftledger.toml of the working directory, which may be absent. ledger: which one; None
    takes DRIFTLEDGER_LEDGER, the file's first table, or "events". overrides: explicit values (a
    command's options), above all others; None means not given.

    Raises BadInputError naming the file or variable, the value and the remedy.
    """
    path = config or DEFAULT_CONFIG
    text = _read(path, required=config is not None)
    table = _parse(text, path)
    explicit = {key: value for key, value in overrides.items() if value is not None}
    chosen, named_by = _choose(table, ledger, path)
    name = chosen.pop("ledger")
    windows = _windows(chosen, table, text, path, name)
    from_file = {key: value for key, value in chosen.items() if _variable(key) not in _environment()}
    places = {
        **{key: f"{path}: {key}" for key in from_file},
        **{key: f"option --{key.replace('_', '-')}" for key in explicit},
        "ledger": named_by,
    }
    try:
        return Settings(**{**from_file, **windows, **explicit, "ledger": name})
    except ValidationError as error:
        _refuse(error, path, places)


def unknown_variables() -> dict[str, str | None]:
    """Variables of our prefix that nothing reads, each with the known one that it resembles most, None for none."""
    known = [_variable(field) for field in Settings.model_fields if field != FROM_TABLES]
    unknown = [
        name
        for name in sorted(_environment())
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known and not name.startswith(_TEST_VARIABLES)
    ]
    return {name: next(iter(difflib.get_close_matches(name, known, 1, _RESEMBLES)), None) for name in unknown}


def _read(path: Path, *, required: bool) -> str:
    """The file's text; that of an empty one where it may be absent and is."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise BadInputError(f"{path}: no such file. Give --config the path of a driftledger.toml") from None
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: cannot be read: {error}. Make it a readable UTF-8 file") from error


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(text)
        _check_integers(table)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{path}: not TOML: {error}. Mend that line") from error
    return table


def _check_integers(value: Any) -> None:
    """Refuse what TOML does not allow and tomllib reads: Python cannot even print the longest."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_integers(item)
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"an integer of {value.bit_length()} bits, more than 64")


def _windows(
    chosen: dict[str, Any], table: dict[str, Any], text: str, path: Path, ledger: str
) -> dict[str, tuple[WindowDefinition, ...]]:
    """Take the windows of the chosen ledger out of its values; nothing where the file says nothing of windows."""
    if FROM_TABLES in chosen:
        raise BadInputError(f"{path}: unknown setting {FROM_TABLES!r}. Write each window as a table, [[window]]")
    if "window" not in chosen:
        return {}
    own = (number for number, entry in enumerate(table.get("ledger", [])) if entry["name"] == ledger)
    number = next((number for number in own if "window" in table["ledger"][number]), None)
    return {FROM_TABLES: read_windows(chosen.pop("window"), text, str(path), number)}


def _choose(table: dict[str, Any], ledger: str | None, path: Path) -> tuple[dict[str, Any], str]:
    """Merge the file's common values with those of one of its ledgers; also, what named that ledger."""
    common = {key: value for key, value in table.items() if key != "ledger"}
    ledgers = table.get("ledger", [])
    _check_ledgers(ledgers, path)
    names = [entry["name"] for entry in ledgers]
    if len(set(names)) < len(names):
        raise BadInputError(f"{path}: two [[ledger]] tables have one name ({', '.join(names)}). Rename one")
    variable = _environment().get(_variable("ledger"))
    wanted = ledger or variable or (names[0] if names else DEFAULT_LEDGER)
    named_by = "option --ledger" if ledger else _variable("ledger") if variable else f"{path}: [[ledger]] name"
    if names and wanted not in names:
        raise BadInputError(f"{path}: no ledger {wanted!r}; it has {', '.join(names)}. Name one of them")
    own: dict[str, Any] = next((entry for entry in ledgers if entry["name"] == wanted), {})
    own = {key: value for key, value in own.items() if key != "name"}
    return {**common, **own, "ledger": wanted}, named_by


def _check_ledgers(ledgers: Any, path: Path) -> None:
    """Refuse what is no list of tables with a name."""
    if not isinstance(ledgers, list) or not all(isinstance(entry, dict) for entry in ledgers):
        shown = "[ledger]" if isinstance(ledgers, dict) else f"ledger = {ledgers!r}"
        raise BadInputError(
            f'{path}: {shown} is not how a ledger is written. Write [[ledger]] and below it name = "..."'
        )
    for entry in ledgers:
        if "name" not in entry:
            has = f"it has {', '.join(entry)}" if entry else "it is empty"
            raise BadInputError(f'{path}: a [[ledger]] table without name; {has}. Give it name = "..."')
        if not isinstance(entry["name"], str):
            raise BadInputError(f"{path}: [[ledger]] name = {entry['name']!r} is no text. Put it in quotes")


def _variable(field: str) -> str:
    return f"{ENVIRONMENT_PREFIX}{field.upper()}"


def _environment() -> Mapping[str, str]:
    """The variables that count: one set to nothing is one not set."""
    return {key.upper(): value for key, value in os.environ.items() if value}


def _refuse(error: ValidationError, path: Path, places: Mapping[str, str]) -> NoReturn:
    told = [details for details in error.errors() if not _follows(details, places)]
    raise BadInputError("; ".join(_describe(details, path, places) for details in told)) from error


def _follows(details: ErrorDetails, places: Mapping[str, str]) -> bool:
    """Whether nobody gave the value: it was derived from one that is refused as well."""
    field = details["loc"][0] if details["loc"] else ""
    return field in DERIVED and field not in places and _variable(str(field)) not in _environment()


def _describe(details: ErrorDetails, path: Path, places: Mapping[str, str]) -> str:
    reason = details["msg"].removeprefix("Value error, ")
    if not details["loc"]:
        return f"settings do not fit together: {reason}. Change one of the two (environment, {path} or option)"
    field = str(details["loc"][0])
    if details["type"] == "extra_forbidden":
        return f"{path}: unknown setting {field!r}. Remove it, or mend its spelling"
    place = places.get(field, _variable(field))
    shown = "(not shown)" if field in NOT_REPEATED else repr(details["input"])
    return f"{place} = {shown}: {reason[0].lower()}{reason[1:]}. Give another value, or none for the default"
