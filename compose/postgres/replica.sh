#!/bin/sh
# Starts a streaming replica: copies the primary where there is no data yet, then follows it.
# Where it fell behind further than max_slot_wal_keep_size, remove its volume: it copies the primary anew.
set -eu
SECRETS=${SECRETS:-/run/secrets}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # Copied beside and renamed when it is whole, so that an interrupted copy is never started.
  rm -rf "$PGDATA.copying"
  mkdir -p "$(dirname "$PGDATA")"
  PGPASSWORD=$(cat "$SECRETS/postgres_replicator_password") pg_basebackup \
    --host="$PRIMARY_HOST" --port="${PRIMARY_PORT:-5432}" --username=replicator --no-password \
    --pgdata="$PGDATA.copying" --slot=replica_1 --wal-method=stream --checkpoint=fast --write-recovery-conf
  chmod 0700 "$PGDATA.copying"
  rm -rf "$PGDATA"
  mv "$PGDATA.copying" "$PGDATA"
fi

exec postgres "$@"
