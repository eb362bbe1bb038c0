# Before the kernel is installed: an initramfs with the disk drivers of Azure (Hyper-V, NVMe) and of QEMU only. The
# default ("most") also packs RDMA, Ceph, XFS and the like: 50 MB to unpack at every boot.
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks"
echo MODULES=list >"$1/etc/initramfs-tools/conf.d/cloud"
cat >"$1/etc/initramfs-tools/hooks/cloud" <<'END'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules hv_vmbus hv_storvsc hv_netvsc pci_hyperv nvme sd_mod ata_piix
manual_add_modules virtio_pci virtio_blk virtio_scsi virtio_net
END
chmod +x "$1/etc/initramfs-tools/hooks/cloud"
