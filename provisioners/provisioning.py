"""What a guest is told at its first boot: NoCloud documents for cloud-init, and ovf-env.xml for the Azure agent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from provisioners.identity import BuildIdentity

OVF_ENV_PATH = "/var/lib/waagent/ovf-env.xml"


def nocloud_documents(
    identity: BuildIdentity, *, hostname: str = "", instance_id: str = "", extra: Mapping[str, Any] | None = None
) -> dict[str, bytes]:
    """The files of a NoCloud seed (volume `cidata`): `meta-data` and `user-data`.

    No `network-config`: cloud-init's own choice (DHCP on the one NIC) is what an Azure VM does too. `hostname` and
    `instance_id` default to the identity's; `extra` adds top-level cloud-config keys. The documents are JSON, which is
    YAML, one key per line.
    """
    meta = {
        "instance-id": instance_id or identity.instance_id,
        "local-hostname": hostname or identity.hostname,
    }
    user = {**cloud_config(identity, hostname or identity.hostname), **(extra or {})}
    return {
        "meta-data": _pretty(meta),
        "user-data": b"#cloud-config\n" + _pretty(user),
    }


def cloud_config(identity: BuildIdentity, hostname: str) -> dict[str, Any]:
    """The cloud-config of a build VM.

    The build account is the only account made (on Azure the agent renames the distribution's default user). The key is
    given to that account alone: top-level keys would also go to root, and deprovisioning leaves root's file behind.
    """
    return {
        "users": [
            {
                "name": identity.user,
                "gecos": "Image build account",
                "shell": "/bin/bash",
                "lock_passwd": True,
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": [identity.login_public],
            }
        ],
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_genkeytypes": ["ed25519"],
        "ssh_keys": {
            "ed25519_private": identity.host_private,
            "ed25519_public": identity.host_public,
        },
        # As Azure has it from the first boot: without it the agent keeps the build account when it deprovisions.
        "write_files": [
            {
                "path": OVF_ENV_PATH,
                "owner": "root:root",
                "permissions": "0600",
                "content": ovf_env(identity.user, hostname),
            }
        ],
        "growpart": {"mode": "auto", "devices": ["/"]},
        "resize_rootfs": True,
        "package_update": False,
        "package_upgrade": False,
        # A third of the boot under software emulation: key types nobody uses, locale generation, apt rewriting.
        "locale": False,
        "manage_etc_hosts": "localhost",
        "apt": {"preserve_sources_list": True},
        "no_ssh_fingerprints": True,
        "ssh": {"emit_keys_to_console": False},
        "final_message": "aib: the build VM is up after $UPTIME seconds",
    }


def ovf_env(user: str, hostname: str) -> str:
    """`ovf-env.xml` as Azure's provisioning disc has it, with no password and no key: what `waagent` needs to know
    whose account `-deprovision+user` has to delete."""
    return f"""<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" \
xmlns:wa="http://schemas.microsoft.com/windowsazure" \
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <wa:ProvisioningSection>
    <wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
      <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
      <HostName>{escape(hostname)}</HostName>
      <UserName>{escape(user)}</UserName>
      <DisableSshPasswordAuthentication>true</DisableSshPasswordAuthentication>
    </LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection>
    <wa:Version>1.0</wa:Version>
    <PlatformSettings xmlns="http://schemas.microsoft.com/windowsazure">
      <KmsServerHostname>kms.core.windows.net</KmsServerHostname>
      <ProvisionGuestAgent>true</ProvisionGuestAgent>
    </PlatformSettings>
  </wa:PlatformSettingsSection>
</Environment>
"""


def _pretty(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()
