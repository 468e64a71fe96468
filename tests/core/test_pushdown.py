"""What of a condition is not even read: compared with the condition itself, row by row."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.arrow import LOCAL
from lifecycle.pushdown import question_of
from lifecycle.sql_views import EVENTS
from streams.windows import Frame

if TYPE_CHECKING:
    from lifecycle.planner import Question

SPANS = {0: (1, 100), 2: (50, 1_000)}
NAMES = ("", "a", "pump-7", "pump-8", "pumq", 'q"u\\o', "Ω", "z")


def instant(us: int) -> Any:
    """As a condition has it."""
    return pa.scalar(us, LOCAL)


def partition(number: int) -> Any:
    """That it is this one."""
    return pc.field("partition") == pa.scalar(number, pa.int32())


def asked(condition: Any) -> Question | None:
    """What it can be about."""
    return question_of(condition, EVENTS, SPANS)


def test_a_source_is_asked_for_by_its_name() -> None:
    """One, or some of a list; with quotes and other scripts in it."""
    for name in NAMES:
        question = asked(pc.field("source") == name)
        assert question is not None
        assert question.sources == (name.encode(),)
    question = asked(pc.field("source").isin(["a", "z"]) & (pc.field("kind") == "k"))
    assert question is not None
    assert question.sources == (b"a", b"z")
    assert question.kinds == (b"k",)


def test_names_between_names_are_any() -> None:
    """A prefix, an order, one that is not another, none at all."""
    source = pc.field("source")
    for condition in (
        (source >= "pump-7") & (source < "pumq"),
        source > "a",
        source != "a",
        source.is_null() | (source == "a"),
        (source == "a") | (pc.field("value") > 1.0),
    ):
        question = asked(condition)
        assert question is not None
        assert question.sources is None


def test_instants_are_bounded_to_the_microsecond() -> None:
    """By the broker's clock before the source's; not where rows without one are asked for too."""
    at = pc.field("authority_timestamp")
    question = asked((at >= instant(10)) & (at < instant(2_000_000_000_000_001)) & (pc.field("value") > 1.0))
    assert question is not None
    assert (question.frame, question.from_us, question.to_us) == (Frame.AUTHORITY, 10, 2_000_000_000_000_001)
    local = pc.field("local_timestamp")
    question = asked(local > instant(-5))
    assert question is not None
    assert (question.frame, question.from_us, question.to_us) == (Frame.LOCAL, -4, None)
    question = asked((local > instant(-5)) | local.is_null())
    assert question is not None
    assert (question.from_us, question.to_us) == (None, None)
    question = asked(pc.field("corrected_timestamp") == instant(7))
    assert question is not None
    assert (question.frame, question.from_us, question.to_us) == (Frame.CORRECTED, 7, 8)


def test_sequences_are_bounded_by_partition() -> None:
    """Each by what is said of it."""
    sequence = pc.field("sequence")
    question = asked((partition(0) & (sequence <= 9)) | (partition(2) & (sequence > 60)))
    assert question is not None
    assert question.partitions == (0, 2)
    assert question.sequences == {0: (1, 9), 2: (61, 1_000)}
    question = asked(partition(2))
    assert question is not None
    assert question.sequences == {2: (50, 1_000)}


@pytest.mark.parametrize(
    "condition",
    [
        partition(1),
        pc.field("sequence") > 1_000,
        (pc.field("source") == "a") & (pc.field("source") == "b"),
        (pc.field("local_timestamp") > instant(5)) & (pc.field("local_timestamp") < instant(5)),
    ],
)
def test_what_can_be_in_no_row_is_not_read(condition: Any) -> None:
    """Nothing is asked."""
    assert asked(condition) is None


def _rows() -> pa.Table:
    """Every combination of a few values, nulls too."""
    some = itertools.product((0, 2), (1, 50, 60, 100, 1_000), (None, *NAMES), (None, -5, 0, 7, 8))
    rows = [
        {"partition": p, "sequence": s, "source": name, "local_timestamp": at, "authority_timestamp": (at or 0) * 3}
        for p, s, name, at in some
        if SPANS[p][0] <= s <= SPANS[p][1]
    ]
    names = ("partition", "sequence", "source", "local_timestamp", "authority_timestamp")
    columns = [pa.array([row[name] for row in rows], EVENTS.field(name).type) for name in names]
    return pa.table(columns, names=list(names))


ROWS = _rows()


def _leaves() -> st.SearchStrategy[Any]:
    def compared(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        signs = st.sampled_from(("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"))
        return st.builds(lambda sign, value: getattr(pc.field(name), sign)(value), signs, values)

    instants = st.sampled_from((-6, -5, 0, 7, 21, 24)).map(instant)
    return st.one_of(
        compared("partition", st.sampled_from((0, 1, 2)).map(lambda n: pa.scalar(n, pa.int32()))),
        compared("sequence", st.sampled_from((0, 1, 50, 55, 100, 1_001)).map(lambda n: pa.scalar(n, pa.int64()))),
        compared("source", st.sampled_from(NAMES)),
        compared("local_timestamp", instants),
        compared("authority_timestamp", instants),
        st.sampled_from(("source", "local_timestamp")).map(lambda name: pc.field(name).is_null()),
        st.lists(st.sampled_from(NAMES), min_size=1).map(lambda names: pc.field("source").isin(names)),
    )


def _conditions() -> st.SearchStrategy[Any]:
    return st.recursive(
        _leaves(),
        lambda inner: st.one_of(
            st.builds(lambda a, b: a & b, inner, inner),
            st.builds(lambda a, b: a | b, inner, inner),
            inner.map(lambda a: ~a),
        ),
        max_leaves=6,
    )


@given(_conditions())
def test_no_row_of_a_condition_is_left_out(condition: Any) -> None:
    """Whatever it is, what it is true of is in the question."""
    wanted = ROWS.filter(condition).to_pylist()
    question = asked(condition)
    if question is None:
        assert not wanted
        return
    column = {Frame.LOCAL: "local_timestamp", Frame.AUTHORITY: "authority_timestamp"}[question.frame]
    times = ROWS.filter(condition)[column].cast(pa.int64()).to_pylist()
    for row, at in zip(wanted, times, strict=True):
        first, last = question.sequences[row["partition"]]
        assert first <= row["sequence"] <= last
        assert question.sources is None or row["source"].encode() in question.sources
        if question.from_us is not None or question.to_us is not None:
            assert at is not None
            assert question.from_us is None or at >= question.from_us
            assert question.to_us is None or at < question.to_us
