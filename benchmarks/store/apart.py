"""A function in a process of its own: nothing of one measurement lies in the memory of the next."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.errors import DriftledgerError

if TYPE_CHECKING:
    from collections.abc import Callable


class ApartError(DriftledgerError):
    """What ran apart failed; the message is its own."""


class Done(NamedTuple):
    """What a function returned, and the most memory that its process had resident."""

    value: Any
    peak_mb: float


def apart(function: Callable[..., Any], *arguments: Any) -> Done:
    """Call a function of a module, with arguments that can be sent. Raises ApartError for whatever it raises."""
    # Only what is spawned begins with the memory of a new program.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            failure, value, peak_mb = pool.submit(_call, function, arguments).result()
        except BrokenProcessPool as error:
            raise ApartError(f"the process of {function.__name__} ended by itself") from error
    if failure:
        raise ApartError(failure)
    return Done(value, peak_mb)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any, float]:
    """Errors as text: not each of them can be sent."""
    try:
        return "", function(*arguments), _peak_mb()
    except DriftledgerError as error:
        return str(error), None, 0.0
    except Exception as error:  # noqa: BLE001 - whatever another store's driver raises is told, and ends nothing else
        return f"{type(error).__name__}: {error}", None, 0.0


def _peak_mb() -> float:
    """Of this program: what resource usage says also counts the one it was started by."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    [peak_kb] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return peak_kb / 1024
