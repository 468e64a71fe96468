"""What is compiled before a lane is there is what a lane calls, for the types that it calls with."""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from numba import config
from numba.core.registry import CPUDispatcher

from schemas.clock import SystemTime
from schemas.errors import DriftledgerError
from schemas.memory import JIT
from streams import sequence, warm
from streams.folds import FOLDS, States

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
#: Called from Python by commands alone.
OF_COMMANDS = {"compare_input", "mark_source"}
#: In the cache because other kernels call them, for the same types.
OF_KERNELS = {
    "agree",
    "bound_ms_of",
    "carry",
    "delta_ms_of",
    "describe",
    "error_of",
    "partition_of",
    "rounded_ms",
    "severity_in",
    "severity_of",
    "signed_32",
    "state_fault",
    "true_ms_of",
}


def kernels_called() -> Iterator[Any]:
    """Kernels that are called by functions which are no kernels themselves."""
    for package in ("schemas", "streams", "lifecycle"):
        for file in sorted((ROOT / package).glob("*.py")):
            text = file.read_text(encoding="utf-8")
            if file.stem != "launcher" and "kernel" in text:
                module = importlib.import_module(f"{package}.{file.stem}")
                yield from (found for call in calls(ast.parse(text)) if (found := kernel_in(module, call)) is not None)


def calls(tree: ast.Module) -> Iterator[str]:
    """What functions call that are no kernels, as it is written."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and "kernel" not in map(ast.unparse, function.decorator_list):
            yield from (ast.unparse(call.func) for call in ast.walk(function) if isinstance(call, ast.Call))


def kernel_in(module: Any, call: str) -> Any:
    """The kernel of that name, or of that name in a module that it has imported; None for anything else."""
    *owner, name = call.split(".")
    place = module if not owner else vars(module).get(owner[0]) if len(owner) == 1 else None
    found = getattr(place, name, None)
    return found if isinstance(found, CPUDispatcher) else None


def tell_what_is_left() -> None:
    """For a new process: kernels that are left to compile, and those that a lane's batch calls with other types."""
    warm.warm()
    known = {kernel: len(kernel.signatures) for kernel in kernels_called()}
    left = {kernel.py_func.__name__ for kernel, count in known.items() if not count}
    memory, records = warm._two_events()
    _, sequenced = sequence.advance(sequence.Head(), records, sequence.DATA, memory.size)
    states = States(FOLDS.judge.new_state(0), warm._state_with_windows())
    _, derived = FOLDS.step(states, sequenced.entries)
    assert all(counts.results == 1 for counts in derived.counts.values()), derived.counts
    left |= {kernel.py_func.__name__ for kernel, count in known.items() if len(kernel.signatures) > count}
    sys.stdout.write(" ".join(sorted(left - OF_COMMANDS - OF_KERNELS)))


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_nothing_is_left_to_compile_for_a_lane() -> None:
    """Neither of what events and windows that close call, nor of what growth, snapshots and questions call."""
    code = "from tests.core.test_warm import tell_what_is_left; tell_what_is_left()"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (told.stdout, told.returncode) == ("", 0), told.stderr


def test_who_cannot_compile_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And leaves a cache behind that does not pass for a whole one."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(warm, "HALVES", {"no-such-half": warm.warm, "nor-this": warm.warm})
    with pytest.raises(DriftledgerError, match=r"the kernels did not compile: (?s:.*)no-such-half"):
        warm.prepare()
    assert [file.name for file in tmp_path.iterdir()] == ["compiling.lock"]


def test_a_worker_that_is_killed_while_it_compiles_leaves_nothing_that_compiles(
    tmp_path: Path, wait_until: Callable[[Callable[[], object], float, str], None]
) -> None:
    """As where Ctrl-C ends `up` within the first minute of a clone."""
    code = f"from pathlib import Path; from streams import warm; warm._compile(Path({str(tmp_path)!r}))"
    worker = psutil.Popen([sys.executable, "-c", code], cwd=ROOT)
    halves: list[psutil.Process] = []
    try:
        wait_until(lambda: len(worker.children()) == len(warm.HALVES), 60, "both compile")
        halves = worker.children()
        worker.kill()
        worker.wait()
        wait_until(lambda: not any(half.is_running() for half in halves), 5, "neither does")
    finally:
        for process in [worker, *halves]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_workers_that_start_at_once_compile_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The others wait for the first."""
    compiled: list[Path] = []

    def compile_slowly(made: Path) -> None:
        compiled.append(made)
        SystemTime().sleep_s(0.3)

    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(warm, "_compile", compile_slowly)
    with ThreadPoolExecutor(3) as workers:
        for done in [workers.submit(warm.prepare) for _ in range(3)]:
            done.result()
    assert len(compiled) == 1


def test_each_clone_compiles_its_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """numba finds a cached kernel by the place of its file and the time of its last change: no other clone's."""
    compiled: list[Path] = []
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(warm, "_compile", compiled.append)
    for _ in range(2):
        warm.prepare()
        assert len(compiled) == 1
    clone = tmp_path / "clone"
    for package in warm._PACKAGES:
        shutil.copytree(ROOT / package, clone / package)
    monkeypatch.setattr(warm, "_ROOT", clone)
    warm.prepare()
    assert len(compiled) == 2
    os.utime(clone / "streams" / "window_kernel.py", (0, 0))  # as a checkout of another commit and back does
    warm.prepare()
    assert len(compiled) == 3


def test_a_function_is_moved_into_the_cache_as_a_whole(tmp_path: Path) -> None:
    """Its index numbers the files of its types: those of the other half, or of older sources, have another one."""
    files = {
        "kernels": ("f-1.nbi", "f-1.1.nbc", "h-1.nbi", "h-1.1.nbc", "i-1.nbi", "i-1.1.nbc"),
        "made/ledger": ("f-1.nbi", "f-1.1.nbc"),
        "made/windows": ("f-1.nbi", "f-1.1.nbc", "f-1.2.nbc", "g[-1.nbi", "g[-1.1.nbc"),
    }
    for folder, names in files.items():
        (tmp_path / folder / "streams").mkdir(parents=True)
        for name in names:
            (tmp_path / folder / "streams" / name).write_text(folder)
    for half, by in (("ledger", "kernels"), ("windows", "made/windows")):  # one had it from the cache as it is
        for name in ("i-1.nbi", "i-1.1.nbc"):
            (tmp_path / "made" / half / "streams" / name).write_text(by)
    warm._move(tmp_path / "made", tmp_path / "kernels")
    assert {file.name: file.read_text() for file in (tmp_path / "kernels" / "streams").iterdir()} == {
        **dict.fromkeys(("f-1.nbi", "f-1.1.nbc"), "made/ledger"),
        **dict.fromkeys(("g[-1.nbi", "g[-1.1.nbc", "i-1.nbi", "i-1.1.nbc"), "made/windows"),
        **dict.fromkeys(("h-1.nbi", "h-1.1.nbc"), "kernels"),
    }
