"""`driftledger publish` on a real broker: what is sent, what is reported, and the exit codes."""

from __future__ import annotations

import io
import json
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from schemas.clock import SystemTime
from schemas.codec import Framing, decode
from schemas.errors import UnreachableError
from schemas.producer import EventProducer
from streams import broker
from streams.cli.main import main
from streams.cli.progress import bytes_progress
from streams.cli.publish import Publication
from streams.publish import Format, read
from streams.settings import Settings
from streams.topics_admin import TopicsAdmin, specs_of

if TYPE_CHECKING:
    from pathlib import Path


NOWHERE = "127.0.0.1:1"


@pytest.fixture
def settings(kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A ledger with its topics, for commands run in this process."""
    monkeypatch.setenv("DRIFTLEDGER_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("DRIFTLEDGER_PREFIX", prefix)
    monkeypatch.setenv("DRIFTLEDGER_PARTITIONS", "1")
    made = Settings()
    TopicsAdmin(kafka.bootstrap).create(specs_of(made))
    return made


def events(settings: Settings) -> list[dict[str, Any]]:
    """Everything in the input."""
    assert settings.bootstrap is not None
    (facts,) = TopicsAdmin(settings.bootstrap).partitions([settings.input_topic])
    consumer = Consumer({"bootstrap.servers": settings.bootstrap, "group.id": "unused", "enable.auto.commit": False})
    consumer.assign([TopicPartition(settings.input_topic, 0, OFFSET_BEGINNING)])
    found: list[dict[str, Any]] = []
    while len(found) < facts.end_offset:
        messages = consumer.consume(facts.end_offset, 5)
        assert messages, "the input ends before its end"
        found += [decode("Event", message.value() or b"", Framing(settings.framing)) for message in messages]
    consumer.close()
    return found


def test_json_lines_are_sent_in_order(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stdout stays empty, the count is told on stderr."""
    file = tmp_path / "events.jsonl"
    file.write_text(
        "".join(json.dumps({"source": "pump", "value": n, "event_id": str(n)}) + "\n" for n in range(3_000))
    )
    assert main(["publish", str(file)]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"3000 events sent to {settings.input_topic}, 0 bad lines\n")
    assert [event["value"] for event in events(settings)] == list(range(3_000))


def test_bad_lines_are_reported_and_the_good_ones_sent(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Number and reason of each, exit code 1."""
    file = tmp_path / "events.csv"
    file.write_text("source,value,local_timestamp\na,1,0\na,[red]x[/],0\nb,2,2026-01-31T12:00:00Z\n,3,0\n")
    assert main(["publish", str(file), "--kind", "level"]) == 1
    reported = capsys.readouterr().err.splitlines()
    assert reported[0].startswith(f"{file}:3: value is '[red]x[/]', it must be a number")
    assert reported[1:] == [f"{file}:5: source is missing", f"2 events sent to {settings.input_topic}, 2 bad lines"]
    sent = events(settings)
    assert [(e["source"], e["kind"], e["value"]) for e in sent] == [("a", "level", 1), ("b", "level", 2)]
    assert [e["local_timestamp"] for e in sent] == [0, 1_769_860_800_000_000]


def test_standard_input_is_json_lines_with_ids_and_times_filled_in(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A UUIDv7 and the time of sending."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"value": 1}\n{"value": 2}\n')))
    before_us = SystemTime().now_us()
    assert main(["publish", "-", "--source", "shell"]) == 0
    sent = events(settings)
    assert [(e["source"], e["kind"], e["value"]) for e in sent] == [("shell", "event", 1), ("shell", "event", 2)]
    assert all(before_us <= e["local_timestamp"] <= SystemTime().now_us() for e in sent)
    assert {uuid.UUID(e["event_id"]).version for e in sent} == {7}
    assert len({e["event_id"] for e in sent}) == 2


def test_events_are_framed_as_the_ledger_says(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON where its setting is json."""
    monkeypatch.setenv("DRIFTLEDGER_FRAMING", "json")
    file = tmp_path / "events.any"
    file.write_text('{"source": "s", "payload": [1, 2]}')
    assert main(["publish", str(file), "--format", "jsonl"]) == 0
    (event,) = events(settings.model_copy(update={"framing": "json"}))
    assert event["payload"] == b"[1,2]"


def test_a_line_that_kafka_refuses_is_a_bad_line(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Longer than the topic takes even when compressed; named by its number like any other."""
    file = tmp_path / "events.jsonl"
    noise = "".join(uuid.uuid4().hex for _ in range(200_000))
    file.write_text(f'{{"source": "s"}}\n{{"source": "s", "payload": "{noise}"}}\n{{"source": "s"}}\n')
    assert main(["publish", str(file)]) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{file}:2: Kafka refused it: ")
    assert last == f"2 events sent to {settings.input_topic}, 1 bad line"
    assert len(events(settings)) == 2


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("absent.jsonl", None, "cannot be read: No such file"),
        ("events.txt", "{}", "--format"),
        ("events.csv", "colour\nred\n", "'colour'"),
        ("events.csv", "", "no header row"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_usage_error(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, told: str
) -> None:
    """Exit code 2, what is wrong, and nothing sent."""
    if content is not None:
        (tmp_path / name).write_text(content)
    assert main(["publish", str(tmp_path / name)]) == 2
    assert told in capsys.readouterr().err
    assert events(settings) == []


@pytest.mark.parametrize("options", [[], ["--format", "csv"]])
def test_a_folder_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    """Nor is a missing broker looked for first."""
    assert main(["publish", str(tmp_path), *options]) == 2
    assert f"{tmp_path} is a directory" in capsys.readouterr().err


def test_without_the_topic_it_says_how_to_make_it(
    kafka: Any, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3."""
    monkeypatch.setenv("DRIFTLEDGER_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("DRIFTLEDGER_PREFIX", prefix)
    (tmp_path / "events.jsonl").write_text("{}")
    assert main(["publish", str(tmp_path / "events.jsonl")]) == 3
    assert f"topic {prefix}.events does not exist. Run `driftledger topics create`" in capsys.readouterr().err
    assert main(["--ledger", "meters", "publish", str(tmp_path / "events.jsonl")]) == 3
    assert "Run `driftledger --ledger meters topics create`" in capsys.readouterr().err


def test_without_a_broker_it_ends_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3 after the time that a broker is given to answer: at most ten seconds, one here."""
    assert broker.REACH_TIMEOUT_S <= 10
    monkeypatch.setattr(broker, "REACH_TIMEOUT_S", 1)
    monkeypatch.setenv("DRIFTLEDGER_BOOTSTRAP", NOWHERE)
    (tmp_path / "events.jsonl").write_text("{}")
    time = SystemTime()
    begun = time.create_checkpoint()
    assert main(["publish", str(tmp_path / "events.jsonl")]) == 3
    assert begun.elapsed_ns(time.create_checkpoint()) < 5_000_000_000
    assert NOWHERE in capsys.readouterr().err


def test_a_broker_that_goes_away_ends_the_run_with_the_line_to_go_on_from(capsys: pytest.CaptureFixture[str]) -> None:
    """Reading stops, and bad lines are still told apart from lost ones."""
    lines = read(io.BytesIO(b'{"value": "x"}\n' + b"{}\n" * 5), Format.JSONL, {"source": "s", "kind": "k"})
    publication = Publication("events.jsonl", "the topic", bytes_progress())
    with pytest.raises(
        UnreachableError, match=r"took 0 events, then 5 were not delivered; the first is line 2 \("
    ) as lost:
        publication.send_all(lines, EventProducer(NOWHERE, "the topic", delivery_timeout_s=0.3), io.BytesIO())
    assert "Nothing after line 6 was read" in str(lost.value)
    assert capsys.readouterr().err.startswith("events.jsonl:1: value is 'x'")
    assert publication.bad == 1
