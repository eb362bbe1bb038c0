"""Inline scripts of Shell steps: `/bin/sh -e`, no terminal, a login user with sudo."""

from __future__ import annotations

import re

from orchestrator.template.report import Report
from orchestrator.template.script_text import Command, Line, commands, has_any, inline_lines, shell_steps
from orchestrator.template.subject import Subject

_ROOT_OWNED = re.compile(r"/(?:etc|usr|opt|var|root|boot|lib|srv|bin|sbin)(?:/|$)")
_REDIRECT = re.compile(r">>?\s*(/\S+)")
_BASHISMS = (
    (re.compile(r"(?:^|[\s;&|(])\[\[\s"), "[[ ]]", "use [ ]"),
    (re.compile(r"(?:^|[;&|])\s*source\s"), "source", "use ."),
    (re.compile(r"(?:^|[;&|])\s*set\s+[^;&|]*pipefail"), "pipefail", "start the script with #!/bin/bash"),
    (re.compile(r"(?:^|[;&|])\s*[A-Za-z_]\w*=\("), "an array", "start the script with #!/bin/bash"),
    (re.compile(r"\$\{[A-Za-z_]\w*\[[^]]{0,80}\]\}"), "an array", "start the script with #!/bin/bash"),
    (re.compile(r"<<<"), "<<<", "pipe from printf"),
    (re.compile(r"(?:^|\s)&>>?"), "&>", "use > file 2>&1"),
    (re.compile(r"(?:^|[;&|])\s*function\s+\w+"), "function", "write name() { ...; }"),
    (re.compile(r"(?:^|[\s;&|])(?:<|>)\("), "process substitution", "start the script with #!/bin/bash"),
    (re.compile(r"(?:^|[;&|])\s*\(\("), "(( ))", "use [ ] or $(( ))"),
    (re.compile(r"\$\{[A-Za-z_]\w*(?:,,|\^\^|//)"), "a bash expansion", "start the script with #!/bin/bash"),
)
_ANY_BASHISM = re.compile("|".join(pattern.pattern for pattern, _, _ in _BASHISMS))
_MARKS = ("[[", "source", "pipefail", "=(", "${", "<<<", "&>", "function", "<(", ">(", "((")
"""What every bashism contains at the least one of."""
_QUOTED = re.compile(r"'[^']*'")
_ASKING = frozenset({"apt", "apt-get", "yum", "dnf", "zypper"})
_CHANGING = frozenset({"install", "remove", "upgrade", "dist-upgrade", "full-upgrade", "purge", "autoremove", "update"})
_YES = re.compile(r"-\w*y\w*|--yes|--assume-?yes|-n|--non-interactive|-q+")
_ASKS = frozenset({"install", "remove", "upgrade", "dist-upgrade", "full-upgrade", "purge", "autoremove"})
_PACKAGES = re.compile(r"walinuxagent|waagent", re.IGNORECASE)


def _is_apt(command: Command) -> bool:
    return command.name in ("apt", "apt-get") and len(command.words) > 1


def reboots(subject: Subject, report: Report) -> None:
    """AIB044: a reboot inside a script ends its connection."""
    for step in shell_steps(subject):
        for command in commands(step, subject.memo):
            target = command.text
            power = command.name in ("reboot", "poweroff", "halt") or (
                command.name == "systemctl"
                and len(command.words) > 1
                and command.words[1] in ("reboot", "poweroff", "halt")
            )
            power = power or (command.name == "shutdown" and "-c" not in command.words) or target.startswith("init 6")
            if power:
                report.warning(
                    "AIB044", command.line.node, f"{command.name} ends the connection in the middle of a step",
                    hint="the service survives a reboot for up to 20 minutes (S21); make it the last line",
                    source="SEED S21",
                )  # fmt: skip


def prompts(subject: Subject, report: Report) -> None:
    """AIB045: nobody answers: package managers need -y, debconf needs to be told, `read` gets end-of-file."""
    for step in shell_steps(subject):
        quiet = any("DEBIAN_FRONTEND" in line.text for line in inline_lines(step, subject.memo))
        said = False
        for command in commands(step, subject.memo):
            verb = next((word for word in command.words[1:] if not word.startswith("-")), "")
            if (
                command.name in _ASKING
                and verb in _ASKS
                and not any(_YES.fullmatch(word) for word in command.words[1:])
            ):
                message = f"{command.name} {verb} asks before it works"
                report.warning("AIB045", command.line.node, message, hint="add -y", source="TRBL E17")
            elif _is_apt(command) and verb in _ASKS and not quiet and not said:
                said = True
                report.warning(
                    "AIB045", command.line.node, "packages may ask questions (debconf, needrestart)",
                    hint=f"sudo DEBIAN_FRONTEND=noninteractive {command.name} ...", source="Azure/azvmimagebuilder#41",
                )  # fmt: skip
            elif command.name == "read" and "<" not in command.line.text and "|" not in command.line.text:
                report.warning(
                    "AIB045", command.line.node, "read has no one to read from", hint="pass the value", source="TRBL"
                )


def apt_race(subject: Subject, report: Report) -> None:
    """AIB046: the first boot's cloud-init may still hold apt's lock."""
    for step in shell_steps(subject):
        if step.get("scriptUri") is not None:
            return  # a fetched script may have waited
        for command in commands(step, subject.memo):
            if command.name == "cloud-init" and "--wait" in command.words:
                return
            if _is_apt(command) and command.words[1] in _CHANGING:
                report.warning(
                    "AIB046", command.line.node, "apt may race with cloud-init at the first boot",
                    hint="first run: cloud-init status --wait", source="MicrosoftDocs/azure-compute-docs#179",
                )  # fmt: skip
                return


def bashisms(subject: Subject, report: Report) -> None:
    """AIB047: inline runs under `/bin/sh -e` unless it begins with #!."""
    for step in shell_steps(subject):
        if not has_any(step, subject.memo, _MARKS):
            continue
        lines = inline_lines(step, subject.memo)
        if lines and lines[0].text.startswith("#!") and "sh" in lines[0].text and not _is_plain_sh(lines[0].text):
            continue
        for line in lines:
            if line.in_heredoc or not _ANY_BASHISM.search(line.text) or line.text.lstrip().startswith("#"):
                continue
            text = _QUOTED.sub("''", line.text)
            found = next(((what, fix) for pattern, what, fix in _BASHISMS if pattern.search(text)), None)
            if found:
                report.warning("AIB047", line.node, f"{found[0]} is not for /bin/sh", hint=found[1], source="PKR 2.4")


def _is_plain_sh(shebang: str) -> bool:
    return bool(re.search(r"/(?:env\s+)?(?:da|a)?sh\b", shebang)) and "bash" not in shebang


def root_paths(subject: Subject, report: Report) -> None:
    """AIB049: the login user cannot write there; sudo does not reach over a redirection."""
    for step in shell_steps(subject):
        for command in commands(step, subject.memo):
            target = _redirected(command)
            if target and command.name != "tee":
                message = f"{target} belongs to root"
                hint = (
                    "... | sudo tee FILE"
                    if not command.sudo
                    else "sudo does not cover the redirection: | sudo tee FILE"
                )
                report.warning("AIB049", command.line.node, message, hint=hint, source="JSON")
            elif not command.sudo and command.name in (
                "mkdir",
                "cp",
                "mv",
                "touch",
                "tee",
                "rm",
                "ln",
                "install",
                "tar",
            ):
                last = command.words[-1]
                if _ROOT_OWNED.match(last) and command.name != "tar":
                    message = f"{command.name} to {last} without sudo"
                    report.warning("AIB049", command.line.node, message, hint="prefix it with sudo", source="JSON")


def _redirected(command: Command) -> str:
    """The root-owned file that the command's line writes to by redirection; `sh -c '...'` in quotes does not count."""
    found = _REDIRECT.search(" ".join(command.words))
    if not found or not _ROOT_OWNED.match(found[1]):
        return ""
    return found[1] if command.name not in ("sh", "bash", "dash") else ""


def connections(subject: Subject, report: Report) -> None:
    """AIB050: a firewall or sshd change can cut the connection the build lives on (E24)."""
    for step in shell_steps(subject):
        for command in commands(step, subject.memo):
            words = command.words
            cut = (
                (command.name == "ufw" and "enable" in words)
                or (command.name in ("iptables", "nft") and ("DROP" in words or "REJECT" in words or "flush" in words))
                or (
                    command.name == "systemctl" and bool({"stop", "disable", "mask"} & set(words)) and _names_ssh(words)
                )
                or (command.name == "service" and "stop" in words and _names_ssh(words))
            )
            if cut or re.search(r"sed\b.*sshd_config", command.text):
                hint = "leave port 22 open until the build has ended"
                message = f"{command.name} may cut the connection the build uses"
                report.warning("AIB050", command.line.node, message, hint=hint, source="TRBL E24")


def _names_ssh(words: tuple[str, ...]) -> bool:
    return any(word.removesuffix(".service") in ("ssh", "sshd", "ssh.socket") for word in words)


def braces(subject: Subject, report: Report) -> None:
    """AIB051: Packer runs inline text through its own templates."""
    for step in subject.steps:
        for line in inline_lines(step, subject.memo):
            if "{{" in line.text:
                report.warning(
                    "AIB051", line.node, "{{ }} may be taken for a Packer template expression",
                    hint="put the text into a script by URI", source="PKR interpolate.Render",
                )  # fmt: skip
                break


def deprovisioning(subject: Subject, report: Report) -> None:
    """AIB056: what replaces or deletes the deprovision script must still generalize; AIB057: waagent stays."""
    for step in subject.steps:
        lines = inline_lines(step, subject.memo)
        for line in lines:
            if "DeprovisioningScript" in line.text:
                _deprovisioning_line(line, lines, report)
        for command in commands(step, subject.memo) if step.string("type") == "Shell" else ():
            _tmp_and_agent(command, report)


def _deprovisioning_line(line: Line, lines: list[Line], report: Report) -> None:
    text = line.text
    everything = " ".join(one.text for one in lines).lower()
    if re.search(r"(?i)\b(?:rm|del|remove-item)\b[^|;]*DeprovisioningScript", text):
        message = "without the deprovision script the image stays ungeneralized, and nothing fails"
        report.warning("AIB056", line.node, message, hint="replace it instead", source="TRBL E27")
        return
    writes = re.search(r"(?i)>\s*\S*DeprovisioningScript|(?:set|add)-content|out-file|tee\b", text)
    if writes and not re.search(r"waagent|sysprep|-replace", everything):
        message = "the new deprovision script runs neither waagent nor sysprep"
        hint = "keep the default's commands in it"
        report.warning("AIB056", line.node, message, hint=hint, source="danielsollondon/azvmimagebuilder#126")


def _tmp_and_agent(command: Command, report: Report) -> None:
    if command.name == "rm" and any(word.rstrip("/") in ("/tmp", "/tmp/*", "/tmp/.*") for word in command.words[1:]):
        message = "cleaning /tmp deletes the deprovision script"
        report.warning("AIB056", command.line.node, message, hint="keep /tmp/DeprovisioningScript.sh", source="2.4")
    removes = {"remove", "purge", "autoremove", "erase"} & set(command.words)
    if command.name in ("apt", "apt-get", "yum", "dnf", "zypper") and removes and _PACKAGES.search(command.text):
        report.error(
            "AIB057", command.line.node, "without waagent the image cannot be generalized",
            hint="leave walinuxagent installed", source="danielsollondon/azvmimagebuilder#126",
        )  # fmt: skip


RULES = (reboots, prompts, apt_race, bashisms, root_paths, connections, braces, deprovisioning)
