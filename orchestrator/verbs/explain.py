"""What aib knows about its own behaviour, for people: topics by name.

A topic is a name and a function that returns rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hypervisor.errors import UsageError
from orchestrator import fidelity
from orchestrator.template.rules.catalogue import catalogue


@dataclass(frozen=True, slots=True)
class Explanation:
    """One thing explained: what it is called, what kind it is, the text, and where the fact comes from."""

    topic: str
    code: str
    grade: str
    text: str
    source: str


def deviations() -> tuple[Explanation, ...]:
    """Every emulated behaviour with its grade."""
    return tuple(
        Explanation("deviations", each.code, each.grade, each.text, each.source) for each in fidelity.BEHAVIOURS
    )


def rules() -> tuple[Explanation, ...]:
    """Every pre-flight rule: what it is about, why it matters, how to fix it."""
    return tuple(
        Explanation(
            "rules", doc.id, doc.fidelity, f"{doc.title} ({doc.severity}). {doc.why} Fix: {doc.fix}", doc.source
        )
        for doc in catalogue().values()
    )


TOPICS: Mapping[str, Callable[[], tuple[Explanation, ...]]] = {"deviations": deviations, "rules": rules}


def explain(what: str) -> tuple[Explanation, ...]:
    """All of a topic, or the one thing called `what` (in any case); raises `UsageError` for an unknown name."""
    wanted = what.lower()
    if wanted in TOPICS:
        return TOPICS[wanted]()
    everything = [each for topic in TOPICS.values() for each in topic()]
    found = tuple(each for each in everything if each.code.lower() == wanted)
    if not found:
        names = {each.code.lower(): each.code for each in everything} | {topic: topic for topic in TOPICS}
        near = [names[key] for key in difflib.get_close_matches(wanted, names, n=3)]
        raise UsageError(
            f"there is nothing called {what!r} to explain",
            hint=(f"Did you mean {', '.join(near)}? " if near else "") + f"Topics: {', '.join(TOPICS)}.",
        )
    return found
