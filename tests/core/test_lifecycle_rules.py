"""Rules as operators write them: what is not there has a default, what does not fit is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.ageing import COLD, Ageing, entropy
from lifecycle.archive_facts import Compression
from lifecycle.rules import COMPRESSION, LIFECYCLE, MEMBERS, RETENTION, Configuration, LedgerRetention, parse, rendered
from lifecycle.rules_reader import read_rules
from lifecycle.tiers import Rules
from schemas.errors import BadInputError

US_PER_HOUR = 3_600_000_000
US_PER_DAY = 24 * US_PER_HOUR
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "lifecycle_rules.md"


def of(lifecycle: Any = None, compression: Any = None, retention: Any = None) -> Configuration:
    """Of members, each file with its version."""
    given = {LIFECYCLE: lifecycle, COMPRESSION: compression, RETENTION: retention}
    return parse({file: json.dumps({"version": 1} | members).encode() for file, members in given.items() if members})


def test_no_file_is_needed() -> None:
    """Nor any member of one."""
    assert parse({}) == Configuration(
        ages=Rules(live_hours=1, recent_days=7, monthly_days=31, yearly_days=366, deep_days=1096),
        ageing=Ageing(half_life_us=21 * US_PER_HOUR, limit=8.0, hysteresis=8.0, stay_us=US_PER_DAY),
        codec=Compression.LZ4,
        file_bytes_max=2**30,
        archives_days=None,
        ledger=LedgerRetention.CUT_WHEN_PROVED,
        ledger_keep_hours=168,
    )
    assert parse(dict.fromkeys(MEMBERS, b'{"version": 1}')) == parse({})


@given(st.integers(1, 3_650), st.floats(1, 1_000))
def test_without_reads_an_hour_leaves_once_it_is_older_than_recent_days(recent_days: int, limit: float) -> None:
    """A microsecond after with the default limit, for any recent_days; with any other limit, within its rounding."""
    known = of({"recent_days": recent_days, "limit_bits": limit})
    later = 2 * int(limit) + 2
    for limits, slack_us in ((known, later), (of({"recent_days": recent_days}), 1)):
        ageing, age_us = limits.ageing, recent_days * US_PER_DAY
        leaves = [
            ageing.leaves(entropy(0, COLD, now_us, ageing.half_life_us), -(2**62), now_us)
            for now_us in (age_us - slack_us, age_us, age_us + slack_us)
        ]
        assert leaves == [False, False, True]


ages = st.fixed_dictionaries({}, optional={
    "live_hours": st.integers(1, 24),
    "recent_days": st.integers(1, 31),
    "monthly_days": st.integers(31, 366),
    "yearly_days": st.integers(366, 1_000),
    "deep_days": st.none() | st.integers(31, 1_000),
    "half_life_hours": st.integers(1, 876_600) | st.floats(0.001, 876_600),
    "limit_bits": st.floats(10, 1_000),
    "hysteresis_bits": st.floats(0, 8),
    "stay_hours": st.integers(0, 100),
})  # fmt: skip
compressions = st.fixed_dictionaries({}, optional={
    "codec": st.sampled_from(["lz4", "zstd"]), "file_bytes_max": st.integers(2**20, 2**40),
})  # fmt: skip
retentions = st.fixed_dictionaries({}, optional={
    "archives_days": st.none() | st.integers(1_001, 36_525),
    "ledger": st.sampled_from(["keep", "cut_when_proved"]),
    "ledger_keep_hours": st.integers(0, 24_000),
})  # fmt: skip


@given(ages, compressions, retentions)
def test_what_is_rendered_is_read_as_it_was(lifecycle: Any, compression: Any, retention: Any) -> None:
    """All members of all files are in it, those that were given as they were."""
    known = of(lifecycle, compression, retention)
    texts = rendered(known)
    assert parse({file: text.encode() for file, text in texts.items()}) == known
    for file, members in zip(MEMBERS, (lifecycle, compression, retention), strict=True):
        document = json.loads(texts[file])
        assert set(document) == {"version", *MEMBERS[file]}
        assert {name: document[name] for name in members if name != "half_life_hours"} == {
            name: value for name, value in members.items() if name != "half_life_hours"
        }


def test_a_single_member_can_be_set_alone() -> None:
    """Defaults that it bounds follow it."""
    assert of({"recent_days": 40}).ages == Rules(1, 40, 40, 366, 1096)
    assert of({"recent_days": 2_000}).ages == Rules(1, 2_000, 2_000, 2_000, 2_000)
    assert of({"monthly_days": 400}).ages == Rules(1, 7, 400, 400, 1096)
    assert of({"limit_bits": 2}).ageing == Ageing(84 * US_PER_HOUR, 2.0, 2.0, US_PER_DAY)
    assert of(retention={"archives_days": 1_097}).ages.deep_days == 1_096
    assert of(retention={"archives_days": 1_096}).ages.deep_days is None
    short = of({"recent_days": 2}, retention={"archives_days": 3})
    assert (short.ages.deep_days, short.ledger_keep_hours) == (None, 72)


@pytest.mark.parametrize(
    ("file", "member", "value", "remedy"),
    [
        (LIFECYCLE, "recent_days", 0, "a whole number, 1 to 36525"),
        (LIFECYCLE, "recent_days", 7.0, "a whole number"),
        (LIFECYCLE, "recent_days", True, "a whole number"),
        (LIFECYCLE, "recent_days", "7", "a whole number"),
        (LIFECYCLE, "recent_days", None, "a whole number"),
        (LIFECYCLE, "recent_days", 10**400, "a whole number"),
        (LIFECYCLE, "deep_days", 0, "a whole number, 1 to 36525, or null"),
        (LIFECYCLE, "live_hours", [1], "a whole number"),
        (LIFECYCLE, "half_life_hours", 0, "a number, 0.001 to 876600"),
        (LIFECYCLE, "half_life_hours", True, "a number"),
        (LIFECYCLE, "limit_bits", 0.5, "a number, 1 to 1000"),
        (LIFECYCLE, "hysteresis_bits", -1, "a number, 0 to 1000"),
        (LIFECYCLE, "stay_hours", -1, "a whole number, 0 to 876600"),
        (COMPRESSION, "codec", "gzip", '"lz4" or "zstd"'),
        (COMPRESSION, "codec", 1, '"lz4" or "zstd"'),
        (COMPRESSION, "codec", {}, '"lz4" or "zstd"'),
        (COMPRESSION, "file_bytes_max", 1_000, "a whole number, 1048576 to 1099511627776"),
        (RETENTION, "archives_days", "for ever", "a whole number, 1 to 36525, or null"),
        (RETENTION, "ledger", "cut", '"keep" or "cut_when_proved"'),
        (RETENTION, "ledger_keep_hours", 1.5, "a whole number, 0 to 876600"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused(file: str, member: str, value: Any, remedy: str) -> None:
    """With file, member, value and remedy."""
    with pytest.raises(BadInputError) as refused:
        parse({file: json.dumps({"version": 1, member: value}).encode()})
    shown = json.dumps(value)[:60]
    assert str(refused.value).startswith(f"{file}: {member} is {shown}")
    assert f"it must be {remedy}" in str(refused.value)
    assert "Mend it, or remove it for its default" in str(refused.value)


@pytest.mark.parametrize(
    ("lifecycle", "retention", "said"),
    [
        ({"live_hours": 200}, {}, f"{LIFECYCLE}: live_hours 200 is longer than recent_days 7: .*Make recent_days l"),
        ({"monthly_days": 5}, {}, f"{LIFECYCLE}: recent_days 7 is longer than monthly_days 5: .*Swap them"),
        ({"yearly_days": 30}, {}, f"{LIFECYCLE}: monthly_days 31 is longer than yearly_days 30: .*Swap them"),
        ({"deep_days": 6}, {}, f"{LIFECYCLE}: deep_days 6 is shorter than recent_days 7: only archives can be deep"),
        ({"hysteresis_bits": 9}, {}, f"{LIFECYCLE}: hysteresis_bits is 9, more than limit_bits 8: .*8 at most"),
        (
            {}, {"archives_days": 6},
            (f"{RETENTION}: archives_days is 6, less than recent_days 7 of {LIFECYCLE}: .*"
            "Make archives_days 7 or more, or recent_days 6 or less"),
        ),
        (
            {"deep_days": 365}, {"archives_days": 365},
            (f"{LIFECYCLE}: deep_days is 365, and archives are kept for archives_days 365 of {RETENTION}: .*"
            "Make deep_days less than 365, or null"),
        ),
        (
            {}, {"archives_days": 10, "ledger_keep_hours": 241},
            (f"{RETENTION}: ledger_keep_hours is 241, longer than archives_days 10: .*"
            "Make ledger_keep_hours 240 or less"),
        ),
    ],
)  # fmt: skip
def test_rules_that_contradict_each_other_are_refused_across_files(
    lifecycle: dict[str, Any], retention: dict[str, Any], said: str
) -> None:
    """With both numbers, and what to do."""
    with pytest.raises(BadInputError, match=f"^{said}"):
        of(lifecycle, {}, retention)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read: .* Mend it, or remove it"),
        (b"{", "cannot be read: "),
        (b"\xff\xfe\xff", "cannot be read: "),
        (b"[" * 100_000, "cannot be read: "),
        (b'{"version": 1, "recent_days": 7, "recent_days": 8}', 'cannot be read: "recent_days" is there twice'),
        (b'{"version": 1, "limit_bits": NaN}', "cannot be read: NaN is no number of JSON"),
        (b'{"version": 1, "recent_days": ' + b"9" * 5_000 + b"}", "cannot be read: "),
        (b"[]", 'is no JSON object. Write for example {"version": 1}'),
        (b"{}", "version is null: this driftledger reads 1"),
        (b'{"version": 2}', "version is 2: this driftledger reads 1"),
        (b'{"version": true}', "version is true: this driftledger reads 1"),
        (b'{"version": "1"}', 'version is "1": this driftledger reads 1'),
        (b'{"version": 1, "recent_day": 7}', '"recent_day" is 7: there is no such member. Mend its spelling: recent_d'),
        (b'{"version": 1, "codec": "lz4"}', '"codec" is "lz4": there is no such member. Remove it; the members are l'),
        (b'{"version": 1, "\\ud800": 1}', '"\\ud800" is 1: there is no such member. Remove it'),
        (b'{"version": 1, "limit_bits": 1e400}', "limit_bits is Infinity: it must be a number"),
        (b'{"version": 1, "x": "' + b"y" * 9_000 + b'"}', '"x" is "' + "y" * 59 + "...: there is no such member"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_refused(content: bytes, said: str) -> None:
    """Damaged, of another version, or with members that there are none of; in text that any terminal takes."""
    with pytest.raises(BadInputError) as refused:
        parse({LIFECYCLE: content})
    message = str(refused.value)
    assert message.startswith(LIFECYCLE)
    message.encode()
    start, _, end = said.partition(" .* ")
    assert start in message
    assert end in message


def test_files_are_read_below_the_root_of_the_archive(tmp_path: Path) -> None:
    """What cannot be read is no file that is missing."""
    assert read_rules(tmp_path) == parse({})
    (tmp_path / "configuration").mkdir()
    (tmp_path / COMPRESSION).write_text('{"version": 1, "codec": "zstd"}')
    assert read_rules(tmp_path).codec is Compression.ZSTD
    (tmp_path / RETENTION).write_text(" " * 100_000)
    with pytest.raises(BadInputError, match=r"retention_policies\.json has more than 65536 bytes"):
        read_rules(tmp_path)
    (tmp_path / RETENTION).unlink()
    (tmp_path / RETENTION).mkdir()
    with pytest.raises(BadInputError, match=r"retention_policies\.json cannot be read: Is a directory"):
        read_rules(tmp_path)


def test_the_documentation_has_each_member_with_its_default() -> None:
    """And the whole of each file as it is without one."""
    text = DOCUMENTATION.read_text()
    for file, content in rendered(parse({})).items():
        assert f"`{file}`" in text
        assert f"```json\n{content}```" in text
        for name in MEMBERS[file]:
            assert f"\n| `{name}` |" in text
