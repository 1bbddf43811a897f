#!/bin/sh
# Starts PostgreSQL by the settings that the upstream image documents; an empty data folder is initialised first.
set -eu

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# setting NAME DEFAULT: exports NAME as given, else as the file NAME_FILE has it, else the default.
setting() {
    value='' file=''
    eval "value=\${$1-} file=\${$1_FILE-}"
    if [ -n "$file" ]; then
        [ -z "$value" ] || fail "both $1 and $1_FILE are set"
        value=$(cat "$file")
    fi
    unset "$1_FILE"
    export "$1=${value:-$2}"
}

settings() {
    setting POSTGRES_PASSWORD ''
    setting POSTGRES_USER postgres
    setting POSTGRES_DB "$POSTGRES_USER"
    setting POSTGRES_INITDB_ARGS ''
    setting POSTGRES_HOST_AUTH_METHOD scram-sha-256
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
        fail 'the database is not initialised and POSTGRES_PASSWORD is not set' \
            '(POSTGRES_HOST_AUTH_METHOD=trust lets everybody in without one)'
    fi
}

cluster() {
    set -- --username="$POSTGRES_USER"
    [ -z "$POSTGRES_PASSWORD" ] || set -- "$@" --pwfile=/dev/fd/3
    # shellcheck disable=SC2086 # they are several words
    initdb "$@" $POSTGRES_INITDB_ARGS 3<<END
$POSTGRES_PASSWORD
END
    printf '\nhost all all all %s\n' "$POSTGRES_HOST_AUTH_METHOD" >> "$PGDATA/pg_hba.conf"
}

# While the database is made, the server answers on the socket only: over TCP it is ready when it is ready.
database() {
    pg_ctl -w -o "-c listen_addresses=''" start
    if [ "$POSTGRES_DB" != postgres ]; then
        PGPASSWORD=$POSTGRES_PASSWORD psql --no-psqlrc --no-password --quiet --set=ON_ERROR_STOP=1 \
            --set=name="$POSTGRES_DB" --username="$POSTGRES_USER" --dbname=postgres <<'END'
CREATE DATABASE :"name";
END
    fi
    pg_ctl -w -m fast stop
}

case ${1-} in -*) set -- postgres "$@" ;; esac
case " $* " in
    *' --help '* | *' --version '* | *' -V '*) exec "$@" ;;
    ' postgres '*) ;;
    *) exec "$@" ;;
esac

mkdir -p "$PGDATA"
if [ "$(id -u)" = 0 ]; then
    chmod 700 "$PGDATA"
    find "$PGDATA" /run/postgresql ! -user postgres -exec chown postgres:postgres {} +
    export HOME=/var/lib/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    settings
    cluster
    database
    printf '\nPostgreSQL init process complete; ready for start up.\n\n'
fi
unset POSTGRES_PASSWORD
exec "$@"
