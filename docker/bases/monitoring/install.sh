#!/bin/sh
# Lays out, one folder each, the root file systems of the monitoring stand-ins: programs of Debian testing (forky), by the
# mirror that the base uses, with the C library of the base; packages are unpacked, not installed.
set -eu

apt() {
    if [ -s /run/secrets/ca ]; then set -- -o Acquire::https::CAInfo=/run/secrets/ca "$@"; fi
    # A mirror's testing suite can be some weeks old.
    apt-get -o Acquire::Check-Valid-Until=false "$@"
}

forky() {
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        if [ -s "$file" ]; then
            sed -n -e 's|^deb \([^ ]*\) trixie main.*|deb \1 forky main|p' \
                -e 's|^URIs: \(.*/debian/*\)$|deb \1 forky main|p' "$file"
        fi
    done > /tmp/forky.list
    rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
    mv /tmp/forky.list /etc/apt/sources.list.d/
}

# image NAME UID PROGRAM=PATH...: Debian's programs under upstream's paths, with certificates and two users.
image() {
    name=$1 uid=$2
    shift 2
    mkdir -p "/$name/etc/ssl/certs" "/$name/bin" "/$name/usr/bin" "/$name/usr/share"
    mkdir -m 1777 "/$name/tmp"
    cp /etc/ssl/certs/ca-certificates.crt "/$name/etc/ssl/certs/"
    printf 'root:x:0:0:root:/:/bin/false\nuser:x:%s:%s:user:/:/bin/false\n' "$uid" "$uid" > "/$name/etc/passwd"
    printf 'root:x:0:\nuser:x:%s:\n' "$uid" > "/$name/etc/group"
    for program in "$@"; do
        cp "usr/bin/${program%=*}" "/$name${program#*=}"
        libraries "usr/bin/${program%=*}" "/$name"
    done
}

# libraries PROGRAM ROOT: what a program is linked to.
libraries() {
    ldd "$1" | sed -n 's|.*[[:space:]]\(/[^ ]*\) (0x.*|\1|p' | while read -r library; do
        mkdir -p "$2${library%/*}"
        cp -L "$library" "$2$library"
    done
}

mkdir /tmp/packages
cd /tmp/packages
forky
apt update
apt download prometheus promtool prometheus-alertmanager prometheus-blackbox-exporter prometheus-nginx-exporter \
    prometheus-node-exporter prometheus-postgres-exporter busybox-static tzdata
for package in *.deb; do dpkg-deb -x "$package" .; done

image prometheus 65534 prometheus=/bin/prometheus promtool=/bin/promtool
image alertmanager 65534 prometheus-alertmanager=/bin/alertmanager amtool=/bin/amtool
image blackbox-exporter 65534 prometheus-blackbox-exporter=/bin/blackbox_exporter
image nginx-prometheus-exporter 1001 prometheus-nginx-exporter=/usr/bin/nginx-prometheus-exporter
image node-exporter 65534 prometheus-node-exporter=/bin/node_exporter
image postgres-exporter 65534 prometheus-postgres-exporter=/bin/postgres_exporter

# Upstream's images, but for nginx's, hold busybox.
for name in prometheus alertmanager blackbox-exporter node-exporter postgres-exporter; do
    cp usr/bin/busybox "/$name/bin/"
    for tool in cat ls sh wget; do ln -s busybox "/$name/bin/$tool"; done
done

# A named volume takes its owner from these folders. What Debian's programs read from files, upstream's have inside.
for name in prometheus alertmanager; do
    install -d -o 65534 -g 65534 "/$name/$name" "/$name/etc/$name"
    cp -a usr/share/prometheus usr/share/zoneinfo "/$name/usr/share/"
    cp "etc/prometheus/$name.yml" "/$name/etc/$name/"
done
install -D -m 644 etc/prometheus/blackbox.yml /blackbox-exporter/etc/blackbox_exporter/config.yml
rm -rf /tmp/packages
