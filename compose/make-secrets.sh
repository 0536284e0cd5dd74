#!/bin/sh
# Makes the secrets of the production stack in secrets/, each in a file of its own; one that is there stays as it is.
#   ./make-secrets.sh login.example.org grafana.example.org
# Keep a copy of the folder apart from the backups: without primer_master_key nobody can open the keys in the database.
set -eu
[ $# -eq 2 ] || { echo "usage: $0 HOST-OF-PRIMER HOST-OF-GRAFANA" >&2; exit 2; }
cd "$(dirname "$0")"
mkdir -p secrets
# Containers read the files as different users, so the folder is what keeps others out.
chmod 0700 secrets
cd secrets
umask 0333

random() { openssl rand -base64 32 | tr '+/' '-_' | tr -d '=\n'; } # 256 bits in base64url
put() { # put NAME: standard input becomes the file, unless it is there
  if [ -s "$1" ]; then cat >/dev/null; return; fi
  rm -f "$1" "$1.new"
  cat >"$1.new"
  [ -s "$1.new" ] || [ "$1" = smtp_url ] || { echo "$1 could not be made: is openssl there, and room on the disk?" >&2; exit 1; }
  mv "$1.new" "$1"
}

for name in primer_master_key primer_pepper admin_password backup_passphrase grafana_admin_password grafana_database_password \
  postgres_password postgres_owner_password postgres_app_password postgres_replicator_password redis_password; do
  random | put "$name"
done
printf 'postgres://primer_app:%s@postgres/primer' "$(cat postgres_app_password)" | put database_url
printf 'postgres://primer_owner:%s@postgres/primer' "$(cat postgres_owner_password)" | put database_admin_url
printf 'postgres://primer_app:%s@postgres-replica/primer' "$(cat postgres_app_password)" | put replica_urls
printf 'redis://primer:%s@redis' "$(cat redis_password)" | put redis_url
# Everything that primer may need and nothing that changes the server; INFO is for its metrics.
printf 'user default off resetpass -@all\nuser primer on >%s ~* &* +@all -@admin -@dangerous +info\n' \
  "$(cat redis_password)" | put redis_acl

if [ ! -e smtp_url ]; then
  : | put smtp_url
  echo "secrets/smtp_url is empty: put smtps://user:password@mail.example.org in it, until then no mail goes out."
fi
if [ ! -e tls.crt ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1" \
    -addext "subjectAltName=DNS:$1,DNS:$2" -keyout tls.key.new -out tls.crt.new 2>/dev/null
  put tls.key <tls.key.new
  put tls.crt <tls.crt.new
  rm -f tls.key.new tls.crt.new
  echo "secrets/tls.crt is signed by itself and for trying out: replace it and tls.key by your CA's."
fi
