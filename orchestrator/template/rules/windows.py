"""Windows steps: only hints that cannot be wrong."""

from __future__ import annotations

import re

from orchestrator.template.report import Report
from orchestrator.template.script_text import inline_lines, powershell_steps
from orchestrator.template.subject import Subject

_RESTART = re.compile(r"(?i)(?:^|[;|{(]|\s)(?:Restart-Computer|Stop-Computer|shutdown(?:\.exe)?\s+[/-][rs])\b")
_REMOTING = re.compile(
    r"(?i)Disable-PSRemoting|(?:Stop-Service|Set-Service)\s[^;|]*WinRM|Remove-NetFirewallRule|netsh\s+advfirewall\s+(?:reset|set"
    r"\s+allprofiles\s+state\s+on)|New-NetFirewallRule[^;|]*(?:5985|5986)[^;|]*Block|delete\s+listener"
)
_ASKING = re.compile(r"(?i)(?:^|[;|{(=]|\s)(?:Read-Host|pause)\b|-Confirm(?:\s|:\$true|$)(?!:\$false)|\bOut-GridView\b")
_SMALL = (
    "standard_d1_v2",
    "standard_a1_v2",
    "standard_a0",
    "standard_a1",
    "basic_a0",
    "basic_a1",
    "standard_b1s",
    "standard_b1ms",
)


def restarts(subject: Subject, report: Report) -> None:
    """AIB044 for PowerShell: a restart inside a script fails the step."""
    for step in powershell_steps(subject):
        for line in inline_lines(step, subject.memo):
            if _RESTART.search(line.text) and not line.text.lstrip().startswith("#"):
                hint = "use a WindowsRestart step"
                message = "a restart inside a PowerShell step breaks its connection"
                report.warning("AIB044", line.node, message, hint=hint, source="danielsollondon/azvmimagebuilder#64")


def prompts(subject: Subject, report: Report) -> None:
    """AIB045 for PowerShell: there is nobody to answer."""
    for step in powershell_steps(subject):
        for line in inline_lines(step, subject.memo):
            if _ASKING.search(line.text) and not line.text.lstrip().startswith("#"):
                report.warning("AIB045", line.node, "the line waits for somebody to answer", source="TRBL E17")


def remoting(subject: Subject, report: Report) -> None:
    """AIB050 for Windows: the build talks WinRM over port 5986."""
    for step in powershell_steps(subject):
        for line in inline_lines(step, subject.memo):
            if _REMOTING.search(line.text):
                message = "the line may cut the WinRM connection the build uses"
                report.warning("AIB050", line.node, message, hint="leave port 5986 open", source="TRBL E24")


def errors_are_ignored(subject: Subject, report: Report) -> None:
    """AIB052: a failing cmdlet does not fail the build, only the last native exit code does."""
    for step in powershell_steps(subject):
        inline = step.get("inline")
        text = "\n".join(line.text for line in inline_lines(step, subject.memo))
        handled = re.search(
            r"(?i)ErrorActionPreference|\bthrow\b|\bexit\b|-ErrorAction\s+Stop|-EA\s+Stop|\btry\b", text
        )
        if inline is not None and text.strip() and not handled:
            report.info(
                "AIB052", inline, "a failing cmdlet does not fail this step",
                hint="begin with $ErrorActionPreference = 'Stop'", source="PKR 2.4",
            )  # fmt: skip


def updates(subject: Subject, report: Report) -> None:
    """AIB054: WindowsUpdate wants a restart before and after it, and a machine with memory."""
    steps = subject.customizers
    size = subject.properties.string("vmProfile", "vmSize").lower() or "standard_d1_v2"
    for index, step in enumerate(steps):
        if step.string("type") != "WindowsUpdate":
            continue
        before = steps[index - 1].string("type") if index else "WindowsRestart"  # a fresh VM has nothing pending
        after = steps[index + 1].string("type") if index + 1 < len(steps) else ""
        if before != "WindowsRestart":
            report.warning(
                "AIB054", step, "WindowsUpdate after a step that may leave a restart pending (0x80240016)",
                hint="put a WindowsRestart before it", source="TRBL E21", key="type",
            )  # fmt: skip
        if after != "WindowsRestart":
            message = "updates are finished by a restart"
            report.warning("AIB054", step, message, hint="put a WindowsRestart behind it", source="TRBL", key="type")
        if size in _SMALL:
            message = f"WindowsUpdate on {size}: too little memory ('unexpected EOF')"
            report.warning("AIB054", step, message, hint="Standard_D2_v2 or larger", source="TRBL E25", key="type")


def last_restart(subject: Subject, report: Report) -> None:
    """AIB055: what the last step left pending makes the first logon slow, or Sysprep fail."""
    steps = subject.customizers
    if subject.os == "windows" and steps and steps[-1].string("type") != "WindowsRestart":
        message = "the last Windows step is no restart"
        report.warning("AIB055", steps[-1], message, hint="end with a WindowsRestart", source="TRBL", key="type")


RULES = (restarts, prompts, remoting, errors_are_ignored, updates, last_restart)
