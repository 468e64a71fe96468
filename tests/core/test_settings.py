"""Settings: where a value comes from, what is derived, and how a bad one is told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from lifecycle.archiving import BUFFER_BYTES
from schemas.errors import BadInputError
from streams import settings as settings_module
from streams.definitions import threshold_us_from_ms
from streams.settings import Settings
from streams.settings_file import load, unknown_variables
from streams.severity import THRESHOLD_LIMIT_US
from streams.windows import DEFAULT_WINDOWS, DEFINITIONS_MAX, WindowDefinition


@pytest.fixture(autouse=True)
def empty_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file and no variable of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields:
        monkeypatch.delenv(f"DRIFTLEDGER_{field.upper()}", raising=False)


def write(text: str, name: str = "driftledger.toml") -> Path:
    """A settings file in the working directory."""
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_without_file_and_variables_the_defaults_hold() -> None:
    """A new user sets nothing."""
    settings = load()
    assert settings.bootstrap is None
    assert settings.input_topic == "driftledger.events"
    assert (settings.partitions, settings.lanes) == (4, 4)
    assert settings.data_dir == Path(".driftledger")
    assert settings.drift_threshold_ms == 5000
    assert settings.hot_store
    assert settings.windows == DEFAULT_WINDOWS
    assert (settings.lock_halts, settings.guardian_locks) == ("sequence,put", False)
    assert settings.lifecycle_buffer_bytes == BUFFER_BYTES


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the three sources."""
    write('prefix = "plant"\npartitions = 6\n')
    monkeypatch.setenv("DRIFTLEDGER_PARTITIONS", "2")
    settings = load()
    assert settings.prefix == "plant"
    assert settings.partitions == 2
    assert (settings.confirm_events, settings.of_events) == (3, 5)


def test_an_option_wins_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command's own option; None is an option not given."""
    monkeypatch.setenv("DRIFTLEDGER_HTTP_PORT", "9000")
    assert load(http_port=0, bootstrap=None).http_port == 0


TOKEN = "correct-horse-battery"  # noqa: S105 - of a test


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the settings nor by a refusal."""
    monkeypatch.setenv("DRIFTLEDGER_HTTP_TOKEN", TOKEN)
    settings = load(http_host="0.0.0.0")  # noqa: S104 - a test
    assert settings.token == TOKEN
    assert TOKEN not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    for wrong in ("short", "has a space in it, and more", "x" * 257, "ümlaut-ümlaut-ümlaut"):
        monkeypatch.setenv("DRIFTLEDGER_HTTP_TOKEN", wrong)
        with pytest.raises(BadInputError, match="16 to 256 characters") as refused:
            load()
        assert wrong not in str(refused.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "ledger.example"])  # noqa: S104 - a test
def test_elsewhere_than_on_loopback_a_token_is_required(host: str) -> None:
    """Whoever reaches the worker could read all, and put events."""
    with pytest.raises(BadInputError, match="is not loopback and there is no http_token"):
        load(http_host=host)
    assert load(http_host=host, http_token=TOKEN).token == TOKEN
    assert load(http_host="localhost").token is None


def test_a_variable_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells and compose files pass empty variables."""
    write('bootstrap = "kafka:9092"\n')
    monkeypatch.setenv("DRIFTLEDGER_BOOTSTRAP", "")
    assert load().bootstrap == "kafka:9092"


@pytest.mark.parametrize(("partitions", "lanes"), [(1, 1), (8, 8), (16, 8)])
def test_lanes_follow_partitions_up_to_eight(partitions: int, lanes: int) -> None:
    """Unless they are given."""
    assert load(partitions=partitions).lanes == lanes
    assert load(partitions=partitions, lanes=1).lanes == 1


def test_the_input_topic_follows_prefix_and_ledger() -> None:
    """Unless it is given."""
    assert load(prefix="p", ledger="meters").input_topic == "p.meters"
    assert load(prefix="p", input_topic="raw").input_topic == "raw"


def test_a_ledger_table_overrides_the_common_values() -> None:
    """Two ledgers of one deployment; the first is the default."""
    write('prefix = "p"\nframing = "json"\n[[ledger]]\nname = "a"\n[[ledger]]\nname = "b"\nframing = "single_object"\n')
    assert (load().ledger, load().framing) == ("a", "json")
    assert (load(ledger="b").input_topic, load(ledger="b").framing) == ("p.b", "single_object")


def test_the_ledger_may_be_named_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As --ledger, for a worker in a container."""
    write('[[ledger]]\nname = "a"\n[[ledger]]\nname = "b"\nhttp_port = 1\n')
    monkeypatch.setenv("DRIFTLEDGER_LEDGER", "b")
    assert (load().ledger, load().http_port) == ("b", 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("partitions =", "not TOML"),
        ("partitons = 3", "unknown setting 'partitons'"),
        ("partitions = 0", "driftledger.toml: partitions = 0"),
        ("ledger = 'events'", "ledger = 'events' is not how a ledger is written. Write [[ledger]] and below it name"),
        ("[ledger]\nname = 'x'", "[ledger] is not how a ledger is written. Write [[ledger]]"),
        ("[[ledger]]\nnam = 'x'", "a [[ledger]] table without name; it has nam. Give it name"),
        ("[[ledger]]\n", "a [[ledger]] table without name; it is empty. Give it name"),
        ("[[ledger]]\nname = 3", "[[ledger]] name = 3 is no text"),
        ("[[ledger]]\nname = 'a b'", "[[ledger]] name = 'a b'"),
        ("bootstrap = 'nohost'", "bootstrap = 'nohost'"),
        ("[[ledger]]\nname = 'x'\n[[ledger]]\nname = 'x'", "two [[ledger]] tables"),
        ("[[ledger]]\nname = 'x'\ncolour = 1", "unknown setting 'colour'"),
        ("framing = 'guess'", "framing = 'guess'"),
        ("prefix = 'a b'", "prefix = 'a b'"),
        ("drift_threshold_ms = -0.5", "drift_threshold_ms = -0.5"),
        ("drift_threshold_ms = nan", "drift_threshold_ms = nan"),
        ("drift_threshold_ms = inf", "drift_threshold_ms = inf"),
        ("drift_threshold_ms = 1e300", "drift_threshold_ms = 1e+300"),
        ("batch_interval_ms = 1001", "batch_interval_ms = 1001"),
        ("confirm_events = 63", "confirm_events = 63"),
        ("confirm_events = 6\nof_events = 5", "confirm_events=6 exceeds of_events=5"),
        ("hot_store = 2", "driftledger.toml: hot_store = 2"),
        ("lock_halts = 'all'", "driftledger.toml: lock_halts = 'all'"),
        ("lock_halts = 'put,sequence'", "input should be 'sequence,put'"),
        ("guardian_locks = 'maybe'", "driftledger.toml: guardian_locks = 'maybe'"),
        ("windows = []", "unknown setting 'windows'. Write each window as a table, [[window]]"),
        ("[[ledger]]\nname = 'x'\nwindows = 3", "unknown setting 'windows'. Write each window as a table"),
        ("window = 3", "driftledger.toml, line 1: window = 3 is not how a window is written. Write [[window]]"),
        ("[[window]]\nname = 'w'\nsize_ms = 0", "driftledger.toml, line 3: [[window]] 'w': size_ms = 0 is less than"),
        ("x = 1" + "0" * 5_000, "driftledger.toml: not TOML"),
        ("x = " + "[" * 5_000, "driftledger.toml: not TOML"),
        ("x" + ".x" * 5_000 + " = 1", "driftledger.toml: not TOML"),
        ("[[window]]\nsize_ms = 0x" + "f" * 5_000, "driftledger.toml: not TOML: an integer of 20000 bits"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_value(text: str, says: str) -> None:
    """The message leads to the line."""
    write(text)
    with pytest.raises(BadInputError) as refused:
        load()
    assert says in str(refused.value)
    assert "driftledger.toml" in str(refused.value)


def test_a_file_that_is_not_text_is_refused() -> None:
    """And not a traceback."""
    Path("driftledger.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInputError, match="cannot be read"):
        load()


def test_a_named_file_must_exist() -> None:
    """Only the default one may be absent."""
    with pytest.raises(BadInputError, match=r"other\.toml: no such file"):
        load(Path("other.toml"))


def test_an_unknown_ledger_is_refused_with_the_known_ones() -> None:
    """A spelling mistake must not make a new ledger."""
    write('[[ledger]]\nname = "a"\n[[ledger]]\nname = "b"\n')
    with pytest.raises(BadInputError, match="no ledger 'c'; it has a, b"):
        load(ledger="c")


def test_a_bad_variable_is_refused_by_name_and_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable, not the field."""
    monkeypatch.setenv("DRIFTLEDGER_PARTITIONS", "many")
    with pytest.raises(BadInputError, match="DRIFTLEDGER_PARTITIONS = 'many'"):
        load()


def test_a_bad_option_is_refused_by_name_and_value() -> None:
    """With the spelling of the command line."""
    with pytest.raises(BadInputError, match="--http-port = 70000"):
        load(http_port=70_000)


@pytest.mark.parametrize("named_by", ["option --ledger", "DRIFTLEDGER_LEDGER"])
def test_a_bad_name_is_blamed_on_what_gave_it_and_on_nothing_else(
    named_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on a file that is not there, nor on the input topic that follows from the name."""
    if named_by == "DRIFTLEDGER_LEDGER":
        monkeypatch.setenv(named_by, "a b")
    with pytest.raises(BadInputError) as refused:
        load(ledger=None if named_by == "DRIFTLEDGER_LEDGER" else "a b")
    assert str(refused.value).startswith(f"{named_by} = 'a b': ")
    assert "toml" not in str(refused.value)
    assert "input" not in str(refused.value)


def test_lanes_that_follow_from_bad_partitions_are_not_blamed() -> None:
    """Nobody gave them."""
    with pytest.raises(BadInputError) as refused:
        load(partitions=-5)
    assert "lanes" not in str(refused.value).lower()


def test_the_option_names_the_ledger_over_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it: also the name."""
    write('[[ledger]]\nname = "a"\npartitions = 2\n[[ledger]]\nname = "b"\n')
    monkeypatch.setenv("DRIFTLEDGER_LEDGER", "b")
    assert (load(ledger="a").ledger, load(ledger="a").partitions) == ("a", 2)


@pytest.mark.parametrize("address", ["kafka:9092", "a:1,b.c:2,10.0.0.1:65535", "[::1]:9092"])
def test_an_address_has_a_host_and_a_port(address: str) -> None:
    """One or many."""
    assert load(bootstrap=address).bootstrap == address


@pytest.mark.parametrize(
    "address", ["nohost", "kafka:", ":9092", "kafka:0", "kafka:65536", "a:1,", "a:1, b:2", "a:1;b:2", "a:b", "x://a:1"]
)
def test_an_address_that_is_none_is_refused_before_anybody_waits_for_it(address: str) -> None:
    """With the form it must have."""
    with pytest.raises(BadInputError, match=r"host:port\[,host:port\.\.\.\]"):
        load(bootstrap=address)


@pytest.mark.parametrize(
    "ending", ["control", "sequenced", "drift.alerts", "drift.estimates", "dead.letters", "progress", "snapshots"]
)
def test_a_topic_of_another_ledger_is_no_input(ending: str) -> None:
    """Neither by the name of the ledger nor given; a topic of that name elsewhere is the user's."""
    with pytest.raises(BadInputError, match=rf"--ledger = .* ends in \.{ending} .* the ledger 'events'"):
        load(ledger=f"events.{ending}")
    with pytest.raises(BadInputError, match="is a topic of the ledger 'meters' of prefix='plant'"):
        load(prefix="plant", input_topic=f"plant.meters.{ending}")
    assert load(ledger=ending).ledger == ending
    assert load(input_topic=f"raw.{ending}").input_topic == f"raw.{ending}"


def test_variables_that_nothing_reads_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with the setting it resembles; those of the tests, and those set to nothing, are no mistake."""
    for name in ("PARTITONS", "TEST_SEED", "REQUIRE_CASES", "CASES", "COLOUR"):
        monkeypatch.setenv(f"DRIFTLEDGER_{name}", "1")
    monkeypatch.setenv("DRIFTLEDGER_EMPTY", "")
    assert unknown_variables() == {
        "DRIFTLEDGER_COLOUR": None,
        "DRIFTLEDGER_PARTITONS": "DRIFTLEDGER_PARTITIONS",
    }


def test_a_command_line_names_the_ledger_unless_it_is_the_default() -> None:
    """For remedies."""
    assert load().command == "driftledger"
    assert load(ledger="meters").command == "driftledger --ledger meters"


WINDOWS = """
[[window]]
name = "all"
size_ms = 1_000

[[ledger]]
name = "a"

[[ledger]]
name = "b"
[[ledger.window]]
name = "own"
size_ms = 2_000
slide_ms = 1_000

[[ledger]]
name = "c"
window = []
"""


def names(ledger: str | None = None) -> list[str]:
    """Of the windows that a ledger has."""
    return [window.name for window in load(ledger=ledger).windows]


def test_windows_of_a_ledger_replace_those_of_all() -> None:
    """A list, also an empty one, is one value like any other."""
    write(WINDOWS)
    assert (names(), names("a"), names("b"), names("c")) == (["all"], ["all"], ["own"], [])


def test_a_file_without_windows_leaves_the_defaults_and_an_empty_list_none() -> None:
    """Whoever wants none says so."""
    write('prefix = "p"\n')
    assert load().windows == DEFAULT_WINDOWS
    write("window = []\n")
    assert load().windows == ()


def test_a_fault_in_a_window_is_told_with_the_line_of_the_ledger_that_has_it() -> None:
    """And is none of the other ledgers' business."""
    write(WINDOWS.replace("slide_ms", "slid_ms"))
    assert names("a") == ["all"]
    with pytest.raises(BadInputError) as refused:
        load(ledger="b")
    assert str(refused.value) == (
        "driftledger.toml, line 14: [[ledger.window]] 'own': slid_ms = 1000 is no key of a window. Mend its spelling: "
        "slide_ms"
    )


def test_no_variable_gives_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read by nothing, and found among those."""
    monkeypatch.setenv("DRIFTLEDGER_WINDOWS", "[]")
    monkeypatch.setenv("DRIFTLEDGER_HOT_STORE", "no")
    assert load().windows == Settings().windows == DEFAULT_WINDOWS
    write(WINDOWS)
    assert names() == ["all"]
    assert not load().hot_store
    assert list(unknown_variables()) == ["DRIFTLEDGER_WINDOWS"]


def test_windows_may_be_given_as_definitions() -> None:
    """By a program; what is given above the file wins over it."""
    windows = (WindowDefinition("w", 1_000_000),)
    write(WINDOWS)
    assert Settings(windows=windows).windows == load(windows=windows).windows == windows
    assert Settings(windows=()).windows == ()


@pytest.mark.parametrize(
    ("windows", "says"),
    [
        ((WindowDefinition("w", 1_000), WindowDefinition("w", 2_000)), "name = 'w' is that of an earlier window"),
        ([WindowDefinition(f"w{number}", 1_000) for number in range(DEFINITIONS_MAX + 1)], "more than the 64"),
        (({"name": "w", "size_us": 1_000},), "--windows = "),
        ("w", "--windows = 'w'"),
    ],
)
def test_windows_that_a_ledger_cannot_have_are_refused(windows: Any, says: str) -> None:
    """However they are given."""
    with pytest.raises(BadInputError) as refused:
        load(windows=windows)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"partitions": 2, "lanes": 3}, "lanes=3 exceeds partitions=2"),
        ({"transaction_timeout_ms": 5_000}, "below session_timeout_ms"),
        ({"heartbeat_interval_ms": 20_000}, "below heartbeat_interval_ms"),
        ({"batch_events_max": 10, "snapshot_entries": 9}, "exceeds snapshot_entries"),
        ({"input_topic": "driftledger.events.sequenced"}, "this ledger's own topics"),
    ],
)
def test_limits_that_contradict_one_another_are_refused(values: dict[str, Any], says: str) -> None:
    """Each alone would be in range."""
    with pytest.raises(BadInputError, match="do not fit together") as refused:
        load(**values)
    assert says in str(refused.value)


def test_the_largest_threshold_is_one_that_a_judge_takes() -> None:
    """What is refused is refused when the settings are read."""
    largest = load(drift_threshold_ms=THRESHOLD_LIMIT_US / 1_000)
    assert threshold_us_from_ms(largest.drift_threshold_ms) == THRESHOLD_LIMIT_US


def test_the_cases_are_found_where_they_are_and_none_where_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Named by variable, else in a folder beside the code."""
    monkeypatch.setattr(settings_module, "CASES_PLACES", (str(tmp_path / "absent"), str(tmp_path)))
    assert load().cases == tmp_path
    monkeypatch.setattr(settings_module, "CASES_PLACES", (str(tmp_path / "absent"),))
    assert load().cases is None
    monkeypatch.setenv("DRIFTLEDGER_CASES", "elsewhere")
    assert load().cases == Path("elsewhere")


def test_settings_cannot_be_changed() -> None:
    """What was checked stays so."""
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        setattr(settings, "partitions", 9)  # noqa: B010 - mypy knows it, too
    assert not math.isnan(settings.drift_threshold_ms)
