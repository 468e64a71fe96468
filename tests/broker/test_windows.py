"""Windows on a real broker: what lanes write is what the plain twin makes of the ledger, whatever befell them."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from schemas.errors import HaltCode, HaltError
from streams import restore
from streams.control import read_control
from streams.definitions import JUDGE as JUDGE_ENTRY
from streams.derive import DERIVE as DERIVE_NAME
from streams.derive import Derive
from streams.progress import read_lane
from streams.transactions import Point
from streams.windows import WITHDRAWN, Frame, WindowDefinition, entry_name
from tests.broker.harness import QUICK, Ledger, Load, check_exactly_once, refold, wait_for
from tests.broker.ledgers import JUDGE, Noted, lane_of, records, sequence
from tests.broker.window_ledgers import OPTIONS, Past, by_fold, check_against_the_twin, tell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from schemas.columns import Entries
    from streams.derive import DeriveState
    from streams.derived import Derived
    from streams.judge import Outputs

NO_SNAPSHOTS = {**OPTIONS, "snapshot_interval_ms": 86_400_000}
#: Entries of one transaction of a derive that catches up, here.
CAUGHT_UP_AT_ONCE = 300


@dataclass(frozen=True)
class NotedDerive(Derive):
    """A derive of any version.

    first: by partition the first index it stepped over. loaded: the partitions that it had a snapshot of.
    """

    number: int = Derive().version
    first: dict[int, int] = field(default_factory=dict)
    loaded: set[int] = field(default_factory=set)

    @property
    def version(self) -> int:
        """As said."""
        return self.number

    def step(self, state: DeriveState, entries: Entries, judged: Outputs) -> Derived:
        """Note where it began."""
        self.first.setdefault(state.partition, int(entries.index[0]))
        return Derive.step(self, state, entries, judged)

    def load(self, partition: int, data: bytes) -> DeriveState:
        """Note that it could."""
        state = Derive.load(self, partition, data)
        self.loaded.add(partition)
        return state


class Mute(Derive):
    """Says nothing: as if a release without windows had written what it takes."""

    def step(self, state: DeriveState, entries: Entries, judged: Outputs) -> Derived:
        """Only the state goes on."""
        derived = Derive.step(self, state, entries, judged)
        nothing = derived.aggregates._replace(**{name: column[:0] for name, column in _columns(derived).items()})
        return derived._replace(aggregates=nothing, letters=[])


def _columns(derived: Derived) -> dict[str, Any]:
    """Those of its aggregates."""
    return {name: column for name, column in derived.aggregates._asdict().items() if name != "keep"}


class DiedError(Exception):
    """A lane that goes no further."""


def dying(point: Point, after: int) -> Callable[[Point], None]:
    """Raise when a point is reached so many times."""
    left = [after]

    def at(reached: Point) -> None:
        left[0] -= reached is point
        if not left[0]:
            raise DiedError

    return at


def with_windows(ledger: Ledger, *windows: WindowDefinition) -> Ledger:
    """The same ledger, of a deployment that wants these."""
    return replace(ledger, options={**ledger.options, "windows": windows})


# -------------------------------------------------------------------------------------------------------------- checks


def definitions(ledger: Ledger, partition: int = 0) -> list[tuple[int, str, str]]:
    """Index, name and body of each DEFINITION entry of a window."""
    found = []
    for _, entry in records(ledger.settings, partition):
        kind, body = read_control(entry["value"]) if entry["kind"] == "CONTROL" else ("", {})
        if kind == "Definition" and body["name"] != JUDGE_ENTRY:
            found.append((entry["index"], body["name"], body["body"]))
    return found


def versions_of(ledger: Ledger, name: str, partition: int = 0) -> list[int]:
    """Versions of that definition that had results, in order."""
    values = [json.loads(value or b"") for _, value in ledger.outputs()["aggregates", partition]]
    return list(dict.fromkeys(value["version"] for value in values if value["definition"] == name))


def forget_progress(ledger: Ledger) -> None:
    """As on a topic of a release that had no derive."""
    ledger.append(ledger.names.progress, 0, None, DERIVE_NAME.encode())


def tails(ledger: Ledger) -> dict[int, int]:
    """Index of the last entry by partition."""
    heads = {partition: ledger.head(partition) for partition in ledger.partitions}
    return {partition: head.index if head else 0 for partition, head in heads.items()}


def slots(ledger: Ledger, fold: str) -> dict[str, bytes]:
    """What stands under the keys of a fold's snapshots."""
    found = {(message.key() or b"").decode(): message.value() for message in ledger.records(ledger.names.snapshots, 0)}
    return {key: value for key, value in found.items() if key.startswith(f"{fold}/") and value is not None}


def keep(_ledger: Ledger) -> None:
    """Snapshots as they are."""


def delete(ledger: Ledger, *folds: str) -> None:
    """All snapshots of some folds."""
    for key in [key for fold in folds for key in slots(ledger, fold)]:
        ledger.append(ledger.names.snapshots, 0, None, key.encode())


def damage(ledger: Ledger, *folds: str) -> None:
    """All snapshots of some folds: a byte of each is another, and the head says nothing of it."""
    written = {key: value for fold in folds for key, value in slots(ledger, fold).items()}
    for key, value in written.items():
        if not key.endswith("/head"):
            flipped = value[:-9] + bytes([value[-9] ^ 1]) + value[-8:]
            ledger.append(ledger.names.snapshots, 0, flipped, key.encode())
    for key, value in written.items():
        if key.endswith("/head"):
            ledger.append(ledger.names.snapshots, 0, value, key.encode())


# --------------------------------------------------------------------------------------------------------------- tests


def test_a_worker_writes_what_the_plain_twin_makes_of_its_ledger(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """With heartbeats, one of them absurd, and a definition of a newer release: passed over, and counted."""
    options = {**OPTIONS, "lanes": 2, "heartbeat_interval_ms": 200, "snapshot_interval_ms": 1_000}
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, options).create()
    load = Load(ledger, sources=12)
    with ledger.worker() as worker:
        for part in range(4):
            load.send(1_500)
            load.flush()
            ledger.wait_level(worker)
            if part == 1:
                newer = {"name": "window/tumble", "body": '{"name":"tumble","shape":"session"}'}
                tell(ledger, "Definition", newer, partition=1)
                liar = {"predecessor_appended_ms": 2**62, "input_end_offset": 0, "worker_us": 0}
                tell(ledger, "Heartbeat", liar, partition=1)
        wait_for(lambda: worker.metric("driftledger_refused_windows_total") == 1, "it is counted")
        wait_for(lambda: worker.metric("driftledger_events_total") == 6_000, "all are counted")
        worker.stop()
    assert check_exactly_once(ledger) == 6_000
    assert check_against_the_twin(ledger) > 300
    assert len(definitions(ledger, 1)) == len(OPTIONS["windows"]) + 1


def test_a_lane_goes_on_with_its_windows_from_any_snapshots_it_finds(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Of both folds, of one of them, of none, or damaged: where it begins differs, what it writes does not."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, OPTIONS).create()
    past = Past(ledger)
    past.send(400)
    sequence(ledger.settings)
    both = {0, 1}
    cases: list[tuple[Callable[..., None], tuple[str, ...], set[int], set[int]]] = [
        (keep, (), both, both),
        (delete, (JUDGE.name,), set(), both),
        (delete, (DERIVE_NAME,), set(), set()),
        (delete, (JUDGE.name, DERIVE_NAME), set(), set()),
        (damage, (JUDGE.name,), set(), both),
        (damage, (DERIVE_NAME,), set(), set()),
    ]
    for spoil, folds, of_judge, of_derive in cases:
        stood = tails(ledger)
        spoil(ledger, *folds)
        past.send(150)
        judge, derive = Noted(), NotedDerive()
        sequence(ledger.settings, judge, derive=derive)
        assert (judge.loaded, derive.loaded) == (of_judge, of_derive)
        assert all((judge.first[p] > 1) == (p in of_judge) for p in stood)
        assert all((1 < derive.first[p] <= stood[p] + 1) == (p in of_derive) for p in stood)
        assert ledger.outputs() == refold(ledger)
    assert check_against_the_twin(ledger) > 300


class _Few(Derive):
    """A derive of windows that hold much of each event."""

    def rows_max(self, _state: DeriveState) -> int:
        return 7


def test_a_lane_fetches_no_more_at_once_than_its_windows_take(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Though more is there, and batch_events_max would have it."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, NO_SNAPSHOTS).create()
    Past(ledger).send(50)
    sizes: list[int] = []
    with closing(lane_of(ledger.settings, 0, derive=_Few())) as lane:
        lane.open()
        while sum(sizes) < 70:
            committed = lane.commit(lane.fetch())
            sizes.append(0 if committed is None else committed.events)
    assert max(sizes) == 7


def test_a_changed_window_takes_effect_at_its_own_entry_and_only_once(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """However often the lane opens. One that is not wanted any more is withdrawn, and may come again."""
    tumble, hop, aside = QUICK
    first = Ledger(kafka.bootstrap, prefix, tmp_path, {**NO_SNAPSHOTS, "partitions": 1, "windows": QUICK}).create()
    past = Past(first)
    past.send(200)
    sequence(first.settings)
    changed = WindowDefinition("hop", 400_000, by=hop.by, max_behind_us=300_000)
    then = [
        (with_windows(first, tumble, changed, aside), ["window/hop"]),
        (with_windows(first, changed), ["window/aside", "window/tumble"]),
        (with_windows(first, changed, tumble), ["window/tumble"]),
        (with_windows(first), ["window/hop", "window/tumble"]),
        (with_windows(first, hop), ["window/hop"]),
    ]
    told = [entry_name(window.name) for window in QUICK]
    for ledger, names in then:
        told += names
        for _ in range(2):
            past.send(100)
            sequence(ledger.settings)
            assert [name for _, name, _ in definitions(ledger)] == told
    entries = definitions(first)
    assert [body for _, name, body in entries if name == "window/tumble"] == [
        tumble.canonical(), WITHDRAWN, tumble.canonical(), WITHDRAWN,
    ]  # fmt: skip
    at = [index for index, name, _ in entries if name == "window/hop"]
    assert versions_of(first, "hop") == [at[0], at[1], at[3]]
    assert check_against_the_twin(first) > 100


def _says(ledger: Ledger) -> list[tuple[str, str]]:
    """Name and body of each DEFINITION record of a window on the control topic, sequenced or not."""
    bodies = [read_control(record.value()) for record in ledger.records(ledger.names.control, 0)]
    return [(b["name"], b["body"]) for kind, b in bodies if kind == "Definition" and b["name"] != JUDGE_ENTRY]


def test_a_changed_window_that_waits_for_its_turn_is_not_told_again(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Its record stands behind a heartbeat that waits for input; what is wanted last is what comes into force."""
    first = Ledger(kafka.bootstrap, prefix, tmp_path, {**NO_SNAPSHOTS, "partitions": 1, "windows": QUICK}).create()
    past = Past(first)
    past.send(100)
    sequence(first.settings)
    with first.log() as log:
        end = log.ends(first.names.input, [0])[0]
    beat = {"predecessor_appended_ms": None, "input_end_offset": end + 100, "worker_us": 0}
    tell(first, "Heartbeat", beat)
    tumble, hop, _ = QUICK
    other = WindowDefinition("tumble", 700_000, frame=Frame.AUTHORITY)
    before = _says(first)
    for windows, more in (((tumble, hop), 1), ((tumble, hop), 1), ((other, hop), 2), ((hop,), 3), (QUICK, 5)):
        for _ in range(2):
            with closing(lane_of(with_windows(first, *windows).settings, 0)) as lane:
                lane.open()
            assert len(_says(first)) == len(before) + more
    past.send(300)
    sequence(first.settings)
    assert check_against_the_twin(first) > 50
    in_force = {name: body for _, name, body in definitions(first)}
    assert in_force == {entry_name(window.name): window.canonical() for window in QUICK}


def test_a_ledger_from_before_there_were_windows_gets_them(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Derive has no progress there: it goes through the whole ledger, silently as nothing is defined, and is level."""
    old = Ledger(kafka.bootstrap, prefix, tmp_path, {**NO_SNAPSHOTS, "windows": ()}).create()
    past = Past(old)
    past.send(300)
    sequence(old.settings)
    forget_progress(old)
    new = with_windows(old, *QUICK)
    stood = tails(old)
    for _ in range(2):
        past.send(300)
        sequence(new.settings)
    assert all(index > stood[p] for p in stood for index, _, _ in definitions(new, p))
    assert [name for _, name, _ in definitions(new, 1)] == [entry_name(window.name) for window in QUICK]
    with new.log() as log:
        assert read_lane(log, new.names.progress, 0).folds[DERIVE_NAME].inline == {0, 1}
    assert check_against_the_twin(new) > 100


def test_a_derive_behind_judge_says_what_it_missed_once_wherever_it_dies(
    kafka: Any, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every point of such a transaction, with judge level, or behind as well at another place."""
    monkeypatch.setattr(restore, "ROWS_MAX", CAUGHT_UP_AT_ONCE)
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, NO_SNAPSHOTS).create()
    past = Past(ledger)
    past.send(500)
    sequence(ledger.settings, derive=Mute())
    forget_progress(ledger)
    past.send(400)
    sequence(ledger.settings, None)
    assert not sum(len(output) for (kind, _), output in ledger.outputs().items() if kind == "aggregates")
    whole = by_fold(refold(ledger))
    done = [0]
    for point, after in ((Point.PRODUCED, 1), (Point.COMMITTED, 1), (Point.COMMITTING, 2), (Point.COMMITTED, 3)):
        with closing(lane_of(ledger.settings, 0, JUDGE, dying(point, after))) as lane, pytest.raises(DiedError):
            lane.open()
        for place, output in by_fold(ledger.outputs()).items():
            assert output == whole[place][: len(output)]
        with ledger.log() as log:
            folds = read_lane(log, ledger.names.progress, 0).folds
        done.append(sum(folds[DERIVE_NAME].indexes.values()) if DERIVE_NAME in folds else 0)
    assert done[1] < done[2] < done[3] < done[4]
    sequence(ledger.settings)
    assert by_fold(ledger.outputs()) == whole
    past.send(100)
    sequence(ledger.settings)
    assert check_against_the_twin(ledger) > 100


def _refused(ledger: Ledger, derive: Derive) -> HaltError:
    """The halt of a lane that opens with that derive, or goes on."""
    with pytest.raises(HaltError) as halt:
        sequence(ledger.settings, derive=derive)
    return halt.value


def test_there_is_no_way_back_to_an_older_derive(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """The new one is told once and takes no snapshot of the old; the older halts at what says so, and at its entry."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, {**OPTIONS, "partitions": 1}).create()
    past = Past(ledger)
    past.send(200)
    sequence(ledger.settings)
    for loaded in (set(), {0}):
        past.send(200)
        sequence(ledger.settings, derive=(second := NotedDerive(2)))
        assert second.loaded == loaded
    kinds = [read_control(entry["value"]) for _, entry in records(ledger.settings) if entry["kind"] == "CONTROL"]
    assert [body for kind, body in kinds if kind == "FoldVersion"] == [{"fold": DERIVE_NAME, "version": 2}]
    written = ledger.outputs()
    assert written == refold(ledger, derive=NotedDerive(2))
    halt = _refused(ledger, Derive())
    assert halt.code is HaltCode.FOLD_FAILED
    assert "Run a release that has derive 2" in halt.detail
    tell(ledger, "FoldVersion", {"fold": DERIVE_NAME, "version": 3})
    halt = _refused(ledger, NotedDerive(2))
    assert halt.code is HaltCode.FOLD_FAILED
    assert "Run a release that has derive 3" in halt.detail
    assert ledger.outputs() == written


def test_the_aggregates_do_not_show_how_the_input_was_cut_into_batches(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """One event a transaction, seven, five hundred: the same bytes."""
    one = Ledger(kafka.bootstrap, f"{prefix}-1", tmp_path, {**NO_SNAPSHOTS, "batch_events_max": 1}).create()
    Past(one, beats=False).send(300)
    outputs = []
    for rows in (1, 7, 500):
        options = {**NO_SNAPSHOTS, "batch_events_max": rows, "input_topic": one.names.input}
        ledger = Ledger(kafka.bootstrap, f"{prefix}-{rows}", tmp_path, options).create()
        sequence(ledger.settings)
        outputs.append(ledger.outputs())
    assert outputs[0] == outputs[1] == outputs[2]
    assert sum(len(output) for (kind, _), output in outputs[0].items() if kind == "aggregates") > 50
