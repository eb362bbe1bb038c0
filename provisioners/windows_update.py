"""The WindowsUpdate customizer (SEED S24), by a script of our own with the semantics of the community's provisioner."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from provisioners import windows_exit_codes, windows_payloads
from provisioners.base import Context, Guest, Outcome, StepError
from provisioners.capture import Capture
from provisioners.communicators.base import CommandResult, CommunicatorError, ConnectionLost, Stream
from provisioners.reboot import BootState, disconnect
from provisioners.windows_guest import TEMP, customizer, reach, remove_files
from provisioners.windows_restart import WindowsRestart
from provisioners.windows_task import Account, run_as_task

DEFAULT_CRITERIA = "BrowseOnly=0 and IsInstalled=0"
DEFAULT_FILTERS = ("include:$true",)
RESTART_SECONDS = 4 * 3600.0
RESTART_NEEDED = 101
TRIES = 5
"""A script that ended without its last line (a restart cut it, the task was lost) is started so often."""
ROUNDS_WITHOUT_PROGRESS = 4
"""So many rounds in a row that install nothing: it will not get better. The service goes on until its time is over."""
PAUSE_SECONDS = 5.0
_EXITING = re.compile(r"^Exiting with code (-?\d+)\s*$", re.MULTILINE)
_ROUND = "aib-round: "


@dataclass(frozen=True, slots=True)
class WindowsUpdate:
    """Search, choose, install, restart, until nothing is left. `filters`: `include:` or `exclude:` and an expression
    about `$_`; the first that matches decides. `limit` is per round."""

    criteria: str = DEFAULT_CRITERIA
    filters: Sequence[str] = DEFAULT_FILTERS
    limit: int = 1000

    def apply(self, guest: Guest, context: Context) -> Outcome:
        """See `Provisioner.apply`."""
        with customizer(guest) as name:
            files = (f"{TEMP}/packer-windows-update-{name}.ps1", f"{TEMP}/packer-windows-update-{name}.json")
            try:
                restarts = self._rounds(guest, context, name, files)
            except CommunicatorError as error:
                raise StepError(error.message, hint=error.hint) from error
            remove_files(guest, list(files), context.deadline)
        return Outcome(rebooted=restarts > 0, notes=(f"{restarts} restarts",))

    def _rounds(self, guest: Guest, context: Context, name: str, files: tuple[str, str]) -> int:
        """Rounds until nothing is left; returns how often the guest was restarted."""
        restarts, stuck = 0, 0
        while True:
            context.say("Running Windows update...")
            report = _Report()
            if self._round(guest, context, name, files, report) == 0:
                return restarts
            stuck = 0 if report.installed else stuck + 1
            if stuck >= ROUNDS_WITHOUT_PROGRESS:
                raise StepError(
                    f"Windows Update made no progress in {stuck} rounds: {report.trouble()}",
                    hint="exclude what fails with a filter (exclude:$_.Title -like '*KB...*'), or look at "
                    "c:\\Windows\\Logs\\CBS in the guest; on the service it would go on until buildTimeoutInMinutes",
                )
            context.say("Restarting the machine to complete the updates")
            WindowsRestart(timeout=RESTART_SECONDS, require_reboot=True).apply(guest, context)
            restarts += 1

    def _round(self, guest: Guest, context: Context, name: str, files: tuple[str, str], report: _Report) -> int:
        """0 or 101; raises `StepError` for everything else."""
        problem = ""
        for _ in range(TRIES):
            report.reset()
            try:
                result = self._run(guest, context, name, files, report)
            except ConnectionLost as error:
                problem = error.message
                disconnect(guest)
            else:
                code = result.exit_code
                if not result.connection_lost and report.code is not None and code is not None:
                    if code in {0, RESTART_NEEDED}:
                        return code
                    raise self._failure(code, report)
                problem = "the connection was lost" if result.connection_lost else f"it ended early with {code}"
            context.say(f"The update script did not come to its end ({problem}): trying again")
            context.deadline.pause(PAUSE_SECONDS, "running Windows Update")
        raise StepError(f"Windows Update did not come to its end in {TRIES} tries: {problem}")

    def _run(self, guest: Guest, context: Context, name: str, files: tuple[str, str], report: _Report) -> CommandResult:
        before: BootState = reach(guest, context)
        settings = windows_payloads.settings(
            searchCriteria=self.criteria or DEFAULT_CRITERIA,
            filters=list(self.filters or DEFAULT_FILTERS),
            updateLimit=self.limit,
            attempts=TRIES,
            pause=int(PAUSE_SECONDS),
        )
        script = windows_payloads.text("windows-update.ps1").encode()
        guest.communicator.upload(script, files[0], deadline=context.deadline)
        guest.communicator.upload(settings, files[1], deadline=context.deadline)
        line = f"powershell -NoProfile -NonInteractive -ExecutionPolicy Bypass -File {files[0]} {files[1]}"

        def output(stream: Stream, data: bytes) -> None:
            report(stream, data)
            context.output(stream, data)

        return run_as_task(guest, context, before, name=name, command=line, account=Account(), output=output)

    @staticmethod
    def _failure(code: int, report: _Report) -> StepError:
        return StepError(
            f"Windows update script exited with non-zero exit status: {code}: {report.trouble()}",
            hint=windows_exit_codes.hint(code) or "does the guest reach its update server?",
            guest_exit_code=code,
        )


class _Report:
    """What one round said about itself."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget an earlier try."""
        self._said = Capture(256 * 1024)

    def __call__(self, stream: Stream, data: bytes) -> None:
        self._said(stream, data)

    @property
    def code(self) -> int | None:
        """The code of the script's last line; None when it never got there."""
        found = _EXITING.findall(self._said.text.replace("\r\n", "\n"))
        return int(found[-1]) if found else None

    @property
    def facts(self) -> dict[str, Any]:
        """The last round line."""
        lines = [line for line in self._said.text.splitlines() if line.startswith(_ROUND)]
        try:
            facts = json.loads(lines[-1][len(_ROUND) :]) if lines else {}
        except ValueError:
            return {}
        return facts if isinstance(facts, dict) else {}

    @property
    def installed(self) -> int:
        """How many updates this round installed."""
        return int(self.facts.get("installed") or 0)

    def trouble(self) -> str:
        """What went wrong, in words."""
        facts = self.facts
        if facts.get("error"):
            return str(facts["error"])
        if facts.get("pending"):
            return "the guest says that a restart is pending after every restart"
        failed = facts.get("failed") or []
        return "failed: " + "; ".join(map(str, failed)) if failed else "nothing more is known"
