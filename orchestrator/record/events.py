"""Every fact of a run is an event: one JSON line in `events.jsonl`, written before it is shown.

An event is `{"v": 1, "seq": n, "time": "2026-01-02T03:04:05.678Z", "elapsed": seconds, "type": "...", ...fields}`.
The classes below are the types and their fields; views and reports are folds over them and ignore unknown types.
What the guest prints goes raw to `steps/NN.out`; `Output` events hold the offset and length into that file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

VERSION = 1


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The first event. `budget` in seconds.

    `vcpus` and `memory_mib` are what the build VM gets, `asked_...` what `vm_size` stands for (0: the same). `os` is
    that of the source image, linux or windows.
    """

    run_id: str
    template_id: str
    template_name: str
    source: str
    source_version: str
    source_sha256: str
    vm_size: str
    vcpus: int
    memory_mib: int
    budget: float
    steps: tuple[str, ...]
    api_version: str = ""
    location: str = ""
    asked_vcpus: int = 0
    asked_memory_mib: int = 0
    os: str = "linux"


@dataclass(frozen=True, slots=True)
class Phase:
    """The run enters a phase; `sub_state` is the service's runSubState (Queued, Building, Customizing, ...).

    Names: Preparing, Booting, Connecting, Customizing, Validating, Generalizing, PoweringOff, Inspecting, Exporting,
    Distributing, CleaningUp.
    """

    name: str
    sub_state: str


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A customizer, validator or the generalize step begins; `output` is the file its output goes to."""

    index: int
    name: str
    kind: str
    phase: str
    total: int
    output: str
    command: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """The guest printed `length` bytes, kept at `offset` of the step's output file."""

    index: int
    stream: Literal["stdout", "stderr"]
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Said:
    """One line about what aib is doing (for the log and the console)."""

    text: str
    index: int = -1
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True, slots=True)
class StepFinished:
    """`result` is succeeded, failed, cached or skipped; `seconds` its duration.

    Of a failure: `message`, `hint` (what to try), and the `command` and script `line` where they are known.
    """

    index: int
    name: str
    result: Literal["succeeded", "failed", "cached", "skipped"]
    seconds: float
    exit_code: int | None = 0
    rebooted: bool = False
    message: str = ""
    hint: str = ""
    command: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class CheckpointTaken:
    """The state after step `index` is kept; the guest stood still for `seconds`."""

    index: int
    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Connected:
    """The guest answered: boot took `seconds`. `address` is where its communicator listens on this host."""

    seconds: float
    address: str
    user: str
    communicator: str = "ssh"


@dataclass(frozen=True, slots=True)
class Rebooted:
    """The guest rebooted during step `index` and answered again after `seconds`."""

    index: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Deviation:
    """Where this run differs from the service."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class GeneralizeProof:
    """What the power-off disk holds. `verdict`: passed, failed, warned or not-inspected. `report`: file in the run."""

    verdict: str
    findings: tuple[str, ...]
    report: str


@dataclass(frozen=True, slots=True)
class ArtifactWritten:
    """A file left the run. Sizes in bytes: `virtual_size` the disk's, `size` the file's length, `allocated` on disk."""

    path: str
    format: str
    virtual_size: int
    size: int
    allocated: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RunOutputReady:
    """One distributor ended; `state` is Succeeded, Failed or Canceled. `tags` are those of what it published."""

    name: str
    kind: str
    state: str
    artifact_id: str = ""
    artifact_uri: str = ""
    message: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The last event. `state` and `sub_state` are the service's words; `message` its text; `exit_code` ours."""

    state: str
    sub_state: str
    message: str
    exit_code: int
    seconds: float
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event of a type, or of a shape, that this version does not know: kept as it was read, never written anew."""

    type: str
    fields: dict[str, Any] = field(default_factory=dict)


Event = (
    RunStarted | Phase | StepStarted | Output | Said | StepFinished | CheckpointTaken | Connected | Rebooted | Deviation
    | GeneralizeProof | ArtifactWritten | RunOutputReady | RunFinished | Unknown
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stamped:
    """An event with its place in the run: `seq` from 0, `time` ISO 8601 UTC with milliseconds, `elapsed` seconds."""

    seq: int
    time: str
    elapsed: float
    event: Event
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The object that one line of `events.jsonl` holds."""
        head = {"v": VERSION, "seq": self.seq, "time": self.time, "elapsed": round(self.elapsed, 3)}
        if isinstance(self.event, Unknown):
            return {**head, "type": self.event.type, **self.event.fields}
        return {**head, "type": type(self.event).__name__, **asdict(self.event), **self.extra}
