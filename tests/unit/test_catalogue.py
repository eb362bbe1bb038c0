"""The catalogue: which entry a URN finds, the user's before the built-in ones, and what a wrong file gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypervisor.errors import UsageError
from orchestrator.plan.catalogue import (
    BootstrapSource,
    Catalogue,
    RegisteredSource,
    UrlSource,
    registered_only,
)

MINE = """
schema = 1
[[image]]
name = "mine"
urns = ["debian:DEBIAN-12:*", "contoso:golden:win2022*"]
os = "windows"
source = { type = "registered", reason = "it is ours" }
"""


@pytest.mark.parametrize(
    ("urn", "name"),
    [
        ("Debian:debian-12:12", "debian-12"),
        ("DEBIAN:Debian-12:12-GEN2", "debian-12"),
        ("Canonical:UbuntuServer:18.04-LTS", "ubuntu-18.04"),
        ("canonical:ubuntuserver:16.04-lts", "ubuntu-16.04"),
        ("Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2", "ubuntu-22.04"),
        ("Canonical:0001-com-ubuntu-server-jammy:22_04-lts-arm64", "arm64"),
        ("Canonical:ubuntu-24_04-lts:server", "ubuntu-24.04"),
        ("Canonical:ubuntu-24_04-lts:server-gen1", "ubuntu-24.04-gen1"),
        ("almalinux:almalinux-x86_64:9-gen2", "almalinux-9"),
        ("almalinux:almalinux-arm:9-arm64-gen2", "arm64"),
        ("resf:rockylinux-x86_64:9-base", "rocky-9"),
        ("OpenLogic:CentOS:7_9-gen2", "centos-7"),
        ("SUSE:opensuse-leap-15-6:gen2", "opensuse-leap-15.6"),
        ("SUSE:sles-15-sp5:gen2", "sles"),
        ("RedHat:RHEL:9_2", "rhel"),
        ("MicrosoftWindowsServer:WindowsServer:2019-Datacenter", "windows"),
    ],
)
def test_urns_of_real_templates_find_their_entry(urn: str, name: str) -> None:
    entry = Catalogue.load().find(*urn.split(":"))
    assert entry is not None
    assert entry.name == name


@pytest.mark.parametrize("urn", ["Debian:debian-12:13", "Canonical:UbuntuServer:20.10", "nobody:nothing:never"])
def test_other_urns_find_none(urn: str) -> None:
    assert Catalogue.load().find(*urn.split(":")) is None


def test_the_kinds_of_sources() -> None:
    catalogue = Catalogue.load()
    kinds = {entry.name: type(entry.source) for entry in catalogue.entries}
    assert kinds["debian-12"] is BootstrapSource
    assert kinds["ubuntu-22.04"] is UrlSource
    assert kinds["windows"] is RegisteredSource
    windows = catalogue.find("MicrosoftWindowsDesktop", "Windows-11", "win11-22h2-ent")
    assert windows is not None
    assert windows.os == "windows"
    error = registered_only(windows, "MicrosoftWindowsDesktop:Windows-11:win11-22h2-ent:1.0.0")
    assert "aib image import FILE --urn MicrosoftWindowsDesktop:Windows-11:win11-22h2-ent:1.0.0" in error.hint
    assert error.exit_code == 4


def test_the_users_file_comes_first(tmp_path: Path) -> None:
    (tmp_path / "catalogue.toml").write_text(MINE)
    for catalogue in (Catalogue.of(tmp_path), Catalogue.of(tmp_path / "else", tmp_path / "catalogue.toml")):
        entry = catalogue.find("Debian", "debian-12", "12")
        assert entry is not None
        assert entry.name == "mine"
        assert catalogue.find("Debian", "debian-13", "13") is not None
    plain = Catalogue.of(tmp_path / "else").find("Debian", "debian-12", "12")
    assert plain is not None
    assert plain.name == "debian-12"


def test_an_unknown_urn_is_told_what_looks_like_it() -> None:
    error = Catalogue.load().unknown("Debian", "debian12", "12", also=("Debian:debian12:12b",))
    assert "Debian:debian-12:12" in error.message
    assert "Debian:debian12:12b" in error.message
    assert "aib image import FILE --urn Debian:debian12:12:<version>" in error.hint


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("schema = 1", "schema = 2", "schema 2"),
        ("schema = 1", "schema = ", "not TOML"),
        ('name = "mine"', "", "`name` is missing"),
        ('os = "windows"', 'os = "beos"', "beos"),
        ('os = "windows"', 'generation = "V3"', "V3"),
        ('os = "windows"', "ps = 1", "unknown keys ps"),
        ('"debian:DEBIAN-12:*"', '"debian:12"', "publisher:offer:sku"),
        ('type = "registered"', 'type = "magic"', "one of bootstrap, url, registered"),
        (', reason = "it is ours"', "", "reason"),
        ('reason = "it is ours"', "reason = 5", "texts"),
        ("[[image]]", "[image]", r"\[\[image\]\]"),
    ],
)
def test_a_wrong_catalogue_says_what_is_wrong(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    assert old in MINE
    path.write_text(MINE.replace(old, new))
    with pytest.raises(UsageError, match=words) as caught:
        Catalogue.load(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("index", "ftp://host/", "http"),
        ("release", "(", "do not fit"),
        ("file", "{nothing}", "do not fit"),
        ("sums", "{", "do not fit"),
    ],
)
def test_a_url_source_is_tried_when_it_is_read(tmp_path: Path, field: str, value: str, words: str) -> None:
    fields = {"index": "http://127.0.0.1/", "release": "(?P<d>.)", "version": "{d}", "file": "{d}", "sums": "S"}
    source = "\n".join(f"{key} = '{text}'" for key, text in {**fields, field: value}.items())
    path = tmp_path / "mine.toml"
    path.write_text(f"schema = 1\n[[image]]\nname = 'x'\nurns = ['a:b:c']\n[image.source]\ntype = 'url'\n{source}\n")
    with pytest.raises(UsageError, match=words):
        Catalogue.load(path)


def test_a_missing_catalogue_is_an_error_when_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Catalogue.of(tmp_path, tmp_path / "no.toml")
