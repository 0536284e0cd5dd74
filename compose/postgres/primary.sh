#!/bin/sh
# Runs once, in the empty database of the primary (the image runs what is in /docker-entrypoint-initdb.d).
# One role owns the tables and another one serves, so that what serves cannot change the audit log.
set -eu
SECRETS=${SECRETS:-/run/secrets}
export SECRETS
for name in postgres_owner_password postgres_app_password postgres_replicator_password; do # psql itself would not mind
  [ -s "$SECRETS/$name" ] || { echo "$SECRETS/$name is missing or empty: run make-secrets.sh" >&2; exit 1; }
done

psql --no-psqlrc -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\set owner `cat "$SECRETS/postgres_owner_password"`
\set app `cat "$SECRETS/postgres_app_password"`
\set replicator `cat "$SECRETS/postgres_replicator_password"`
CREATE ROLE primer_owner LOGIN PASSWORD :'owner';
CREATE ROLE primer_app LOGIN PASSWORD :'app';
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replicator';
CREATE DATABASE primer OWNER primer_owner;
-- The slot keeps what the replica has not had yet, up to max_slot_wal_keep_size.
SELECT pg_create_physical_replication_slot('replica_1');
SQL

echo "host replication replicator ${REPLICA_NETWORK:-samenet} scram-sha-256" >>"$PGDATA/pg_hba.conf"
