#!/bin/bash
# Waits until sshd listens and the engine answers; prints the host key and the engine's version.
set -euo pipefail

deadline=$((SECONDS + ${1:-60}))
wait_for() {
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || { echo "waited too long for: $*" >&2; exit 1; }
        sleep 0.05
    done
}

wait_for test -s /run/sshd.pid
read -r type key _ < /etc/ssh/keys/ssh_host_ed25519_key.pub
echo "key $type $key"
if command -v docker > /dev/null; then
    wait_for docker version
    echo "engine $(docker version --format '{{.Server.Version}}')"
fi
