"""What several verbs' command lines share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
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


def absolute(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """For click: a path that means the same in another folder; "" stays."""
    return str(Path(value).absolute()) if value else ""


def print_json(value: Any) -> None:
    """Write `value` as JSON to stdout, for machines."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def on_terminal() -> bool:
    """Whether a person watches stderr."""
    return sys.stderr.isatty()
