"""The hidden last step: the deprovision script, its default and its override (SEED S26, S27; `aib-service.md` 2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from shlex import quote
from typing import Literal

from provisioners import reboot
from provisioners.base import Context, Guest, Outcome, StepError
from provisioners.capture import Capture
from provisioners.communicators.base import CommandResult, CommunicatorError
from provisioners.exit_codes import describe

LINUX_SCRIPT_PATH = "/tmp/DeprovisioningScript.sh"
SCRIPT_LIMIT = 1024 * 1024
MISSING = (
    "Deprovisioning script [{path}] could not be found. Image build may fail or the VM created from the Image "
    "may not boot."
)

ScriptState = Literal["default", "replaced", "missing"]
NOTE: dict[ScriptState, str] = {
    "default": "the default deprovision script ran",
    "replaced": "the user's own deprovision script ran",
    "missing": "no deprovision script was there: the image is not generalized",
}


def default_script(api_version: str) -> str:
    """The service's default Linux script: the 2019-05-01-preview document's text, and the current one for later."""
    old = api_version.lower() in {"2018-02-01-preview", "2019-02-01-preview", "2019-05-01-preview"}
    return _payload("deprovision-2019.sh" if old else "deprovision.sh").decode()


def forget_seed() -> bytes:
    """What root runs after the deprovision script, so that the build VM's private host key does not stay."""
    return _payload("forget-seed.sh")


def place_default_script(guest: Guest, text: str, path: str, context: Context) -> None:
    """Put the default script where the service puts it, before the first step; readable, owned by the login user."""
    try:
        guest.communicator.upload(text.encode(), path, mode=0o644, deadline=context.deadline)
    except CommunicatorError as error:
        raise StepError(f"cannot place the default deprovision script: {error.message}", hint=error.hint) from error


def script_state(guest: Guest, text: str, path: str, context: Context) -> ScriptState:
    """Whether the script at `path` is the default `text`, something else, or gone."""
    try:
        content = _read_script(guest, path, context)
    except CommunicatorError as error:
        raise StepError(f"cannot look at {path}: {error.message}", hint=error.hint) from error
    if content is None:
        return "missing"
    return "default" if content == text.encode() else "replaced"


def ensure_script(guest: Guest, text: str, path: str, context: Context, *, replaced: bool = False) -> ScriptState:
    """After a reboot, which wipes /tmp: put the default back, unless a customizer had replaced (or removed) it.

    `replaced`: what `script_state` said before the reboot was not "default". Returns the state now.
    """
    state = script_state(guest, text, path, context)
    if state != "missing" or replaced:
        return state
    place_default_script(guest, text, path, context)
    context.deviation(
        "deprovision-script-restored",
        f"the reboot wiped {path}; the default script was put back (on the service it stays lost, and the image is "
        "not generalized)",
    )
    return "default"


@dataclass(frozen=True, slots=True)
class Generalize:
    """Prints the deprovision script, then runs it as root. Nothing privileged can follow: the account is gone.

    `notes[0]` of the outcome is `NOTE[state]`.
    """

    default_text: str
    path: str = LINUX_SCRIPT_PATH

    def apply(self, guest: Guest, context: Context) -> Outcome:
        """See `Provisioner.apply`. A missing script is the service's warning, not a failure."""
        try:
            content = _read_script(guest, self.path, context)
            state: ScriptState = "missing"
            if content is None:
                context.output("stdout", MISSING.format(path=self.path).encode() + b"\n")
            else:
                state = "default" if content == self.default_text.encode() else "replaced"
                context.output("stdout", content if content.endswith(b"\n") else content + b"\n")
            said = Capture(64 * 1024, context.output)
            result = guest.communicator.run(
                generalize_command(self.path, state),
                deadline=context.deadline,
                output=said,
                stdin=forget_seed(),
            )
        except CommunicatorError as error:
            raise StepError(f"the guest cannot be reached: {error.message}", hint=error.hint) from error
        self._judge(state, result, said)
        return Outcome(exit_code=result.exit_code or 0, notes=(NOTE[state], *_warnings(said)))

    def _judge(self, state: ScriptState, result: CommandResult, said: Capture) -> None:
        everything = said.text + said.error_text
        if result.exit_code != 0:
            raise StepError(
                f"the deprovision script failed: {_ended(result)}",
                hint=_why(result, everything),
                guest_exit_code=result.exit_code,
                command=f"sudo sh {self.path}",
            )
        if state == "default" and "Skip delete user" in everything:
            raise StepError(
                "the Azure Linux agent did not delete the build account: it found no /var/lib/waagent/ovf-env.xml",
                hint="a customizer removed it, or the source image's cloud-init did not take the seed; "
                "the account and its key would stay in the image",
                guest_exit_code=0,
                command=f"sudo sh {self.path}",
            )


def generalize_command(path: str, state: ScriptState = "default") -> str:
    """One root shell for the script and for what follows on standard input (`forget-seed.sh`): after the first there is
    no account left that could use sudo again."""
    first = ":" if state == "missing" else f"sh {quote(path)} </dev/null"
    return f"sudo -n sh -c {quote(f'{first}; code=$?; cd /; sh -s; exit $code')}"


def _read_script(guest: Guest, path: str, context: Context) -> bytes | None:
    """The script's bytes, None when it is not there; read as root, as a customizer may have made it root's."""
    said = Capture(SCRIPT_LIMIT)
    quoted = quote(path)
    command = f"if sudo -n test -e {quoted}; then sudo -n cat {quoted}; else exit 44; fi"
    reboot.boot_state(guest, context)
    result = guest.communicator.run(command, deadline=context.deadline, output=said)
    if result.exit_code == 44:
        if "sudo" not in said.error_text:
            return None
        raise StepError(
            f"the build account cannot use sudo any more: {said.error_text.strip()[-200:]}",
            hint="a customizer changed sudoers or removed sudo: generalizing needs it, on the service too",
            guest_exit_code=1,
            command=command,
        )
    if result.exit_code != 0:
        raise StepError(f"cannot read {path}: {_ended(result)} {said.error_text.strip()[-200:]}", command=command)
    return said.raw


def _ended(result: CommandResult) -> str:
    if result.exit_code is not None:
        return describe(result.exit_code)
    if result.connection_lost:
        return "the connection to the guest was lost"
    return f"it was ended by SIG{result.signal}" if result.signal else "it ended without an exit status"


def _why(result: CommandResult, everything: str) -> str:
    if "waagent" in everything and "not found" in everything:
        return "waagent is not in the image: a customizer removed it, or the source image does not have it"
    if result.exit_code is None:
        return "a deprovision script must not reboot, power off or stop sshd: the service loses it as well"
    return "run it by hand in `aib shell`, or replace it from a customizer (/tmp/DeprovisioningScript.sh)"


def _warnings(said: Capture) -> tuple[str, ...]:
    """What waagent says it will delete, for the record."""
    return tuple(line.strip() for line in said.text.splitlines() if line.startswith("WARNING!"))


def _payload(name: str) -> bytes:
    return (resources.files("provisioners.payloads") / name).read_bytes()
