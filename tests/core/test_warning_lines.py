"""Which warnings get a line: against a twin that keeps all of it in dictionaries, and by what is promised."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.instants import NS_PER_S
from streams import warning_lines
from streams.warning_lines import LINE_EVERY_NS, LINES_PER_SECOND, SOURCES_MAX, WarningLines, keys_of

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A source is its partition and its number there.
Source = tuple[int, int]
LANES = 2
BEGIN_NS = 5 * NS_PER_S + 7


@dataclass
class Written:
    """A line: when, of whom, and what it says of its source and of the others of its lane."""

    at_ns: int
    source: Source
    left_out: int
    others: int


class Log:
    """What a worker does with the lines, but for their texts."""

    def __init__(self) -> None:
        self.rules = WarningLines()
        self.given: Counter[Source] = Counter()
        self.lines: list[Written] = []

    def take(self, lane: int, counts: Mapping[Source, int], now_ns: int) -> list[tuple[Source, int]]:
        """So many events of each source; who is chosen, and what was left out of it."""
        sources = sorted(counts)
        keys = [keys_of(partition, np.array([number], np.int64)) for partition, number in sources]
        of_each = np.array([counts[source] for source in sources], np.int64)
        self.given.update(counts)
        chosen = self.rules.choose(lane, np.concatenate(keys), of_each, now_ns)
        assert all(one.key == keys[one.place] for one in chosen)
        return [(sources[one.place], one.left_out) for one in chosen]

    def write(self, now_ns: int) -> list[Written]:
        """What there is room for."""
        due = self.rules.due(now_ns)
        written = [Written(now_ns, divmod(line.key, 2**50), line.left_out, line.others) for line in due]
        self.lines += written
        return written

    def run(self, senders: Mapping[Source, int], seconds: int, step_ns: int = NS_PER_S // 20) -> None:
        """Each source sends an event in so many steps, some of them in the same one."""
        for step in range(seconds * NS_PER_S // step_ns):
            sent = [source for source, every in senders.items() if step % every == source[1] % every]
            for lane in range(LANES):
                of_lane = {source: 1 for source in sent if source[0] % LANES == lane}
                if of_lane:
                    self.take(lane, of_lane, BEGIN_NS + step * step_ns)
            self.write(BEGIN_NS + step * step_ns)


@dataclass
class Kept:
    """What the twin remembers of a source."""

    left: int = 0
    line_ns: int = 0
    seen_ns: int = 0
    waits: bool = True


class Twin:
    """The rules, plainly: of one lane, but for the limit on lines of all."""

    def __init__(self) -> None:
        self.kept: dict[Source, Kept] = {}
        self.others = 0
        self.waiting: deque[tuple[Source, int]] = deque()
        self.last: Source = (-1, -1)

    def _may(self, source: Source, now_ns: int) -> bool:
        kept = self.kept[source]
        return not kept.waits and now_ns - kept.line_ns >= LINE_EVERY_NS

    def take(self, counts: Mapping[Source, int], now_ns: int) -> list[tuple[Source, int]]:
        """As `Log.take`."""
        for source, count in counts.items():
            if source in self.kept:
                kept = self.kept[source]
                kept.left, kept.seen_ns = kept.left + count, now_ns
            else:
                self.others += count
        new = sorted((s for s in counts if s not in self.kept), key=lambda s: (s <= self.last, s))
        leaving = sorted(
            (s for s in self.kept if self._may(s, now_ns)),
            key=lambda s: (self.kept[s].seen_ns, self.kept[s].line_ns, s),
        )
        free = warning_lines.SOURCES_MAX - len(self.kept)
        admitted = new[: min(warning_lines.CHOSEN_MAX, free + len(leaving))]
        for source in leaving[: max(0, len(admitted) - free)]:
            self.others += self.kept.pop(source).left
        found: list[tuple[Source, int]] = []
        for source in admitted:
            self.others -= counts[source]
            self.kept[source] = Kept(left=counts[source] - 1, seen_ns=now_ns)
            self.last = source
            found.append((source, 0))
        due = [source for source in sorted(counts) if source in self.kept and self._may(source, now_ns)]
        for source in sorted(due, key=lambda s: self.kept[s].line_ns)[: warning_lines.CHOSEN_MAX - len(found)]:
            kept, count = self.kept[source], counts[source]
            found.append((source, kept.left - count))
            kept.left, kept.waits = count - 1, True
        self.waiting.extend(found)
        return found

    def write(self, now_ns: int) -> Written:
        """The line that waits for longest."""
        source, left = self.waiting.popleft()
        kept = self.kept[source]
        kept.waits, kept.line_ns, kept.seen_ns = False, now_ns, now_ns
        others, self.others = self.others, 0
        return Written(now_ns, source, left, others)


def _counted(log: Log) -> None:
    """Each event is in one place; what is still to be said is told when nothing else comes."""
    said = len(log.lines) + sum(line.left_out + line.others for line in log.lines)
    lanes = log.rules._turns
    waiting = [chosen for lane in lanes for chosen in lane._waiting]
    kept = sum(int(lane._table[1].sum()) + lane._others for lane in lanes)
    assert said + kept + len(waiting) + sum(one.left_out for one in waiting) == sum(log.given.values())
    assert all(lane._table.shape[1] <= warning_lines.SOURCES_MAX + 1 for lane in lanes)


def _promised(lines: list[Written]) -> None:
    """So many in a second, and so far apart."""
    assert max(Counter(line.at_ns // NS_PER_S for line in lines).values(), default=0) <= LINES_PER_SECOND
    by_source: dict[Source, list[int]] = {}
    for line in lines:
        by_source.setdefault(line.source, []).append(line.at_ns)
    gaps = chain.from_iterable(((b - a) for a, b in pairwise(times)) for times in by_source.values())
    assert min(gaps, default=LINE_EVERY_NS) >= LINE_EVERY_NS


def _batches() -> st.SearchStrategy[list[tuple[int, dict[Source, int], int]]]:
    """Lane, events of each of its sources, and how long after the one before."""
    pauses = st.sampled_from([0, NS_PER_S // 3, NS_PER_S, 4 * NS_PER_S, LINE_EVERY_NS])

    def of_lane(lane: int) -> st.SearchStrategy[tuple[int, dict[Source, int], int]]:
        sources = st.tuples(st.sampled_from([lane, lane + LANES]), st.integers(1, 12))
        return st.tuples(st.just(lane), st.dictionaries(sources, st.integers(1, 9), min_size=1, max_size=24), pauses)

    return st.lists(st.integers(0, LANES - 1).flatmap(of_lane), max_size=40)


@settings(max_examples=300)
@given(_batches(), st.integers(1, 12), st.integers(1, 5))
def test_the_table_is_its_twin(batches: list[tuple[int, dict[Source, int], int]], sources: int, chosen: int) -> None:
    """With bounds so small that each is met: who is chosen, what is written, and what it says was left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warning_lines, "SOURCES_MAX", sources)
        patch.setattr(warning_lines, "CHOSEN_MAX", chosen)
        log, twins, now_ns = Log(), [Twin() for _ in range(LANES)], BEGIN_NS
        for lane, counts, pause_ns in batches:
            now_ns += pause_ns
            assert log.take(lane, counts, now_ns) == twins[lane].take(counts, now_ns)
            for written in log.write(now_ns):
                assert written == twins[written.source[0] % LANES].write(now_ns)
            room = LINES_PER_SECOND - sum(line.at_ns // NS_PER_S == now_ns // NS_PER_S for line in log.lines)
            assert room == 0 or not any(twin.waiting for twin in twins)
            _counted(log)
        _promised(log.lines)


def test_a_loud_source_hides_no_other() -> None:
    """One a day ahead sends ten events in each batch, one that is slow a single one in twenty seconds."""
    log = Log()
    for step in range(60 * 20):
        now_ns = BEGIN_NS + step * (NS_PER_S // 20)
        log.take(0, {(0, 1): 10} | ({(0, 2): 1} if step % 400 == 399 else {}), now_ns)
        log.write(now_ns)
    loud = [line for line in log.lines if line.source == (0, 1)]
    slow = [line for line in log.lines if line.source == (0, 2)]
    assert [(line.left_out, line.others) for line in loud] == [(0, 0), *[(1_999, 0)] * 5]
    assert [(line.left_out, line.others) for line in slow] == [(0, 0)] * 3
    _counted(log)


def test_every_source_has_its_line_while_all_are_remembered() -> None:
    """As many of a lane as its table holds, most of them loud, some with an event every twenty seconds."""
    senders = {(number % 2 * LANES, number): 200 if number % 100 == 0 else 1 for number in range(1, SOURCES_MAX + 1)}
    log = Log()
    log.run(senders, 130, NS_PER_S // 10)
    _promised(log.lines)
    _counted(log)
    assert len(log.lines) == 130 * LINES_PER_SECOND
    first = [next(line.at_ns for line in log.lines if line.source == source) for source in senders]
    assert max(first) - BEGIN_NS < 125 * NS_PER_S


def test_more_sources_than_are_remembered_take_turns() -> None:
    """Of two lanes, all of them loud; one lane has two partitions, and twice as many as its table holds."""
    senders = {(number % 3, number): 1 for number in range(1, 3 * SOURCES_MAX + 1)}
    log = Log()
    log.run(senders, 450, NS_PER_S)
    _promised(log.lines)
    _counted(log)
    assert set(senders) == {line.source for line in log.lines}
    assert sum(line.others for line in log.lines) > 0


def test_lanes_take_turns() -> None:
    """A lane with one wrong clock does not wait behind another with a thousand."""
    log = Log()
    log.run({(0, number): 1 for number in range(1, 1_001)}, 30)
    log.take(1, {(1, 7): 1}, BEGIN_NS + 30 * NS_PER_S)
    assert (1, 7) in {line.source for line in log.write(BEGIN_NS + 30 * NS_PER_S)}


def test_what_is_left_out_of_a_source_that_is_forgotten_is_said_of_the_others() -> None:
    """It went from the table for one that came later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warning_lines, "SOURCES_MAX", 2)
        log = Log()
        log.take(0, {(0, 1): 5, (0, 2): 3}, BEGIN_NS)
        log.write(BEGIN_NS)
        log.take(0, {(0, 3): 7}, BEGIN_NS + 1)  # nobody may go yet
        log.take(0, {(0, 2): 1, (0, 3): 2}, BEGIN_NS + LINE_EVERY_NS)
        [third, second] = log.write(BEGIN_NS + LINE_EVERY_NS)
    assert (third.source, third.left_out, third.others) == ((0, 3), 0, 4 + 7)
    assert (second.source, second.left_out) == ((0, 2), 2)
    _counted(log)
