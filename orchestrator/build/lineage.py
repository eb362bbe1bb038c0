"""The identity of a build VM on disk, for as long as there is a checkpoint of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hypervisor import seed
from provisioners.identity import BuildIdentity
from provisioners.provisioning import nocloud_documents

_IDENTITY, _SEED = "identity.json", "seed.iso"


@dataclass(frozen=True, slots=True)
class Lineage:
    """Keys, names and the seed that the guest was given at its first boot. The folder is private (0700)."""

    folder: Path
    identity: BuildIdentity

    @property
    def id(self) -> str:
        """Its name."""
        return self.folder.name

    @property
    def seed(self) -> Path:
        """The seed disk: a resumed guest still has it, byte for byte."""
        return self.folder / _SEED

    @classmethod
    def create(cls, folder: Path, *, keep: bool) -> Lineage:
        """A fresh identity and its seed in `folder`. Without `keep` the login key is never written down."""
        lineage = cls(folder, BuildIdentity.create())
        if keep:
            lineage.identity.save(folder / _IDENTITY)
        seed.write_iso(lineage.seed, nocloud_documents(lineage.identity))
        return lineage

    @classmethod
    def load(cls, folder: Path) -> Lineage:
        """What `create` kept; raises OSError, ValueError or TypeError when it is not whole."""
        if not (folder / _SEED).is_file():
            raise FileNotFoundError(folder / _SEED)
        return cls(folder, BuildIdentity.load(folder / _IDENTITY))
