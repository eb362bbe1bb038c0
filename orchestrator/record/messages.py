"""The service's own sentences for `lastRunStatus.message` and the log (facts: TRBL, E15, E16, E17, E26, S15).

Which text goes with which api-version is INFERRED: the service changed its error envelope at 2021-10-01; when it
changed this text is not documented, E15 is seen in 2019 and 2020, E16 in 2024.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

NEW_ENVELOPE = "2021-10-01"
TROUBLESHOOTING = "https://aka.ms/azvmimagebuilderts"

TIMED_OUT = (
    "Failed while waiting for packerizer: Timeout waiting for microservice to complete: 'context deadline exceeded'"
)
"""E17, `lastRunStatus.message` when the budget is used up."""

TIMED_OUT_LOG_LINES = (
    "[ERROR] Failed while waiting for packerizer: Timeout waiting for microservice to",
    "[ERROR] complete: 'context deadline exceeded'",
)
"""S15: the last lines of the log when the budget is used up."""

CANCELED = "The run was canceled."
"""The service's own words for a canceled run are UNKNOWN."""


def operation_id(run_id: str) -> str:
    """The GUID that stands for a run in the service's logs and messages; always the same for one run."""
    try:
        return str(uuid.UUID(run_id))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"aib:runs/{run_id}"))


def build_failed(api_version: str, run_id: str, log: Path) -> str:
    """E15 or E16: a customizer, validator or generalize failed; `log` is the customization or validation log."""
    operation = operation_id(run_id)
    if _is_old(api_version):
        return (
            "Failed while waiting for packerizer: Microservice has failed: Failed while processing request: "
            "Error when executing packerizer: Packer build command has failed: exit status 1. "
            "During the image build, a failure has occurred, please review the build log to identify which "
            f"build/customization step failed. For more troubleshooting steps go to {TROUBLESHOOTING}. "
            f"Image Build log location: {log}. OperationId: {operation}. "
            "Use this operationId to search packer logs."
        )
    return (
        f"During the image build a failure has occurred. Packer build logs are at location {log}. "
        "Please navigate to this location using portal or other tools to download logs for identifying which "
        f"build/customization step failed. Use this operationId {operation} to search packer logs. "
        f"For more troubleshooting steps go to {TROUBLESHOOTING}."
    )


def distribute_failed(failures: Sequence[tuple[int, str]], total: int) -> str:
    """E26: (index of the distributor, what went wrong) of each of the `total` distributions that failed."""
    errors = " ".join(f"[Error {n}] [Distribute {index}] {text}" for n, (index, text) in enumerate(failures))
    return f"Failed in distributing {len(failures)} images out of total {total}: {{{errors}}}"


def last_run_message(
    state: str,
    *,
    api_version: str,
    run_id: str,
    log: Path,
    timed_out: bool = False,
    distribute_failures: Sequence[tuple[int, str]] = (),
    distributions: int = 0,
) -> str:
    """`lastRunStatus.message` of a run that ended in the service's `state`; empty when it succeeded."""
    if timed_out:
        return TIMED_OUT
    if state == "Canceled":
        return CANCELED
    if distribute_failures:
        return distribute_failed(distribute_failures, distributions or len(distribute_failures))
    return build_failed(api_version, run_id, log) if state == "Failed" else ""


def _is_old(api_version: str) -> bool:
    """Dates compare as text; a missing version is taken for a new one."""
    return bool(api_version) and api_version < NEW_ENVELOPE
