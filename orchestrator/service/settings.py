"""How the owner of a server wants it to be: one frozen value, made by the command line, a test or the pytest plugin."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.build.options import BuildOptions
from orchestrator.record.arm_ids import DEFAULT_SCOPE

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server works with and what it allows.

    `secret`: what a client must know to get a token (None: whoever reaches the port). `token_key`: where the key that
    signs tokens is kept, when not in the home (one that is thrown away). `hosts`: names beside the
    loopback's under which clients reach it. `subscriptions`: those it has, the first one is the default; one that the
    store holds something of is there as well. `location`: the region of what is made without one.

    `local_roots`: folders of which a template that came through HTTP may read files; none by default.
    `private_fetch`: it may name addresses of this machine and of private networks. `host_network`: its build VM may
    have a network that reaches this machine. `build`: the options of every build. `scripted`: runs boot nothing and
    follow scripts. `retry_after` in seconds, what clients are told to wait between two polls.
    """

    home: Path
    in_memory: bool = False
    secret: str | None = None
    token_key: Path | None = None
    hosts: tuple[str, ...] = ()
    subscriptions: tuple[str, ...] = (DEFAULT_SCOPE.subscription,)
    location: str = "eastus"
    local_roots: tuple[Path, ...] = ()
    private_fetch: bool = False
    host_network: bool = False
    build: BuildOptions = field(default_factory=BuildOptions)
    scripted: bool = False
    page_size: int = 100
    retry_after: int = 1
    trigger_seconds: float = 2.0
    """How often triggers look for newer versions of their sources."""
    largest_body: int = 4 * MIB
    """ARM's own limit for a request, in bytes."""
    body_seconds: float = 30.0
    """How long a client may take to send a body."""
