"""The quick look at a whole script must not hide what the look at its lines would find."""

from __future__ import annotations

import json

import pytest

from orchestrator.template.load import inspect_templates

BASHISMS = (
    "if [[ -f x ]]; then :; fi", "source ./env", "set -o pipefail", "names=(a b)", 'echo "${names[0]}"', "cat <<< x",
    "make &> log", "function f { :; }", "diff <(ls) >(cat)", "(( i = 1 ))", 'echo "${name,,}"',
)  # fmt: skip
SECRETS = (
    "curl 'https://a.blob.core.windows.net/c/f?sv=1&SIG=abcdefghijklmnopqrstuvwx'", "Password='correcthorse'",
    "export PASSWD=correcthorse", "pwd: correcthorse", "client_SECRET=correcthorse; secret=correcthorse",
    "API_KEY=0123456789abcdef", "accountkey=0123456789abcdef", "access-token=0123456789abcdef",
    "echo AKIAABCDEFGHIJKLMNOP", "echo '-----BEGIN RSA PRIVATE KEY-----'",
    "ConvertTo-SecureString 'hunter22' -AsPlainText",
)  # fmt: skip


def rules_of(line: str) -> set[str]:
    step = {"type": "Shell", "name": "s", "inline": ["echo first", line]}
    document = {
        "type": "Microsoft.VirtualMachineImages/imageTemplates",
        "apiVersion": "2022-07-01",
        "properties": {"customize": [step]},
    }
    return {item.rule for item in inspect_templates(None, json.dumps(document)).diagnostics}


@pytest.mark.parametrize("line", BASHISMS)
def test_every_bashism_is_found(line: str) -> None:
    assert "AIB047" in rules_of(line)


@pytest.mark.parametrize("line", SECRETS)
def test_every_kind_of_secret_is_found(line: str) -> None:
    assert "AIB038" in rules_of(line)


def test_a_plain_line_is_neither() -> None:
    assert not {"AIB038", "AIB047"} & rules_of("sudo install -m 0644 app.conf /etc/app.conf")
