#!/bin/sh
# First and only program of the inspection VM: reads the request at the start of the output disk (vdb), mounts what it
# finds on the disk in question (vda) read-only and without replaying journals, lists it, and writes one tar over the
# request. The last 512 bytes of the output disk say how it went. There is no network; names are never passed to a shell.
# Full paths below are GNU's programs: this shell prefers busybox's own.
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin:/sbin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do
    insmod "/modules/$module.ko" || echo "inspect: cannot load $module"
done </modules/order

finish() { # finish WORD TEXT: the verdict on the whole run, then off
    size=$(cat /sys/class/block/vdb/size)
    printf '%-511.511s\n' "aib-inspect $1 $2" | dd of=/dev/vdb bs=512 seek=$((size - 1)) conv=notrunc 2>/dev/null
    sync
    echo "inspect: $1 $2"
    poweroff -f
}

for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -b /dev/vda ] && [ -b /dev/vdb ] && break
    sleep 0.1
done
[ -b /dev/vdb ] || { echo "inspect: no output disk"; poweroff -f; }
[ -b /dev/vda ] || finish failed "the disk was not seen"

dd if=/dev/vdb bs=65536 count=4 2>/dev/null | sed '/^end$/q' >/tmp/request
limit=$(sed -n 's/^limit //p' /tmp/request)
grep -q '^replay$' /tmp/request && replay=,noatime # the disk is a throw-away overlay then
sed -n 's/^path //p' /tmp/request >/tmp/paths
sed -n 's/^needle //p' /tmp/request >/tmp/needles
case "$limit $(tail -n 1 /tmp/request)" in
[0-9]*' end') ;;
*) finish failed "the request is not complete" ;;
esac

# file_system DEVICE TYPE STATE DETAIL: a line of the report
file_system() {
    printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$(($(cat "/sys/class/block/$1/size") * 512))" "$2" "$3" "$4" >>/out/file-systems
}

attach() { # attach DEVICE TYPE FOLDER: mount without writing, and without replaying a journal unless that was asked for
    case $2 in
    ext2 | ext3 | ext4) mount -t ext4 -o "ro${replay:-,noload}" "/dev/$1" "$3" ;;
    xfs) mount -t xfs -o "ro,nouuid${replay:-,norecovery}" "/dev/$1" "$3" ;;
    btrfs) mount -t btrfs -o "ro,subvolid=5${replay:-,rescue=nologreplay}" "/dev/$1" "$3" ;;
    ntfs) ntfs-3g -o ro "/dev/$1" "$3" ;;
    vfat) mount -t vfat -o ro "/dev/$1" "$3" ;;
    iso9660) mount -t iso9660 -o ro "/dev/$1" "$3" ;;
    udf) mount -t udf -o ro "/dev/$1" "$3" ;;
    *) return 1 ;;
    esac
}

# An ext file system whose journal still holds something is seen as it was before: say so (s_feature_incompat, bit 2).
stale() {
    case $2 in
    ext3 | ext4)
        flags=$(dd if="/dev/$1" bs=1 skip=1120 count=1 2>/dev/null | od -An -tu1)
        [ $((flags & 4)) -ne 0 ] && echo "not unmounted cleanly: what its journal holds is not seen"
        ;;
    esac
}

look() { # look DEVICE: list it and note the files asked for
    type=$(blkid -p -o value -s TYPE "/dev/$1" 2>/dev/null)
    folder=/disk/$1
    mkdir -p "$folder"
    case $type in
    '') file_system "$1" "" empty "" && return ;;
    swap) file_system "$1" swap skipped "swap space" && return ;;
    esac
    if ! attach "$1" "$type" "$folder" >/tmp/said 2>&1; then
        file_system "$1" "$type" not-inspected "$(head -c 200 /tmp/said | tr '\n\t' '  ')"
        return
    fi
    detail=$(stale "$1" "$type")
    /usr/bin/find "$folder" -mindepth 1 -printf '%y %m %U %G %s %T@\0%P\0%l\0' >"/out/$1.list" 2>/tmp/said ||
        detail="$detail could not list everything: $(head -c 200 /tmp/said | tr '\n\t' '  ')"
    set -- "$1" "$type" "$folder" -false
    while IFS= read -r pattern; do
        set -- "$@" -o -path "$3$pattern"
    done </tmp/paths
    device=$1 type=$2 folder=$3
    shift 3
    /usr/bin/find "$folder" -type f -size "-$((limit + 1))c" '(' "$@" ')' -print0 >>/tmp/names 2>/dev/null
    if [ -s /tmp/needles ]; then
        /bin/grep -r -l -a -F -Z -D skip -f /tmp/needles "$folder" >>/out/holders 2>/dev/null
    fi
    file_system "$device" "$type" read "$detail"
}

: >/out/file-systems
: >/out/holders
: >/tmp/names
found=''
for entry in /sys/class/block/vda?*; do
    [ -e "$entry" ] && found=1 && look "${entry##*/}"
done
[ -n "$found" ] || look vda

/usr/bin/find /out -type f -print0 >/tmp/all
cat /tmp/names >>/tmp/all
/bin/tar --create --file=/dev/vdb --format=gnu --hard-dereference --numeric-owner --no-recursion --absolute-names \
    --null --files-from=/tmp/all 2>/tmp/said
code=$?
[ "$code" = 0 ] || finish failed "tar ended with $code: $(head -c 300 /tmp/said | tr '\n' ' ')"
finish complete ""
