#!/bin/busybox sh
# The first program of an emulated board: load the drivers, wait for the disk, go on from there.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/mod/$module" 2>/dev/null; done < /mods
tries=0
while [ $tries -lt 80 ]; do
    for disk in /dev/vda /dev/mmcblk0 /dev/mmcblk1; do [ -b $disk ] && root=$disk; done
    [ -n "$root" ] && break
    sleep 0.25
    tries=$((tries + 1))
done
mount -t ext4 "$root" /mnt
for name in proc sys dev; do mount --move /$name /mnt/$name; done
exec switch_root /mnt /bin/sh /board-init
