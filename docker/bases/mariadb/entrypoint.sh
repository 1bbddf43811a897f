#!/bin/sh
# Starts MariaDB by the settings that the upstream image documents; an empty data folder is initialised first.
set -eu

DATA=/var/lib/mysql
SOCKET=/run/mysqld/mysqld.sock

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# setting NAME: exports MARIADB_NAME (or by its older name MYSQL_NAME) as given, else as the file MARIADB_NAME_FILE has it.
setting() {
    value='' file=''
    eval "value=\${MARIADB_$1-\${MYSQL_$1-}} file=\${MARIADB_$1_FILE-\${MYSQL_$1_FILE-}}"
    if [ -n "$file" ]; then
        [ -z "$value" ] || fail "both MARIADB_$1 and MARIADB_$1_FILE are set"
        value=$(cat "$file")
    fi
    unset "MYSQL_$1" "MYSQL_$1_FILE" "MARIADB_$1_FILE"
    export "MARIADB_$1=$value"
}

settings() {
    for name in ROOT_PASSWORD ALLOW_EMPTY_ROOT_PASSWORD ROOT_HOST DATABASE USER PASSWORD; do setting "$name"; done
    if [ -z "$MARIADB_ROOT_PASSWORD" ] && [ -z "$MARIADB_ALLOW_EMPTY_ROOT_PASSWORD" ]; then
        fail 'the database is not initialised and MARIADB_ROOT_PASSWORD is not set' \
            '(MARIADB_ALLOW_EMPTY_ROOT_PASSWORD=yes leaves root without one)'
    fi
    : "${MARIADB_ROOT_HOST:=%}"
}

# quoted MARK TEXT: the text between such marks, for SQL without backslash escapes.
quoted() {
    printf '%s%s%s' "$1" "$(printf '%s' "$2" | sed "s/$1/$1$1/g")" "$1"
}

users_and_database() {
    password=$(quoted "'" "$MARIADB_ROOT_PASSWORD")
    printf "SET @@SESSION.SQL_LOG_BIN=0, @@SESSION.SQL_MODE='NO_BACKSLASH_ESCAPES';\n"
    printf "DROP USER IF EXISTS root@'127.0.0.1', root@'::1';\n"
    printf 'ALTER USER root@localhost IDENTIFIED BY %s;\n' "$password"
    if [ "$MARIADB_ROOT_HOST" != localhost ]; then
        root="root@$(quoted "'" "$MARIADB_ROOT_HOST")"
        printf 'CREATE USER %s IDENTIFIED BY %s;\n' "$root" "$password"
        printf 'GRANT ALL ON *.* TO %s WITH GRANT OPTION;\n' "$root"
    fi
    [ -z "$MARIADB_DATABASE" ] || printf 'CREATE DATABASE IF NOT EXISTS %s;\n' "$(quoted '`' "$MARIADB_DATABASE")"
    if [ -n "$MARIADB_USER" ]; then
        user="$(quoted "'" "$MARIADB_USER")@'%'"
        printf 'CREATE USER %s IDENTIFIED BY %s;\n' "$user" "$(quoted "'" "$MARIADB_PASSWORD")"
        [ -z "$MARIADB_DATABASE" ] ||
            printf 'GRANT ALL ON %s.* TO %s;\n' "$(quoted '`' "$MARIADB_DATABASE" | sed 's/_/\\_/g')" "$user"
    fi
}

# While users and database are made, the server answers on the socket only: over TCP it is ready when it is ready.
initialise() {
    mariadb-install-db --datadir="$DATA" --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve \
        --cross-bootstrap > /dev/null
    "$@" --skip-networking --socket="$SOCKET" &
    until mariadb-admin --no-defaults --socket="$SOCKET" --user=root --silent ping > /dev/null 2>&1; do
        kill -0 "$!" || fail 'the server that initialises the database did not start'
        sleep 0.1
    done
    users_and_database | mariadb --no-defaults --protocol=socket --socket="$SOCKET" --user=root
    kill "$!"
    wait "$!"
}

case ${1-} in -*) set -- mariadbd "$@" ;; esac
case " $* " in
    *' --help '* | *' --version '* | *' -V '*) exec "$@" ;;
    ' mariadbd '*) ;;
    *) exec "$@" ;;
esac

if [ "$(id -u)" = 0 ]; then
    find "$DATA" /run/mysqld ! -user mysql -exec chown mysql:mysql {} +
    exec setpriv --reuid=mysql --regid=mysql --init-groups "$0" "$@"
fi

if [ ! -d "$DATA/mysql" ]; then
    settings
    initialise "$@"
    printf '\nMariaDB init process done. Ready for start up.\n\n'
fi
unset MARIADB_ROOT_PASSWORD MARIADB_PASSWORD
exec "$@"
