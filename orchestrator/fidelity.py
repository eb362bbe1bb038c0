"""Every emulated behaviour that is not plainly the service's: what it is, how well it is known, and where from.

`documented` = the service's own documents say so; `inferred` = concluded from public evidence, not confirmed;
`unknown` = nothing public says it, so this is a choice; `different` = known to differ, on purpose or by necessity.
"""

from __future__ import annotations

from orchestrator.fidelity_behaviour import Behaviour, Grade
from orchestrator.fidelity_endpoint import ENDPOINT

__all__ = ["BEHAVIOURS", "Behaviour", "Grade"]

BEHAVIOURS: tuple[Behaviour, ...] = (
    # Time
    Behaviour(
        "checkpoints",
        "different",
        "Steps that are unchanged are not run again: the build VM goes on from a checkpoint, with the same boot id, a "
        "clock that jumps forward and new random bytes; the service always starts from the source image (--no-cache)",
        "aib's own",
    ),
    # Scripts and files
    Behaviour(
        "shell-inline",
        "documented",
        "Inline lines are one script under `#!/bin/sh -e`, at /tmp/script_N.sh, run by the login user; no terminal",
        "PKR; a public customization.log",
    ),
    Behaviour(
        "inline-shebang",
        "inferred",
        "Inline lines that begin with `#!` keep that first line and get no `-e`, as later Packers do it; Packer 1.6 "
        "puts its own `#!/bin/sh -e` before it",
        "PKR; seen with Packer 1.6.6; the service's version is not documented",
    ),
    Behaviour(
        "line-ends",
        "different",
        "CRLF becomes LF in a script, but not in one that holds NUL bytes, a program: Packer converts that too, and "
        "breaks it",
        "PKR; seen with Packer 1.6.6",
    ),
    Behaviour(
        "script-user",
        "inferred",
        "A Shell script given by URI runs as root; `--script-user` or fidelity.script_user in config.toml changes it",
        "JSON's samples and the quickstart write root's files without sudo; no live log confirms it",
    ),
    Behaviour(
        "download-time",
        "inferred",
        "Scripts and files are fetched when a template is submitted through the endpoint, and its runs use these; "
        "`aib build`, which submits nothing, fetches them when the run is planned",
        "OVER, TRBL",
    ),
    Behaviour(
        "go-templates",
        "different",
        "`{{ ... }}` in inline lines is passed through as it is; Packer's own template engine may reinterpret it",
        "PKR; how the service escapes it is unknown",
    ),
    Behaviour(
        "cloud-init-race",
        "inferred",
        "Customizers start as soon as SSH answers: cloud-init may still run, as on the service",
        "MicrosoftDocs/azure-compute-docs#179",
    ),
    Behaviour(
        "file-size",
        "different",
        "A File customizer takes more than 20 MB here; the service is documented for less than 20 MB",
        "SEED S23",
    ),
    Behaviour(
        "file-by-disk",
        "different",
        "A File customizer of 16 MiB or more goes into a Linux guest by a read-only disk that is plugged in for a "
        "moment, and is written by the login user; the service sends it by SFTP. The guest's log shows the disk",
        "choice; performance.md 3",
    ),
    Behaviour(
        "powershell-on-linux",
        "documented",
        "A PowerShell customizer on a Linux image runs through pwsh, which the image must have",
        "SEED S22 (\"Windows and Linux\"; later documents say Windows only)",
    ),
    Behaviour(
        "legacy-script-field",
        "documented",
        "`script` of api-version 2019-02-01-preview and before is read as `scriptUri`",
        "SWG",
    ),
    # Windows guests
    Behaviour(
        "windows-unverified",
        "unknown",
        "Nothing of a Windows build was ever run on real Windows: it was proved against a WinRM guest of this "
        "project, which independent clients accept, and against Packer 1.6.6",
        "no Windows image was at hand",
    ),
    Behaviour(
        "windows-checkpoints",
        "different",
        "No checkpoints of Windows builds are kept: each build boots the source image and runs every step",
        "choice: neither its clock nor its WinRM service was ever tried after a resume",
    ),
    Behaviour(
        "windows-access",
        "different",
        "An answer file on a CD sets Windows up at its first start, and opens WinRM over HTTPS for an account of "
        "this build; on Azure the provisioning agent does so. The CD is taken out when the guest answers; the logon "
        "at start and the answer file's copy go before Sysprep, and listener, certificate, firewall rule and account "
        "after it, as the last thing in the guest, because Sysprep is watched through them",
        "choice; `windows.md` 5, from memory",
    ),
    Behaviour(
        "powershell-form",
        "inferred",
        "Inline PowerShell is run as Packer before 1.13 did, where a failing cmdlet does not fail the build; "
        "for api-versions of 2025 and later inside try/catch; `--fidelity powershell=script|try-catch` "
        "decides otherwise",
        "PKR; public logs of 2020 to 2024; which Packer the service runs is not documented",
    ),
    Behaviour(
        "winrm-stdin",
        "different",
        "A command in a Windows guest has an empty standard input that ends; Packer leaves it open, and a "
        "prompt waits until the build's time is over",
        "PKR; choice",
    ),
    Behaviour(
        "winrm-upload",
        "different",
        "Files go to a Windows guest through a command's standard input, with a SHA-256 check; Packer echoes "
        "them line by line (`--fidelity upload=packer`)",
        "PKR winrmcp; the guest ends up with the same file",
    ),
    Behaviour(
        "file-parent",
        "documented",
        "The folder of a File's destination must exist on Windows too; Packer alone would make it",
        "SEED S23",
    ),
    Behaviour(
        "elevated-account",
        "inferred",
        "runElevated is a scheduled task of the build account with its password, runAsSystem one of SYSTEM",
        "PKR guestexec; the mapping is not documented",
    ),
    Behaviour(
        "connection-lost-code",
        "documented",
        "A WinRM connection that is lost under a script counts as exit code 16001, which validExitCodes may "
        "allow",
        "PKR; seen with Packer 1.6.6",
    ),
    Behaviour(
        "restart-detection",
        "different",
        "A restart is over when the guest answers from another boot; Packer schedules a second shutdown to "
        "find out",
        "PKR windows-restart; choice",
    ),
    Behaviour(
        "no-reboot",
        "documented",
        "A WindowsRestart whose command restarts nothing passes, with a warning; `--require-reboot` makes it "
        "fail",
        "seen with Packer 1.6.6",
    ),
    Behaviour(
        "restart-cut",
        "different",
        "A restart command that is cut off by its own restart counts as done; Packer may fail it with 16001",
        "PKR windows-restart; choice",
    ),
    Behaviour(
        "update-rounds",
        "different",
        "Windows Update gives up after 4 rounds that install nothing; the service goes on until its time is "
        "over",
        "choice",
    ),
    Behaviour(
        "azure-agent-absent",
        "different",
        "An Azure service that the deprovision script waits for is not in the image: the script is told that "
        "it runs",
        "by necessity: off Azure it would wait for ever",
    ),
    Behaviour(
        "not-generalized",
        "different",
        "Sysprep's image state is read after the deprovision script, and said when it is not generalized",
        "choice; the service does not look",
    ),
    Behaviour(
        "sysprep-failed",
        "different",
        "An image that stays undeployable while no Sysprep runs fails at once; the service waits until its "
        "time is over",
        "TRBL E23",
    ),
    # The build VM
    Behaviour(
        "vm-size-clamped",
        "different",
        "The build VM gets less than its vmSize says, because this host has no more",
        "images-and-libvirt: vmSize policy",
    ),
    Behaviour("gpu-missing", "different", "There is no GPU in the build VM", "choice"),
    Behaviour(
        "azure-agents",
        "different",
        "There is no Azure fabric: no instance metadata service, no wire server, no VM extensions, no resource disk",
        "by necessity",
    ),
    Behaviour(
        "network-user-mode", "different",
        "User-mode networking: the build VM can reach services on this host's loopback at 10.0.2.2; `--network "
        "isolated` forbids it", "QEMU",
    ),
    Behaviour(
        "network-isolated", "different",
        "Isolated networking: the build VM has IPv4 alone, and reaches no address of this host and no metadata service",
        "choice; frame_filter lists the addresses",
    ),
    Behaviour(
        "vnet-ignored",
        "different",
        "vnetConfig names a network of Azure that is mapped to none here: the build VM gets user-mode networking",
        "SEED S10; [networks] in config.toml maps it",
    ),
    Behaviour(
        "ssh-timeout",
        "documented",
        "The build VM must answer by SSH within 20 minutes, at first and after a reboot",
        "SEED S21",
    ),
    Behaviour(
        "reboot-survived",
        "different",
        "A Shell step that reboots the machine in the foreground succeeds; in Packer's default it fails (exit 2300218)",
        "SEED S21 says that Shell may reboot; PKR says otherwise",
    ),
    Behaviour(
        "deprovision-script-restored",
        "different",
        "After a reboot the default deprovision script is put back into /tmp; on the service it stays lost",
        "aib-service 2.4",
    ),
    # Generalize, validate, distribute
    Behaviour(
        "deprovision-default",
        "documented",
        "The default deprovision command is the one of the template's api-version",
        "SEED S26, JSON",
    ),
    Behaviour(
        "generalize-proof",
        "different",
        "After power-off the disk is read, and a left-over key or account fails the run; the service does not look",
        "choice",
    ),
    Behaviour(
        "source-validation-only",
        "inferred",
        "With sourceValidationOnly the source image boots, the validators run; nothing is customized or distributed",
        "SWG",
    ),
    Behaviour(
        "gallery-version-legacy",
        "inferred",
        "Without `versioning` a gallery version is 0.<unix time div 65536>.<unix time mod 65536>",
        "derived from three public versions",
    ),
    Behaviour(
        "version-by-source",
        "unknown",
        "versioning.scheme Source takes the source image's version number and raises the last part until it is free",
        "JSON names the scheme, not the rule",
    ),
    Behaviour(
        "replication",
        "different",
        "Regions and replica counts are recorded; nothing is copied between regions",
        "by necessity",
    ),
    Behaviour(
        "vhd-uri",
        "different",
        "A VHD goes to the local file system; an http(s) uri is recorded but not written to",
        "SWG 2022-07-01",
    ),
    Behaviour(
        "not-emulated",
        "different",
        "A field of the template is read and checked, but a build on this machine cannot act on it",
        "each run lists its fields",
    ),
    Behaviour(
        "managed-image-replaced",
        "unknown",
        "A managed image of the same id is replaced by the new one, and what refers to the old one keeps it",
        "nothing public says what the service does with an existing image",
    ),
    *ENDPOINT,
    # Errors and time
    Behaviour(
        "timeout-short",
        "documented",
        "buildTimeoutInMinutes of 1 to 5 fails on the service (E18: client_jwt will expire within 5 minutes); here it "
        "only warns",
        "TRBL",
    ),
    Behaviour(
        "budget-starts",
        "different",
        "The time budget starts when inputs and the source image are there; the service counts its own preparation too",
        "choice",
    ),
)  # fmt: skip
_BY_CODE = {each.code: each for each in BEHAVIOURS}


def behaviour(code: str) -> Behaviour | None:
    """The row of this code, or None."""
    return _BY_CODE.get(code)


def deviation(code: str, detail: str = "") -> tuple[str, str]:
    """(code, message) for a plan or an event: the row's text, and what is special in this run.

    A code that is not in the table is our mistake: KeyError.
    """
    text = _BY_CODE[code].text
    return code, f"{text} ({detail})" if detail else text
