#!/bin/bash
# A server in a container: sshd and an engine where one is installed and enabled, without an init system.
# The engine comes back when it dies, unless /run/engine-stays-down exists; without sshd the server is gone.
set -euo pipefail

writable_cgroups() {
    local directory
    for directory in /sys/fs/cgroup /sys/fs/cgroup/*; do
        if mountpoint -q "$directory" && [ ! -w "$directory" ]; then
            mount -o remount,bind,rw "$directory"
        fi
    done
    [ ! -f /sys/fs/cgroup/cgroup.controllers ] || delegate_controllers
}

# cgroup v2 lets a group hand controllers down only when no process lives in the group itself.
delegate_controllers() {
    local pid controllers
    mkdir -p /sys/fs/cgroup/init
    while read -r pid; do
        echo "$pid" > /sys/fs/cgroup/init/cgroup.procs || true # it may have ended meanwhile
    done < /sys/fs/cgroup/cgroup.procs
    read -r controllers < /sys/fs/cgroup/cgroup.controllers
    echo "+${controllers// / +}" > /sys/fs/cgroup/cgroup.subtree_control
}

host_key() {
    local key=/etc/ssh/keys/ssh_host_ed25519_key
    [ -s "$key" ] || ssh-keygen -q -t ed25519 -N '' -C '' -f "$key"
    chmod 600 "$key"
}

# The package leaves this link when it is configured, for systemd to start the engine by.
engine_wanted() {
    [ -L /etc/systemd/system/multi-user.target.wants/docker.service ] && [ ! -e /run/engine-stays-down ]
}

live_engine() {
    local pid
    read -r pid < /run/docker.pid && grep -qx dockerd "/proc/$pid/comm" && ! grep -q '^State:.Z' "/proc/$pid/status"
} 2> /dev/null

# A pid file that outlived its process can name another one by now; both daemons would trust it.
forget_dead_engine() {
    local pid file=/run/docker/containerd/containerd.pid
    rm -f /run/docker.pid
    if [ -s "$file" ]; then
        pid=$(< "$file")
        grep -qx containerd "/proc/$pid/comm" 2> /dev/null || rm -f "$file"
    fi
}

supervise_engine() {
    local engine=''
    trap '[ -z "$engine" ] || { kill "$engine"; wait "$engine"; } 2> /dev/null; exit 0' TERM
    while :; do
        if engine_wanted && ! live_engine; then
            forget_dead_engine
            dockerd &
            engine=$!
            wait "$engine" || echo "engine ended with $?"
            engine=''
        fi
        sleep 0.3 # the pace of restarts
    done
}

mkdir -p /run/sshd
writable_cgroups
host_key
/usr/sbin/sshd -D -e &
ssh=$!
supervise_engine &
supervisor=$!
trap 'kill "$supervisor" "$ssh"; wait "$supervisor"; exit 0' TERM
status=0
wait "$ssh" || status=$?
echo "sshd ended with $status"
kill "$supervisor"
wait "$supervisor"
exit 1
