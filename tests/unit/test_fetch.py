"""Inputs come into the store checked, or not at all, and each way to fail says what to do."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from hypervisor.deadline import Deadline
from hypervisor.errors import InputError, UsageError
from orchestrator.plan import http
from orchestrator.plan import http_errors as errors
from orchestrator.plan.config import Config, IdentityConfig
from orchestrator.plan.credentials import Credentials, is_blob
from orchestrator.plan.fetch import Fetcher, InputsUnavailable, InputUnavailable, Wanted, wanted_by
from orchestrator.plan.fetched_store import FetchedStore, without_sas
from orchestrator.template.model import (
    File,
    PlatformImage,
    PowerShell,
    Script,
    Shell,
    Template,
    Validate,
    WindowsRestart,
)

IDENTITY = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/Builder"
BLOB = "https://acct.blob.core.windows.net/scripts/a.sh"
QUICK = http.Limits(size=1 << 20, redirects=3, connect=2, silence=5, total=20, attempts=2, backoff=0.01)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def want(uri: str, sha256: str = "") -> Wanted:
    return Wanted(uri, sha256, "/properties/customize/0", "Shell 'one'")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def fetcher(home: Path, tmp_path: Path) -> Fetcher:
    return make_fetcher(home, tmp_path)


def make_fetcher(home: Path, base: Path, **given) -> Fetcher:
    deadline = Deadline.after(60, "the test")
    credentials = given.pop("credentials", None) or Credentials((), Config(), deadline, {})
    return Fetcher(FetchedStore(home), base, credentials, deadline, limits=QUICK, **given)


def stored_files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "fetched").iterdir() if path.is_file())


def test_what_a_template_needs_is_found_in_order() -> None:
    template = Template(
        name="t",
        api_version="2022-07-01",
        location="eastus",
        source=PlatformImage("p", "o", "s"),
        distribute=(),
        customize=(
            Shell("a", Script(uri="a.sh", sha256="0" * 64)),
            Shell("b", Script(inline=("true",))),
            File("c", "c.txt", "/tmp/c"),
            WindowsRestart("d"),
            PowerShell("", Script(uri="e.ps1")),
        ),
        validate=Validate((Shell("v", Script(uri="v.sh")),)),
    )
    found = wanted_by(template)
    assert [each.uri for each in found] == ["a.sh", "c.txt", "e.ps1", "v.sh"]
    assert found[2].label == "PowerShell at /properties/customize/4"
    assert found[3].pointer == "/properties/validate/inVMValidations/0"


def test_http_to_the_store(web, fetcher, home) -> None:
    data = b"#!/bin/sh\necho hi\n"
    payload = fetcher.fetch(want(web.on("/a.sh", data), digest(data).upper()))
    assert payload.path == home / "fetched" / digest(data)
    assert payload.path.read_bytes() == data
    assert stat.S_IMODE(payload.path.stat().st_mode) == 0o444
    assert (payload.sha256, payload.size) == (digest(data), len(data))
    assert stored_files(home) == [digest(data)]
    assert not list((home / "fetched" / "incoming").iterdir())


@pytest.mark.parametrize("form", ["relative", "absolute", "uri"])
def test_local_files(tmp_path, fetcher, form) -> None:
    path = tmp_path / "my scripts" / "a.sh"
    path.parent.mkdir()
    path.write_bytes(b"x")
    uri = {"relative": "my scripts/a.sh", "absolute": str(path), "uri": path.as_uri()}[form]
    payload = fetcher.fetch(want(uri))
    path.write_bytes(b"changed later")
    assert payload.path.read_bytes() == b"x"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("nothing.sh", "No such file"),
        (".", "is a folder"),
        ("file://server/share/a.sh", "with a host"),
        ("ftp://host/a.sh", r"ftp:// cannot be fetched"),
        ("a\0b", "null byte"),
        ("/dev/zero", "no regular file"),
        ("/proc/kmsg/x", "Not a directory"),
    ],
)
def test_local_files_that_cannot_be_had(fetcher, home, uri, says) -> None:
    with pytest.raises(InputUnavailable, match=says) as caught:
        fetcher.fetch(want(uri))
    assert caught.value.exit_code == 4
    assert "Shell 'one' (/properties/customize/0)" in caught.value.message
    assert stored_files(home) == []


@pytest.mark.timeout(20)
def test_what_the_kernel_calls_a_file_is_not_waited_for(fetcher) -> None:
    """A reader of /proc/kmsg waits for the kernel's next message."""
    try:
        assert fetcher.fetch(want("/proc/kmsg")).size == 0
    except InputUnavailable as error:
        assert "Permission denied" in error.message or "permitted" in error.message


def test_404_names_the_step_and_quotes_the_service(web, fetcher) -> None:
    with pytest.raises(InputUnavailable, match="404") as caught:
        fetcher.fetch(want(web.url + "/gone.sh"))
    assert isinstance(caught.value.cause, errors.NotFound)
    assert f"Downloading external file ({web.url}/gone.sh)" in caught.value.hint


def test_a_wrong_checksum_shows_both_sums(web, fetcher) -> None:
    with pytest.raises(errors.ChecksumMismatch) as caught:
        fetcher.fetch(want(web.on("/a.sh", b"evil"), "0" * 64))
    assert caught.value.exit_code == 4
    assert "0" * 64 in caught.value.message
    assert digest(b"evil") in caught.value.message
    assert "line ends" not in caught.value.hint


@pytest.mark.parametrize(
    ("served", "expected", "name"),
    [(b"a\r\nb\r\n", b"a\nb\n", "With LF line ends"), (b"a\nb\n", b"a\r\nb\r\n", "With CRLF line ends")],
)
def test_a_checksum_of_other_line_ends_is_recognised(web, fetcher, served, expected, name) -> None:
    with pytest.raises(errors.ChecksumMismatch) as caught:
        fetcher.fetch(want(web.on("/a.sh", served), digest(expected)))
    assert name in caught.value.hint


def test_everything_that_is_missing_is_told_at_once(web, fetcher) -> None:
    good = web.on("/good", b"x")
    wanted = [Wanted(uri, "", f"/{i}", f"step {i}") for i, uri in enumerate([web.url + "/1", good, "nowhere"])]
    with pytest.raises(InputsUnavailable) as caught:
        fetcher.fetch_all(tuple(wanted))
    assert "step 0" in caught.value.message
    assert "step 2" in caught.value.message
    assert len(caught.value.errors) == 2


def test_one_address_is_fetched_once(web, fetcher) -> None:
    url = web.on("/a", b"x")
    payloads = fetcher.fetch_all((Wanted(url, "", "/0", "a"), Wanted(url, "", "/1", "b")))
    assert len(web.seen) == 1
    assert payloads["/0"] == payloads["/1"]


def test_offline_uses_what_was_fetched_under_any_signature(web, home, tmp_path) -> None:
    url = web.on("/a.sh", b"x")
    make_fetcher(home, tmp_path).fetch(want(f"{url}?sv=1&se=2030&sig=first"))
    offline = make_fetcher(home, tmp_path, offline=True)
    assert offline.fetch(want(f"{url}?sv=1&se=2031&sig=second")).sha256 == digest(b"x")
    assert len(web.seen) == 1
    with pytest.raises(InputUnavailable, match="was never fetched"):
        offline.fetch(want(web.url + "/b.sh"))


def test_offline_finds_a_file_by_its_checksum(web, home, tmp_path) -> None:
    make_fetcher(home, tmp_path).fetch(want(web.on("/a.sh", b"x")))
    offline = make_fetcher(home, tmp_path, offline=True)
    assert offline.fetch(want("https://moved.invalid/a.sh", digest(b"x"))).size == 1


def test_offline_never_serves_a_damaged_file(web, home, tmp_path) -> None:
    url = web.on("/a.sh", b"x")
    path = make_fetcher(home, tmp_path).fetch(want(url)).path
    path.chmod(0o644)
    path.write_bytes(b"y")
    with pytest.raises(InputUnavailable, match="was never fetched"):
        make_fetcher(home, tmp_path, offline=True).fetch(want(url))


def test_no_signature_is_kept_anywhere(web, home, tmp_path) -> None:
    url = web.on("/a.sh", b"x") + "?sv=2020&sig=SeCrEt%2Bx&se=1"
    said: list[str] = []
    payload = make_fetcher(home, tmp_path, say=said.append).fetch(want(url))
    kept = "".join(p.read_text() for p in (home / "fetched").rglob("*") if p.is_file()) + payload.uri + "".join(said)
    assert "SeCrEt" not in kept
    assert payload.uri == web.url + "/a.sh"


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://A.b/c?sv=1&sig=x&snapshot=2", "https://a.b/c"),
        ("https://a.b/c?ref=main", "https://a.b/c?ref=main"),
        ("https://a.b/c?ref=main&sig=x", "https://a.b/c?ref=main"),
        ("https://me:pw@a.b/c#top", "https://a.b/c"),
    ],
)
def test_without_sas(url, key) -> None:
    assert without_sas(url) == key


def test_many_fetch_the_same_at_once(web, home, tmp_path) -> None:
    url = web.on("/a.sh", b"x" * 100_000)
    results, failures = [], []

    def run() -> None:
        try:
            results.append(make_fetcher(home, tmp_path).fetch(want(url)).sha256)
        except InputError as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert results == [digest(b"x" * 100_000)] * 8
    assert stored_files(home) == [digest(b"x" * 100_000)]


# The credential that is mapped to the template's identity


def token(**claims: object) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({}, claims)]
    return ".".join([*parts, "c2lnbmF0dXJl"])


def credentials(config: Config | None = None, environment=None, identities=(IDENTITY,)) -> Credentials:
    return Credentials(identities, config or Config(), Deadline.after(30, "the test"), environment or {})


GOOD = {"aud": "https://storage.azure.com", "exp": 4e9}


def test_a_mapped_identity_gives_blobs_a_bearer_token() -> None:
    mine = credentials(environment={"AIB_STORAGE_TOKEN": token(**GOOD)})
    headers = mine.headers(BLOB)
    assert headers["Authorization"] == f"Bearer {token(**GOOD)}"
    assert headers["x-ms-version"]


@pytest.mark.parametrize(
    "url",
    [
        BLOB + "?sv=1&sig=x",
        BLOB.replace("https:", "http:"),
        "https://scripts.contoso.com/a.sh",
        "https://blob.core.windows.net.evil.example/a.sh",
        "https://evil.example/acct.blob.core.windows.net/a.sh",
    ],
)
def test_nobody_else_gets_the_token(url) -> None:
    assert "Authorization" not in credentials(environment={"AIB_STORAGE_TOKEN": token(**GOOD)}).headers(url)


def test_without_an_identity_there_is_no_token() -> None:
    alone = credentials(environment={"AIB_STORAGE_TOKEN": token(**GOOD)}, identities=())
    assert "Authorization" not in alone.headers(BLOB)
    assert "has no identity" in alone.how_to_map()


@pytest.mark.parametrize("key", ["builder", IDENTITY.lower()])
def test_tokens_from_variable_file_and_command(tmp_path, key) -> None:
    wanted = token(**GOOD)
    file = tmp_path / "token"
    file.write_text(wanted + "\n")
    for mapped in (
        IdentityConfig(token_env="MINE"),
        IdentityConfig(token_file=str(file)),
        IdentityConfig(token_command=f"{sys.executable} -c \"print(open('{file}').read())\""),
    ):
        heard: list[str] = []
        mine = credentials(Config(identities={key: mapped}), {"MINE": wanted})
        mine.on_secret = heard.append
        assert mine.headers(BLOB)["Authorization"] == f"Bearer {wanted}"
        mine.headers(BLOB)
        assert heard == [wanted]


@pytest.mark.parametrize(
    ("mapped", "environment", "says"),
    [
        (IdentityConfig(token_env="MINE"), {}, "gives no token"),
        (IdentityConfig(token_env="MINE"), {"MINE": "two words"}, "gives no token"),
        (IdentityConfig(token_file="/nowhere/token"), {}, "cannot read the token file"),
        (IdentityConfig(token_command="false"), {}, "token_command failed"),
        (IdentityConfig(token_command="no 'quote"), {}, "is no command line"),
        (IdentityConfig(token_env="MINE"), {"MINE": token(aud="https://management.azure.com/")}, "is for https://man"),
        (IdentityConfig(token_env="MINE"), {"MINE": token(aud=GOOD["aud"], exp=time.time() - 60)}, "expired"),
    ],
)
def test_credentials_that_do_not_work(mapped, environment, says) -> None:
    with pytest.raises(InputError, match=says):
        credentials(Config(identities={"builder": mapped}), environment).headers(BLOB)


def test_blobs_are_recognised_by_azures_domains_and_by_configured_endpoints() -> None:
    assert is_blob(BLOB)
    assert is_blob("https://a.z12.blob.storage.azure.net/c/b")
    assert not is_blob("https://127.0.0.1:10000/dev/c/b")
    assert is_blob("https://127.0.0.1:10000/dev/c/b", ("https://127.0.0.1:10000/dev",))
    assert not is_blob("https://127.0.0.1:10000/developer/b", ("https://127.0.0.1:10000/dev",))


# The configuration file


def test_no_configuration_is_fine(tmp_path) -> None:
    assert Config.load(tmp_path) == Config()


def test_the_configuration(tmp_path) -> None:
    (tmp_path / "config.toml").write_text(
        '[fidelity]\nscript_user = "login"\n[networks]\n"Net/Sub" = "lab"\n'
        '[identities.Builder]\ntoken_env = "MINE"\n[storage]\nendpoints = ["https://127.0.0.1:1/dev/"]\n'
        '[checkpoints]\nmax = "1.5 GiB"\n'
    )
    config = Config.load(tmp_path)
    assert config.script_user == "login"
    assert config.networks == {"net/sub": "lab"}
    assert config.identities["builder"].token_env == "MINE"
    assert config.storage_endpoints == ("https://127.0.0.1:1/dev",)
    assert config.checkpoints_max == 3 << 29


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "cannot be read"),
        ("[fidelity]\nscript_user = 'nobody'", "script_user"),
        ("[fidelity]\nscript_usr = 'login'", "script_usr"),
        ("[identities.a]\ntoken = 'x'", "exactly one of"),
        ("[identities.a]\ntoken_env = 'x'\ntoken_file = 'y'", "exactly one of"),
        ("[identities.a]\ntoken_env = 7", "must be a text"),
        ("networks = 'lab'", "must be a table"),
        ("[storage]\nendpoints = 'x'", "must be a list"),
        ("[checkpoints]\nmax = 20", "such as '500M'"),
        ("[checkpoints]\nmax = 'many'", "such as '500M'"),
    ],
)
def test_a_wrong_configuration_names_the_file_and_the_setting(tmp_path, text, says) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        Config.load(tmp_path)
    assert "config.toml" in caught.value.message
