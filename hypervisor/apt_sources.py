"""The Debian package sources this machine already uses, for another suite where needed: no mirror is named by us."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hypervisor.errors import HostError

_ETC = Path("/etc/apt")
_KEYRINGS = "debian-archive"  # what Debian's own sources are signed by, where they say it


@dataclass(frozen=True, slots=True)
class Source:
    """One archive: address, suite (`bookworm-security`), components, and the options of its one-line form."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()

    @property
    def line(self) -> str:
        """The source as a line of sources.list."""
        options = " ".join(f"{name}={value}" for name, value in self.options)
        return f"deb {f'[{options}] ' if options else ''}{self.uri} {self.suite} {' '.join(self.components)}"


def debian_sources(suite: str, etc: Path = _ETC, os_release: Path = Path("/etc/os-release")) -> tuple[Source, ...]:
    """This machine's Debian archives for `suite`: the release itself, its updates and its security updates.

    Both forms of source files are read; archives of others (another signing key, another suite name, no `main`) are
    left out. On another Debian release its own suite names are replaced. Raises `HostError` when there is none.
    """
    codename = _codename(os_release) or suite
    wanted = {codename, f"{codename}-updates", f"{codename}-security", f"{codename}/updates"}
    found: dict[tuple[str, str], Source] = {}
    for source in _all(etc):
        if source.suite.rstrip("/") not in wanted or "main" not in source.components or not _is_debians(source):
            continue
        renamed = replace(source, suite=source.suite.rstrip("/").replace(codename, suite, 1), components=("main",))
        found.setdefault((renamed.uri, renamed.suite), renamed)
    if not any(source.suite == suite for source in found.values()):
        raise HostError(
            f"{etc} names no Debian archive from which {suite} could come",
            hint="a Debian mirror in /etc/apt/sources.list is needed (or import a ready image: aib image import)",
        )
    return tuple(sorted(found.values(), key=lambda source: (len(source.suite), source.suite)))


def _is_debians(source: Source) -> bool:
    signed_by = dict(source.options).get("signed-by", "")
    return not signed_by or _KEYRINGS in signed_by


def _codename(os_release: Path) -> str:
    if not os_release.is_file():
        return ""
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)', os_release.read_text(), re.MULTILINE)
    return match.group(1) if match else ""


def _all(etc: Path) -> Iterator[Source]:
    parts = etc / "sources.list.d"
    for path in [etc / "sources.list", *sorted(parts.glob("*.list"))]:
        if path.is_file():
            yield from _one_line_form(path.read_text().splitlines())
    for path in sorted(parts.glob("*.sources")):
        yield from _deb822_form(path.read_text())


def _one_line_form(lines: Iterable[str]) -> Iterator[Source]:
    for line in lines:
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)", line)
        if match:
            options = [word.partition("=") for word in (match[1] or "").split()]
            kept = tuple((name.lower(), value) for name, _, value in options if name.lower() == "signed-by")
            yield Source(match[2], match[3], tuple(match[4].split()), kept)


def _deb822_form(text: str) -> Iterator[Source]:
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in " \t" and name:
                fields[name] += f"\n{line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        yield from _of_stanza(fields)


def _of_stanza(fields: dict[str, str]) -> Iterator[Source]:
    signed_by = fields.get("signed-by", "")
    # A key written out in the file cannot be a one-line option; mmdebstrap then takes Debian's installed keyring.
    options = (("signed-by", signed_by),) if signed_by and "\n" not in signed_by else ()
    for uri in fields.get("uris", "").split():
        for suite in fields.get("suites", "").split():
            yield Source(uri, suite, tuple(fields.get("components", "").split()), options)
