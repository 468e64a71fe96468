"""What tests of kernels share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from schemas.memory import JIT
from streams import sliding_kernel, sources, window_kernel, window_results

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def _interpreted_tables_are_small() -> Iterator[None]:
    """Ledgers are short where kernels are interpreted: tables grow, fill up and are emptied on them all the same."""
    with pytest.MonkeyPatch.context() as patch:
        if not JIT:
            patch.setattr(sources, "_SLOTS_MIN", 64)
            for module in (sliding_kernel, window_kernel, window_results):
                patch.setattr(module, "RESULTS_MAX", 64)
        yield
