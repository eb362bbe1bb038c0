"""`aib image import`, `list` and `remove`, as functions and on the command line."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from hypervisor import disk
from hypervisor.deadline import Deadline
from hypervisor.disk import DiskFormat
from hypervisor.errors import InputError, UsageError
from orchestrator.cli.image import command
from orchestrator.record import arm_ids, galleries
from orchestrator.record.resources import ResourceExists
from orchestrator.record.store import Store
from orchestrator.verbs import image
from orchestrator.verbs.image_import import ImportName, import_image

SCOPE = "/subscriptions/s1/resourceGroups/images"
MANAGED = f"{SCOPE}/providers/Microsoft.Compute/images/golden"
DEFINITION = f"{SCOPE}/providers/Microsoft.Compute/galleries/company/images/web"
URN = ImportName(urn="contoso:golden:web:1.0.0")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("AIB_HOME", str(tmp_path / "home"))
    return Store(tmp_path / "home")


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(60)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("raw", ""),
        ("qcow2", ""),
        ("qcow2", "compat=0.10"),
        ("vpc", "subformat=fixed,force_size=on"),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vhdx", ""),
        ("vmdk", "subformat=streamOptimized"),
    ],
)
def test_every_format_is_imported_with_its_content(
    store: Store, tmp_path: Path, small_disk: Path, format: DiskFormat, options: str, deadline
) -> None:
    path = tmp_path / "image.bin"
    disk.convert(small_disk, "raw", path, format, deadline, options=options)
    before = path.read_bytes()
    resource = import_image(store, path, URN, deadline=deadline)
    aib = resource.properties["aib"]
    assert aib["source"]["format"] == format
    assert (aib["format"], aib["virtualSize"], aib["os"]) == ("qcow2", 16 << 20, "linux")
    assert aib["generations"] == ["V1", "V2"]
    layer = store.layer(resource.digest)
    assert layer is not None
    disk.compare(small_disk, "raw", layer.path, "qcow2", deadline)
    assert stat.S_IMODE(layer.path.stat().st_mode) == 0o444
    assert path.read_bytes() == before
    assert layer.path.stat().st_ino != path.stat().st_ino
    assert not (store.home / "incoming").exists() or not list((store.home / "incoming").iterdir())


def test_a_fixed_vhd_that_looks_raw_does_not_get_its_footer_into_the_disk(
    store: Store, tmp_path: Path, small_disk: Path, deadline: Deadline
) -> None:
    path = tmp_path / "looks-raw.img"
    disk.write_fixed_vhd(small_disk, "raw", path, deadline)
    facts = subprocess.run(["qemu-img", "info", "--output=json", path], check=True, capture_output=True).stdout
    assert json.loads(facts)["format"] == "raw"  # what probing would have taken it for
    with path.open("r+b") as file:  # Hyper-V's footer with a geometry that says less, as real ones do
        file.seek(-512, os.SEEK_END)
        footer = bytearray(file.read(512))
        footer[28:32], footer[56:60], footer[64:68] = b"wxyz", b"\0\x10\x04\x11", bytes(4)
        footer[64:68] = (~sum(footer) & 0xFFFFFFFF).to_bytes(4, "big")
        file.seek(-512, os.SEEK_END)
        file.write(footer)
    assert disk.info(path, "vpc").virtual_size != small_disk.stat().st_size
    resource = import_image(store, path, URN, deadline=deadline)
    assert resource.properties["aib"]["virtualSize"] == small_disk.stat().st_size
    layer = store.layer(resource.digest)
    assert layer is not None
    disk.compare(small_disk, "raw", layer.path, "qcow2", deadline)
    assert resource.properties["aib"]["source"]["format"] == "vpc"


def test_what_cannot_be_imported_leaves_nothing(
    store: Store, tmp_path: Path, small_disk: Path, deadline: Deadline
) -> None:
    overlay, corrupt, text = tmp_path / "overlay.qcow2", tmp_path / "corrupt.qcow2", tmp_path / "text.qcow2"
    disk.create_overlay(small_disk, "raw", overlay)
    disk.convert(small_disk, "raw", corrupt, "qcow2", deadline)
    os.truncate(corrupt, corrupt.stat().st_size // 2)
    text.write_text("not a disk\n" * 1000)
    for path, words in ((overlay, "stand alone"), (corrupt, "damaged"), (text, "not a disk"), (tmp_path, "directory")):
        with pytest.raises(InputError, match=words) as caught:
            import_image(store, path, URN, deadline=deadline)
        assert caught.value.exit_code == 4
        assert caught.value.hint
    assert image.stored_images(store) == ()
    assert [path.name for path in (store.home / "layers").iterdir() if not path.name.startswith(".")] == []


def test_a_disk_that_shows_nothing_needs_the_users_word(store: Store, tmp_path: Path, deadline: Deadline) -> None:
    path = tmp_path / "blank.qcow2"
    disk.create_empty(path, "qcow2", 4 << 20)
    with pytest.raises(InputError, match="does not boot") as caught:
        import_image(store, path, URN, deadline=deadline)
    assert "--generation" in caught.value.hint
    with pytest.raises(InputError, match="what system"):
        import_image(store, path, URN, deadline=deadline, generation="V2")
    resource = import_image(store, path, URN, deadline=deadline, generation="V2", system="windows")
    assert resource.properties["aib"]["os"] == "windows"
    assert resource.properties["aib"]["generation"] == "V2"


def test_the_users_word_cannot_contradict_the_disk(
    store: Store, tmp_path: Path, small_disk: Path, deadline: Deadline
) -> None:
    with pytest.raises(InputError, match="holds a linux system, not windows"):
        import_image(store, small_disk, URN, deadline=deadline, system="windows")
    bios_only = tmp_path / "bios.raw"
    shutil.copy(small_disk, bios_only)
    bios_only.chmod(0o600)
    sgdisk = shutil.which("sgdisk", path=os.environ["PATH"] + ":/usr/sbin:/sbin") or "sgdisk"
    subprocess.run([sgdisk, "-t15:8300", bios_only], check=True, capture_output=True)
    with bios_only.open("r+b") as file:
        file.write(b"\xeb\x63\x90boot code")
    with pytest.raises(InputError, match="cannot boot as V2"):
        import_image(store, bios_only, URN, deadline=deadline, generation="V2")
    assert import_image(store, bios_only, URN, deadline=deadline).properties["aib"]["generations"] == ["V1"]


def test_windows_is_known_by_its_partitions(store: Store, tmp_path: Path, deadline: Deadline) -> None:
    path = tmp_path / "windows.raw"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    sgdisk = shutil.which("sgdisk", path=os.environ["PATH"] + ":/usr/sbin:/sbin") or "sgdisk"
    parts = ["-n1:0:+4M", "-t1:ef00", "-n2:0:+4M", "-t2:0c01", "-n3:0:0", "-t3:0700"]
    subprocess.run([sgdisk, *parts, path], check=True, capture_output=True)
    facts = import_image(store, path, URN, deadline=deadline).properties["aib"]
    assert (facts["os"], facts["generations"]) == ("windows", ["V2"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (ImportName(), "exactly one name"),
        (ImportName(urn="a:b:c:1.0", managed_image_id=MANAGED), "exactly one name"),
        (ImportName(urn="a:b"), "not a URN"),
        (ImportName(urn="a:b:c:latest"), "no exact version"),
        (ImportName(urn="a:b:c"), "no exact version"),
        (ImportName(urn="a/../b:b:c:1.0"), "not a URN"),
        (ImportName(urn="a:b:c:1.0", locations=["westus"]), "every region"),
        (ImportName(managed_image_id=MANAGED), "one region"),
        (ImportName(managed_image_id="golden", locations=["westus"]), "should look like"),
        (ImportName(managed_image_id=MANAGED, locations=["../x"]), "name of a region"),
        (ImportName(gallery_version_id=f"{DEFINITION}/versions/latest"), "exact version"),
        (ImportName(gallery_version_id=DEFINITION), "should look like"),
    ],
)
def test_a_wrong_name_is_refused_before_the_disk_is_read(
    store: Store, tmp_path: Path, name: ImportName, words: str, deadline: Deadline
) -> None:
    with pytest.raises(UsageError, match=words):
        import_image(store, tmp_path / "there is no such file", name, deadline=deadline)


def test_a_taken_name_is_refused(store: Store, small_disk: Path, deadline: Deadline) -> None:
    import_image(store, small_disk, URN, deadline=deadline)
    with pytest.raises(ResourceExists):
        import_image(store, small_disk, ImportName(urn="CONTOSO:golden:WEB:1.0.0"), deadline=deadline)


def test_a_gallery_version_needs_its_definition_and_fits_it(store: Store, small_disk: Path, deadline: Deadline) -> None:
    name = ImportName(gallery_version_id=f"{DEFINITION}/versions/1.0.0", locations=["East US"])
    definition = arm_ids.parse(DEFINITION)
    with pytest.raises(InputError, match="no gallery") as caught:
        import_image(store, small_disk, name, deadline=deadline)
    assert "aib gallery create company --location eastus" in caught.value.hint
    store.put(galleries.gallery(definition.parent, "eastus"))
    with pytest.raises(InputError, match="no image definition") as caught:
        import_image(store, small_disk, name, deadline=deadline)
    assert "aib gallery define company web" in caught.value.hint
    kind = {"generation": "V1", "publisher": "p", "offer": "o", "sku": "s"}
    store.put(galleries.image_definition(definition, "eastus", os="windows", **kind))
    with pytest.raises(InputError, match="takes windows"):
        import_image(store, small_disk, name, deadline=deadline)
    store.put(galleries.image_definition(definition, "eastus", os="linux", **kind))
    with pytest.raises(UsageError, match="must be there, too"):
        other = ImportName(gallery_version_id=name.gallery_version_id, locations=["westus"])
        import_image(store, small_disk, other, deadline=deadline)
    resource = import_image(store, small_disk, name, deadline=deadline)
    assert resource.location == "eastus"
    assert resource.properties["publishingProfile"]["targetRegions"] == [{"name": "eastus", "regionalReplicaCount": 1}]


def test_a_disk_goes_with_its_last_name(store: Store, small_disk: Path, deadline: Deadline) -> None:
    first = import_image(store, small_disk, URN, deadline=deadline)
    managed = ImportName(managed_image_id=MANAGED, locations=["westus"])
    import_image(store, small_disk, managed, deadline=deadline)
    assert image.remove_image(store, "contoso:golden:WEB:1.0.0") == 0
    layer = store.layer(first.digest)
    assert layer is not None
    assert image.remove_image(store, MANAGED.upper().replace("/SUBSCRIPTIONS", "/subscriptions")) == layer.size
    assert store.layer(first.digest) is None
    assert not layer.path.exists()
    with pytest.raises(InputError, match="no image"):
        image.remove_image(store, MANAGED)
    with pytest.raises(InputError, match="stored versions: none"):
        image.remove_image(store, "contoso:golden:web:1.0.0")


def test_an_image_that_a_run_reads_is_not_removed(store: Store, small_disk: Path, deadline: Deadline) -> None:
    resource = import_image(store, small_disk, URN, deadline=deadline)
    run = store.new_run("hello")
    run.plan.write_text(json.dumps({"source": {"digest": resource.digest}}))
    with Store(store.home).reading(resource.digest), pytest.raises(UsageError, match=run.id):
        image.remove_image(store, URN.urn)
    assert [found.name for found in image.stored_images(store)] == [URN.urn]
    assert image.remove_image(store, URN.urn) > 0


# The command line


def _run(*arguments: str) -> tuple[str, str]:
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_import_list_and_remove_on_the_command_line(store: Store, small_disk: Path) -> None:
    out, err = _run("import", str(small_disk), "--urn", URN.urn)
    assert out.strip() == URN.urn
    assert "linux V1" in err
    _run("import", str(small_disk), "--managed-image-id", MANAGED, "--location", "West US", "--generation", "V2")
    out, err = _run("list")
    assert URN.urn in out
    assert f"{MANAGED}\n    linux V2 in westus" in out
    assert "Debian:debian-12:12" in err
    listing = json.loads(_run("list", "--json")[0])
    assert [stored["name"] for stored in listing["stored"]] == [URN.urn, MANAGED]
    assert {"debian-12", "windows"} <= {entry["name"] for entry in listing["catalogue"]}
    _, err = _run("remove", URN.urn)
    assert "used by other images" in err
    _, err = _run("remove", MANAGED)
    assert "MB freed" in err
    assert json.loads(_run("list", "--json")[0])["stored"] == []


def test_the_verbs_for_the_other_kind_of_source_point_to_each_other(store: Store) -> None:
    for verb, urn, words in (
        ("pull", "Debian:debian-12:12", "aib image bootstrap Debian:debian-12:12"),
        ("bootstrap", "Debian:debian-13:13", "aib image pull Debian:debian-13:13"),
    ):
        with pytest.raises(UsageError) as caught:
            _run(verb, urn)
        assert words in caught.value.hint
    with pytest.raises(InputError, match="subscription"):
        _run("pull", "RedHat:RHEL:9:latest")
    with pytest.raises(InputError, match="no source image is known"):
        _run("pull", "Debian:debian:12")
