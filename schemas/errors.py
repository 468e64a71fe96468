"""Errors, by what the caller can do about them.

One base; below it one class for each remedy. Facts are attributes, the message says what happened, to what, and
what to do. A Halt is not an accident to be retried: the partition it names stops, durably, until an operator has
acted. No code catches it to go on; only the host of the lane receives it, to record it, and a command that reports
on every partition, to name it.
"""

from __future__ import annotations

import enum


class DriftledgerError(Exception):
    """Base of every error that driftledger raises on purpose."""


class BadInputError(DriftledgerError):
    """The caller's input is wrong: mend it and call again (exit code 2 on the command line)."""


class UnreachableError(DriftledgerError):
    """Something needed does not answer: start it or wait for it (exit code 3)."""


class HaltCode(enum.StrEnum):
    """Why a partition stopped. docs/operations.md has a section for each."""

    TOPIC_MISSING = "TOPIC_MISSING"
    TOPIC_RECREATED = "TOPIC_RECREATED"
    TOPIC_CHANGED = "TOPIC_CHANGED"
    LEDGER_TAIL_LOST = "LEDGER_TAIL_LOST"
    LEDGER_BROKEN = "LEDGER_BROKEN"
    INPUT_CUT = "INPUT_CUT"
    INPUT_TRUNCATED = "INPUT_TRUNCATED"
    CONTROL_CUT = "CONTROL_CUT"
    FOLD_FAILED = "FOLD_FAILED"
    SECOND_WRITER = "SECOND_WRITER"
    LANE_FAILED = "LANE_FAILED"
    PROGRESS_LOST = "PROGRESS_LOST"


class HaltError(DriftledgerError):
    """Going on would lie: the partition stops until an operator has acted.

    Attributes: partition, code, detail (what was found), remedy (what to do).
    """

    def __init__(self, partition: int, code: HaltCode, detail: str, remedy: str) -> None:
        super().__init__(f"partition {partition} halted, {code}: {detail}. {remedy}")
        self.partition = partition
        self.code = code
        self.detail = detail
        self.remedy = remedy
