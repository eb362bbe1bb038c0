# Runs on the host as the (namespace's) root, after the packages are there; $1 is the new root file system. Before this
# text come: fs_uuid, fs_size (KiB), embedded (GRUB's embedded configuration), bios_modules, uefi_modules.
set -eu
root=$1

cat >"$root/etc/fstab" <<END
UUID=$fs_uuid / ext4 rw,discard,errors=remount-ro 0 1
LABEL=ESP /boot/efi vfat umask=0077,nofail 0 0
END
mkdir -p "$root/boot/efi"

cat >"$root/etc/default/grub" <<END
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200 consoleblank=0"
GRUB_TERMINAL=console
END
# Until the first kernel update runs update-grub in the guest, where it can find its devices.
mkdir -p "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<END
linux /vmlinuz root=UUID=$fs_uuid ro console=tty0 console=ttyS0,115200 consoleblank=0
initrd /initrd.img
boot
END
# What grub-install would do: the modules that a generated grub.cfg asks for, and both core images.
for platform in i386-pc x86_64-efi; do
    mkdir -p "$root/boot/grub/$platform"
    cp "$root/usr/lib/grub/$platform/"*.mod "$root/usr/lib/grub/$platform/"*.lst "$root/boot/grub/$platform/"
done
mkdir -p "$root/aib"
printf '%s' "$embedded" >"$root/aib/embedded.cfg"
# shellcheck disable=SC2086  # the module lists are lists
chroot "$root" grub-mkimage -O i386-pc -p /boot/grub -c /aib/embedded.cfg -o /aib/core.img $bios_modules
# shellcheck disable=SC2086
chroot "$root" grub-mkimage -O x86_64-efi -p /boot/grub -c /aib/embedded.cfg -o /aib/bootx64.efi $uefi_modules
cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/aib/boot.img"

cat >"$root/etc/cloud/cloud.cfg.d/90_datasources.cfg" <<END
# NoCloud: a local build VM; Azure: where the image goes.
datasource_list: [NoCloud, Azure, None]
END
rm -f "$root/etc/cloud/cloud.cfg.d/90_dpkg.cfg"

# cloud-init writes the network's configuration for it: DHCP on the one NIC, as Azure's images have it.
chroot "$root" systemctl --quiet enable systemd-networkd.service systemd-resolved.service

# One image, many machines: nothing here may be the same in all of them.
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root"/etc/ssh/ssh_host_* "$root/var/lib/systemd/random-seed"
echo localhost >"$root/etc/hostname"
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
ln -sfn ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

chroot "$root" apt-get clean
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/log/apt "$root"/var/log/*.log
rm -f "$root/var/cache/debconf/"*-old "$root/var/lib/dpkg/"*-old
if [ -e "$root/sbin/start-stop-daemon.REAL" ]; then
    mv "$root/sbin/start-stop-daemon.REAL" "$root/sbin/start-stop-daemon"
fi

# A plain bind mount shows the root file system without what is mounted in it (/proc, /sys, /dev).
work=$(mktemp -d)
trap 'umount "$work/root" 2>/dev/null || :; rm -rf "$work"' EXIT
mkdir "$work/root" "$work/aside"
mv "$root/aib" "$work/aib"
# mmdebstrap's own settings, and what keeps services from starting, do not belong in the image; mmdebstrap itself wants
# to find and remove them afterwards.
for path in etc/apt/apt.conf.d/00mmdebstrap etc/apt/apt.conf.d/99mmdebstrap etc/dpkg/dpkg.cfg.d/99mmdebstrap \
    usr/sbin/policy-rc.d; do
    [ ! -e "$root/$path" ] || mv "$root/$path" "$work/aside/$(echo "$path" | tr / _)"
done
mount --bind "$root" "$work/root"
mke2fs -q -t ext4 -U "$fs_uuid" -L root -d "$work/root" "$work/root.img" "${fs_size}k"
umount "$work/root"
for path in etc/apt/apt.conf.d/00mmdebstrap etc/apt/apt.conf.d/99mmdebstrap etc/dpkg/dpkg.cfg.d/99mmdebstrap \
    usr/sbin/policy-rc.d; do
    [ ! -e "$work/aside/$(echo "$path" | tr / _)" ] || mv "$work/aside/$(echo "$path" | tr / _)" "$root/$path"
done
qemu-img convert -f raw -O qcow2 "$work/root.img" "$work/aib/root.qcow2"
rm "$work/root.img"
mv "$work/aib" "$root/aib"
