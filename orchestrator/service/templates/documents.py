"""The documents that submitted templates are run with.

What a client sent is what its resource shows, but for the signatures of SAS addresses: those must not get into a
record, and a script may need them. A document that holds some is kept in a file beside the store's resources, which
only its owner can read, and which goes with the template.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypervisor.errors import InputError
from orchestrator.record import files
from orchestrator.record.resources import Resource
from orchestrator.record.run_outputs import submission, without_signatures
from orchestrator.service.templates.form import shown_document

FOLDER = "submissions"
_KEY = re.compile(r"[0-9a-f]{32}")


def keep(home: Path, document: Mapping[str, Any]) -> str:
    """Keep a document that holds signatures; the key to put into the submission, "" when nothing had to be kept."""
    if without_signatures(document) == document:
        return ""
    key = secrets.token_hex(16)
    path = _path(home, key)
    with files.translating("creating", path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.publish_json(path, document)
    return key


def forget(home: Path, key: str) -> None:
    """Remove what `keep` kept."""
    if _KEY.fullmatch(key):
        with contextlib.suppress(OSError):
            _path(home, key).unlink()


def key_of(template: Resource) -> str:
    """The key of a template's document; "" when its resource says all of it."""
    return str(submission(template).get("document", ""))


def document_of(home: Path, template: Resource) -> dict[str, Any]:
    """What the runs of a submitted template work with. `InputError` when a kept document is gone."""
    key = key_of(template)
    if not key:
        return shown_document(template)
    kept = files.read_json(_path(home, key)) if _KEY.fullmatch(key) else None
    if kept is None:
        raise InputError(
            f"what the template {template.name} was submitted with is not in the store any more",
            hint="Delete the template and submit it again.",
        )
    return kept


def _path(home: Path, key: str) -> Path:
    return home / "service" / FOLDER / f"{key}.json"
