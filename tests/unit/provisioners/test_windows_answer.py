"""The answer medium: what Windows Setup reads, and the scripts that open the way in and take it away again."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from provisioners import windows_answer, windows_payloads
from provisioners.certificate import BACKDATED, self_signed, thumbprint
from provisioners.communicators.winrm_tls import PinnedCertificate
from provisioners.identity import BuildIdentity
from provisioners.windows_answer import LONGEST_COMMAND, answer_documents, close_access, forget_logon

IDENTITY = replace(BuildIdentity.create_for_windows(), password="p'a<s&s>-1")
SPACE = {"u": "urn:schemas-microsoft-com:unattend"}


@pytest.fixture(scope="module")
def documents() -> dict[str, bytes]:
    return answer_documents(IDENTITY)


@pytest.fixture(scope="module")
def answer(documents: dict[str, bytes]) -> ET.Element:
    return ET.fromstring(documents["Unattend.xml"])


def text(answer: ET.Element, path: str) -> str:
    return answer.findtext(".//" + "/".join(f"u:{part}" for part in path.split("/")), "", SPACE)


def test_the_account_is_an_administrator_that_logs_on_once(answer: ET.Element) -> None:
    assert text(answer, "LocalAccount/Name") == text(answer, "AutoLogon/Username") == "packer"
    assert text(answer, "LocalAccount/Group") == "Administrators"
    assert text(answer, "AutoLogon/LogonCount") == "1"
    assert text(answer, "ComputerName") == IDENTITY.hostname
    assert len(IDENTITY.hostname) <= 15


@pytest.mark.parametrize("where", ["LocalAccount/Password", "AutoLogon/Password"])
def test_the_password_is_written_as_windows_hides_it(answer: ET.Element, where: str) -> None:
    assert text(answer, f"{where}/PlainText") == "false"
    hidden = base64.b64decode(text(answer, f"{where}/Value")).decode("utf-16-le")
    assert hidden == IDENTITY.password + "Password"


def test_the_command_fits_and_looks_on_every_drive(answer: ET.Element) -> None:
    command = text(answer, "SynchronousCommand/CommandLine")
    assert len(command) <= LONGEST_COMMAND
    assert ":\\aib\\open-access.ps1" in command


def test_the_listener_gets_the_certificate_that_is_expected_of_it(documents: dict[str, bytes]) -> None:
    key, certificate, _ = pkcs12.load_key_and_certificates(documents["aib/winrm.pfx"], IDENTITY.password.encode())
    assert key is not None
    assert certificate is not None
    assert certificate.fingerprint(certificate.signature_hash_algorithm).hex() == (
        PinnedCertificate(IDENTITY.certificate).sha256
    )
    assert certificate.subject.rfc4514_string() == f"CN={IDENTITY.hostname}"


def test_scripts_have_no_blanks_left_and_quote_what_they_are_given(documents: dict[str, bytes]) -> None:
    opening = documents["aib/open-access.ps1"].decode()
    closing = close_access(IDENTITY)
    assert "'p''a<s&s>-1'" in opening
    assert thumbprint(IDENTITY.certificate) in closing
    for script in (opening, closing, forget_logon(), documents["Unattend.xml"].decode()):
        assert not re.search(r"@[A-Z_]{3,}@", script)


def test_what_was_opened_is_closed() -> None:
    opening, closing = windows_payloads.text("open-access.ps1"), windows_payloads.text("close-access.ps1")
    opened = {
        "the listener": ("Listener' -Transport HTTPS", "Listener?Address=*+Transport=HTTPS"),
        "the certificate": ("Import-PfxCertificate", "Remove-Item -Path 'Cert:"),
        "the firewall rule": ("New-NetFirewallRule -Name aib-winrm", "Remove-NetFirewallRule -Name aib-winrm"),
        "basic logins": ("Auth\\Basic' -Value $true", "Auth\\Basic' -Value ($old.Basic"),
        "rights from afar": ("LocalAccountTokenFilterPolicy -Prop", "LocalAccountTokenFilterPolicy"),
        "the service's start": ("-StartupType Automatic", "-StartupType $old.StartType"),
        "our notes": ("New-Item -Path $before", "Remove-Item -Path $before"),
    }
    for what, (begun, ended) in opened.items():
        assert begun in opening, what
        assert ended in closing, what
    assert closing.rstrip().endswith("& shutdown.exe /s /f /t 0"), "it powers off only after everything else"


def test_the_certificate_is_valid_for_a_guest_whose_clock_is_behind() -> None:
    now = datetime(2026, 11, 25, tzinfo=UTC)
    certificate = x509.load_pem_x509_certificate(self_signed("pkrvm", now=now)[0].encode())
    assert certificate.not_valid_before_utc == now - BACKDATED
    assert certificate.not_valid_after_utc > now + timedelta(days=5 * 365)


def test_an_identity_for_windows_gives_the_guest_its_password_and_keeps_its_keys() -> None:
    assert IDENTITY.password.encode() in IDENTITY.guest_secrets()
    assert IDENTITY.password.encode("utf-16-le") in IDENTITY.guest_secrets()
    assert IDENTITY.password.encode() not in IDENTITY.secrets()
    assert "BEGIN" not in repr(IDENTITY).replace(IDENTITY.certificate, "").replace(repr(IDENTITY.certificate), "")
    assert IDENTITY.password not in repr(IDENTITY)


def test_an_account_of_the_image_is_no_secret_of_the_build() -> None:
    given = BuildIdentity.of_account("builder", "theirs")
    assert (given.user, given.password, given.certificate) == ("builder", "theirs", "")
    assert given.guest_secrets() == ()
    assert b"theirs" not in given.secrets()


def test_the_volume_is_no_seed_of_cloud_init() -> None:
    assert windows_answer.VOLUME.lower() != "cidata"
