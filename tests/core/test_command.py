"""The command line: exit codes, what goes to stdout and what to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import structlog
import typer

from lifecycle.arrow_stream import ENDING
from schemas.errors import BadInputError, DriftledgerError, HaltCode, HaltError, UnreachableError
from streams.aggregates import LateCounts
from streams.alert_record import AlertRecord
from streams.cli import aggregates, drift, lock
from streams.cli import main as command
from streams.cli.context import settings_of
from streams.drift_entries import DriftEntry, Reading
from streams.drift_log import DriftLog, Verification
from streams.lock_log import Outcome, What
from streams.locks import Lock
from streams.merge import Whole
from streams.severity import Severity
from streams.whole_windows import WholeWindow
from streams.window_admin import WindowInForce
from streams.windows import WindowDefinition

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).resolve().parents[2]


def all_commands() -> list[list[str]]:
    """Every command and group, by its words."""
    found: list[list[str]] = []
    waiting: list[tuple[list[str], Any]] = [([], typer.main.get_command(command.app))]
    while waiting:
        words, group = waiting.pop()
        found.append(words)
        waiting += [([*words, name], sub) for name, sub in getattr(group, "commands", {}).items()]
    return sorted(found)


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_command_explains_itself(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """--help is fine, on stdout; a single command shows an example."""
    assert command.main([*words, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Commands:" in out or "Example" in out


def test_commands_are_listed_in_the_order_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    """And both have all of them."""
    _, table = (REPOSITORY / "README.md").read_text().split("| command | does |")
    rows = [line.split(" | ")[0] for line in table.partition("\n\n")[0].splitlines()[2:]]
    in_readme = [name for row in rows for words in re.findall("`(.+?)`", row) for name in words.split()[0].split("\\|")]
    assert command.main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2].partition("Settings:")[0]
    assert re.findall(r"^  (\w+)", listed, flags=re.MULTILINE) == in_readme
    assert {words[0] for words in all_commands() if words} == set(in_readme)


@pytest.fixture
def narrow_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """The help of a command as a terminal of 80 columns has it."""
    monkeypatch.setenv("COLUMNS", "80")

    def help_of(words: list[str]) -> str:
        assert command.main([*words, "--help"]) == 0
        return capsys.readouterr().out

    return help_of


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_no_line_of_a_list_of_commands_is_cut_off(words: list[str], narrow_help: Callable[[list[str]], str]) -> None:
    """It goes on in the next one."""
    listed = narrow_help(words).partition("Commands:")[2]
    assert [line for line in listed.splitlines() if line.endswith("...")] == []


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_no_example_is_broken_on_a_narrow_terminal(words: list[str], narrow_help: Callable[[list[str]], str]) -> None:
    """Each can be copied: a line, and a command in each line."""
    _, found, examples = narrow_help(words).partition("  Example")
    examples = re.split(r"^(?:Arguments|Options):", examples, flags=re.MULTILINE)[0]
    lines = [line for line in examples.splitlines()[1:] if line.strip()]
    assert bool(lines) == bool(found)
    assert [line for line in lines if "driftledger " not in line] == []


def test_the_version_is_printed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """For scripts."""
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("driftledger 0.")


@pytest.mark.parametrize("words", [[], ["nonsense"], ["--ledger"], ["broker", "status", "--output", "xml"]])
def test_wrong_usage_ends_with_2_and_says_so_on_stderr(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing on stdout that a pipe could take for an answer."""
    assert command.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(("driftledger: ", "Usage: "))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nonsense"], "No such command 'nonsense'. See `driftledger --help`"),
        (
            ["broker", "status", "--output", "xml"],
            (
                "Invalid value for '--output' / '-o': 'xml' is not one of 'table', 'jsonl', 'csv'. "
                "See `driftledger broker status --help`"
            ),
        ),
    ],
)
def test_a_wrong_option_is_told_in_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As any other error, without the words of the libraries beneath."""
    assert command.main(words) == 2
    assert capsys.readouterr().err == f"driftledger: {told}\n"


@pytest.mark.parametrize("listing", ["log", "warnings", "alerts"])
@pytest.mark.parametrize("ends", [("1", "2026-01-01T00:00:00Z"), ("2026-01-01T00:00:00Z", " 9")])
def test_a_range_from_a_number_to_an_instant_is_refused(
    listing: str, ends: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One of the two was meant otherwise; no broker is asked."""
    assert command.main(["drift", listing, "--from", ends[0], "--to", ends[1]]) == 2
    assert "one is a number, the other an instant" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["aggregates", "--late", "--final-only"], "--late counts are no results"),
        (["windows", "--partition", "1", "resume", "w"], "A window is resumed wherever it is suspended"),
        (["windows", "--output", "csv", "resume", "w"], "--partition and --output are of the list"),
        (["lock", "engage", "--reason", "r", "-p", "1", "--source", "s"], "Give --partition or --source, not both"),
        (["lock", "release", "--reason", "r", "--source", ""], "source has 0 bytes of UTF-8; give it 1 to 256"),
        (["lock", "engage", "--reason", " "], "--reason has 1 characters. Give it some text, 1024 characters at most"),
        (["lock", "engage", "--reason", "r", "--actor", "x" * 257], "--actor has 257 characters"),
        (["lock", "engage"], "Missing option '--reason'"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No broker is asked."""
    assert command.main(words) == 2
    assert told in capsys.readouterr().err


PUMP = Lock(2, "pump-7", ("put",), 9, 0, -40, "ada", "it is set")
ENTRY = DriftEntry(2, 9, 4, Reading.LOCK, 0, -40_000, -40, Severity.GREEN, "CLI", bytes(32))


@pytest.mark.parametrize(
    ("outcome", "code", "told"),
    [
        (Outcome(2, "pump-7", What.ENGAGED, ENTRY, PUMP, None), 0, ""),
        (
            Outcome(2, "pump-7", What.STOOD, ENTRY, PUMP, None),
            0,
            "source pump-7 was locked since 1970-01-01T00:00:00.000Z by ada because it is set; that stands\n",
        ),
        (
            Outcome(2, "pump-7", What.REFUSED, ENTRY, None, None),
            1,
            (
                "partition 2 has as many locked sources as it may have: this one is recorded, and not engaged. Release "
                "some, or lock the partition itself\n"
            ),
        ),
        (
            Outcome(2, "pump-7", What.GONE, ENTRY, None, None),
            1,
            "partition 2: somebody has released it since. See `drift log`\n",
        ),
        (Outcome(2, "pump-7", What.WAITS, None, None, UnreachableError("no lane")), 3, "partition 2: no lane\n"),
        (Outcome(2, "pump-7", What.WAITS, None, None, DriftledgerError("halted")), 1, "partition 2: halted\n"),
    ],
)
def test_what_became_of_a_lock_is_told(
    outcome: Outcome, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verification on stdout, what is not as it was wanted on stderr; who asks is the user of this machine."""
    asked: list[tuple[Any, ...]] = []

    class Locked:
        def __init__(self, _ledger: None) -> None:
            pass

        def engage(self, *who: str, **options: Any) -> list[Outcome]:
            asked.append((*who, options))
            return [outcome]

    monkeypatch.setattr(lock, "opened", lambda _context: contextlib.nullcontext())
    monkeypatch.setattr("streams.lock_log.LockLog", Locked)
    monkeypatch.setenv("USER", "ada")
    arguments = ["lock", "engage", "--reason", "it is set", "--source", "pump-7", "--output", "jsonl"]
    assert command.main(arguments) == code
    captured = capsys.readouterr()
    row = json.loads(captured.out)
    assert (row["partition"], row["source"], row["lock"]) == (2, "pump-7", outcome.what)
    assert row["delta_ms"] == (None if outcome.entry is None else -40)
    assert captured.err == told
    options = {"partition": None, "source": "pump-7", "clock": "CLI"}
    assert asked == [("it is set", "ada", options)]


@pytest.mark.parametrize(
    ("environment", "user", "actor"),
    [
        ({"USER": "ada", "LOGNAME": "bob"}, "root", "ada"),
        ({"LOGNAME": "bob"}, "root", "bob"),
        ({}, "root", "root"),
        ({}, None, "operator"),
    ],
)
def test_a_lock_says_who_by_the_environment_else_by_the_system(
    environment: dict[str, str], user: str | None, actor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where neither has a name, as in some containers, it is the operator."""
    asked: list[str] = []

    class Locked:
        def __init__(self, _ledger: None) -> None:
            pass

        def engage(self, *who: str, **_options: Any) -> list[Outcome]:
            asked.extend(who)
            return []

    def known(_uid: int) -> Any:
        if user is None:
            raise KeyError
        return SimpleNamespace(pw_name=user)

    monkeypatch.setattr(lock, "opened", lambda _context: contextlib.nullcontext())
    monkeypatch.setattr("streams.lock_log.LockLog", Locked)
    monkeypatch.setattr("pwd.getpwuid", known)
    for name in ("USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert command.main(["lock", "engage", "--reason", "r", "--output", "jsonl"]) == 0
    assert asked == ["r", actor]


def test_what_is_locked_is_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With who, when, why, and what it halts; nothing is told as nothing."""
    locks = [PUMP]

    class Locked:
        def __init__(self, _ledger: None) -> None:
            pass

        def locks(self) -> list[Lock]:
            return locks

    monkeypatch.setattr(lock, "opened", lambda _context: contextlib.nullcontext())
    monkeypatch.setattr("streams.lock_log.LockLog", Locked)
    assert command.main(["lock", "status", "--output", "csv"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "partition,source,halts,since,actor,reason,delta_ms,severity,id,since_ms",
        "2,pump-7,put,1970-01-01T00:00:00.000Z,ada,it is set,-40,GREEN,2:9,0",
    ]
    locks.clear()
    assert command.main(["lock", "status"]) == 0
    assert capsys.readouterr().err == "nothing is locked\n"


@pytest.mark.parametrize("late", [[], ["--late"]])
def test_a_window_of_which_there_is_nothing_is_named(
    late: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its key may be misspelt, or its own name: then no window is in force by it."""
    monkeypatch.setattr(aggregates, "opened", lambda _context: contextlib.nullcontext())
    monkeypatch.setattr(aggregates, "_records", lambda *_: [])
    monkeypatch.setattr("streams.aggregates.between", lambda *_, **__: [])
    in_force = WindowInForce(0, WindowDefinition("minutes", 60_000_000), 2, None)
    monkeypatch.setattr("streams.window_admin.read_windows", lambda _ledger: [in_force])
    told = {
        "minutes": "nothing of the window 'minutes' and the key 'pump-7' is there",
        "nobody": "nothing is there: no window 'nobody' is in force. See `driftledger windows`",
    }
    for name, line in told.items():
        assert command.main(["aggregates", name, "--key", "pump-7", *late]) == 0
        assert capsys.readouterr().err == f"{line}\n"
    assert command.main(["aggregates", *late]) == 0
    assert capsys.readouterr().err == "nothing is there\n"


@pytest.mark.parametrize(
    "words", [["aggregates"], ["sequence", "range"], ["drift", "log"], ["drift", "warnings"], ["drift", "alerts"]]
)
@pytest.mark.parametrize("last", ["1h", "0", "-1", "1.5"])
def test_a_time_is_no_number_of_rows(words: list[str], last: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Some commands take --last as a time; those that count say so. No broker is asked."""
    assert command.main([*words, "--last", last]) == 2
    assert capsys.readouterr().err == (
        f"driftledger: --last counts rows here, and '{last}' is no such number. Give 1 or more; a range of time is for "
        "--from and --to, or for `driftledger range --last 1h`\n"
    )


@pytest.mark.parametrize(("words", "told"), [([], "no alerts. "), (["--state", "open"], "no alert is open. ")])
def test_that_there_are_no_alerts_is_said(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And where to look; of a source by its name."""
    monkeypatch.setattr(drift, "opened", lambda _context: contextlib.nullcontext())
    monkeypatch.setattr("streams.alert_log.ends", lambda *_: {})
    monkeypatch.setattr("streams.alert_log.newest_alerts", lambda *_, **__: [])
    monkeypatch.setattr("streams.alert_log.open_alerts", lambda *_, **__: [])
    assert command.main(["drift", "alerts", *words]) == 0
    err = capsys.readouterr().err
    assert err.startswith(told)
    assert "`driftledger status`" in err
    assert command.main(["drift", "alerts", *words, "--source", "s"]) == 0
    assert capsys.readouterr().err == "nothing of the source 's' is in that range\n"


def test_the_lines_of_alerts_have_every_field(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the record, and those that a table shows."""
    fields = [
        field["name"] for field in json.loads((REPOSITORY / "schemas" / "drift_alert.v1.avsc").read_text())["fields"]
    ]
    reading = {"authority_timestamp": 1_500, "value_ms": -1_200}
    alert = {**dict.fromkeys(fields, "x"), "at_open": reading, "worst": reading}
    monkeypatch.setattr(drift, "opened", lambda _context: contextlib.nullcontext())
    monkeypatch.setattr("streams.alert_log.ends", lambda *_: {})
    monkeypatch.setattr("streams.alert_log.newest_alerts", lambda *_, **__: [AlertRecord(2_000, 3, 7, alert)])
    assert command.main(["drift", "alerts", "--output", "jsonl"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert {name: line[name] for name in fields} == alert
    assert (line["recorded_at_ms"], line["opened_at"], line["worst_ms"]) == (2_000, "1970-01-01T00:00:01.500Z", -1_200)


def test_a_table_tells_the_instant_of_a_verification_as_text_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As other tables do; a program has the number beside it."""
    found = Verification("2:7", 1_500, -40, Severity.GREEN, bytes(32))
    monkeypatch.setattr(drift, "opened", lambda _context: contextlib.nullcontext())
    monkeypatch.setattr(DriftLog, "verify_drift", lambda *_, **__: found)
    assert command.main(["drift", "verify", "now"]) == 0
    titles, _, row = capsys.readouterr().out.split("\n")[1:4]
    assert re.split(r" {2,}", titles.strip()) == ["id", "server time", "delta ms", "severity", "phase lock hash"]
    assert row.split() == ["2:7", "1970-01-01T00:00:01.500Z", "-40", "GREEN", f"{'0' * 12}..."]
    assert command.main(["drift", "verify", "now", "--output", "jsonl"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["server_time"], line["server_time_ms"]) == ("1970-01-01T00:00:01.500Z", 1_500)


def test_what_no_window_left_out_has_no_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only windows of frame corrected leave events out for their source's clock."""
    late = LateCounts(2_000, 0, 1, "source_minute", 3, 20, "pump-7", 4, 0)
    monkeypatch.setattr(aggregates, "opened", lambda _context: contextlib.nullcontext())
    for doubtful, shown in ((None, False), (0, True), (2, True)):
        counts = [late, replace(late, definition="corrected", doubtful=doubtful)]
        monkeypatch.setattr("streams.aggregates.between", lambda *_, of=counts, **__: of)
        assert command.main(["aggregates", "--late"]) == 0
        assert ("doubtful" in capsys.readouterr().out) is shown
        assert command.main(["aggregates", "--late", "--output", "jsonl"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {line["definition"]: line["doubtful"] for line in lines} == {
            "source_minute": None,
            "corrected": doubtful,
        }


class _Answers:
    """A reader with one answer."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def ask(self, _request: object) -> pa.Table:
        """It."""
        return self.table


_ROWS: dict[str, list[Any]] = {"sequence": [], "source": []}
_ZEROS = {"count": [0], "values": [0], "sum": [0.0]}


@pytest.mark.parametrize(
    ("words", "columns", "told"),
    [
        (["get", "nosuch"], _ROWS, "nothing of the source 'nosuch' is there"),
        (
            ["get", "nosuch", "--at", "5"],
            _ROWS,
            "nothing of the source 'nosuch' is there at that time by the sources' own clocks",
        ),
        (["range", "--source", "s"], _ROWS, "nothing is there"),
        (
            ["range", "--last", "1m", "--source", "day-ahead"],
            _ROWS,
            ("nothing is in that range by the sources' own clocks; `--frame authority` asks by the broker's"),
        ),
        (
            ["aggregate", "--last", "1m", "--frame", "authority"],
            _ZEROS,
            "nothing is in that range by the broker's; `--frame local` asks by the sources' own clocks",
        ),
        (["aggregate", "--source", "nosuch"], _ZEROS, "nothing is there"),
    ],
)
def test_an_answer_that_holds_nothing_says_by_which_clock(
    words: list[str],
    columns: dict[str, list[Any]],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A row of zeros holds nothing, too."""
    table = pa.table(columns).replace_schema_metadata({ENDING: b'{"more": false, "rows_left_out": 0}'})
    monkeypatch.setattr("lifecycle.reader.Reader", lambda _worker, **_: _Answers(table))
    assert command.main(words) == 0
    assert capsys.readouterr().err == f"{told}\n"


def test_events_that_were_left_out_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it was asked, and nobody has to ask for an explanation; the question says so to the worker."""
    asked: list[Any] = []

    class Reader(_Answers):
        def ask(self, request: Any) -> pa.Table:
            asked.append(request)
            return super().ask(request)

    table = pa.table({"count": [3]}).replace_schema_metadata({ENDING: b'{"more": false, "rows_left_out": 7}'})
    monkeypatch.setattr("lifecycle.reader.Reader", lambda _worker, **_: Reader(table))
    assert command.main(["aggregate", "--frame", "corrected", "--unknown", "exclude"]) == 0
    assert capsys.readouterr().err == "left out: 7 events without an estimate of their clock\n"
    assert asked[0].question.unknown == "exclude"


def test_what_moves_no_window_is_refused_by_the_name_that_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    """Not by that of the parameter it becomes."""
    assert command.main(["aggregate", "--last", "1m", "--slide", "10s"]) == 2
    told = "driftledger: --slide moves a window, and there is none. Give --window too\n"
    assert capsys.readouterr().err == told


def test_wholes_of_several_definitions_stand_in_order_of_their_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So the last of them are of each that has some."""

    def whole(name: str, end_s: int) -> WholeWindow:
        of_it = Whole(None, 0, end_s * 1_000_000, 1, 1, {}, (0,), ())
        return WholeWindow(WindowDefinition(name, 1_000_000, whole=True), of_it)

    found = [whole("early", 10), whole("early", 20), whole("late", 10), whole("late", 20)]
    monkeypatch.setattr(aggregates, "opened", lambda _context: contextlib.nullcontext())
    monkeypatch.setattr("streams.aggregates.between", lambda *_, **__: [])
    monkeypatch.setattr("streams.whole_windows.merged", lambda *_: found)
    monkeypatch.setattr("streams.silent_partitions.closed_by_heartbeats", lambda _: [])
    assert command.main(["aggregates", "--whole", "--last", "2", "--output", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["definition"], row["window_end_us"]) for row in rows] == [("early", 20_000_000), ("late", 20_000_000)]


def test_a_reason_that_is_not_utf_8_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """It would go into the ledger; no broker is asked."""
    assert command.main(["windows", "resume", "w", "--reason", os.fsdecode(b"\xff")]) == 2
    assert "reason '\\udcff' is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("listing", ["log", "warnings", "alerts"])
def test_a_source_that_is_not_utf_8_is_refused(listing: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a shell hands it on; no broker is asked."""
    assert command.main(["drift", listing, "--source", os.fsdecode(b"pump-\xff")]) == 2
    assert "--source 'pump-\\udcff' is not UTF-8" in capsys.readouterr().err


def test_a_variable_that_is_no_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line each on stderr, with what was meant; the command goes on."""
    monkeypatch.setenv("DRIFTLEDGER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DRIFTLEDGER_PARTITONS", "3")
    monkeypatch.setenv("DRIFTLEDGER_COLOUR", "red")
    assert command.main(["broker", "stop"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "driftledger: DRIFTLEDGER_COLOUR is no setting and has no effect. Unset it",
        "driftledger: DRIFTLEDGER_PARTITONS is no setting and has no effect. Did you mean DRIFTLEDGER_PARTITIONS?",
        "no broker is running",
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInputError("mend it"), 2),
        (UnreachableError("start it"), 3),
        (HaltError(3, HaltCode.INPUT_CUT, "records are gone", "Restore them"), 1),
        (DriftledgerError("look at it"), 1),
    ],
)
def test_an_error_becomes_one_line_and_its_exit_code(
    error: DriftledgerError, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback for what we raise on purpose."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("streams.settings_file.load", fail)
    assert command.main(["broker", "stop"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"driftledger: {error}\n"


def test_a_defect_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only our own errors are told in one line."""
    monkeypatch.setattr("streams.settings_file.load", lambda *_, **__: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        command.main(["broker", "stop"])


def test_options_before_the_command_reach_its_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--config and --ledger."""
    config = tmp_path / "other.toml"
    config.write_text('[[ledger]]\nname = "a"\n', encoding="utf-8")
    assert command.main(["--config", str(config), "--ledger", "b", "broker", "stop"]) == 2
    assert "no ledger 'b'; it has a" in capsys.readouterr().err


def test_settings_are_loaded_for_a_command_called_without_the_root() -> None:
    """A group may be used by itself."""
    seen = []
    group = typer.Typer()

    @group.command()
    def only(context: typer.Context) -> None:
        seen.append(settings_of(context, partitions=2).partitions)

    only.__annotations__["context"] = typer.Context
    group([], standalone_mode=False)
    assert seen == [2]


def test_help_imports_nothing_heavy() -> None:
    """It answers before Kafka, numba and Faust could be loaded."""
    program = (
        "import sys; from streams.cli.main import main; main(['--help']);"
        "print([m for m in ('confluent_kafka', 'numba', 'numpy', 'faust', 'pydantic_settings') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY
    ).stdout
    assert out.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "modules",
    [
        "streams.settings_file",
        "streams.settings, streams.broker, streams.topics_admin",
        "streams.settings, streams.address, lifecycle.drift_reader, lifecycle.drift_question",
    ],
    ids=["settings", "topics", "drift log"],
)
def test_a_command_that_runs_no_kernel_loads_no_compiler(modules: str) -> None:
    """It takes half a second: more than most commands take."""
    program = f"import sys, streams.cli.main, {modules}; print([m for m in ('llvmlite', 'numba') if m in sys.modules])"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY, timeout=60
    )
    assert told.stdout == "[]\n"


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly() -> None:
    """`driftledger ... | head -0` leaves no traceback, and an exit code of its own: no answer was given."""
    read, write = os.pipe()
    os.close(read)
    program = "from streams.cli.main import run; run()"
    ended = subprocess.run(
        [sys.executable, "-c", program, "broker", "status", "--output", "csv"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env=os.environ | {"DRIFTLEDGER_DATA_DIR": "/nonexistent"},
    )
    os.close(write)
    assert ended.returncode == command.CLOSED_PIPE
    assert ended.stderr == ""


def test_logs_go_to_stderr(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """stdout is for answers."""
    monkeypatch.setenv("DRIFTLEDGER_DATA_DIR", str(tmp_path))
    assert command.main(["broker", "stop"]) == 0
    try:
        structlog.get_logger().info("an event", field=1)
    finally:
        structlog.reset_defaults()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert '"event": "an event"' in captured.err
