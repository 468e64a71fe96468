"""The cut of a ledger: its first entries go, once they are proved to be in archives and nobody needs them.

Problem: what is deleted does not come back, so nothing may be deleted on a belief. Before a cut, in the same run and
under the lease, every archive that it rests on is read from disk and proved; the ledger has the chain hash that the
proof ends with; the snapshots that any fold would be restored from stand behind; and the ledger itself says what goes.

    prove      archives from the first entry on: count, chain, Merkle root, each going on from the one before
    anchor     judge's state after the first entry that stays, as a snapshot of its own: a hot store that is lost later
               is read again from where the archives end, and judge cannot be had from the beginning any more
    say        a CUT record on the control topic; nothing goes on until it is an entry of the ledger
    note       the same on the progress topic, where who opens the partition looks for what GENESIS said
    delete     records of the ledger topic before the first entry that stays

GUARANTEE the last entry, the last event and all that a fold would be restored from, or has not spoken of yet, stay.
GUARANTEE a run that is ended between any two of these can be run again: a CUT behind which nothing was deleted is
harmless, and another is written.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from lifecycle import store_dump
from lifecycle.packing import DamagedError
from lifecycle.store_dump import STORE
from lifecycle.verifying import verify
from schemas.clock import source as time_source
from schemas.errors import DriftledgerError, HaltError
from schemas.instants import NS_PER_S
from streams.control import read_control
from streams.cuts import Cut
from streams.derive import Derive
from streams.fold_progress import Standing
from streams.judge import Judge
from streams.judge_states import reader_of, snapshots_of
from streams.ledger_reader import decode_entry
from streams.log import offset_of
from streams.progress import produce_durably, read_lane, record_cut
from streams.restore import restore
from streams.snapshots import Snapshot, pack, read_snapshots
from streams.topics_admin import TopicsAdmin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lifecycle.file_tree import FileTree
    from lifecycle.manifest import Segment
    from schemas.merkle import Span
    from streams.ledger_reader import Tail
    from streams.queries import Ledger
    from streams.snapshots import Packed

#: How long a CUT record may take to become an entry.
SEQUENCED_TIMEOUT_S: Final = 30.0
#: Of judge's snapshots at cuts, in turn, beside those that lanes write: the one that holds stays until another does.
_ANCHOR_SLOTS: Final = (2, 3)
_POLL_S: Final = 0.05


class NotCutError(DriftledgerError):
    """Nothing was deleted. Attributes: remedy."""

    def __init__(self, partition: int, detail: str, remedy: str) -> None:
        super().__init__(f"partition {partition} of the ledger was not cut: {detail}. {remedy}")
        self.remedy = remedy


def oldest_needed(ledger: Ledger, partition: int, tail: Tail, archived_index: int) -> int:
    """The first entry that must stay, by who would read the ledger from there: 1 or more.

    archived_index: of the last entry in archives, behind which a lost hot store is read on. Of each fold both snapshots
    count: the older one is used where the newer is damaged. Without one that a fold could be restored from it would be
    read from the beginning.
    """
    lane = ledger.lane_of(partition)
    standing = Standing(read_lane(ledger.log, ledger.names.progress, lane).folds)
    judge, derive = Judge(), Derive()
    versions = {judge.name: judge.version, derive.name: derive.version, STORE: store_dump.VERSION}
    packed = read_snapshots(ledger.log, ledger.names.snapshots, lane, tuple(versions), partition)
    spoken = [standing.of(fold).done(partition, tail.head.index) + 1 for fold in (judge.name, derive.name)]
    rows = [_row(ledger, partition, tail, sequence) for sequence in (tail.head.sequence, _in_chunks(partition, packed))]
    return max(1, min([_restorable(packed, versions, judge.name), *spoken, *rows, archived_index]))


def _in_chunks(partition: int, snapshots: Sequence[Packed]) -> int:
    """The last sequence that the hot store has in chunks, as of its oldest snapshot: by that its ledger is known."""
    loaded = [s.loaded(partial(store_dump.load, partition)) for s in snapshots if _is_store(s)]
    return min((state.applied.sequence for state in loaded if state is not None), default=0)


def _is_store(packed: Packed) -> bool:
    return (packed.fold, packed.version) == (STORE, store_dump.VERSION)


def _restorable(snapshots: Sequence[Packed], versions: Mapping[str, int], judge: str) -> int:
    """The oldest snapshot that may be used; 1 where a fold, or judge before it, has none."""
    ours = [packed for packed in snapshots if packed.version == versions[packed.fold] and not _is_anchor(packed)]
    whole: dict[str, list[int]] = {fold: [] for fold in versions}
    for packed in ours:
        if packed.is_whole():
            whole[packed.fold].append(packed.index)
    if not all(whole.values()):
        return 1
    # Every other fold is stepped with what judge says, so judge must have one that is as old.
    if any(min(whole[judge]) > max(indexes) for indexes in whole.values()):
        return 1
    return min(packed.index for packed in ours)


def _is_anchor(packed: Packed) -> bool:
    return packed.slot.rpartition("/")[2] in map(str, _ANCHOR_SLOTS)


def anchor_slot(snapshots: Iterable[Packed], first_index: int) -> int:
    """Where the next anchor goes: not over what a ledger that begins with that entry is judged from.

    snapshots: judge's, newest first. Of its anchors the newest that stands at that entry or before it stays; one that
    stands further on is of a run that was ended before it deleted anything.
    """
    usable = (packed for packed in snapshots if _is_anchor(packed) and packed.index <= first_index)
    stays = next((packed.slot for packed in usable if packed.is_whole()), "")
    return next(slot for slot in _ANCHOR_SLOTS if not stays.endswith(f"/{slot}"))


def _row(ledger: Ledger, partition: int, tail: Tail, sequence: int) -> int:
    """Index of a DATA entry: the last is compared with its input when a lane opens."""
    if not sequence:
        return 1
    offset = ledger.offset_of(partition, tail, sequence)
    message = next(ledger.log.scan(ledger.names.sequenced, partition, offset, tail.offset + 1))
    return int(decode_entry(partition, message.value())["index"])


def check_begin(partition: int, segments: Sequence[Segment], first_index: int, pruned_index: int) -> None:
    """Raises NotCutError where the ledger has entries before the first file that no prune has dropped.

    first_index: of the ledger; pruned_index: as of `steps.Ledger`. What is before the ledger needs no archive.
    """
    first_index = max(first_index, pruned_index + 1)
    if segments and first_index < segments[0].facts.first_index:
        raise NotCutError(
            partition,
            f"entries {first_index} to {segments[0].facts.first_index - 1} are in no archive, and the manifest knows "
            "of no prune that dropped them: the ledger alone may have them",
            'Put back the archives that had them, or the manifest, as "The manifest topic is lost" in '
            "docs/operations.md says. Meanwhile other partitions are cut with --partition",
        )


def rests_on(segments: Sequence[Segment], first_index: int, last_index: int, pruned_index: int) -> list[Segment]:
    """Files with those entries, but for such as were pruned: one at least. Raises DamagedError where one is missing."""
    if not segments:
        raise DamagedError(f"entries {first_index} to {last_index} are in no archive")
    following = max(first_index, pruned_index + 1)
    last_index = max(last_index, following)
    found = [s for s in segments if s.facts.last_index >= following and s.facts.first_index <= last_index]
    for segment in found:
        if segment.facts.first_index > following:
            break
        following = segment.facts.last_index + 1
    if following <= last_index:
        raise DamagedError(f"entries {following} to {last_index} are in no archive")
    return found


class Cutting:
    """Of one run. at: called before each step that changes something, with its name; tests kill there."""

    def __init__(self, ledger: Ledger, files: FileTree, job: str, at: Callable[[str], None] = lambda _: None) -> None:
        self._ledger, self._files, self._job, self._at = ledger, files, job, at

    def cut(self, partition: int, segments: Sequence[Segment], last_index: int, archived_index: int) -> Cut:
        """Have the ledger begin behind an entry. segments: what it rests on, verified before.

        archived_index: as of `oldest_needed`, of all archives: those that it rests on may end with the entry.

        Raises NotCutError, and UnreachableError, where nothing was deleted.
        """
        ledger = self._ledger
        tail = ledger.tail(partition)
        if tail is None or last_index >= min(tail.head.index, oldest_needed(ledger, partition, tail, archived_index)):
            raise NotCutError(partition, f"entry {last_index} is needed", "Run the job again")
        made = self._made(partition, tail, segments, last_index)
        value = made.encode(f"job {self._job}", f"archived, and proved to entry {made.last_index}")
        self._at("anchor")
        self._anchor(partition, tail, made.before_index)
        self._at("say")
        self._say(partition, value)
        self._at("note")
        names = ledger.names
        record_cut(ledger.bootstrap, names.progress, ledger.lane_of(partition), partition, value)
        self._at("delete")
        begin = ledger.offset_of(partition, tail, made.before_index, "index")
        TopicsAdmin(ledger.bootstrap).delete_before(names.sequenced, partition, begin)
        self._at("done")
        return made

    def _made(self, partition: int, tail: Tail, segments: Sequence[Segment], last_index: int) -> Cut:
        ledger, last = self._ledger, segments[-1].facts
        proved = self._entry(partition, tail, min(last.last_index, tail.head.index))
        if (proved["index"], bytes(proved["chain_hash"]).hex()) != (last.last_index, last.chain_after):
            detail = f"its entry {last.last_index} is not the one of {segments[-1].path}"
            raise NotCutError(partition, detail, "Find out which was changed, with `driftledger sequence check`")
        entry = self._entry(partition, tail, last_index)
        span: Span = segments[0].facts.span
        for segment in segments[1:]:
            span = span.joined(segment.facts.span)
        return Cut(
            before_index=last_index + 1,
            before_sequence=entry["sequence"] + 1,
            chain_hash=bytes(entry["chain_hash"]),
            archives=len(segments),
            first_index=segments[0].facts.first_index,
            last_index=last.last_index,
            merkle_root=span.root(),
            job=self._job,
            genesis=self._genesis(partition),
            framing=ledger.framing(partition),
        )

    def _anchor(self, partition: int, tail: Tail, index: int) -> None:
        """Write judge's state after an entry. Raises NotCutError where it cannot be had any more."""
        ledger, judge = self._ledger, Judge()
        held, read = snapshots_of(ledger, partition), reader_of(ledger, partition, tail)
        try:
            state = restore(judge, partition, held, index, read)
        except HaltError as error:
            raise NotCutError(partition, f"judge's state at entry {index} cannot be had: {error}", "") from error
        chain_hash = bytes(self._entry(partition, tail, index)["chain_hash"])
        snapshot = Snapshot(judge.name, judge.version, partition, index, chain_hash, judge.dump(state))
        slot = anchor_slot(held, self._first(partition)["index"])
        records = [(key.encode(), value) for key, value in pack(snapshot, slot).records()]
        produce_durably(ledger.bootstrap, ledger.names.snapshots, ledger.lane_of(partition), records)

    def _genesis(self, partition: int) -> Mapping[str, Any]:
        entry = self._first(partition)
        kind, body = read_control(entry["value"])
        if entry["index"] == 1 and kind == "Genesis":
            return body
        cut = self._ledger.cut(partition)
        if cut is None:
            detail = f"it begins at entry {entry['index']}, and no cut says so"
            raise NotCutError(partition, detail, "Restore the ledger topic from a copy")
        return cut.genesis

    def _first(self, partition: int) -> Mapping[str, Any]:
        first = self._ledger.log.first(self._ledger.names.sequenced, partition)
        return decode_entry(partition, first.value() if first else None)

    def _entry(self, partition: int, tail: Tail, index: int) -> Mapping[str, Any]:
        ledger = self._ledger
        offset = ledger.offset_of(partition, tail, index, "index")
        return decode_entry(
            partition, next(ledger.log.scan(ledger.names.sequenced, partition, offset, tail.offset + 1)).value()
        )

    def _say(self, partition: int, value: bytes) -> None:
        """Write the record, and wait until it is an entry."""
        ledger, clock = self._ledger, time_source()
        self._check_halt(partition)
        [(offset, _)] = produce_durably(
            ledger.bootstrap, ledger.names.control, partition, [(None, value)], idempotent=True
        )
        deadline_ns = clock.monotonic_ns() + int(SEQUENCED_TIMEOUT_S * NS_PER_S)
        while True:
            tail = ledger.tail(partition)
            if tail is not None and tail.head.control_offset >= offset:
                break
            if clock.monotonic_ns() >= deadline_ns:
                self._check_halt(partition)
                raise NotCutError(
                    partition,
                    f"no lane took the record that says so within {SEQUENCED_TIMEOUT_S:.0f} s",
                    "Start `driftledger worker`, and run the job again when it is live; see `driftledger status`",
                )
            clock.sleep_s(_POLL_S)
        at = ledger.offset_of(partition, tail, offset, "control_offset")
        message = next(ledger.log.scan(ledger.names.sequenced, partition, at, tail.offset + 1))
        entry = decode_entry(partition, message.value())
        if entry["control_offset"] != offset or entry["value"] != value:
            raise NotCutError(
                partition,
                f"the record that says so, {ledger.names.control}[{partition}]@{offset}, is not the entry at "
                f"{ledger.names.sequenced}[{partition}]@{offset_of(message)}",
                "Run `driftledger sequence check`",
            )

    def _check_halt(self, partition: int) -> None:
        ledger = self._ledger
        halt = read_lane(ledger.log, ledger.names.progress, ledger.lane_of(partition)).halts.get(partition)
        if halt is not None:
            raise NotCutError(partition, str(halt), f"Mend that, then `driftledger halts lift {partition}`")


def proved(files: FileTree, segments: Sequence[Segment], now_us: Callable[[], int]) -> dict[str, int]:
    """Proofs of files, each read from disk now. Raises DamagedError, which names the file."""
    proofs: dict[str, int] = {}
    before = None
    for segment in segments:
        facts = segment.facts
        if before is not None and facts.head_before != before:
            raise DamagedError(f"{segment.path} does not go on from the file before it")
        before = verify(files, segment).head
        proofs[segment.path] = now_us()
    return proofs
