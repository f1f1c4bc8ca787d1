#!/bin/sh
# Makes the database cluster on an empty volume, then runs the server. Needs POSTGRES_USER, POSTGRES_DB and POSTGRES_PASSWORD (or
# POSTGRES_PASSWORD_FILE); writes only below PGDATA and /tmp.
set -eu
fail() { echo "entrypoint: $1" >&2; exit 1; }
: "${POSTGRES_USER:?POSTGRES_USER is not set}" "${POSTGRES_DB:?POSTGRES_DB is not set}"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
    password_file=$POSTGRES_PASSWORD_FILE
  else
    [ -n "${POSTGRES_PASSWORD:-}" ] || fail "set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE"
    password_file=$(mktemp)
    printf '%s' "$POSTGRES_PASSWORD" > "$password_file"
  fi
  # Made aside and moved into place whole: an interrupted start leaves nothing that the next one would take for a database.
  new=$(dirname "$PGDATA")/.initialising
  rm -rf "$new"
  initdb --pgdata="$new" --username="$POSTGRES_USER" --pwfile="$password_file" --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
  echo 'host all all all scram-sha-256' >> "$new/pg_hba.conf"
  printf 'CREATE DATABASE "%s";\n' "$POSTGRES_DB" | postgres --single -D "$new" -c log_min_messages=warning postgres > /dev/null
  [ ! -d "$PGDATA" ] || rmdir "$PGDATA" || fail "$PGDATA is neither empty nor a database"
  mv "$new" "$PGDATA"
fi
unset POSTGRES_PASSWORD
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp
