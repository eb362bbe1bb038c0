"""Scripts that misbehave: clear errors, complete records, nothing hangs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.conftest import TemplateWriter
from tests.vm.support import Home, shell

pytestmark = pytest.mark.vm


def test_prompts_see_end_of_file(home: Home, write_template: TemplateWriter) -> None:
    home.ok("build", write_template("prompts", shell("if read answer; then exit 9; else echo no answer; fi")))
    assert (home.runs()[-1] / "steps" / "00.out").read_bytes() == b"no answer\n"


def test_odd_text_reaches_the_guest_byte_for_byte(home: Home, write_template: TemplateWriter) -> None:
    text = "quote ' double \" dollar $ back \\ tab\t snow \N{SNOWMAN} \N{PILE OF POO}"
    big = "x" * 200_000
    template = write_template(
        "odd-text", shell("cat <<'END'", text, "END"), shell("cat <<'END' | wc -c", big, "END", name="200 kB")
    )
    home.ok("build", template)
    run = home.runs()[-1]
    assert (run / "steps" / "00.out").read_bytes() == text.encode() + b"\n"
    assert (run / "steps" / "01.out").read_bytes().strip() == b"200001"


def test_floods_binary_bytes_and_endless_lines(home: Home, write_template: TemplateWriter) -> None:
    template = write_template(
        "flood",
        shell("head -c 200000000 /dev/zero | tr '\\0' 'y'", name="one endless line"),
        shell("head -c 65536 /dev/urandom", name="binary"),
    )
    home.ok("build", template, "--quiet")
    run = home.runs()[-1]
    assert (run / "steps" / "00.out").stat().st_size == 200_000_000
    assert (run / "steps" / "01.out").stat().st_size == 65536


def test_a_script_that_ends_sshd(home: Home, write_template: TemplateWriter) -> None:
    template = write_template("no-sshd", shell("sudo killall -9 sshd; sleep 5", name="cut the branch"))
    done = home.aib("build", template, timeout=400)
    assert done.returncode == 1
    assert "cut the branch" in done.stderr
    assert "Traceback" not in done.stderr
    assert home.record()["lastRunStatus"]["runState"] == "Failed"


def test_a_script_that_fills_the_disk(home: Home, write_template: TemplateWriter) -> None:
    template = write_template(
        "full",
        shell("sudo sh -c 'cat /dev/zero > /fill; cat /dev/zero > /rest; true'", name="fill"),
        shell("head -c 1000000 /dev/zero > $HOME/x", name="the next step"),
    )
    done = home.aib("build", template)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "the next step" in done.stderr


def test_a_killed_script_is_not_taken_for_a_reboot(home: Home, write_template: TemplateWriter) -> None:
    done = home.aib("build", write_template("suicide", shell("kill -9 $$", name="suicide")))
    assert done.returncode == 1
    assert home.record()["steps"][0]["rebooted"] is False


def test_an_image_that_does_not_boot_quotes_its_console(
    home: Home, write_template: TemplateWriter, tmp_path: Path
) -> None:
    # A disk with a partition table and a boot sector that only halts.
    raw = tmp_path / "halt.raw"
    sector = bytearray(512)
    sector[:2] = b"\xfa\xf4"  # cli; hlt
    sector[446:462] = bytes.fromhex("80010100830100020100000001000000")
    sector[510:] = b"\x55\xaa"
    raw.write_bytes(bytes(sector) + bytes(8 << 20))
    home.ok("image", "import", raw, "--urn", "aib-tests:halts:now:1.0.0", "--os", "linux")
    source = {"type": "PlatformImage", "publisher": "aib-tests", "offer": "halts", "sku": "now", "version": "1.0.0"}
    done = home.aib("build", write_template("halted", source=source, buildTimeoutInMinutes=1))
    assert done.returncode == 124
    assert "console" in done.stderr
