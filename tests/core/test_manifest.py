"""The manifest: commits that replay to one tree, and everything that is refused, with the number of the commit."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.layout import index_of, path_of, place_in
from lifecycle.manifest import Commit, ManifestError, Move, Tree, decode, encode
from lifecycle.tiers import Grain, Tier, is_period
from schemas.clock import SystemTime
from schemas.topics import COMMIT_BYTES_MAX
from tests.core.manifest_histories import after_by_entry, chain_at, commit, facts_of, history, moved, replayed, segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lifecycle.manifest import Segment

FIRST, SECOND, THIRD = segment(0, 1, 4), segment(0, 5, 5), segment(0, 6, 12)
#: Three files of partition 0, one of partition 1.
BEGUN = [
    commit(1, Move.SEAL, 0, [FIRST, SECOND], []),
    commit(2, Move.SEAL, 1, [segment(1, 1, 9)], []),
    commit(3, Move.SEAL, 0, [THIRD], []),
]
TREE = replayed(BEGUN)


# --------------------------------------------------------------------------------------------------------------- replay


@given(seed=st.integers(0, 2**32), length=st.integers(0, 40), cuts=st.lists(st.integers(0, 40), max_size=5))
def test_a_history_replays_to_the_same_tree_in_any_batching(seed: int, length: int, cuts: list[int]) -> None:
    """Through its bytes, with stops anywhere; the tree holds the files that were added and not dropped."""
    records = history(random.Random(seed), length)
    bounds = sorted({0, length, *(cut for cut in cuts if cut < length)})
    tree = Tree()
    for begin, end in pairwise(bounds):
        tree = replayed([decode(encode(record)) for record in records[begin:end]], tree)
    assert tree == replayed(records)
    assert tree.commit == length
    added = {each.path for record in records for each in record.adds}
    last = {path: place for place, record in enumerate(records) for path in (each.path for each in record.adds)}
    gone = {path: place for place, record in enumerate(records) for path in record.drops}
    assert tree.paths() == {path for path in added if gone.get(path, -1) < last[path]}


@given(seed=st.integers(0, 2**32), length=st.integers(1, 25))
def test_every_entry_is_found_in_the_one_file_that_holds_it(seed: int, length: int) -> None:
    """And those before the first and behind the last in none."""
    tree = replayed(history(random.Random(seed), length))
    for partition, segments in tree.parts.items():
        for index in range(tree.ends[partition].index + 3):
            holding = [each for each in segments if each.facts.first_index <= index <= each.facts.last_index]
            found = tree.at_index(partition, index)
            assert holding == ([] if found is None else [found])
        last = tree.end(partition)
        assert (last is None) == (not segments)
        assert last is None or last.facts.last_index == tree.ends[partition].index
    assert tree.at_index(9, 1) is None
    assert tree.end(9) is None


def changed(rng: random.Random, record: Commit, tree: Tree) -> Commit:
    """The commit with something else in it: it may still follow."""
    there = list(tree.parts.get(record.partition, ()))
    others = [*there, *record.adds]
    change = rng.choice(["move", "drop", "add", "keep", "lose", "cut", "chain", "place", "nothing"])
    if change == "move":
        record = record._replace(move=rng.choice(list(Move)))
    elif change == "keep":
        record = record._replace(drops=record.drops[:-1])
    elif change == "lose":
        record = record._replace(adds=record.adds[1:])
    elif change == "drop" and there:
        record = record._replace(drops=(*record.drops, rng.choice(there).path))
    elif change == "add" and others:
        record = record._replace(adds=(*record.adds, rng.choice(others)))
    elif change == "cut" and record.adds:
        facts = record.adds[0].facts
        first, last = facts.first_index + rng.randrange(-1, 2), facts.last_index + rng.randrange(-1, 2)
        if 1 <= first <= last:
            record = record._replace(adds=(segment(record.partition, first, last, edition=99), *record.adds[1:]))
    elif change == "chain" and record.adds:
        field: dict[str, Any] = {rng.choice(["chain_before", "chain_after"]): chain_at(10**6)}
        facts = facts_of(record.partition, *record.adds[-1].facts[1:3], **field)
        other = record.adds[-1]._replace(facts=facts)
        record = record._replace(adds=(*record.adds[:-1], other))
    elif change == "place" and there:
        one = rng.choice(there)
        to = rng.choice([tier for tier in (Tier.RECENT, Tier.HISTORICAL, Tier.DEEP) if tier != one.tier])
        move = rng.choice([Move.DEMOTE, Move.PROMOTE])
        record = record._replace(move=move, adds=(moved(one, to),), drops=(one.path,))
    return record


@given(seed=st.integers(0, 2**32), length=st.integers(0, 15))
def test_what_is_taken_is_what_the_rules_take_entry_by_entry(seed: int, length: int) -> None:
    """Of commits that follow, and of those in which something was changed."""
    rng = random.Random(seed)
    records = history(rng, length + 1)
    tree = replayed(records[:-1])
    record = changed(rng, records[-1], tree)
    wanted = after_by_entry(dict(tree.parts), record)
    if wanted is not None and record.partition in tree.ends and not tree.parts[record.partition]:
        end, first = tree.ends[record.partition], wanted[0].facts
        if (end.index + 1, end.chain) != (first.first_index, first.chain_before):
            wanted = None
    if wanted is None:
        with pytest.raises(ManifestError, match=f"commit {record.commit}"):
            tree.after(record)
    else:
        assert tree.after(record).parts[record.partition] == wanted


def test_ten_thousand_files_are_replayed_within_seconds() -> None:
    """A commit costs what it moves, not what is there."""
    records = [commit(n, Move.SEAL, 0, [segment(0, n, n)], []) for n in range(1, 10_001)]
    whole = segment(0, 1, 9_000, grain=Grain.YEARLY)
    records.append(commit(10_001, Move.COMPACT, 0, [whole], [record.adds[0] for record in records[:9_000]]))
    content = [encode(record) for record in records]
    begun_ns = SystemTime().monotonic_ns()
    tree = replayed([decode(each) for each in content])
    assert (SystemTime().monotonic_ns() - begun_ns) / 1e9 < 20
    assert len(tree.parts[0]) == 1_001
    assert len(content[-1]) < COMMIT_BYTES_MAX / 4


# -------------------------------------------------------------------------------------------------------------- refused


REFUSED: dict[str, tuple[Commit, str]] = {
    "a gap in the numbers": (commit(5, Move.SEAL, 0, [segment(0, 13, 14)], []), "commit 5 does not follow 3"),
    "a number again": (commit(3, Move.SEAL, 0, [segment(0, 13, 14)], []), "commit 3 does not follow 3"),
    "a dropped path that is not there": (
        commit(4, Move.PRUNE, 0, [], [segment(0, 1, 4, edition=7)]),
        "commit 4 drops .*not there",
    ),
    "a dropped path of another partition": (
        commit(4, Move.PRUNE, 0, [], [segment(1, 1, 9)]),
        "commit 4 drops .*not there",
    ),
    "a path that is dropped twice": (commit(4, Move.PRUNE, 0, [], [FIRST, FIRST]), "commit 4 drops a file twice"),
    "a path that is there": (commit(4, Move.SEAL, 0, [THIRD], []), "commit 4 .*does not go on"),
    "a path that is added twice": (
        commit(4, Move.SEAL, 0, [segment(0, 13, 14), segment(0, 13, 14)], []),
        "commit 4 .*does not go on",
    ),
    "a path that comes and goes": (commit(4, Move.RESTORE, 0, [SECOND], [SECOND]), "commit 4 adds and drops"),
    "a gap in the indexes": (commit(4, Move.SEAL, 0, [segment(0, 14, 15)], []), "commit 4 .*does not go on"),
    "an overlap of indexes": (commit(4, Move.SEAL, 0, [segment(0, 12, 15)], []), "commit 4 .*does not go on"),
    "a file in the middle of another": (commit(4, Move.SEAL, 0, [segment(0, 7, 8)], []), "commit 4 .*does not go on"),
    "a file before the first": (
        commit(4, Move.COMPACT, 0, [segment(0, 1, 4, edition=7, first_sequence=1), segment(0, 5, 12)], [SECOND, THIRD]),
        "commit 4 .*does not go on",
    ),
    "another chain": (
        commit(4, Move.SEAL, 0, [segment(0, 13, 14, chain_before=chain_at(99))], []),
        "commit 4 .*does not go on",
    ),
    "another sequence": (
        commit(4, Move.SEAL, 0, [segment(0, 13, 15, first_sequence=8)], []),
        "commit 4 .*does not go on",
    ),
    "a restored beginning with another hash before it": (
        commit(4, Move.RESTORE, 0, [segment(0, 1, 4, edition=7, chain_before=chain_at(99))], [FIRST]),
        "commit 4 is a restore",
    ),
    "a restored beginning with another sequence": (
        commit(4, Move.RESTORE, 0, [segment(0, 1, 4, edition=7, first_sequence=2)], [FIRST]),
        "commit 4 is a restore",
    ),
    "a restored end with another hash": (
        commit(4, Move.RESTORE, 0, [segment(0, 6, 12, edition=7, chain_after=chain_at(99))], [THIRD]),
        "commit 4 is a restore",
    ),
    "a prune from the middle": (commit(4, Move.PRUNE, 0, [], [SECOND]), "commit 4 .*does not go on"),
    "a prune of the end": (commit(4, Move.PRUNE, 0, [], [THIRD]), "commit 4 is a prune"),
    "a prune that adds": (commit(4, Move.PRUNE, 0, [segment(0, 13, 13)], [FIRST]), "commit 4 is a prune"),
    "a prune of nothing": (commit(4, Move.PRUNE, 0, [], []), "commit 4 is a prune"),
    "a seal of nothing": (commit(4, Move.SEAL, 0, [], []), "commit 4 is a seal"),
    "a seal that drops": (
        commit(4, Move.SEAL, 0, [segment(0, 6, 13, edition=7)], [THIRD]),
        "commit 4 is a seal",
    ),
    "a compaction that loses entries": (
        commit(4, Move.COMPACT, 0, [segment(0, 1, 11, grain=Grain.MONTHLY)], [FIRST, SECOND, THIRD]),
        "commit 4 is a compact",
    ),
    "a compaction that forgets a file": (
        commit(4, Move.COMPACT, 0, [segment(0, 1, 12, grain=Grain.MONTHLY)], [FIRST, THIRD]),
        "commit 4 .*does not go on",
    ),
    "a demotion of other entries": (
        commit(4, Move.DEMOTE, 0, [segment(0, 6, 13, Tier.DEEP)], [THIRD]),
        "commit 4 is a demote",
    ),
    "a demotion of another file": (
        commit(4, Move.DEMOTE, 0, [segment(0, 6, 12, Tier.DEEP, edition=7)], [THIRD]),
        "commit 4 is a demote",
    ),
    "a demotion to what is nearer": (commit(4, Move.DEMOTE, 0, [moved(THIRD, Tier.RECENT)], [THIRD]), "is a demote"),
    "a promotion to what is farther": (commit(4, Move.PROMOTE, 0, [moved(THIRD, Tier.DEEP)], [THIRD]), "is a promote"),
    "a file of another partition": (commit(4, Move.SEAL, 0, [segment(1, 10, 11)], []), "commit 4, of partition 0"),
    "a file whose path is of another tier": (
        commit(4, Move.SEAL, 0, [segment(0, 13, 14)._replace(tier=Tier.DEEP)], []),
        "commit 4, of partition 0, adds historical",
    ),
    "a file whose name is of other entries": (
        commit(4, Move.SEAL, 0, [segment(0, 13, 14)._replace(facts=segment(0, 13, 15).facts)], []),
        "commit 4, of partition 0, adds",
    ),
    "a file of more events than entries": (
        commit(4, Move.SEAL, 0, [segment(0, 13, 14, last_sequence=99)], []),
        "commit 4: .*cannot hold",
    ),
    "a file that ends before it begins": (
        commit(4, Move.SEAL, 0, [segment(0, 13, 12, last_sequence=8)], []),
        "commit 4: .*cannot hold",
    ),
    "a path out of the root": (
        commit(4, Move.SEAL, 0, [segment(0, 13, 14)._replace(path="../data/x.parquet")], []),
        "commit 4: .*no path of an archive",
    ),
    "a dropped path out of the root": (
        commit(4, Move.PRUNE, 0, [], [])._replace(drops=("/etc/passwd",)),
        "commit 4: .*no path of an archive",
    ),
    "a period that is none": (
        commit(4, Move.SEAL, 0, [segment(0, 13, 14)._replace(period="2026-13-01")], []),
        "commit 4: .*no path of an archive",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_commit_is_refused_that_has(what: str) -> None:
    """By its number, and the tree stays."""
    record, message = REFUSED[what]
    before = (TREE.commit, dict(TREE.parts), dict(TREE.ends))
    with pytest.raises(ManifestError, match=message) as refused:
        TREE.after(record)
    assert f"commit {record.commit}" in str(refused.value)
    assert (TREE.commit, dict(TREE.parts), dict(TREE.ends)) == before


def test_what_was_pruned_whole_goes_on_where_it_ended() -> None:
    """Anything else would have lost entries unseen."""
    empty = TREE.after(commit(4, Move.PRUNE, 0, [], [FIRST, SECOND, THIRD]))
    assert empty.parts[0] == ()
    with pytest.raises(ManifestError, match=r"after commit 5 .* does not go on where entry 12 ends"):
        empty.after(commit(5, Move.SEAL, 0, [segment(0, 14, 15)], []))
    assert empty.after(commit(5, Move.SEAL, 0, [segment(0, 13, 15)], [])).ends[0].index == 15


def test_what_was_pruned_is_told_from_what_no_file_ever_had() -> None:
    """Of a manifest that was made again from files nobody knows what was before them, whatever is pruned then."""
    pruned = TREE.after(commit(4, Move.PRUNE, 0, [], [FIRST]))
    assert TREE.pruned_index(0, 1) == 0
    assert [pruned.pruned_index(0, first_index) for first_index in (1, 3, 5)] == [4, 4, 4]
    empty = pruned.after(commit(5, Move.PRUNE, 0, [], [SECOND, THIRD]))
    assert empty.pruned_index(0, 1) == 12
    assert empty.after(commit(6, Move.SEAL, 0, [segment(0, 13, 15)], [])).pruned_index(0, 1) == 12
    assert empty.pruned_index(7, 1) == 0

    again = replayed([commit(1, Move.SEAL, 0, [SECOND], []), commit(2, Move.SEAL, 0, [THIRD], [])])
    assert [again.pruned_index(0, first_index) for first_index in (1, 4, 5)] == [0, 0, 0]
    more = again.after(commit(3, Move.PRUNE, 0, [], [SECOND]))
    assert [more.pruned_index(0, first_index) for first_index in (1, 4, 5, 6)] == [0, 0, 5, 5]


@given(seed=st.integers(0, 2**32), length=st.integers(0, 40))
def test_what_was_pruned_is_what_prunes_have_dropped(seed: int, length: int) -> None:
    """As told entry by entry, wherever the ledger begins."""
    tree, had, gone = Tree(), set[tuple[int, int]](), set[tuple[int, int]]()
    for record in history(random.Random(seed), length):
        files = {each.path: each for each in (*tree.segments(), *record.adds)}
        had |= _entries_of(record.adds)
        if record.move is Move.PRUNE:
            gone |= _entries_of(files[path] for path in record.drops)
        tree = tree.after(record)
    for partition in tree.parts:
        last = max((index for of, index in gone if of == partition), default=0)
        first = min(index for of, index in had if of == partition)
        for begin in range(1, last + 3):
            assert tree.pruned_index(partition, begin) == (last if begin >= first else 0)


def _entries_of(files: Iterable[Segment]) -> set[tuple[int, int]]:
    return {
        (each.facts.partition, index)
        for each in files
        for index in range(each.facts.first_index, each.facts.last_index + 1)
    }


# ---------------------------------------------------------------------------------------------------------------- bytes


def document() -> dict[str, Any]:
    """A commit as JSON has it."""
    found: dict[str, Any] = json.loads(encode(commit(4, Move.COMPACT, 0, [segment(0, 1, 5)], [FIRST, SECOND])))
    return found


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Change what stands at a path to the last."""

    def change(found: Any) -> None:
        for step in path[:-2]:
            found = found[step]
        found[path[-2]] = path[-1]

    return change


NAME = "p00000-000000000000000001-000000000000000005-0123456789abcdef.parquet"
TRICKS = [
    "",
    "/",
    "..",
    "/etc/passwd",
    f"../historical/daily/2026-11-23/data/{NAME}",
    f"/historical/daily/2026-11-23/data/{NAME}",
    f"historical/daily/../data/{NAME}",
    f"historical/daily/./data/{NAME}",
    f"historical//2026-11-23/data/{NAME}",
    f"historical/daily/2026-11-23/data//{NAME}",
    f"historical/daily/2026-11-23/data/../{NAME}",
    f"historical\\daily\\2026-11-23\\data\\{NAME}",
    f"historical/daily/2026-11-23/data/{NAME}\0",
    f"historical/daily/2026-11-23/data/{NAME}\n",
    f"historical/daily/2026-11-23/data/{NAME} ",
    f"historical/daily/2026-11-23/indices/{NAME}",
    f"historical/daily/2026-11-23/{NAME}",
    f"historical/daily/2026-11-31/data/{NAME}",
    f"historical/daily/2026-11-2/data/{NAME}",
    f"historical/daily/2026-11/data/{NAME}",
    f"historical/weekly/2026-11-23/data/{NAME}",
    f"live/daily/2026-11-23/data/{NAME}",
    f"configuration/daily/2026-11-23/data/{NAME}",
    f"Historical/daily/2026-11-23/data/{NAME}",
    "configuration/lifecycle_rules.json",
    f"historical/daily/2026-11-23/data/{NAME.replace('.parquet', '.exe')}",
    f"historical/daily/2026-11-23/data/{NAME.replace('p00000', 'p0')}",
    f"historical/daily/2026-11-23/data/{NAME.replace('p00000', 'p000000')}",
    "historical/daily/2026-11-23/data/" + NAME.replace("-0000", "-\u0660000", 1),
    f"historical/daily/2026-11-23/data/{NAME.upper()}",
    f"historical/daily/2026-11-23/data/{NAME.replace('abc', 'a' * 100_000)}",
    "\ud800",
    "a" * 1_000_000,
]


@pytest.mark.parametrize("path", TRICKS, ids=range(len(TRICKS)))
def test_a_path_that_is_none_of_ours_is_refused_wherever_it_stands(path: str) -> None:
    """In files that come, in those that go; and the message is short."""
    with pytest.raises(ValueError, match="no path of an archive"):
        place_in(path)
    for change in (put("adds", 0, "path", path), put("drops", 0, path)):
        found = document()
        change(found)
        with pytest.raises(ManifestError, match="commit 4 is none") as refused:
            decode(json.dumps(found).encode())
        assert len(str(refused.value)) < 1_000


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a field that is unknown": put("extra", 1),
    "one of a file": put("adds", 0, "extra", 1),
    "one of facts": put("adds", 0, "facts", "extra", 1),
    "a field that is missing": lambda found: found.pop("at_us"),
    "one of a file that is missing": lambda found: found["adds"][0].pop("sha256"),
    "one of facts that is missing": lambda found: found["adds"][0]["facts"].pop("writer_version"),
    "a move that is none": put("move", "teleport"),
    "a tier that is none": put("adds", 0, "tier", "cold"),
    "a grain that is none": put("adds", 0, "grain", "weekly"),
    "a truth value for a number": put("partition", *[True]),
    "a fraction": put("at_us", 1.0),
    "a text for a number": put("at_us", "1"),
    "a number beyond 64 bits": put("at_us", 2**63),
    "a negative partition": put("partition", -1),
    "a negative size": put("adds", 0, "size_bytes", -1),
    "a number for a text": put("job", 7),
    "nothing for a text": put("job", None),
    "a text without end": put("job", "x" * 201),
    "a hash that is none": put("adds", 0, "sha256", "zz" * 32),
    "Merkle nodes that are none": put("adds", 0, "facts", "merkle", {}),
    "a Merkle node of one": put("adds", 0, "facts", "merkle", 0, [1]),
    "a Merkle node below the leaves": put("adds", 0, "facts", "merkle", 0, 0, -1),
    "a Merkle node without a hash": put("adds", 0, "facts", "merkle", 1, 1, "ab"),
    "a hash in capitals": put("adds", 0, "facts", "chain_before", "AB" * 32),
    "a hash that is too short": put("adds", 0, "facts", "merkle_root", "ab" * 31),
    "no list of files": put("adds", {}),
    "no list of paths": put("drops", "historical"),
    "a file that is none": put("adds", 0, 7),
    "a path that is none": put("drops", 0, 7),
    "facts that are none": put("adds", 0, "facts", []),
    "spans that are none": put("adds", 0, "spans", []),
    "a span of one": put("adds", 0, "spans", "local", [1]),
    "a span of texts": put("adds", 0, "spans", "local", ["1", "2"]),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_record_is_refused_that_has(what: str) -> None:
    """And is named by the number that it still says."""
    found = document()
    DAMAGES[what](found)
    with pytest.raises(ManifestError, match="commit 4 is none: "):
        decode(json.dumps(found).encode())


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{}", b"[]", b"7", b"null", b"\xff\xfe", b"{", b'{"commit":', b"[" * 100_000, b'{"commit": NaN}'),
        b'{"commit": ' + b"9" * 5_000 + b"}",
        encode(BEGUN[0])[:-1],
        encode(BEGUN[0]) + b"x",
        b"\0" + encode(BEGUN[0]),
    ],
    ids=range(14),
)
def test_bytes_that_are_no_record_are_refused(content: bytes) -> None:
    """Never another error."""
    with pytest.raises(ManifestError, match="is none"):
        decode(content)


def test_a_field_that_stands_twice_is_refused() -> None:
    """Readers would differ in which of them they take."""
    content = encode(BEGUN[0]).replace(b'"partition":0', b'"partition":0,"partition":0', 1)
    with pytest.raises(ManifestError, match="a field stands twice"):
        decode(content)


@given(data=st.data())
def test_any_flipped_byte_gives_a_commit_or_a_manifest_error(data: st.DataObject) -> None:
    """Never another error, never a path of elsewhere."""
    content = bytearray(encode(BEGUN[0]))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    try:
        record = decode(bytes(content))
    except ManifestError:
        return
    for each in record.adds:
        place_in(each.path)


def test_what_is_encoded_can_be_decoded_or_is_refused_before_it_is_written() -> None:
    """Also where somebody gave it other types, half a character, or too much."""
    good = BEGUN[0]
    assert decode(encode(good)) == good
    for bad in (
        good._replace(job="\ud800"),
        good._replace(at_us=2**63),
        good._replace(drops=("/etc/passwd",)),
        good._replace(partition=-1),
    ):
        with pytest.raises(ManifestError, match="commit 1 is n"):
            encode(bad)
    many = good._replace(adds=tuple(segment(0, n, n) for n in range(1, 10_001)))
    with pytest.raises(ManifestError, match="longer than 8,388,608"):
        encode(many)


def test_the_bytes_of_a_commit() -> None:
    """As docs/lifecycle.md has them."""
    assert encode(commit(7, Move.PRUNE, 2, [], [segment(2, 1, 9)])) == (
        b'{"commit":7,"move":"prune","job":"a-job","partition":2,"at_us":5,"adds":[],"drops":["historical/daily/'
        b"2026-11-23/data/p00002-000000000000000001-000000000000000009-" + segment(2, 1, 9).path[-24:].encode() + b'"]}'
    )


# ---------------------------------------------------------------------------------------------------------------- paths


def test_an_index_stands_beside_its_archive() -> None:
    """Under the same name."""
    path = path_of(Tier.DEEP, Grain.YEARLY, "2026", NAME)
    assert path == f"deep/yearly/2026/data/{NAME}"
    assert index_of(path) == f"deep/yearly/2026/indices/{NAME.removesuffix('.parquet')}.index"
    assert place_in(path)[-3:] == (0, 1, 5)
    with pytest.raises(ValueError, match="no path of an archive"):
        path_of(Tier.LIVE, Grain.YEARLY, "2026", NAME)


@pytest.mark.parametrize(
    ("text", "grain", "fine"),
    [
        ("2024-02-29", Grain.DAILY, True),
        ("2023-02-29", Grain.DAILY, False),
        ("2026-11-23-23", Grain.HOURLY, True),
        ("2026-11-23-24", Grain.HOURLY, False),
        ("0001-01", Grain.MONTHLY, True),
        ("2026-1", Grain.MONTHLY, False),
        ("9999", Grain.YEARLY, True),
        ("0000", Grain.YEARLY, False),
        (" 2026", Grain.YEARLY, False),
        ("२०२६", Grain.YEARLY, False),
    ],
)
def test_a_period_has_one_spelling(text: str, grain: Grain, *, fine: bool) -> None:
    """That of `period_of`."""
    assert is_period(text, grain) is fine
