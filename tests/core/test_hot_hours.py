"""The hours of the hot tier: as one looks at each chunk, with few headers read; and how they are used."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from lifecycle import usage as usage_module
from lifecycle.ageing import COLD, after_read
from lifecycle.chunks import Line
from lifecycle.hot_hours import hours_of
from lifecycle.tiers import MS_PER_HOUR, Grain, period_of
from lifecycle.usage import Usage, Used
from tests.core.test_chunks import a_header

if TYPE_CHECKING:
    from pathlib import Path

    from lifecycle.chunks import Header

BEGIN_MS = 1_769_810_400_000
HALF_LIFE_US = 3_600_000_000


def chunks_over(rng: random.Random, count: int) -> tuple[list[Line], dict[int, Header], list[int]]:
    """Chunks whose authority time goes on and now and then back; lines, headers, and the hour of each by its end."""
    lines, headers, hours = [], {}, []
    sequence = index = 1
    order_ms, now_ms = -(2**63), BEGIN_MS
    for number in range(1, count + 1):
        rows, control = rng.randrange(1, 9000), rng.randrange(3)
        now_ms += rng.choice((0, 1, 60_000, 1_800_000, 5 * MS_PER_HOUR, -30_000))
        line = Line(number, sequence, sequence + rows - 1, index, index + rows + control - 1, rows, rng.randrange(2))
        headers[sequence] = a_header(1)._replace(
            partition=2, first_sequence=sequence, order_ms=order_ms, authority_ms_max=now_ms, authority_ms_min=now_ms
        )
        order_ms = max(order_ms, now_ms)
        hours.append(order_ms // MS_PER_HOUR * MS_PER_HOUR + MS_PER_HOUR)
        lines.append(line)
        sequence, index = sequence + rows, index + rows + control
    return lines, headers, hours


@pytest.mark.parametrize("seed", range(20))
def test_hours_are_those_of_each_chunk(seed: int) -> None:
    """Runs of chunks of one hour, whatever is held, and all of them."""
    rng = random.Random(seed)
    lines, headers, ends = chunks_over(rng, rng.randrange(1, 200))
    asked: list[int] = []

    def header(sequence: int) -> Header:
        asked.append(sequence)
        return headers[sequence]

    used = {ends[0]: Used(3.5, 77)}
    hours = hours_of(2, lines, header, 10.0, used)
    assert [hour.end_ms for hour in hours] == sorted(set(ends))
    for hour in hours:
        mine = [line for line, end in zip(lines, ends, strict=True) if end == hour.end_ms]
        assert (hour.first_index, hour.last_index) == (mine[0].first_index, mine[-1].last_index)
        assert (hour.first_sequence, hour.last_sequence) == (mine[0].first_sequence, mine[-1].last_sequence)
        assert hour.rows == sum(line.rows for line in mine)
        assert hour.size_bytes == 10 * hour.rows
        assert hour.period == period_of(hour.end_ms - MS_PER_HOUR, Grain.HOURLY)
        assert hour.held == any(line.held for line in mine if line is not lines[-1] or len(mine) == 1) or len(mine) == 1
        there = [line.held for line in mine if line is not lines[-1] or len(mine) == 1]
        assert hour.in_part == (len(set(there)) > 1)
        assert (hour.heat, hour.moved_us) == used.get(hour.end_ms, Used(COLD, hour.end_ms * 1_000))
    assert len(asked) == len(set(asked))


def test_few_headers_are_read_of_long_hours() -> None:
    """Some a chunk's number of digits, not each."""
    lines, headers, _ = chunks_over(random.Random(1), 4_000)
    of_two = {first: header._replace(order_ms=BEGIN_MS, authority_ms_max=BEGIN_MS) for first, header in headers.items()}
    for line in lines[3_000:]:
        of_two[line.first_sequence] = of_two[line.first_sequence]._replace(authority_ms_max=BEGIN_MS + MS_PER_HOUR)
    asked: set[int] = set()

    def header(sequence: int) -> Header:
        asked.add(sequence)
        return of_two[sequence]

    assert [hour.last_index - hour.first_index > 0 for hour in hours_of(2, lines, header, 1.0)] == [True, True]
    assert len(asked) < 60


def test_a_question_counts_once_for_each_hour(tmp_path: Path) -> None:
    """However many chunks of it were read; and what was counted is there again, without what has no weight."""
    lines, headers, _ = chunks_over(random.Random(3), 60)
    hours = hours_of(2, lines, headers.__getitem__, 1.0)
    assert len(hours) > 2
    file = tmp_path / "usage.json"
    usage = Usage(file)
    usage.note(2, [1], 5, HALF_LIFE_US)
    usage.know(2, hours)
    read, untouched = hours[0], hours[1]
    now_us = read.end_ms * 1_000 + HALF_LIFE_US
    of_hour = [line.first_sequence for line in lines if line.last_sequence <= read.last_sequence]
    usage.note(2, of_hour, now_us, HALF_LIFE_US)
    usage.note(2, of_hour[:1], now_us, HALF_LIFE_US)
    once = after_read(COLD, read.end_ms * 1_000, now_us, HALF_LIFE_US)
    expected = after_read(once, read.end_ms * 1_000, now_us, HALF_LIFE_US)
    assert usage.of(2) == {read.end_ms: Used(expected, 0)}
    usage.moved(2, untouched.end_ms, now_us)
    usage.save(now_us, HALF_LIFE_US, 10)
    assert Usage(file).of(2) == {read.end_ms: Used(expected, 0), untouched.end_ms: Used(COLD, now_us)}
    again = Usage(file)
    again.save(now_us + 11, HALF_LIFE_US, 10)
    assert Usage(file).of(2) == {read.end_ms: Used(expected, 0)}


def test_a_question_waits_for_its_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a partition that had none yet, and before the file is known; for more than there is room none waits."""
    lines, headers, _ = chunks_over(random.Random(3), 60)
    hours = hours_of(2, lines, headers.__getitem__, 1.0)
    monkeypatch.setattr(usage_module, "WAITING_MAX", 3)
    usage = Usage()
    usage.know(2, [])
    now_us = hours[0].end_ms * 1_000
    for first_sequences in ([1, 2], [1, 2], [1]):
        usage.note(2, first_sequences, now_us, HALF_LIFE_US)
    usage.note(1, [1], now_us, HALF_LIFE_US)
    usage.keep_in(tmp_path / "usage.json")
    assert usage.of(2) == {}
    usage.know(2, hours)
    once = after_read(COLD, now_us, now_us, HALF_LIFE_US)
    assert usage.of(2) == {hours[0].end_ms: Used(after_read(once, now_us, now_us, HALF_LIFE_US), 0)}
    usage.know(2, hours)
    assert usage.of(2) == {hours[0].end_ms: Used(after_read(once, now_us, now_us, HALF_LIFE_US), 0)}


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', json.dumps({"0": {"5": [1]}}), "{"])
def test_a_file_that_cannot_be_read_is_begun_anew(tmp_path: Path, content: str) -> None:
    """And that is said."""
    file = tmp_path / "usage.json"
    file.write_text(content)
    with capture_logs() as lines:
        assert Usage(file).of(0) == {}
    assert [line["event"] for line in lines] == ["usage_begun_anew"]
