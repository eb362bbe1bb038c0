"""What several verbs' command lines share."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from orchestrator.record.store import Store


def default_store() -> Store:
    """The user's store (AIB_HOME, else the platform's data folder), tidied up behind runs that were killed."""
    from orchestrator.record.store import Store
    from orchestrator.verbs.tidy import tidy

    store = Store.default()
    tidy(store)
    return store


def print_json(value: Any) -> None:
    """Write `value` as JSON to stdout, for machines."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def on_terminal() -> bool:
    """Whether a person watches stderr."""
    return sys.stderr.isatty()
