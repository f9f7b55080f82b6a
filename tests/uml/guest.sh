#!/bin/bash
# Process 1 of the guest. The kernel hands over `lb_box=DIR` of its command line as an environment variable; DIR holds
# `command` (a shell script) and receives `out`, `err` and `status`.
set -u
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
MODULES=${lb_modules:-/usr/lib/uml/modules}

halt() {
    sync
    echo o >/proc/sysrq-trigger
    sleep 10
}

fail() {
    echo "tests.uml.guest: $1" >>"$lb_box/err"
    halt
}

if [ -z "${lb_inside-}" ]; then
    mount -t proc proc /proc
    mount -t tmpfs -o mode=755 tmpfs /mnt
    mkdir -p /mnt/upper /mnt/work /mnt/root /mnt/lib/modules
    mount --bind "$MODULES" /mnt/lib/modules || fail "no kernel modules in $MODULES"
    modprobe -d /mnt overlay || fail "the kernel cannot load its module overlay"
    mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root || fail "no overlay"
    cd /mnt/root || fail "no root"
    mkdir -p lib/modules "./$lb_box"
    mount --bind "$MODULES" lib/modules
    mount --bind "$lb_box" "./$lb_box"
    # Not chroot: the kernel's own modprobe calls must see the new root, and with it lib/modules.
    pivot_root . mnt || fail "pivot_root failed"
    lb_inside=1 exec chroot . /bin/bash "$0"
fi

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -sfn /proc/self/fd /dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -sfn "/proc/self/fd/${n%:*}" "/dev/${n#*:}"; done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock
modprobe -a ip_vs ipv6 veth bridge dummy af_packet 2>>"$lb_box/err"
ip link set lo up
hostname uml
unset lb_inside

setsid bash "$lb_box/command" </dev/null >>"$lb_box/out" 2>>"$lb_box/err"
echo $? >"$lb_box/status.new"
sync
mv "$lb_box/status.new" "$lb_box/status"
halt
