# What an emulated board runs: a network, and a server to log in to.
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root LANG=C.UTF-8
box=/bin/busybox
$box mount -t tmpfs tmp /tmp
$box mount -t tmpfs run /run
$box mkdir -p /dev/pts /dev/shm
$box mount -t devpts pts /dev/pts
$box mount -t tmpfs shm /dev/shm
$box hostname board
$box ip link set lo up
tries=0
while [ $tries -lt 80 ]; do
    card=$(ls /sys/class/net | $box grep -v '^lo$' | $box head -n 1)
    [ -n "$card" ] && break
    sleep 0.25
    tries=$((tries + 1))
done
$box ip addr add 10.0.2.15/24 dev "$card"
$box ip link set "$card" up
$box ip route add default via 10.0.2.2
exec dropbear -F -E -s -r /etc/dropbear/host_key -p 22
