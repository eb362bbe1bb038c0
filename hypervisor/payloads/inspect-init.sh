#!/bin/sh
# First and only program of the inspection VM: waits for its two disks, reads the request at the start of the output disk
# (vdb), mounts what it finds on the disk in question (vda) read-only and without replaying journals, lists it, and
# writes one tar over the request. The last 512 bytes of the output disk say how it went. There is no network; names are never passed to a shell.
# Full paths below are GNU's programs: this shell prefers busybox's own.
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin:/sbin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir /tmp/loaded

load() { # load GROUP: the modules of a file system, and what they rest on, in order
    [ -e "/modules/$1" ] || return 0
    while read -r module; do
        [ -e "/tmp/loaded/$module" ] && continue
        : >"/tmp/loaded/$module"
        insmod "/modules/$module.ko" || echo "inspect: cannot load $module"
    done <"/modules/$1"
}
load boot

finish() { # finish WORD TEXT: the verdict on the whole run, then off
    size=$(cat /sys/class/block/vdb/size)
    printf '%-511.511s\n' "aib-inspect $1 $2" | dd of=/dev/vdb bs=512 seek=$((size - 1)) conv=notrunc 2>/dev/null
    sync
    echo "inspect: $1 $2"
    poweroff -f
}

# The disks may be plugged in later: whoever started this VM ends it when it is tired of waiting.
until [ -b /dev/vda ]; do sleep 0.1; done
echo "inspect: one disk is there"
until [ -b /dev/vdb ]; do sleep 0.1; done
serials=$(cat /sys/class/block/vda/serial)+$(cat /sys/class/block/vdb/serial)
[ "$serials" = disk+output ] || { echo "inspect: the disks came as $serials"; poweroff -f; }
# A disk is there a moment before its partitions are: this returns when they have been looked for.
blockdev --rereadpt /dev/vda 2>/dev/null

dd if=/dev/vdb bs=65536 count=4 2>/dev/null | sed '/^end$/q' >/tmp/request
limit=$(sed -n 's/^limit //p' /tmp/request)
grep -q '^replay$' /tmp/request && replay=,noatime # the disk is a throw-away overlay then
sed -n 's/^list //p' /tmp/request >/tmp/listed
sed -n 's/^path //p' /tmp/request >/tmp/paths
sed -n 's/^needle //p' /tmp/request >/tmp/needles
sed -n 's/^place //p' /tmp/request >/tmp/places
case "$limit $(tail -n 1 /tmp/request)" in
[0-9]*' end') ;;
*) finish failed "the request is not complete" ;;
esac

names=0

# file_system DEVICE TYPE STATE DETAIL: a line of the report
file_system() {
    size=$(($(cat "/sys/class/block/$1/size") * 512))
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$size" "$2" "$3" "$names" "$4" >>/out/file-systems
    names=0
}

matching() { # matching EXPRESSIONS NAMES: the names that one of the expressions fits, ended by NUL
    LC_ALL=C /bin/grep -z -x -a -E -f "$1" "$2"
}

attach() { # attach DEVICE TYPE FOLDER: mount without writing, and without replaying a journal unless that was asked for
    load "$2"
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

# With `edit` in the request the one system that holds the folder `Windows/Panther` is changed instead: it gets the
# files of the third disk, an ISO, in that folder.
edit() {
    mkdir -p /iso /disk/edited
    until [ -b /dev/vdc ]; do sleep 0.1; done
    attach vdc iso9660 /iso || finish failed "the files were not seen"
    for entry in /sys/class/block/vda?*; do
        device=${entry##*/}
        type=$(blkid -p -o value -s TYPE "/dev/$device" 2>/dev/null)
        load "$type"
        case $type in
        ntfs) ntfs-3g "/dev/$device" /disk/edited >/tmp/said 2>&1 || continue ;;
        ext4) mount -t ext4 "/dev/$device" /disk/edited >/tmp/said 2>&1 || continue ;;
        *) continue ;;
        esac
        folder=$(/usr/bin/find /disk/edited -mindepth 2 -maxdepth 4 -type d -ipath '*/windows/panther' | head -n 1)
        if [ -n "$folder" ]; then
            for file in /iso/*; do
                # Another spelling of the name would be a second file here, and the same one for Windows.
                /usr/bin/find "$folder" -maxdepth 1 -iname "${file##*/}" -exec rm -f '{}' +
                cp "$file" "$folder/" || finish failed "$device: ${file##*/} could not be written"
            done
            umount /disk/edited || finish failed "$device could not be unmounted"
            finish complete ""
        fi
        umount /disk/edited
    done
    finish failed "no file system with Windows/Panther that can be written: $(head -c 300 /tmp/said | tr '\n\t' '  ')"
}
: >/tmp/said
grep -q '^edit$' /tmp/request && edit

# An ext file system whose journal still holds something is seen as it was before: say so (s_feature_incompat, bit 2).
stale() {
    case $2 in
    ext3 | ext4)
        flags=$(dd if="/dev/$1" bs=1 skip=1120 count=1 2>/dev/null | od -An -tu1)
        [ $((flags & 4)) -ne 0 ] && echo "not unmounted cleanly: what its journal holds is not seen"
        ;;
    esac
}

held() { # held DEVICE TYPE: whether a file of it may hold a needle, which lie at the places given: no when all are free
    [ -s /tmp/places ] && [ -z "${replay:-}$(stale "$1" "$2")" ] || return 0
    case $2 in
    ext3 | ext4) ;;
    *) return 0 ;;
    esac
    start=$(($(cat "/sys/class/block/$1/start" 2>/dev/null || echo 0) * 512))
    end=$((start + $(cat "/sys/class/block/$1/size") * 512))
    block=$((1024 << $(dd if="/dev/$1" bs=1 skip=1048 count=1 2>/dev/null | od -An -tu1)))
    asked=0
    : >/tmp/asked
    while read -r first last; do
        [ "$first" -ge "$start" ] || first=$start
        [ "$last" -lt "$end" ] || last=$((end - 1))
        [ "$first" -le "$last" ] || continue
        count=$(((last - start) / block - (first - start) / block + 1))
        echo "testb $(((first - start) / block)) $count" >>/tmp/asked
        asked=$((asked + count))
    done </tmp/places
    [ "$asked" -gt 0 ] || return 1
    debugfs -f /tmp/asked "/dev/$1" >/tmp/said 2>&1 || return 0
    [ "$(/bin/grep -c '^Block [0-9]* not in use$' /tmp/said)" -ne "$asked" ]
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
    # Names come with the folders that hold them; everything else of a file costs a look at its inode.
    if ! /usr/bin/find "$folder" -mindepth 1 -print0 >/tmp/walked 2>/tmp/said; then
        detail="$detail could not list everything: $(head -c 200 /tmp/said | tr '\n\t' '  ')"
    fi
    names=$(tr -cd '\0' </tmp/walked | wc -c)
    matching /tmp/listed /tmp/walked >/tmp/wanted
    : >"/out/$1.list"
    : >/tmp/candidates
    if [ -s /tmp/wanted ]; then
        /usr/bin/find -files0-from /tmp/wanted -maxdepth 0 -fprintf "/out/$1.list" '%y %m %U %G %s %T@\0%p\0%l\0' \
            -type f -size "-$((limit + 1))c" -fprint0 /tmp/candidates 2>/tmp/said ||
            detail="$detail could not look at everything: $(head -c 200 /tmp/said | tr '\n\t' '  ')"
    fi
    matching /tmp/paths /tmp/candidates >>/tmp/names
    if [ -s /tmp/needles ] && held "$1" "$type"; then
        /bin/grep -r -l -a -F -Z -D skip -f /tmp/needles "$folder" >>/out/holders 2>/dev/null
    fi
    file_system "$1" "$type" read "$detail"
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
