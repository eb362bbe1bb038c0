"""The identity of a build VM on disk, for as long as there is a checkpoint of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hypervisor import seed
from orchestrator.build.guest_system import GuestSystem
from provisioners.identity import BuildIdentity

_IDENTITY, _SEED = "identity.json", "seed.iso"


@dataclass(frozen=True, slots=True)
class Lineage:
    """Keys, names and the medium that the guest was given at its first boot. The folder is private (0700)."""

    folder: Path
    identity: BuildIdentity
    told: bool = True

    @property
    def id(self) -> str:
        """Its name."""
        return self.folder.name

    @property
    def medium(self) -> Path | None:
        """What the guest was told, as an ISO that a resumed guest still has; None: it was told nothing."""
        return self.folder / _SEED if self.told else None

    @classmethod
    def create(cls, folder: Path, system: GuestSystem, *, keep: bool) -> Lineage:
        """A fresh identity and its medium in `folder`. Without `keep` the login key is never written down."""
        identity = system.new_identity()
        if keep:
            identity.save(folder / _IDENTITY)
        medium = system.medium(identity)
        if medium is not None:
            seed.write_iso(folder / _SEED, medium.files, medium.volume)
        return cls(folder, identity, told=medium is not None)

    @classmethod
    def load(cls, folder: Path) -> Lineage:
        """What `create` kept; raises OSError, ValueError or TypeError when it is not whole."""
        if not (folder / _SEED).is_file():
            raise FileNotFoundError(folder / _SEED)
        return cls(folder, BuildIdentity.load(folder / _IDENTITY))
