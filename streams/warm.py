"""Compiles every kernel a lane calls before the lane is there, so that no batch waits for a compiler.

Compiling takes 75 seconds of one core, and memory that a process never gives back. So `prepare` does it once for each
state of the sources and each place they stand in, in two processes beside one another; the worker then loads the
result, in about two seconds.

GUARANTEE several workers that start at once compile once: one does, the others wait.
GUARANTEE what compiles ends with the worker that waits for it, however that ends.
GUARANTEE what stands in the cache was made by one process for each function. numba numbers the files of a function
without a lock, so two that write there at once could exchange what they compiled for different types. Each writes into
a folder of its own, and whole functions are moved.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog
from numba import config

from lifecycle import store_dump
from lifecycle.archive_warm import warm_archives
from lifecycle.query_warm import warm_queries
from lifecycle.store import Store
from schemas.canonical import EntryKind
from schemas.clock import source as time_source
from schemas.codec import encode
from schemas.columns import Scratch, allocate_entries, allocate_events, decode_entries
from schemas.entry_kernel import write_headers
from schemas.errors import DriftledgerError
from schemas.instants import NS_PER_S, US_PER_MS
from schemas.memory import address_of, sources_state
from streams import sequence
from streams.estimate_kernel import WHY_KNOWN
from streams.estimates import TOLD_COLUMNS, WHY, estimate_messages
from streams.fold import NO_MESSAGES
from streams.folds import FOLDS
from streams.guardian import Heard, beats_in, look
from streams.guardian_kernel import BEAT_COLUMNS, worker_off_ms
from streams.judge import Counts, Outputs, blank_verdicts, rules_of
from streams.live_boards import LiveBoards
from streams.rdkafka import warm_kernels
from streams.records import allocate_records
from streams.sliding_run import SlidingRun, no_events
from streams.sliding_table import renumber
from streams.sources import no_names
from streams.window_keys import with_key_room
from streams.window_room import grown, no_windows
from streams.window_run import WindowRun, first_numbers
from streams.windows import Kind, WindowDefinition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.derive import DeriveState
    from streams.records import Records

#: Kernels of sources that no process has started with for so long are removed.
_UNUSED_DAYS = 30
_SECONDS_PER_DAY = 86_400
#: Where kernels stand; the folders of their cached functions begin with these.
_PACKAGES: Final = ("schemas", "streams", "lifecycle")
_ROOT: Final = Path(__file__).parents[1]
_TUMBLING: Final = WindowDefinition("tumbling", size_us=1_000_000)
_SLIDING: Final = WindowDefinition("sliding", size_us=1_000_000, kind=Kind.SLIDING)
#: When the broker appended the two rows that are gone through: so far apart that the second ends what the first began.
_ROWS_MS: Final = (0, 3_600_000)
_logger = structlog.get_logger()


def prepare() -> None:
    """Fill the kernel cache where it is cold. Raises DriftledgerError where compiling fails."""
    folder = Path(config.CACHE_DIR)  # type: ignore[attr-defined]  # numba reads it from the environment
    done = folder / f"compiled-{sources_state()}-{_place()}"
    if done.exists():
        done.touch()
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if done.exists():
            return
        clock = time_source()
        began_ns = clock.monotonic_ns()
        _logger.info("kernels_compiling", processes=len(HALVES), cache=str(folder))
        with TemporaryDirectory(prefix="compiling-", dir=folder) as made:
            _copy(folder, Path(made))
            _compile(Path(made))
            _move(Path(made), folder)
        done.touch()
        _logger.info("kernels_compiled", seconds=round((clock.monotonic_ns() - began_ns) / NS_PER_S, 1))
    if folder.name == sources_state():
        _remove_unused(folder.parent)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Held by one process at a time; the kernel frees it of a dead one."""
    with (folder / "compiling.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _logger.info("kernels_awaited", cache=str(folder))
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks: who compiles twice loses only time
            _logger.warning("kernels_not_locked", cache=str(folder), error=str(error))
        yield


def _place() -> str:
    """Where the kernels' files stand, and since when: numba looks for a cached kernel by that, whatever is in its file.

    So a second clone of the same sources, or files that were checked out again, have kernels of their own to compile.
    """
    files = sorted(file for package in _PACKAGES for file in (_ROOT / package).glob("*.py"))
    stamps = [(str(file), file.stat().st_mtime_ns) for file in files if b"\n@kernel" in file.read_bytes()]
    return hashlib.sha256(repr(stamps).encode()).hexdigest()[:16]


def _copy(folder: Path, made: Path) -> None:
    """Give each half what the cache holds already, of these sources or of others: numba knows which."""
    for package in (package for name in _PACKAGES for package in folder.glob(f"{name}_*")):
        for half in HALVES:
            shutil.copytree(package, made / half / package.name, ignore=shutil.ignore_patterns("*.tmp.*"))


def _compile(made: Path) -> None:
    """Each half by a process, into a folder of its name. Raises DriftledgerError, when none of them runs any more."""
    with ExitStack() as ended:
        processes = [ended.enter_context(_start(half, made / half)) for half in HALVES]
        try:
            for process in processes:
                _, errors = process.communicate()
                if process.returncode:
                    raise DriftledgerError(f"the kernels did not compile: {errors[-2000:]}")
        finally:
            for process in processes:
                process.kill()


def _start(half: str, folder: Path) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launcher.py"))]
    command = [*launcher, str(os.getpid()), f"{folder}.pid", sys.executable, "-m", "streams.warm", half]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def _move(made: Path, folder: Path) -> None:
    """Put what is new into the cache: each function with all types that one half has, the first that compiled it."""
    moved: set[Path] = set()
    for half in HALVES:
        for index in sorted((made / half).rglob("*.nbi")):
            place = index.relative_to(made / half)
            target = folder / place
            if place in moved or (target.exists() and target.read_bytes() == index.read_bytes()):
                continue  # whoever calls it in the other half has a copy of it
            moved.add(place)
            target.parent.mkdir(parents=True, exist_ok=True)
            for compiled in index.parent.glob(f"{glob.escape(index.stem)}.*.nbc"):
                compiled.replace(target.parent / compiled.name)
            index.replace(target)


def _remove_unused(kernels: Path) -> None:
    """Delete the caches of old sources. kernels: the folder that holds one for each state of the sources."""
    oldest_s = time_source().now_us() / 1_000_000 - _UNUSED_DAYS * _SECONDS_PER_DAY
    for folder in kernels.iterdir():
        used_s = max((marker.stat().st_mtime for marker in folder.glob("compiled-*")), default=folder.stat().st_mtime)
        if used_s < oldest_s:
            shutil.rmtree(folder, ignore_errors=True)  # another process may be at it too


def warm() -> None:
    """Load the kernels into this process, compiling what the cache does not hold."""
    for half in HALVES.values():
        half()


def _warm_ledger() -> None:
    """What numbers, reads, judges and stores entries, and answers questions to the store."""
    memory, records = _two_events()
    _, sequenced = sequence.advance(sequence.Head(), records, sequence.DATA, memory.size)
    judge = FOLDS.judge.new_state(0)
    judged = FOLDS.judge.step(judge, sequenced.entries)
    FOLDS.judge.load(0, FOLDS.judge.dump(judge))
    _warm_guardian()
    store = Store()
    kept = store.new_state(0)
    store.step(kept, sequenced.entries, judged)
    store_dump.load(0, store_dump.dump(kept))
    boards = LiveBoards()
    boards.watch()
    boards.step(0, judge, sequenced.entries, judged)
    boards.commit(0, judge, len(_ROWS_MS))
    told = np.zeros((1, TOLD_COLUMNS), np.int64)
    told[0, WHY] = WHY_KNOWN
    estimate_messages(0, told)
    warm_queries(sequenced.entries, judged)
    warm_archives(sequenced.entries, judged)
    warm_kernels()
    nothing = np.zeros(0, np.int64)
    decode_entries(nothing, nothing, nothing, nothing, allocate_entries(0), Scratch())
    write_headers(allocate_entries(0), 0, address_of(memory))


def _warm_guardian() -> None:
    """What looks at the clock of a worker that is wrong: until there is an alert, and it is told."""
    judge = FOLDS.judge.new_state(0)
    rules = rules_of(judge.settings)
    beats_in(allocate_entries(0), 1)
    beats = np.zeros((1, BEAT_COLUMNS), np.int64)
    off_ms = worker_off_ms(beats, 0, _ROWS_MS[1], judge.authority)
    for index, authority_ms in enumerate((*_ROWS_MS, *_ROWS_MS[1:] * 2), 1):
        look(judge.guard, Heard(0, index, "warm", 0, authority_ms, -_ROWS_MS[1], int(off_ms) - _ROWS_MS[1]), rules)


def _warm_windows() -> None:
    """What puts judged entries into windows of each sort, closes them, and keeps their state."""
    state = _state_with_windows()
    FOLDS.derive.step(state, *_two_judged())
    FOLDS.derive.load(0, FOLDS.derive.dump(state))
    with_key_room(no_names(), grown(no_windows(), 1))
    renumber(no_events(), np.zeros(0, np.int64))


#: What is compiled in a process of its own: each takes about as long as the other.
HALVES: Final[Mapping[str, Callable[[], None]]] = {"ledger": _warm_ledger, "windows": _warm_windows}


def _state_with_windows() -> DeriveState:
    state = FOLDS.derive.new_state(0)
    for run, window in ((SlidingRun, _SLIDING), (WindowRun, _TUMBLING)):
        state.running[window.name] = run(0, window, 1, first_numbers(state.clock))
    return state


def _two_events() -> tuple[NDArray[np.uint8], Records]:
    """Two records of one source, an hour apart: the second closes the chunk of the first."""
    event = {
        "source": "warm", "kind": "warm", "value": 1.0, "payload": b"", "hlc": None, "causes": [], "exchange": None,
    }  # fmt: skip
    values = [
        encode("Event", {**event, "event_id": f"at {at_ms}", "local_timestamp": at_ms * US_PER_MS})
        for at_ms in _ROWS_MS
    ]
    memory = np.frombuffer(b"".join(values), np.uint8)
    records = allocate_records(len(values))
    records.timestamp_ms[:] = _ROWS_MS
    records.offset[:] = 0, 1
    records.value_length[:] = [len(value) for value in values]
    records.value_address[:] = np.cumsum(records.value_length) - records.value_length + address_of(memory)
    return memory, records


def _two_judged() -> tuple[Entries, Outputs]:
    """What judge hands on of two events of one source: the second closes the windows of the first.

    Made by hand, for judge's kernels are compiled beside these.
    """
    name = np.frombuffer(b"warm", np.uint8)
    entries, events = allocate_entries(2), allocate_events(2)
    entries.kind[:] = EntryKind.DATA
    entries.index[:] = entries.sequence[:] = 1, 2
    entries.authority_ms[:] = _ROWS_MS
    events.local_us[:] = entries.authority_ms * US_PER_MS
    events.has_value[:] = 1
    events.source_address[:] = events.kind_address[:] = address_of(name)
    events.source_length[:] = events.kind_length[:] = name.size
    counts = Counts(2, 2, 0, 0, 0, 0, 0, 0, unreadable={}, evicted_sources=0, refused_definitions=0)
    return entries, Outputs([], NO_MESSAGES, events, blank_verdicts(2), np.zeros(0, np.int64), counts, [name])


if __name__ == "__main__":
    for name in sys.argv[1:] or HALVES:
        HALVES[name]()
