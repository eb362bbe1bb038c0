"""The hidden last step of a Windows build: the deprovision script and Sysprep (SEED S25, S27; `aib-service.md` 2.4)."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError
from provisioners import windows_exit_codes, windows_payloads
from provisioners.base import Context, Guest, Outcome, StepError
from provisioners.capture import Capture
from provisioners.communicators.base import CommandResult, Communicator, CommunicatorError
from provisioners.generalize import MISSING, NOTE, ScriptState
from provisioners.reboot import interruption
from provisioners.windows_guest import TEMP, Shells, ask, customizer, reach, remove_files

WINDOWS_SCRIPT_PATH = "c:\\DeprovisioningScript.ps1"
SYSPREP = "Sysprep.exe /oobe /generalize /quiet /quit"
"""The default text has it exactly so: templates replace it."""
AGENTS = ("RdAgent", "WindowsAzureTelemetryService", "WindowsAzureGuestAgent")
GENERALIZED = "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"
UNDEPLOYABLE = "IMAGE_STATE_UNDEPLOYABLE"
POLL_SECONDS = 5.0
PATIENCE = 3
"""Polls in a row that find an undeployable image and no Sysprep at work: it failed, and the script waits for ever."""
_SYSPREP_HINT = (
    "c:\\Windows\\System32\\Sysprep\\Panther\\setupact.log in the guest says why; often an app was installed for one "
    "user only, or an update waits for a restart: put a WindowsRestart before the end"
)
CAP_SECONDS = 60 * 60.0
"""For the whole script. The service has no cap but buildTimeoutInMinutes."""


def default_windows_script(api_version: str) -> str:
    """The service's default text: the 2019-05-01-preview document's, and the current one for later versions."""
    old = api_version.lower() in {"2018-02-01-preview", "2019-02-01-preview", "2019-05-01-preview"}
    return windows_payloads.text("deprovision-2019.ps1" if old else "deprovision.ps1")


def place_windows_script(guest: Guest, text: str, path: str, context: Context) -> None:
    """Put the default script where the service puts it, before the first step."""
    try:
        guest.communicator.upload(text.encode(), path, deadline=context.deadline)
    except CommunicatorError as error:
        raise StepError(f"cannot place the default deprovision script: {error.message}", hint=error.hint) from error


@dataclass(frozen=True, slots=True)
class WindowsGeneralize:
    """Prints the deprovision script, then runs it. `notes[0]` of the outcome is `NOTE[state]`.

    `prelude` is PowerShell that runs in the same process before the script: what must be undone in the image, after
    which nobody may be able to connect again.
    """

    default_text: str
    path: str = WINDOWS_SCRIPT_PATH
    prelude: str = field(default="", repr=False)
    cap: float = CAP_SECONDS

    def apply(self, guest: Guest, context: Context) -> Outcome:
        """See `Provisioner.apply`. A missing script is the service's warning, not a failure."""
        with customizer(guest):
            try:
                return self._apply(guest, context)
            except CommunicatorError as error:
                raise StepError(f"the guest cannot be reached: {error.message}", hint=error.hint) from error

    def _apply(self, guest: Guest, context: Context) -> Outcome:
        before = reach(guest, context)
        content = self._read(guest, context)
        state: ScriptState = "missing"
        if content is None:
            context.output("stdout", MISSING.format(path=self.path).encode() + b"\n")
            if not self.prelude:
                return Outcome(notes=(NOTE[state],))
        else:
            state = "default" if content == self.default_text.encode() else "replaced"
            context.output("stdout", content if content.endswith(b"\n") else content + b"\n")
        wrapper = f"{TEMP}/script-{uuid.uuid4()}.ps1"
        text = self.wrapper(self._absent(guest, context))
        guest.communicator.upload(text.encode("utf-8-sig"), wrapper, deadline=context.deadline)
        limit = context.deadline.limited(self.cap, f"the {self.cap / 60:g} minutes for generalizing")
        with _StateWatch(guest.communicator, limit) as watch:
            rebooted = interruption(guest, before)

            def interrupted() -> bool:
                if watch.failed():
                    raise _SysprepFailed
                return rebooted()

            said = Capture(64 * 1024, context.output)
            try:
                result = guest.communicator.run(
                    f"powershell -executionpolicy bypass -file {wrapper}",
                    deadline=limit,
                    output=said,
                    interrupted=interrupted,
                )
            except _SysprepFailed as error:
                raise StepError(
                    f"Sysprep failed: the image state stays {UNDEPLOYABLE}", hint=_SYSPREP_HINT, command=self.path
                ) from error
            self._judge(result, guest, before.reboots)
            if state != "missing" and watch.ask() != GENERALIZED:
                context.deviation(
                    "not-generalized",
                    f"after the deprovision script the image state is {watch.state or 'unknown'}, not {GENERALIZED}",
                )
            remove_files(guest, [wrapper], limit)
        return Outcome(exit_code=result.exit_code or 0, notes=(NOTE[state],))

    def wrapper(self, absent: tuple[str, ...]) -> str:
        """The script that runs the deprovision script."""
        names = ", ".join(map(windows_payloads.literal, absent))
        text = windows_payloads.text("generalize.ps1").replace("@ABSENT@", names)
        script = text.replace("@SCRIPT@", windows_payloads.literal(self.path))
        return f"{self.prelude}\n{script}" if self.prelude else script

    def _read(self, guest: Guest, context: Context) -> bytes | None:
        with TemporaryDirectory(prefix="aib-") as folder:
            local = Path(folder) / "script"
            try:
                guest.communicator.download(self.path, local, deadline=context.deadline)
            except CommunicatorError as error:
                if "does not exist" in error.message:
                    return None
                raise
            return local.read_bytes()

    def _absent(self, guest: Guest, context: Context) -> tuple[str, ...]:
        """The Azure agents that this image lacks, each said."""
        names = windows_payloads.settings(names=list(AGENTS))
        said = ask(guest.communicator, "absent-services.ps1", context.deadline, stdin=names, guest=guest).split()
        for name in said:
            context.deviation(
                "azure-agent-absent",
                f"the service {name} is not installed in this image: the deprovision script is told that it runs, as "
                "it would wait for it for ever",
            )
        return tuple(name for name in AGENTS if name in said)

    def _judge(self, result: CommandResult, guest: Guest, reboots: int) -> None:
        if result.connection_lost:
            why = "it rebooted" if guest.reboots() > reboots else "the connection was lost"
            raise StepError(
                f"the deprovision script was cut off: {why}",
                hint="Sysprep must be run with /quit: aib (and the service) shuts the guest down itself",
                guest_exit_code=16001,
                command=self.path,
            )
        if result.exit_code:
            raise StepError(
                f"the deprovision script failed: {windows_exit_codes.describe(result.exit_code)}",
                hint="replace it from a customizer (c:\\DeprovisioningScript.ps1), or mend the one that did",
                guest_exit_code=result.exit_code,
                command=self.path,
            )


class _SysprepFailed(Exception):
    """Raised while the script runs, so that it is ended in the guest."""


class _StateWatch:
    """Asks the guest for Sysprep's image state over a connection of its own, while the script runs."""

    def __init__(self, communicator: Communicator, deadline: Deadline) -> None:
        self._deadline = deadline
        self._other = communicator.sibling() if isinstance(communicator, Shells) else communicator
        self._own = self._other is not communicator
        self._next = time.monotonic() + POLL_SECONDS
        self._bad = 0
        self.state = ""
        self.gave_up = False

    def __enter__(self) -> _StateWatch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own:
            self._other.close()

    def failed(self) -> bool:
        """Whether Sysprep has failed for good; asks at most every few seconds."""
        if not self._own or self.gave_up or time.monotonic() < self._next:
            return self.gave_up
        sysprep = self._look()
        self._next = time.monotonic() + POLL_SECONDS
        self._bad = self._bad + 1 if self.state == UNDEPLOYABLE and not sysprep else 0
        self.gave_up = self._bad >= PATIENCE
        return self.gave_up

    def ask(self) -> str:
        """The state now."""
        self._look()
        return self.state

    def _look(self) -> bool:
        """Whether Sysprep runs; what cannot be asked now is asked later."""
        with suppress(AibError, ValueError):
            answer = json.loads(ask(self._other, "image-state.ps1", self._deadline))
            self.state = str(answer.get("state") or "")
            return bool(answer.get("sysprep"))
        return True
