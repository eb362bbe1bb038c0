"""The identity of a build VM and the documents that give it to the guest."""

from __future__ import annotations

import json
import stat
import xml.dom.minidom

import paramiko
import pytest

from provisioners.communicators.ssh_connect import load_key
from provisioners.identity import BuildIdentity
from provisioners.provisioning import OVF_ENV_PATH, nocloud_documents, ovf_env

WA = "http://schemas.microsoft.com/windowsazure"


@pytest.fixture(scope="module")
def identity():
    return BuildIdentity.create()


@pytest.fixture(scope="module")
def user_data(identity):
    document = nocloud_documents(identity)["user-data"]
    head, _, body = document.partition(b"\n")
    assert head == b"#cloud-config"
    return json.loads(body)


def test_keys_fit_their_public_parts(identity):
    for private, public in (
        (identity.login_private, identity.login_public),
        (identity.host_private, identity.host_public),
    ):
        key = load_key(private)
        assert isinstance(key, paramiko.Ed25519Key)
        assert f"{key.get_name()} {key.get_base64()}" == public


def test_no_two_are_alike(identity):
    other = BuildIdentity.create()
    for name in ("hostname", "instance_id", "mac", "login_private", "host_private", "password"):
        assert getattr(identity, name) != getattr(other, name)


def test_private_parts_do_not_show(identity):
    shown = repr(identity) + str(identity)
    for secret in (identity.password, "PRIVATE KEY", *(s.decode() for s in identity.secrets())):
        assert secret not in shown


def test_names_and_addresses_are_valid(identity):
    assert identity.mac.startswith("52:54:00:")
    assert len(identity.mac) == 17
    assert identity.hostname.isalnum()
    assert len(identity.hostname) <= 15
    assert len(identity.password) == 32


def test_the_secrets_are_found_in_what_holds_them_and_nowhere_else(identity):
    login, password = identity.secrets()
    [host] = identity.guest_secrets()
    assert login in identity.login_private.encode()
    assert host in identity.host_private.encode()
    other = BuildIdentity.create()
    everything = other.login_private + other.host_private + other.password
    for secret in (login, password, host):
        assert len(secret) >= 32
        assert secret not in everything.encode()
        assert secret not in (identity.login_public + identity.host_public).encode()


def test_the_guest_never_gets_what_no_image_may_hold(identity):
    given = b"".join(nocloud_documents(identity).values())
    assert not any(secret in given for secret in identity.secrets())
    assert identity.guest_secrets()[0] in given


def test_saving_is_private_and_loading_gives_the_same(identity, tmp_path):
    path = tmp_path / "identity.json"
    identity.save(path)
    identity.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert BuildIdentity.load(path) == identity
    assert [entry.name for entry in tmp_path.iterdir()] == ["identity.json"]


def test_meta_data_names_the_instance(identity):
    assert json.loads(nocloud_documents(identity)["meta-data"]) == {
        "instance-id": identity.instance_id,
        "local-hostname": identity.hostname,
    }
    named = nocloud_documents(identity, hostname="other", instance_id="i-1")
    assert json.loads(named["meta-data"]) == {"instance-id": "i-1", "local-hostname": "other"}


def test_the_account_is_the_only_one_and_the_only_one_with_the_key(identity, user_data):
    [user] = user_data["users"]
    assert user["name"] == "packer"
    assert user["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
    assert user["ssh_authorized_keys"] == [identity.login_public]
    # Top-level keys would also go into root's authorized_keys, which deprovisioning leaves behind.
    assert "ssh_authorized_keys" not in user_data
    assert json.dumps(user_data).count(identity.login_public) == 1


def test_the_host_key_is_given(identity, user_data):
    assert user_data["ssh_keys"] == {
        "ed25519_private": identity.host_private,
        "ed25519_public": identity.host_public,
    }
    assert user_data["ssh_genkeytypes"] == ["ed25519"]
    assert user_data["ssh_deletekeys"] is True


def test_one_key_a_line(identity):
    """The tiny test guest reads these documents with sed and awk."""
    for line in nocloud_documents(identity)["user-data"].decode().splitlines()[1:]:
        assert line.count('": ') <= 1 or "xml version" in line


def test_ovf_env_is_what_the_agent_looks_for(identity, user_data):
    [written] = user_data["write_files"]
    assert (written["path"], written["permissions"]) == (OVF_ENV_PATH, "0600")
    document = xml.dom.minidom.parseString(written["content"])
    environment = document.documentElement
    assert environment.namespaceURI == "http://schemas.dmtf.org/ovf/environment/1"
    section = environment.getElementsByTagNameNS(WA, "ProvisioningSection")[0]
    settings = section.getElementsByTagNameNS(WA, "LinuxProvisioningConfigurationSet")[0]
    assert environment.getElementsByTagNameNS(WA, "Version")[0].firstChild.data == "1.0"
    assert settings.getElementsByTagNameNS(WA, "UserName")[0].firstChild.data == "packer"
    assert settings.getElementsByTagNameNS(WA, "HostName")[0].firstChild.data == identity.hostname


def test_ovf_env_escapes():
    assert "&lt;x&gt;" in ovf_env("<x>", "host")


def test_more_keys_can_be_added(identity):
    text = nocloud_documents(identity, extra={"bootcmd": ["true"]})["user-data"].partition(b"\n")[2]
    assert json.loads(text)["bootcmd"] == ["true"]
