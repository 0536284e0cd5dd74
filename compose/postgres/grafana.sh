#!/bin/sh
# Makes Grafana's role and database where they are missing.
set -eu
SECRETS=${SECRETS:-/run/secrets}
export SECRETS
[ -s "$SECRETS/grafana_database_password" ] || { # psql itself would not mind
  echo "$SECRETS/grafana_database_password is missing or empty: run make-secrets.sh" >&2
  exit 1
}
PGPASSWORD=$(cat "$SECRETS/postgres_password")
export PGPASSWORD

psql --no-psqlrc -v ON_ERROR_STOP=1 --dbname postgres <<'SQL'
\set password `cat "$SECRETS/grafana_database_password"`
SELECT 'CREATE ROLE grafana LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'grafana') \gexec
ALTER ROLE grafana PASSWORD :'password';
SELECT 'CREATE DATABASE grafana OWNER grafana' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'grafana') \gexec
SQL
