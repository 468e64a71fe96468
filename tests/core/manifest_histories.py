"""Invented histories of a manifest: files of a ledger whose entries are numbered and hashed by a rule."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lifecycle.archive_facts import Facts, name_of
from lifecycle.layout import path_of
from lifecycle.manifest import Commit, Move, Segment, Tree
from lifecycle.tiers import Grain, Tier

if TYPE_CHECKING:
    import random

PERIODS = {Grain.HOURLY: "2026-11-23-07", Grain.DAILY: "2026-11-23", Grain.MONTHLY: "2026-11", Grain.YEARLY: "2026"}


def sequence_at(index: int) -> int:
    """Every third entry is of CONTROL."""
    return index - index // 3


def chain_at(index: int) -> str:
    """A hash for each entry, and one before the first."""
    return hashlib.sha256(str(index).encode()).hexdigest()


def facts_of(partition: int, first: int, last: int, **changed: Any) -> Facts:
    """Of a file with these entries."""
    numbers = (-1, -1, last, -1, 1_000 * first, 1_000 * last, 1_000 * first)
    sequences = (sequence_at(first - 1) + 1, sequence_at(last))
    hashes = (chain_at(first - 1), chain_at(last), chain_at(-last))
    nodes = ((0, chain_at(first)), (3, chain_at(last)))
    return Facts(partition, first, last, *sequences, *numbers, *hashes, nodes, "c3", "01")._replace(**changed)


def segment(
    partition: int, first: int, last: int, tier: Tier = Tier.HISTORICAL, grain: Grain = Grain.DAILY, *,
    edition: int = 0, **changed: Any,
) -> Segment:  # fmt: skip
    """A file with these entries. edition: of files with the same, which so have other names; changed: facts."""
    facts = facts_of(partition, first, last, **changed)
    digest = hashlib.sha256(f"{grain} {edition}".encode()).digest()
    path = path_of(tier, grain, PERIODS[grain], name_of(facts, digest))
    spans = {"authority": (1_000_000 * first, 1_000_000 * last), "local": (1, 0)}
    return Segment(
        path,
        tier,
        grain,
        PERIODS[grain],
        100 * facts.entries,
        chain_at(first),
        chain_at(last),
        spans,
        77,
        facts,
    )


def commit(number: int, move: Move, partition: int, adds: list[Segment], drops: list[Segment]) -> Commit:
    """A record."""
    return Commit(number, move, "a-job", partition, 5, tuple(adds), tuple(each.path for each in drops))


def moved(each: Segment, tier: Tier) -> Segment:
    """The same file there."""
    name = each.path.rpartition("/")[2]
    return each._replace(path=path_of(tier, each.grain, each.period, name), tier=tier, moved_us=each.moved_us + 1)


def next_commit(rng: random.Random, tree: Tree) -> Commit:
    """Any that follows."""
    number, partition = tree.commit + 1, rng.randrange(2)
    there = tree.parts.get(partition, ())
    begin = tree.ends[partition].index + 1 if partition in tree.ends else rng.randrange(1, 4)
    move = rng.choice(list(Move)) if there else Move.SEAL
    first = rng.randrange(len(there)) if there else 0
    some = list(there[first : first + rng.randrange(1, 4)])
    if move is Move.SEAL:
        adds = []
        for _ in range(rng.randrange(1, 4)):
            adds.append(segment(partition, begin, begin + rng.randrange(4), edition=number))
            begin = adds[-1].facts.last_index + 1
        return commit(number, move, partition, rng.sample(adds, len(adds)), [])
    if move is Move.PRUNE:
        return commit(number, move, partition, [], list(there[: rng.randrange(1, len(there) + 1)]))
    if move in (Move.COMPACT, Move.RESTORE):
        whole = segment(
            partition, some[0].facts.first_index, some[-1].facts.last_index, grain=Grain.MONTHLY, edition=number
        )
        return commit(number, move, partition, [whole], rng.sample(some, len(some)))
    tier = Tier.DEEP if move is Move.DEMOTE else Tier.RECENT
    some = [each for each in there if each.tier not in (tier, Tier.DEEP if tier is Tier.DEEP else Tier.RECENT)]
    if not some:
        return commit(number, Move.PRUNE, partition, [], [there[0]])
    chosen = rng.sample(some, rng.randrange(1, len(some) + 1))
    return commit(number, move, partition, [moved(each, tier) for each in chosen], chosen)


def history(rng: random.Random, length: int) -> list[Commit]:
    """So many commits, each of which follows."""
    tree, records = Tree(), []
    for _ in range(length):
        records.append(next_commit(rng, tree))
        tree = tree.after(records[-1])
    return records


def replayed(records: list[Commit], tree: Tree | None = None) -> Tree:
    """The tree after them."""
    tree = tree or Tree()
    for record in records:
        tree = tree.after(record)
    return tree


def after_by_entry(parts: dict[int, tuple[Segment, ...]], record: Commit) -> tuple[Segment, ...] | None:
    """The files of the partition by the rules told entry by entry, None for a commit that they refuse.

    Without those of numbers, of paths, and of a partition that was pruned whole.
    """
    before = parts.get(record.partition, ())
    named = {each.path: each for each in before}
    if len(set(record.drops)) != len(record.drops) or not named.keys() >= set(record.drops):
        return None
    if set(record.drops) & {each.path for each in record.adds}:
        return None
    after = [each for each in before if each.path not in record.drops] + list(record.adds)
    was, now = _entries(before), _entries(after)
    if was is None or now is None:
        return None
    gone = [named[path] for path in record.drops]
    fine = {
        Move.SEAL: not gone and bool(record.adds) and now[: len(was)] == was,
        Move.PRUNE: not record.adds and bool(gone) and now == was[len(was) - len(now) :],
        Move.COMPACT: bool(record.adds) and bool(gone) and _ends(now) == _ends(was),
        Move.RESTORE: bool(record.adds) and bool(gone) and _ends(now) == _ends(was),
        Move.DEMOTE: bool(gone) and now == was and _tiers(gone, record.adds, 1),
        Move.PROMOTE: bool(gone) and now == was and _tiers(gone, record.adds, -1),
    }
    return tuple(sorted(after, key=lambda each: each.facts.first_index)) if fine[record.move] else None


def _entries(segments: Any) -> list[tuple[int, Any, Any]] | None:
    """Index of each entry, and what is known at the ends of files; None where they are no one range."""
    found: list[tuple[int, Any, Any]] = []
    for each in segments:
        facts = each.facts
        for index in range(facts.first_index, facts.last_index + 1):
            before = (facts.first_sequence, facts.chain_before) if index == facts.first_index else None
            behind = (facts.last_sequence + 1, facts.chain_after) if index == facts.last_index else None
            found.append((index, before, behind))
    found.sort(key=lambda entry: entry[0])
    for (index, _, behind), (following, before, _) in pairwise(found):
        if following != index + 1 or before != behind:
            return None
    return found


def _ends(entries: list[tuple[int, Any, Any]]) -> Any:
    return entries and (entries[0][:2], entries[-1][0], entries[-1][2])


def _tiers(gone: list[Segment], adds: Any, way: int) -> bool:
    order = list(Tier)
    by_name = {each.path.rpartition("/")[2]: each for each in gone}
    return len(gone) == len(adds) and all(
        (one := by_name.get(other.path.rpartition("/")[2])) is not None
        and (order.index(other.tier) - order.index(one.tier)) * way > 0
        and one._replace(path=other.path, tier=other.tier, moved_us=other.moved_us) == other
        for other in adds
    )
