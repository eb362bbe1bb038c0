"""Scripts and files as they were when a template was submitted: later runs use these, whatever their addresses say now.

The service fetches them at submission (OVER, JSON; that a later change is not seen is inferred from it).
"""

from __future__ import annotations

from collections.abc import Mapping

from hypervisor.errors import InputError
from orchestrator.plan.fetch import Wanted, shown
from orchestrator.plan.fetched_store import FetchedStore
from orchestrator.plan.http_errors import redact_url
from orchestrator.plan.model import Payload


def payloads(store: FetchedStore, wanted: tuple[Wanted, ...], submitted: Mapping[str, str]) -> Mapping[str, Payload]:
    """The payloads of a template by pointer, from the digests of its submission; `InputError` when one is gone."""
    found = {}
    for each in wanted:
        stored = store.find(submitted.get(each.pointer, ""))
        if stored is None:
            raise InputError(
                f"{each.label} ({each.pointer}): what was fetched when the template was submitted is not in the store "
                "any more",
                hint="Delete the template and submit it again.",
            )
        found[each.pointer] = Payload(redact_url(shown(each.uri)), stored.sha256, stored.size, stored.path)
    return found
