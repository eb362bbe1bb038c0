"""The source image of a template, resolved against the store and the catalogue; the bootstrap is a stand-in here."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hypervisor import bootstrap, disk
from hypervisor.deadline import Deadline
from hypervisor.errors import AibError, HostError, InputError, TemplateError
from orchestrator.plan.catalogue import Catalogue
from orchestrator.plan.model import ResolvedSource
from orchestrator.plan.sources import resolve_source
from orchestrator.record import arm_ids, galleries
from orchestrator.record.resources import Resource
from orchestrator.record.store import Store
from orchestrator.template.model import ManagedImage, PlatformImage, SharedImageVersion, Source
from orchestrator.verbs.image_import import ImportName, import_image

DEBIAN = PlatformImage("Debian", "debian-12", "12")
SCOPE = "/subscriptions/s1/resourceGroups/images"
MANAGED = f"{SCOPE}/providers/Microsoft.Compute/images/golden"
DEFINITION = f"{SCOPE}/providers/Microsoft.Compute/galleries/company/images/web"


@dataclass
class Mirror:
    """What the stand-in for the bootstrap makes, and whether it can."""

    version: str = "0.20260101.aaaaaaaa"
    broken: AibError | None = None
    made: list[str] = field(default_factory=list)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, small_disk: Path) -> Mirror:
    mirror = Mirror()

    def version(recipe: bootstrap.BootstrapRecipe) -> str:
        assert recipe.suite == "bookworm"
        if mirror.broken:
            raise mirror.broken
        return mirror.version

    def make(recipe, target: Path, work: Path, deadline: Deadline, say) -> None:
        assert not list(work.iterdir())
        mirror.made.append(mirror.version)
        grown = work / "grown.raw"
        grown.write_bytes(small_disk.read_bytes())
        with grown.open("r+b") as file:  # every version has its own content
            file.seek(12 << 20)
            file.write(mirror.version.encode())
        disk.convert(grown, "raw", target, "qcow2", deadline)

    monkeypatch.setattr(bootstrap, "version", version)
    monkeypatch.setattr(bootstrap, "bootstrap", make)
    return mirror


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@dataclass
class Resolver:
    store: Store
    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def __call__(
        self, source: Source, *, location: str = "West US 2", offline: bool = False, prepare: bool = True
    ) -> ResolvedSource:
        return resolve_source(
            source,
            store=self.store,
            catalogue=Catalogue.load(),
            location=location,
            offline=offline,
            deadline=Deadline.after(60),
            say=self.said.append,
            warn=self.warned.append,
            prepare=prepare,
        )


@pytest.fixture
def resolve(store: Store) -> Resolver:
    return Resolver(store)


def imported(store: Store, path: Path, **name) -> Resource:
    return import_image(store, path, ImportName(**name), deadline=Deadline.after(60))


# Platform images


def test_the_first_build_makes_the_image_and_says_so(mirror: Mirror, resolve: Resolver, store: Store) -> None:
    found = resolve(DEBIAN)
    assert found.kind == "PlatformImage"
    assert found.requested == "Debian:debian-12:12:latest"
    assert found.version == mirror.version
    assert found.resource_id == f"/aib/platformImages/Debian/debian-12/12/versions/{mirror.version}"
    assert found.path == store.home / "layers" / f"{found.digest}.qcow2"
    assert (found.format, found.virtual_size, found.os, found.generation) == ("qcow2", 16 << 20, "linux", "V1")
    assert "from distribution packages" in resolve.said[0]
    assert resolve(DEBIAN) == found
    assert mirror.made == [mirror.version]
    assert not list((store.home / "incoming").iterdir())


def test_the_gen2_sku_is_the_same_disk_booted_by_uefi(mirror: Mirror, resolve: Resolver) -> None:
    first, second = resolve(DEBIAN), resolve(PlatformImage("debian", "Debian-12", "12-gen2"))
    assert (first.generation, second.generation) == ("V1", "V2")
    assert first.digest == second.digest
    assert len(mirror.made) == 1


def test_a_newer_package_source_makes_a_newer_image(mirror: Mirror, resolve: Resolver) -> None:
    first = resolve(DEBIAN)
    mirror.version = "0.20260102.00000000"
    second = resolve(DEBIAN)
    assert second.version == "0.20260102.00000000"
    assert second.digest != first.digest
    assert resolve(PlatformImage("Debian", "debian-12", "12", first.version)).digest == first.digest


def test_without_prepare_nothing_is_made(mirror: Mirror, resolve: Resolver) -> None:
    found = resolve(DEBIAN, prepare=False)
    assert (found.version, found.digest, found.virtual_size) == (mirror.version, "", 0)
    assert mirror.made == []
    made = resolve(DEBIAN)
    assert resolve(DEBIAN, prepare=False) == made


def test_offline_the_newest_stored_one_serves_with_a_warning(mirror: Mirror, resolve: Resolver) -> None:
    with pytest.raises(InputError, match="not stored here") as caught:
        resolve(DEBIAN, offline=True)
    assert "--offline" in caught.value.hint
    resolve(DEBIAN)
    mirror.version = "0.20260102.00000000"
    newer = resolve(DEBIAN)
    mirror.version = "0.20260103.00000000"
    assert resolve(DEBIAN, offline=True) == newer
    assert len(resolve.warned) == 1
    assert newer.version in resolve.warned[0]


def test_two_of_one_day_are_ordered_by_when_they_came(
    mirror: Mirror, resolve: Resolver, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(DEBIAN)
    mirror.version = "0.20260101.00000001"
    resolve(DEBIAN)
    for name, added in (("0.20260101.aaaaaaaa", "2026-01-01T08:00:00"), ("0.20260101.00000001", "2026-01-01T20:00:00")):
        resource = store.get(f"/aib/platformImages/Debian/debian-12/12/versions/{name}")
        assert resource is not None
        resource.properties["aib"]["source"]["added"] = added
        store.put(resource)
    assert resolve(DEBIAN, offline=True).version == "0.20260101.00000001"


def test_an_unreachable_source_is_a_warning_when_something_is_stored(mirror: Mirror, resolve: Resolver) -> None:
    mirror.broken = HostError("there are no package lists", hint="run: apt-get update")
    with pytest.raises(HostError, match="no package lists"):
        resolve(DEBIAN)
    mirror.broken = None
    made = resolve(DEBIAN)
    mirror.broken = HostError("there are no package lists")
    assert resolve(DEBIAN) == made
    assert "there are no package lists" in resolve.warned[0]
    assert made.version in resolve.warned[0]


def test_a_pin_that_is_neither_stored_nor_made_is_an_error(mirror: Mirror, resolve: Resolver) -> None:
    with pytest.raises(InputError, match=r"0\.20200101\.deadbeef is not stored") as caught:
        resolve(PlatformImage("Debian", "debian-12", "12", "0.20200101.deadbeef"))
    assert mirror.version in caught.value.hint
    assert resolve(PlatformImage("Debian", "debian-12", "12", mirror.version)).version == mirror.version


def test_an_imported_version_can_be_the_newest(
    mirror: Mirror, resolve: Resolver, store: Store, small_disk: Path
) -> None:
    imported(store, small_disk, urn="Debian:debian-12:12:1.0.0")
    assert resolve(DEBIAN).version == "1.0.0"
    assert mirror.made == []


def test_versions_are_compared_as_numbers(resolve: Resolver, store: Store, small_disk: Path) -> None:
    for version in ("1.10.0", "1.9.0", "1.2.0"):
        imported(store, small_disk, urn=f"contoso:golden:web:{version}")
    assert resolve(PlatformImage("Contoso", "Golden", "WEB")).version == "1.10.0"
    assert resolve(PlatformImage("contoso", "golden", "web", "1.2.0")).version == "1.2.0"
    assert resolve.warned == []


def test_an_unknown_urn_is_told_near_names(resolve: Resolver, store: Store, small_disk: Path) -> None:
    imported(store, small_disk, urn="contoso:golden:web:1.0.0")
    with pytest.raises(InputError, match=r"no source image is known .*contoso:golden:web") as caught:
        resolve(PlatformImage("contoso", "golden", "webb"))
    assert caught.value.exit_code == 4


def test_what_only_the_user_can_bring_in_says_how(resolve: Resolver) -> None:
    with pytest.raises(InputError, match="subscription") as caught:
        resolve(PlatformImage("RedHat", "RHEL", "9_2"))
    assert caught.value.hint.endswith("aib image import FILE --urn RedHat:RHEL:9_2:<version>")


def test_a_failed_bootstrap_leaves_nothing(
    mirror: Mirror, resolve: Resolver, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(recipe, target: Path, work: Path, deadline: Deadline, say) -> None:
        target.write_bytes(b"half")
        raise HostError("no space left")

    monkeypatch.setattr(bootstrap, "bootstrap", fail)
    with pytest.raises(HostError, match="no space left"):
        resolve(DEBIAN)
    assert not list((store.home / "incoming").iterdir())
    assert not [path for path in (store.home / "layers").iterdir() if path.suffix == ".qcow2"]


def test_two_builds_at_once_make_the_image_once(mirror: Mirror, store: Store) -> None:
    found: list[ResolvedSource] = []

    def build() -> None:
        found.append(Resolver(Store(store.home))(DEBIAN))

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 3
    assert len(mirror.made) == 1


# Managed images


def test_a_managed_image_is_found_in_its_region(resolve: Resolver, store: Store, small_disk: Path) -> None:
    imported(store, small_disk, managed_image_id=MANAGED, locations=["West US 2"])
    for spelling in (MANAGED, MANAGED.upper().replace("/SUBSCRIPTIONS", "/subscriptions"), MANAGED.lower()):
        found = resolve(ManagedImage(spelling), location="westus2")
        assert (found.kind, found.requested, found.resource_id) == ("ManagedImage", spelling, MANAGED)
        assert found.format == "qcow2"


def test_a_managed_image_of_another_region_is_the_templates_fault(
    resolve: Resolver, store: Store, small_disk: Path
) -> None:
    imported(store, small_disk, managed_image_id=MANAGED, locations=["westus2"])
    with pytest.raises(TemplateError, match="must be in the template's region") as caught:
        resolve(ManagedImage(MANAGED), location="East US")
    assert caught.value.exit_code == 2
    assert '"westus2"' in caught.value.hint


def test_an_unknown_managed_image_names_the_command_and_near_names(
    resolve: Resolver, store: Store, small_disk: Path
) -> None:
    imported(store, small_disk, managed_image_id=MANAGED, locations=["westus2"])
    with pytest.raises(InputError, match=f"similar ones are {MANAGED}") as caught:
        resolve(ManagedImage(MANAGED + "2"))
    assert f"--managed-image-id {MANAGED}2" in caught.value.hint


@pytest.mark.parametrize(
    "source", [ManagedImage("golden"), ManagedImage(DEFINITION), SharedImageVersion(f"{DEFINITION}/versions/newest")]
)
def test_a_malformed_id_is_the_templates_fault(resolve: Resolver, source: Source) -> None:
    with pytest.raises(TemplateError, match=r"source\.image"):
        resolve(source)


# Gallery versions


@pytest.fixture
def gallery(store: Store) -> None:
    definition = arm_ids.parse(DEFINITION)
    store.put(galleries.gallery(definition.parent, "westus2"))
    store.put(
        galleries.image_definition(
            definition, "westus2", os="linux", generation="V2", publisher="contoso", offer="web", sku="1"
        )
    )


def _version(store: Store, path: Path, version: str, *regions: str) -> Resource:
    return imported(store, path, gallery_version_id=f"{DEFINITION}/versions/{version}", locations=list(regions))


@pytest.mark.usefixtures("gallery")
def test_a_gallery_version_is_found_where_it_is_replicated(resolve: Resolver, store: Store, small_disk: Path) -> None:
    _version(store, small_disk, "1.0.0", "West US 2", "eastus")
    _version(store, small_disk, "1.1.0")
    found = resolve(SharedImageVersion(f"{DEFINITION}/versions/1.0.0"), location="East US")
    assert (found.kind, found.version, found.generation) == ("SharedImageVersion", "1.0.0", "V2")
    with pytest.raises(TemplateError, match="replicated to westus2") as caught:
        resolve(SharedImageVersion(f"{DEFINITION}/versions/1.1.0"), location="East US")
    assert caught.value.exit_code == 2
    assert "replication region" in caught.value.hint


@pytest.mark.usefixtures("gallery")
def test_latest_is_the_newest_that_is_published_and_not_excluded(
    resolve: Resolver, store: Store, small_disk: Path
) -> None:
    for version in ("1.9.0", "1.10.0", "1.11.0"):
        _version(store, small_disk, version)
    excluded = store.get(f"{DEFINITION}/versions/1.11.0")
    assert excluded is not None
    excluded.properties["publishingProfile"]["excludeFromLatest"] = True
    store.put(excluded)
    reserved = arm_ids.parse_image_version(f"{DEFINITION}/versions/2.0.0")
    store.put(Resource(str(reserved), arm_ids.IMAGE_VERSION, "2.0.0", "westus2", {}, {"provisioningState": "Creating"}))
    found = resolve(SharedImageVersion(f"{DEFINITION}/versions/latest"))
    assert found.version == "1.10.0"
    assert found.resource_id.endswith("/versions/1.10.0")
    assert resolve(SharedImageVersion(f"{DEFINITION}/versions/1.11.0")).version == "1.11.0"


@pytest.mark.usefixtures("gallery")
def test_an_empty_definition_says_how_to_get_a_version(resolve: Resolver) -> None:
    for version in ("latest", "1.0.0"):
        with pytest.raises(InputError, match="there is no gallery image version") as caught:
            resolve(SharedImageVersion(f"{DEFINITION}/versions/{version}"))
        assert "--gallery-version-id" in caught.value.hint


def test_an_image_whose_disk_is_gone_says_so(resolve: Resolver, store: Store, small_disk: Path) -> None:
    resource = imported(store, small_disk, managed_image_id=MANAGED, locations=["westus2"])
    layer = store.layer(resource.digest)
    assert layer is not None
    layer.path.unlink()
    with pytest.raises(InputError, match="not in the store any more"):
        resolve(ManagedImage(MANAGED))
