"""The table of topics: names, what is created, and what of a found topic is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import confluent_kafka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadInputError
from schemas.topics import (
    COMMIT_BYTES_MAX,
    ENTRY_HEADROOM_BYTES,
    TABLE,
    FoundTopic,
    TopicNames,
    TopicSpec,
    compare,
    murmur2,
    partition_for,
    specs,
    topic_names,
)

DAY_MS: Final = 86_400_000
NAMES: Final = topic_names("plant", "meters")
SPECS: Final = specs(NAMES, partitions=12, lanes=3, replication_factor=3, max_value_bytes=1_000_000)


def wanted(role: str) -> TopicSpec:
    """The specification of one of them."""
    return SPECS[TopicNames._fields.index(role)]


def as_created(spec: TopicSpec) -> FoundTopic:
    """A topic as the broker would describe it right after its creation."""
    config = {"max.message.bytes": "1048588", **spec.config}
    return FoundTopic(spec.name, "an id", spec.partitions, spec.replication_factor, config)


def altered(spec: TopicSpec, **config: str) -> FoundTopic:
    """The same with other settings, their dots written as underscores."""
    found = as_created(spec)
    return replace(found, config={**found.config, **{key.replace("_", "."): value for key, value in config.items()}})


ALL: Final = pytest.mark.parametrize("role", TopicNames._fields)


def test_our_topics_are_named_after_prefix_and_ledger() -> None:
    """The eleven names, dots between the words."""
    assert topic_names("driftledger", "events") == (
        "driftledger.events",
        "driftledger.events.control",
        "driftledger.events.sequenced",
        "driftledger.events.drift.alerts",
        "driftledger.events.drift.estimates",
        "driftledger.events.aggregates",
        "driftledger.events.dead.letters",
        "driftledger.events.progress",
        "driftledger.events.snapshots",
        "driftledger.events.manifest",
        "driftledger.events.jobs",
    )


def test_the_users_input_keeps_its_name() -> None:
    """Ours are named after the ledger all the same."""
    names = topic_names("plant", "meters", "meters.raw")
    assert (names.input, names.control) == ("meters.raw", "plant.meters.control")


def test_the_table_stands_in_the_order_of_the_names() -> None:
    """So that both can be walked together."""
    assert tuple(topic.role for topic in TABLE) == TopicNames._fields


@pytest.mark.parametrize("wrong", [("a b", "c", ""), ("a", "c", "é"), ("a" * 250, "c", ""), ("a", "c", "x" * 250)])
def test_names_that_kafka_would_refuse_are_refused(wrong: tuple[str, str, str]) -> None:
    """Before anything is asked of a broker."""
    with pytest.raises(BadInputError, match="no topic name"):
        topic_names(*wrong)


@ALL
def test_every_topic_is_dated_by_the_broker_and_keeps_what_is_acknowledged(role: str) -> None:
    """LogAppendTime, no size limit, a majority in sync, no unclean election."""
    config = wanted(role).config
    assert config["message.timestamp.type"] == "LogAppendTime"
    assert config["retention.bytes"] == "-1"
    assert config["min.insync.replicas"] == "2"
    assert config["unclean.leader.election.enable"] == "false"


def test_partitions_follow_the_input_and_lanes_have_one_each() -> None:
    """Seven topics run beside the input one to one, two belong to lanes, two to the ledger's jobs."""
    assert [spec.partitions for spec in SPECS] == [12] * 7 + [3] * 2 + [1] * 2


def test_only_what_can_be_rebuilt_is_compacted() -> None:
    """Progress and snapshots; events, entries and outputs never are. The ledger and the manifest are kept for ever."""
    assert [spec.config["cleanup.policy"] for spec in SPECS] == ["delete"] * 7 + ["compact"] * 2 + ["delete"] * 2
    assert wanted("sequenced").config["retention.ms"] == wanted("manifest").config["retention.ms"] == "-1"
    assert wanted("jobs").config["retention.ms"] == str(30 * DAY_MS)
    assert wanted("control").config["retention.ms"] == str(30 * DAY_MS)


def test_topics_that_lanes_write_take_a_batch_with_the_longest_value() -> None:
    """The input is created so too, though a user may set it otherwise."""
    roomy = str(1_000_000 + ENTRY_HEADROOM_BYTES)
    holding = [role for role in TopicNames._fields if wanted(role).config.get("max.message.bytes") == roomy]
    assert holding == ["input", "sequenced", "drift_alerts", "drift_estimates", "aggregates", "dead_letters"]


def test_the_manifest_takes_the_longest_commit_and_what_kafka_puts_around_it() -> None:
    """Whatever values the ledger keeps; a topic that takes less is refused."""
    spec = wanted("manifest")
    least = int(spec.config["max.message.bytes"])
    assert least - COMMIT_BYTES_MAX == 65_536
    assert "max.message.bytes" not in wanted("jobs").config
    assert compare(spec, altered(spec, max_message_bytes=str(least + 1))) == []
    (difference,) = compare(spec, altered(spec, max_message_bytes=str(least - 1)))
    assert difference.refused
    assert difference.wanted == f"at least {least}"


def test_one_broker_is_a_majority_of_itself() -> None:
    """Replication 1 needs one in sync, 2 both, 3 two."""
    for replication_factor, in_sync in ((1, "1"), (2, "2"), (3, "2")):
        made = specs(NAMES, 1, 1, replication_factor, 1)
        assert {spec.config["min.insync.replicas"] for spec in made} == {in_sync}


@ALL
def test_a_topic_as_created_has_no_difference(role: str) -> None:
    """Otherwise creation and check would never agree."""
    assert compare(wanted(role), as_created(wanted(role))) == []


@ALL
def test_a_missing_topic_is_refused_and_says_how_to_create_it(role: str) -> None:
    """Restoring comes first where there was data."""
    (difference,) = compare(wanted(role), None)
    assert difference.refused
    assert difference.found == "missing"
    assert "driftledger topics create" in difference.remedy


@ALL
def test_another_partition_count_is_refused(role: str) -> None:
    """More or fewer: sources would move to other partitions."""
    spec = wanted(role)
    for count in (spec.partitions + 1, spec.partitions - 1):
        (difference,) = compare(spec, replace(as_created(spec), partitions=count))
        assert difference.refused
        assert (difference.setting, difference.found) == ("partitions", str(count))
        setting = {"progress": "lanes", "snapshots": "lanes", "manifest": "", "jobs": ""}.get(role, "partitions")
        told = f"{setting} = {count}" if setting else "begin a new ledger under another name"
        assert told in difference.remedy


@ALL
def test_another_cleanup_policy_is_refused(role: str) -> None:
    """Compaction removes events, deletion removes the progress of an idle lane."""
    spec = wanted(role)
    for policy in {"delete", "compact", "compact,delete"} - {spec.config["cleanup.policy"]}:
        (difference,) = compare(spec, altered(spec, cleanup_policy=policy))
        assert difference.refused
        assert f"cleanup.policy={spec.config['cleanup.policy']}" in difference.remedy


@ALL
def test_create_time_is_refused(role: str) -> None:
    """A producer would choose the authority's time."""
    spec = wanted(role)
    (difference,) = compare(spec, altered(spec, message_timestamp_type="CreateTime"))
    assert difference.refused
    assert difference.wanted == "LogAppendTime"
    assert spec.name in difference.remedy


@pytest.mark.parametrize("role", ["sequenced", "manifest"])
@pytest.mark.parametrize("setting", ["retention.ms", "retention.bytes"])
def test_any_limit_on_the_ledger_and_its_manifest_is_refused(role: str, setting: str) -> None:
    """However large, it deletes the truth one day."""
    spec = wanted(role)
    (difference,) = compare(spec, altered(spec, **{setting: str(2**62)}))
    assert difference.refused
    assert difference.wanted == "unlimited (-1)"
    assert f"{setting}=-1" in difference.remedy


@pytest.mark.parametrize(
    ("role", "retention_ms", "reported"),
    [
        ("control", 30 * DAY_MS - 1, True),
        ("control", 30 * DAY_MS, False),
        ("control", -1, False),
        ("drift_alerts", 0, True),
        ("drift_estimates", 7 * DAY_MS, True),
        ("aggregates", 30 * DAY_MS - 1, True),
        ("dead_letters", 7 * DAY_MS, True),
        ("input", DAY_MS, False),
        ("input", DAY_MS - 1, True),
        ("input", -1, False),
        ("progress", 1, False),
        ("jobs", 7 * DAY_MS, True),
        ("jobs", 30 * DAY_MS, False),
    ],
)
def test_a_retention_below_the_tables_is_a_risk_and_a_longer_one_is_fine(
    role: str, retention_ms: int, *, reported: bool
) -> None:
    """The input may be kept for any time from a day up; retention does not touch what is compacted."""
    differences = compare(wanted(role), altered(wanted(role), retention_ms=str(retention_ms)))
    assert bool(differences) == reported
    assert all(not difference.refused and difference.setting == "retention.ms" for difference in differences)


def test_the_size_and_durability_of_the_input_are_its_owners_choice() -> None:
    """What happens to an event before it is in the ledger is the user's decision."""
    spec = wanted("input")
    found = altered(
        spec,
        retention_bytes="1000000",
        max_message_bytes="1000",
        min_insync_replicas="1",
        unclean_leader_election_enable="true",
    )
    assert compare(spec, replace(found, replication_factor=1)) == []


@pytest.mark.parametrize("role", ["sequenced", "drift_alerts", "drift_estimates", "aggregates", "dead_letters"])
def test_a_topic_that_cannot_take_the_longest_value_is_refused(role: str) -> None:
    """A value at the limit would stop its lane."""
    spec = wanted(role)
    least = 1_000_000 + ENTRY_HEADROOM_BYTES
    assert compare(spec, altered(spec, max_message_bytes=str(least + 1))) == []
    (difference,) = compare(spec, altered(spec, max_message_bytes=str(least - 1)))
    assert difference.refused
    assert difference.wanted == f"at least {least}"


def test_fewer_copies_are_a_risk_and_more_are_fine() -> None:
    """Replication, in-sync minimum and unclean elections: reported, not refused."""
    spec = wanted("sequenced")
    assert compare(spec, replace(altered(spec, min_insync_replicas="3"), replication_factor=5)) == []
    found = replace(altered(spec, min_insync_replicas="1", unclean_leader_election_enable="true"), replication_factor=1)
    differences = compare(spec, found)
    assert [(d.setting, d.wanted, d.found, d.refused) for d in differences] == [
        ("replication factor", "at least 3", "1", False),
        ("min.insync.replicas", "at least 2", "1", False),
        ("unclean.leader.election.enable", "false", "true", False),
    ]


def test_a_difference_reads_as_one_sentence_with_its_remedy() -> None:
    """For logs and halts."""
    spec = wanted("control")
    (difference,) = compare(spec, altered(spec, message_timestamp_type="CreateTime"))
    assert str(difference).startswith(
        "plant.meters.control: message.timestamp.type is CreateTime, must be LogAppendTime. Run kafka-configs.sh "
    )


# From org.apache.kafka.common.utils.UtilsTest.testMurmur2, as the signed numbers that stand there.
@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_the_answers_of_kafkas_own_test(key: bytes, signed: int) -> None:
    """Of every length modulo four that stands there."""
    assert murmur2(key) == signed % 2**32


@given(key=st.binary(max_size=300), partitions=st.integers(1, 100_000))
def test_a_key_lands_where_the_client_library_puts_it(key: bytes, partitions: int) -> None:
    """For any bytes and any count."""
    assert partition_for(key, partitions) == confluent_kafka.murmur2(key, partitions)


def test_a_topic_without_partitions_is_refused() -> None:
    """Rather than a division by zero."""
    with pytest.raises(BadInputError, match="at least 1"):
        partition_for(b"key", 0)
