"""The door to libvirt: the embedded driver by default, a session or system daemon by option."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from hypervisor import emulator, runtime
from hypervisor.errors import HostError
from hypervisor.libvirt_errors import NO_DOMAIN, NOT_RUNNING, HypervisorError, translated
from hypervisor.process import require
from hypervisor.reaper import Reaper, become_subreaper
from hypervisor.watchdog import Watchdog

EMBED = "embed"
_VNC_PORTS, _VNC_RANGE = range(5900, 30900), 100
_DAEMONS = ("qemu:///session", "qemu:///system")


@dataclass
class Hypervisor:
    """An open connection and the runtime folder behind it."""

    connect: str
    handle: Any  # libvirt.virConnect
    folder: runtime.RuntimeFolder
    emulator: Path
    reaper: Reaper | None = None
    cache: Path | None = None
    _uuids: list[str] = field(default_factory=list)

    @property
    def embedded(self) -> bool:
        """Whether QEMU is started by this very process."""
        return self.connect == EMBED

    @property
    def root(self) -> Path:
        """The runtime folder (in the embedded case also the driver root)."""
        return self.folder.path

    @property
    def dac_label(self) -> str:
        """The system daemon runs QEMU as us and leaves file owners alone: else it would hand our images to its user."""
        return f"+{os.getuid()}:+{os.getgid()}" if self.connect == "qemu:///system" else ""

    @contextlib.contextmanager
    def calling(self, doing: str) -> Iterator[None]:
        """Around every libvirt call that starts or ends a VM: errors become ours, QEMU is reaped by us."""
        with translated(doing), self.reaper.looking() if self.reaper else contextlib.nullcontext():
            yield

    def discard(self, path: Path) -> None:
        """Let `path` (file or folder) be removed when this connection closes or this process dies, however it dies."""
        self.folder.discard(path)

    def keep(self, path: Path) -> None:
        """Take `discard` back."""
        self.folder.keep(path)

    def expect(self, uuid: str) -> None:
        """Note the id of a VM that is about to start: it ends with this connection at the latest."""
        self._uuids.append(uuid)
        if not self.embedded:  # ours have the folder on their command line, and the uuid may be another run's as well
            self.folder.expect(uuid)

    def qemu_processes(self, uuid: str) -> list[int]:
        """The QEMU processes of this VM that we can see.

        Two runs may resume one saved VM, uuid included: what the embedded driver starts is told by its root.
        """
        found = runtime.qemu_processes([uuid.encode()])
        if not self.embedded:
            return found
        ours = runtime.qemu_processes([f"{self.root}/".encode()])
        return [pid for pid in found if pid in ours]

    def started(self) -> None:
        """A VM is up, so libvirt has probed QEMU: keep the answer at once, the next run may begin before we end."""
        if self.embedded and self.cache is not None:
            emulator.save_capabilities(self.cache, self.root)

    def _end_all(self) -> None:
        for uuid in self._uuids:
            try:
                with self.calling("ending a VM that was left"):
                    self.handle.lookupByUUIDString(uuid).destroy()
            except HypervisorError as error:
                if error.code not in (NO_DOMAIN, NOT_RUNNING):
                    continue  # the daemon is gone or mute; the folder's removal kills QEMU by its process id
        self._uuids.clear()


def check_uri(connect: str) -> None:
    """Raise HostError when `connect` is not a connection that can be opened here; cheap, so that it can come first."""
    if connect != EMBED and connect not in _DAEMONS:
        raise HostError(
            f"--connect {connect}: only {', '.join((EMBED, *_DAEMONS))} are supported",
            hint="a build uses local paths, ports and sockets; run aib on the machine that shall run the VM",
        )


@contextlib.contextmanager
def open_hypervisor(
    connect: str = EMBED, *, root: Path | None = None, cache: Path | None = None
) -> Iterator[Hypervisor]:
    """Connect to libvirt: `embed` (no daemon; its driver root is `root` or a fresh short folder), `qemu:///session` or
    `qemu:///system`.

    `cache` is shared between runs and must allow execution. At the end every VM of this connection is destroyed and
    the runtime folder removed; a watchdog does both when this process dies. A process has one driver root in its life
    (libvirt's limit): it may open the connection again and again, but not with another root.

    Raises HostError when libvirt is missing, refuses, or the URI is none of these.
    """
    check_uri(connect)
    cache = cache or platformdirs.user_cache_path("aib")
    opened = _open_embedded(root, cache) if connect == EMBED else _open_daemon(connect, root)
    with opened as hypervisor:
        try:
            yield hypervisor
        finally:
            hypervisor._end_all()


@contextlib.contextmanager
def _open_daemon(connect: str, root: Path | None) -> Iterator[Hypervisor]:
    folder = runtime.create(root)
    with contextlib.ExitStack() as stack:
        stack.callback(folder.remove)
        stack.enter_context(Watchdog(folder))
        stack.callback(folder.remove)  # the watchdog stays on guard until the folder is gone
        libvirt = _libvirt(folder.path)
        with translated(f"connecting to {connect}"):
            handle = libvirt.open(connect)
        try:
            yield Hypervisor(connect, handle, folder, require(emulator.QEMU))
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                handle.close()


@dataclass
class _Embedded:
    """libvirt's embedded driver, which lives as long as the process and is bound to one path."""

    path: Path
    reaper: Reaper | None
    skeleton: tuple[Path, ...] = ()
    users: int = 0
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    folder: runtime.RuntimeFolder | None = None


_embedded: _Embedded | None = None
_guard = threading.RLock()


@contextlib.contextmanager
def _open_embedded(root: Path | None, cache: Path) -> Iterator[Hypervisor]:
    qemu = require(emulator.QEMU)
    with _guard:
        driver = _enter_driver(root, cache)
        driver.users += 1
    try:
        assert driver.folder is not None
        libvirt = _libvirt(driver.path)
        with translated("opening libvirt's embedded driver"):
            handle = libvirt.open(f"qemu:///embed?root={driver.path}")
        try:
            if not driver.skeleton:
                driver.skeleton = tuple(Path(folder) for folder, _, _ in os.walk(driver.path))
            program = emulator.tied_emulator(cache) if driver.reaper else qemu
            yield Hypervisor(EMBED, handle, driver.folder, program, driver.reaper, cache)
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                handle.close()
    finally:
        with _guard:
            driver.users -= 1
            if driver.users == 0:
                driver.folder = None
                driver.stack.close()


def _enter_driver(root: Path | None, cache: Path) -> _Embedded:
    """The process's driver with its folder in place (made anew when the last connection closed)."""
    global _embedded  # noqa: PLW0603 - libvirt keeps exactly this state per process, and so must we
    if _embedded is not None and root is not None and root != _embedded.path:
        raise HostError(
            f"this process already uses the driver root {_embedded.path}, it cannot open {root} as well",
            hint="run each VM session in a worker process of its own",
        )
    if _embedded is not None and _embedded.folder is not None:
        return _embedded
    folder = runtime.create(_embedded.path if _embedded else root)
    stack = contextlib.ExitStack()
    stack.callback(folder.remove)
    try:
        stack.enter_context(Watchdog(folder))
        stack.callback(folder.remove)  # the watchdog stays on guard until the folder is gone
        if _embedded is None:
            _embedded = _Embedded(folder.path, Reaper() if become_subreaper() else None)
        for path in _embedded.skeleton:
            path.mkdir(mode=0o700, exist_ok=True)
        _configure(folder.path)
        emulator.seed_capabilities(cache, folder.path)
    except BaseException:
        stack.close()
        raise
    _embedded.folder, _embedded.stack = folder, stack
    return _embedded


def _configure(root: Path) -> None:
    """Our own QEMU settings: the host's /etc/libvirt has no say in an embedded driver."""
    lines = ['security_driver = "none"', 'stdio_handler = "file"']
    # Each driver looks for a free port by itself, and QEMU opens it a moment later: two drivers must not look alike.
    first = _VNC_PORTS.start + _VNC_RANGE * secrets.randbelow(len(_VNC_PORTS) // _VNC_RANGE)
    lines += [f"remote_display_port_min = {first}", f"remote_display_port_max = {first + _VNC_RANGE - 1}"]
    if os.getuid() == 0:
        # Otherwise libvirt gives the images to its own user, and finds /dev/kvm unusable for it at every look-up.
        # Owners that never change need not be remembered: libvirt would warn of its own notes when a second turns.
        lines += ['user = "root"', 'group = "root"', "dynamic_ownership = 0", "remember_owner = 0"]
        lines += ['swtpm_user = "root"', 'swtpm_group = "root"']  # its own user may not enter our folders
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc" / "qemu.conf").write_text("\n".join(lines) + "\n")


_libvirt_module: Any = None


def _libvirt(root: Path) -> Any:
    """The libvirt module: silent on stderr, with its event loop running (it must run before the first connection)."""
    global _libvirt_module  # noqa: PLW0603 - one event loop per process
    with _guard:
        if _libvirt_module is not None:
            return _libvirt_module
        given = os.environ.get("LIBVIRT_LOG_OUTPUTS")
        os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", f"3:file:{root}/libvirt.log")
        try:
            import libvirt
        except ImportError as error:
            raise HostError(
                f"libvirt's Python binding cannot be loaded: {error}",
                hint="sudo apt install libvirt-dev gcc python3-dev, then: pip install 'aib[build]'",
            ) from error
        finally:
            if given is None:
                del os.environ["LIBVIRT_LOG_OUTPUTS"]  # read at import; a session daemon must not inherit it
        libvirt.registerErrorHandler(lambda context, error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_events, args=(libvirt,), name="libvirt-events", daemon=True).start()
        _libvirt_module = libvirt
        return libvirt


def _run_events(libvirt: Any) -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            return  # the loop itself failed: nothing can be delivered any more; all waits also ask for the state
