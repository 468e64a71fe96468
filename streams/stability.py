"""How stable a clock is: Allan deviations of its offset, and over how long it is best averaged.

Problem: an offset and a rate say where a clock is and where it goes; how far that can be trusted later is a matter of
its noise. The Allan deviation at a time tau is how much the mean rate differs from one stretch of tau to the next.
For an ordinary clock that is read over a network it falls while tau grows (the readings' noise is averaged out), then
rises again (the clock wanders): the least is at the best window.

Source: W. J. Riley, Handbook of Frequency Stability Analysis, NIST Special Publication 1065 (2008), section 5; the
formulas are those for phase data x[i], i = 0 .. N-1, spaced tau0, with tau = m tau0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


class Deviations(NamedTuple):
    """At one tau. NaN where there are too few samples; tdev_s is in seconds, all others are fractions (1e-6 is 1 ppm).

    adev: Allan. oadev: overlapping Allan. mdev: modified. tdev_s: of time. hdev, ohdev: Hadamard, which does not see a
    steady ageing. totdev: total, steadier than adev where tau is a large part of the whole.
    """

    tau_s: float
    adev: float
    oadev: float
    mdev: float
    tdev_s: float
    hdev: float
    ohdev: float
    totdev: float


def deviations(phase_s: NDArray[np.float64], tau0_s: float, multiples: Iterable[int]) -> list[Deviations]:
    """For each m of the multiples. phase_s: float64[N], the clock's offset in seconds, one each tau0_s."""
    return [_deviations(np.asarray(phase_s, np.float64), tau0_s, m) for m in multiples]


def octaves(samples: int) -> list[int]:
    """1, 2, 4, ... as far as so many samples have an Allan deviation."""
    return [1 << power for power in range(max(samples - 1, 1).bit_length()) if 2 << power < samples]


def best_window_s(found: Iterable[Deviations]) -> float:
    """The tau of the least overlapping Allan deviation, the first of several; NaN where there is none."""
    known = [(one.oadev, one.tau_s) for one in found if not math.isnan(one.oadev)]
    return min(known)[1] if known else math.nan


def _deviations(x: NDArray[np.float64], tau0_s: float, m: int) -> Deviations:
    tau_s = m * tau0_s
    apart, every = _second(x[::m], 1), _second(x, m)
    mdev = math.nan
    if every.size >= m:
        sums = np.cumsum(np.concatenate(([0.0], every)))
        mdev = _root_mean(sums[m:] - sums[:-m], 2 * (m * tau_s) ** 2)
    return Deviations(
        tau_s=tau_s,
        adev=_root_mean(apart, 2 * tau_s**2),
        oadev=_root_mean(every, 2 * tau_s**2),
        mdev=mdev,
        tdev_s=mdev * tau_s / math.sqrt(3),
        hdev=_root_mean(_third(x[::m], 1), 6 * tau_s**2),
        ohdev=_root_mean(_third(x, m), 6 * tau_s**2),
        totdev=_total(x, m, tau_s),
    )


def _second(x: NDArray[np.float64], m: int) -> NDArray[np.float64]:
    """Second differences over m."""
    return x[2 * m :] - 2 * x[m : x.size - m] + x[: max(x.size - 2 * m, 0)]


def _third(x: NDArray[np.float64], m: int) -> NDArray[np.float64]:
    """Third differences over m."""
    second = _second(x, m)
    return second[m:] - second[: max(second.size - m, 0)]


def _root_mean(differences: NDArray[np.float64], scale: float) -> float:
    """Root of the mean square over scale, NaN of nothing."""
    if differences.size == 0:
        return math.nan
    return math.sqrt(float(np.mean(differences * differences)) / scale)


def _total(x: NDArray[np.float64], m: int, tau_s: float) -> float:
    """The phase is continued beyond both ends as its own mirror image through them."""
    if x.size < 3 or m > x.size - 1:  # noqa: PLR2004 - of fewer there is no second difference
        return math.nan
    before = 2 * x[0] - x[1:-1][::-1]
    after = 2 * x[-1] - x[1:-1][::-1]
    whole = np.concatenate((before, x, after))
    middle = np.arange(x.size - 1, 2 * x.size - 3)
    return _root_mean(whole[middle - m] - 2 * whole[middle] + whole[middle + m], 2 * tau_s**2)
