"""Topics on a real broker: creation, comparison, and the commands over them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from schemas.errors import BadInputError, DriftledgerError, UnreachableError
from schemas.topics import TopicNames
from streams.app import check_topics
from streams.cli.main import main
from streams.settings import Settings
from streams.topics_admin import TopicsAdmin, specs_of

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def settings(kafka: Any, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A ledger that nobody else uses, for this process and for commands run in it."""
    monkeypatch.setenv("DRIFTLEDGER_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("DRIFTLEDGER_PREFIX", prefix)
    monkeypatch.setenv("DRIFTLEDGER_PARTITIONS", "3")
    monkeypatch.setenv("DRIFTLEDGER_LANES", "2")
    return Settings()


@pytest.fixture
def admin(kafka: Any) -> TopicsAdmin:
    """Our admin."""
    return TopicsAdmin(kafka.bootstrap)


def names(settings: Settings) -> TopicNames:
    """All topics of the ledger."""
    return TopicNames(*(spec.name for spec in specs_of(settings)))


@pytest.fixture
def alter(kafka: Any, admin: TopicsAdmin, wait_until: Callable[..., None]) -> Callable[[str, str, str], None]:
    """What an operator does with kafka-configs; returns when the broker answers with the new value."""

    def altered(topic: str, key: str, value: str) -> None:
        request(kafka, topic, key, value)

        def visible() -> bool:
            found = admin.find([topic])[topic]
            return found is not None and found.config[key] == value

        wait_until(visible, 10, f"{topic} has {key}={value}")

    return altered


def request(kafka: Any, topic: str, key: str, value: str) -> None:
    """One altered setting."""
    entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in client.incremental_alter_configs([resource]).values():
        future.result()


def jsonl(text: str) -> list[dict[str, Any]]:
    """Rows of a command's machine output."""
    return [json.loads(line) for line in text.splitlines()]


def test_created_topics_are_as_the_table_wants_them(admin: TopicsAdmin, settings: Settings) -> None:
    """All eleven, with the counts of the settings, and no difference when checked at once."""
    wanted = specs_of(settings)
    creation = admin.create(wanted)
    assert creation.created == [spec.name for spec in wanted]
    assert creation.differences == []
    assert admin.check(wanted) == []
    found = admin.find(names(settings))
    assert [topic.partitions if topic else None for topic in found.values()] == [3] * 7 + [2] * 2 + [1] * 2
    assert len({topic.topic_id for topic in found.values() if topic}) == 11


def test_creating_again_changes_nothing(admin: TopicsAdmin, settings: Settings) -> None:
    """The ids stay."""
    wanted = specs_of(settings)
    admin.create(wanted)
    before = admin.find(names(settings))
    assert admin.create(wanted) == ([], before, [])
    assert admin.find(names(settings)) == before


def test_many_may_create_at_once(kafka: Any, settings: Settings) -> None:
    """Each topic is created by one of them; all of them return with everything there."""
    wanted = specs_of(settings)
    with ThreadPoolExecutor(4) as pool:
        creations = list(pool.map(lambda _: TopicsAdmin(kafka.bootstrap).create(wanted), range(4)))
    created = [name for creation in creations for name in creation.created]
    assert sorted(created) == sorted(names(settings))
    assert all(creation.differences == [] for creation in creations)


def test_nothing_is_created_beside_a_topic_that_is_refused(
    admin: TopicsAdmin, kafka: Any, settings: Settings, wait_until: Callable[..., None]
) -> None:
    """An input of another count leaves the cluster as it was."""
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in client.create_topics([NewTopic(settings.input_topic, 5, 1)]).values():
        future.result()
    wait_until(lambda: admin.find([settings.input_topic])[settings.input_topic], 10, "the broker knows the topic")
    creation = admin.create(specs_of(settings))
    assert creation.created == []
    assert {d.setting for d in creation.differences if d.refused} == {"partitions", "message.timestamp.type"}
    assert [name for name, topic in admin.find(names(settings)).items() if topic] == [settings.input_topic]


def test_more_copies_than_brokers_are_refused_before_anything_is_created(
    admin: TopicsAdmin, settings: Settings
) -> None:
    """The cluster validates first."""
    impossible = settings.model_copy(update={"replication_factor": 7})
    with pytest.raises(BadInputError, match=r"[^.]\. Start more brokers, or lower replication_factor"):
        admin.create(specs_of(impossible))
    assert set(admin.find(names(settings)).values()) == {None}


@pytest.mark.parametrize(
    ("role", "key", "value", "refused"),
    [
        ("input", "message.timestamp.type", "CreateTime", True),
        ("input", "cleanup.policy", "compact", True),
        ("sequenced", "retention.ms", "1000", True),
        ("sequenced", "retention.bytes", "1000000", True),
        ("sequenced", "max.message.bytes", "1000", True),
        ("control", "retention.ms", "1000", False),
        ("progress", "cleanup.policy", "delete", True),
        ("manifest", "retention.ms", "1000", True),
        ("manifest", "retention.bytes", "1000000", True),
        ("jobs", "retention.ms", "1000", False),
    ],
)
def test_a_setting_altered_by_hand_is_found(
    admin: TopicsAdmin,
    settings: Settings,
    alter: Callable[[str, str, str], None],
    role: str,
    key: str,
    value: str,
    *,
    refused: bool,
) -> None:
    """With the topic, the setting, and whether a lane would go on."""
    wanted = specs_of(settings)
    admin.create(wanted)
    topic = getattr(names(settings), role)
    alter(topic, key, value)
    (difference,) = admin.check(wanted)
    assert (difference.topic, difference.setting, difference.found) == (topic, key, value)
    assert difference.refused is refused


def test_partitions_show_where_they_begin_and_end(admin: TopicsAdmin, kafka: Any, settings: Settings) -> None:
    """A record moves both ends; an open transaction moves only the log's."""
    admin.create(specs_of(settings))
    topic = settings.input_topic
    plain = Producer({"bootstrap.servers": kafka.bootstrap})
    plain.produce(topic, b"x", partition=1)
    plain.flush()
    transactional = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    transactional.init_transactions()
    transactional.begin_transaction()
    transactional.produce(topic, b"x", partition=2)
    transactional.flush()
    facts = admin.partitions([topic, f"{topic}.missing"])
    transactional.abort_transaction()
    assert [(f.topic, f.partition) for f in facts] == [(topic, 0), (topic, 1), (topic, 2)]
    assert [(f.start_offset, f.stable_end_offset, f.end_offset) for f in facts] == [(0, 0, 0), (0, 1, 1), (0, 0, 1)]
    assert all(f.leader >= 0 and f.replicas == f.in_sync == 1 for f in facts)


def test_the_commands_create_check_and_inspect(
    settings: Settings, capsys: pytest.CaptureFixture[str], alter: Callable[[str, str, str], None]
) -> None:
    """Missing, created, as wanted, altered: exit codes 1, 0, 0, 1 and rows for each."""
    assert main(["topics", "check", "--output", "jsonl"]) == 1
    assert [row["found"] for row in jsonl(capsys.readouterr().out)] == ["missing"] * 11
    assert main(["topics", "inspect", "--output", "jsonl"]) == 1
    assert "missing: " in capsys.readouterr().err

    assert main(["topics", "create", "--output", "jsonl"]) == 0
    assert {row["state"] for row in jsonl(capsys.readouterr().out)} == {"created"}
    assert main(["topics", "create", "--output", "jsonl"]) == 0
    assert {row["state"] for row in jsonl(capsys.readouterr().out)} == {"exists"}

    assert main(["topics", "check"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "all 11 topics are as they must be\n")
    assert main(["topics", "inspect", "--output", "jsonl"]) == 0
    rows = jsonl(capsys.readouterr().out)
    assert len(rows) == 7 * 3 + 2 * 2 + 2
    assert {row["end_offset"] for row in rows} == {0}

    alter(names(settings).control, "retention.ms", "1000")
    assert main(["topics", "create", "--output", "jsonl"]) == 0
    assert "note: " in capsys.readouterr().err
    alter(names(settings).sequenced, "message.timestamp.type", "CreateTime")
    for command in ("check", "create"):
        assert main(["topics", command, "--output", "jsonl"]) == 1
        rows = jsonl(capsys.readouterr().out)
        assert [(row["setting"], row["refused"]) for row in rows] == [
            ("retention.ms", False),
            ("message.timestamp.type", True),
        ]


def test_counts_given_to_create_are_to_be_set_for_good(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says so, for every other command reads the settings."""
    assert main(["topics", "create", "--partitions", "2", "--output", "jsonl"]) == 0
    told = capsys.readouterr()
    assert [row["partitions"] for row in jsonl(told.out)] == [2] * 9 + [1] * 2
    assert told.err.startswith("note: set partitions = 2 (driftledger.toml or DRIFTLEDGER_PARTITIONS)")
    assert settings.partitions == 3
    assert main(["topics", "check", "--output", "jsonl"]) == 1


def test_create_shows_what_exists_as_it_is(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Not as it was asked for; and says so of the input, whose copies are the user's choice, too."""
    assert main(["topics", "create"]) == 0
    capsys.readouterr()
    assert main(["topics", "create", "--replication-factor", "3", "--output", "jsonl"]) == 0
    told = capsys.readouterr()
    assert {(row["replication_factor"], row["state"]) for row in jsonl(told.out)} == {(1, "exists")}
    for name in names(settings):
        assert f"note: {name}" in told.err
    assert f"{settings.input_topic} exists with replication factor 1, not 3" in told.err
    assert "set replication_factor = 3" not in told.err


def test_a_remedy_names_the_ledger_it_is_for(
    settings: Settings, capsys: pytest.CaptureFixture[str], kafka: Any
) -> None:
    """The same command without --ledger would be about another one."""
    assert settings.ledger == "events"
    assert main(["--ledger", "meters", "topics", "inspect"]) == 1
    assert "Run `driftledger --ledger meters topics create`" in capsys.readouterr().err
    with pytest.raises(DriftledgerError) as refused:
        check_topics(settings.model_copy(update={"ledger": "meters"}), kafka.bootstrap)
    assert str(refused.value).count("`") == 2
    assert "`driftledger --ledger meters topics create`" in str(refused.value)


def test_a_worker_is_told_of_unfit_topics_in_one_line(
    settings: Settings, admin: TopicsAdmin, kafka: Any, alter: Callable[[str, str, str], None]
) -> None:
    """Each named once, with one remedy; a risk that is no refusal is not among them."""
    wanted = specs_of(settings)
    admin.create(wanted)
    check_topics(settings, kafka.bootstrap)
    alter(names(settings).control, "retention.ms", "1000")
    check_topics(settings, kafka.bootstrap)
    alter(names(settings).sequenced, "retention.ms", "1000")
    alter(names(settings).sequenced, "message.timestamp.type", "CreateTime")
    with pytest.raises(DriftledgerError) as refused:
        check_topics(settings, kafka.bootstrap)
    assert str(refused.value) == (
        f"the topics do not fit the ledger; not as it must be: {names(settings).sequenced}. "
        "`driftledger topics check` says what is wrong and what to do"
    )


@pytest.mark.parametrize("role", ["sequenced", "manifest"])
@pytest.mark.parametrize(("key", "value"), [("retention.ms", "31536000000"), ("retention.bytes", "1000000000000")])
def test_no_worker_starts_where_kafka_deletes_what_nothing_else_may(
    settings: Settings,
    admin: TopicsAdmin,
    kafka: Any,
    alter: Callable[[str, str, str], None],
    role: str,
    key: str,
    value: str,
) -> None:
    """The ledger is cut by a job, on proof, and the manifest never: a limit of either, however far off, is refused."""
    admin.create(specs_of(settings))
    topic = getattr(names(settings), role)
    alter(topic, key, value)
    with pytest.raises(DriftledgerError, match=f"not as it must be: {topic}"):
        check_topics(settings, kafka.bootstrap)


def test_a_lost_topic_is_made_again_only_when_asked(
    admin: TopicsAdmin, kafka: Any, settings: Settings, wait_until: Callable[..., None]
) -> None:
    """Check names it as missing; create makes it, with another id."""
    wanted = specs_of(settings)
    admin.create(wanted)
    before = admin.find([settings.input_topic])[settings.input_topic]
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in client.delete_topics([settings.input_topic]).values():
        future.result()
    wait_until(lambda: admin.check(wanted), 10, "the topic is gone")
    assert [difference.found for difference in admin.check(wanted)] == ["missing"]
    assert admin.create(wanted).created == [settings.input_topic]
    after = admin.find([settings.input_topic])[settings.input_topic]
    assert before is not None
    assert after is not None
    assert after.topic_id != before.topic_id


def test_a_ledger_of_before_gets_the_topics_that_it_lacks(
    admin: TopicsAdmin, kafka: Any, settings: Settings, wait_until: Callable[..., None]
) -> None:
    """A worker is told of them, with the remedy; the remedy makes these alone."""
    wanted = specs_of(settings)
    admin.create([spec for spec in wanted if spec.topic.role not in ("manifest", "jobs")])
    lacking = [names(settings).manifest, names(settings).jobs]
    with pytest.raises(DriftledgerError) as refused:
        check_topics(settings, kafka.bootstrap)
    assert str(refused.value) == (
        f"the topics do not fit the ledger; missing: {', '.join(lacking)}. `driftledger topics create` makes what is "
        "missing"
    )
    assert admin.create(wanted).created == lacking
    wait_until(lambda: not admin.check(wanted), 10, "all are there")
    check_topics(settings, kafka.bootstrap)


def test_a_topic_that_goes_while_it_is_asked_about_is_not_there(
    admin: TopicsAdmin, kafka: Any, settings: Settings, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the question what it is and the one for its settings."""
    name = settings.input_topic
    admin.create(specs_of(settings))
    described = admin._describe([name])
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})
    client.delete_topics([name])[name].result()
    wait_until(lambda: admin._describe([name]) == {name: None}, 10, "the topic is gone")
    monkeypatch.setattr(admin, "_describe", lambda _names: described)
    assert admin.find([name]) == {name: None}


@pytest.mark.parametrize("command", ["create", "check", "inspect"])
def test_without_a_broker_a_command_says_so(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, the address and the remedy; nothing on stdout."""
    monkeypatch.setenv("DRIFTLEDGER_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setattr("streams.broker.REACH_TIMEOUT_S", 0.5)
    assert main(["topics", command]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert "127.0.0.1:1" in told.err


def test_a_question_to_nobody_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without the command's own check."""
    monkeypatch.setattr("streams.topics_admin.REQUEST_TIMEOUT_S", 0.5)
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"):
        TopicsAdmin("127.0.0.1:1").find(["any"])
