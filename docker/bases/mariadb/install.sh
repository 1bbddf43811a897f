#!/bin/sh
# Puts MariaDB into the image that is being built, from Debian's own packages.
# They are unpacked, not installed: that would bring Perl, Galera and service files that no container needs.
set -eu

PACKAGES='mariadb-server mariadb-server-core mariadb-client mariadb-client-core'
PROGRAMS='mariadb mariadb-admin mariadb-binlog mariadb-check mariadb-dump mariadb-import mariadb-install-db
    mariadb-tzinfo-to-sql mariadb-upgrade my_print_defaults'

apt() {
    if [ -s /run/secrets/ca ]; then set -- -o Acquire::https::CAInfo=/run/secrets/ca "$@"; fi
    DEBIAN_FRONTEND=noninteractive apt-get "$@"
}

groupadd --system --gid 999 mysql
useradd --system --uid 999 --gid mysql --home-dir /home/mysql --no-create-home --shell /bin/bash mysql
install -d -o mysql -g mysql -m 1777 /run/mysqld /var/lib/mysql

mkdir /tmp/packages
cd /tmp/packages
apt update
# shellcheck disable=SC2086 # they are several words
apt download $PACKAGES
# shellcheck disable=SC2046,SC2086 # they are several words
apt install -y --no-install-recommends tzdata $(apt-cache depends $PACKAGES | sed -n '/perl/d; s/^ *Depends: \(lib.*\)/\1/p')
for package in mariadb-*.deb; do dpkg-deb -x "$package" files; done
for program in $PROGRAMS; do mv "files/usr/bin/$program" /usr/bin/; done
mv files/usr/sbin/mariadbd /usr/sbin/
cp -a files/usr/lib/mysql /usr/lib/
cp -a files/usr/share/mariadb /usr/share/
cd /
rm -rf /tmp/packages /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
