#!/bin/sh
# Puts PostgreSQL into the image that is being built: the archive of a wheel, else Debian's own packages.
set -eu

HOME_FOLDER=/usr/lib/postgresql/$PG_MAJOR
ARCHIVE=$(find /context -path '/context/wheel/*.tar.gz')
ARCHIVE_NEEDS='libgssapi-krb5-2 liblz4-1 libossp-uuid16 libreadline8t64 libssl3t64 libxml2 libxslt1.1 libzstd1 zlib1g'

apt() {
    if [ -s /run/secrets/ca ]; then set -- -o Acquire::https::CAInfo=/run/secrets/ca "$@"; fi
    DEBIAN_FRONTEND=noninteractive apt-get "$@"
}

account() {
    groupadd --system --gid 999 postgres
    useradd --system --uid 999 --gid postgres --home-dir /var/lib/postgresql --shell /bin/bash postgres
    install -d -o postgres -g postgres /var/lib/postgresql
    install -d -o postgres -g postgres -m 1777 "$PGDATA"
    install -d -o postgres -g postgres -m 3777 /run/postgresql
}

locale() {
    apt download locales
    dpkg-deb -x locales_*.deb locales
    I18NPATH=$PWD/locales/usr/share/i18n localedef -i en_US -f UTF-8 en_US.UTF-8
}

# Packages are unpacked, not installed: theirs bring Perl, LLVM and cluster tools that no container needs.
from_packages() {
    set -- "postgresql-$PG_MAJOR" "postgresql-client-$PG_MAJOR"
    apt download "$@"
    # shellcheck disable=SC2046 # they are several words
    apt install -y --no-install-recommends tzdata $(apt-cache depends "$@" | sed -n '/llvm/d; s/^ *Depends: \(lib.*\)/\1/p')
    for package in postgresql-*.deb; do dpkg-deb -x "$package" files; done
    rm -r "files$HOME_FOLDER"/lib/bitcode "files$HOME_FOLDER"/lib/llvmjit*
    cp -a files/usr/lib/postgresql /usr/lib/
    cp -a files/usr/share/postgresql /usr/share/
    configured "/usr/share/postgresql/$PG_MAJOR"
}

from_archive() {
    # shellcheck disable=SC2086 # they are several words
    apt install -y --no-install-recommends tzdata $ARCHIVE_NEEDS
    mkdir -p "$HOME_FOLDER"
    tar -xzf "$ARCHIVE" -C "$HOME_FOLDER" --strip-components=1 --no-same-owner --wildcards \
        --exclude='*/include' --exclude='*/share/doc' --exclude='*.a' --exclude='*plpython3*'
    configured "$HOME_FOLDER/share"
    # At the end, because initdb writes its own default into the first such line.
    printf "unix_socket_directories = '/run/postgresql, /tmp'\n" >> "$HOME_FOLDER/share/postgresql.conf.sample"
}

configured() {
    sed -i "s|^#listen_addresses = 'localhost'|listen_addresses = '*'|" "$1/postgresql.conf.sample"
}

mkdir /tmp/packages
cd /tmp/packages
account
apt update
locale
if [ -n "$ARCHIVE" ]; then from_archive; else from_packages; fi
cd /
rm -rf /tmp/packages /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
