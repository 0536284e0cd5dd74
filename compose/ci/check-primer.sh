#!/bin/sh
# For a pipeline: sets primer up in a folder of its own, serves it, puts it under load, and has the doctor look at it.
# Ends with 0 where everything holds; with 4 where an assertion of the bench or a finding of the doctor does not.
#
#   PRIMER=./dist/primer DURATION=10s LOGIN_P99=500ms sh compose/ci/check-primer.sh
set -eu

PRIMER=${PRIMER:-primer}
PORT=${PORT:-18080}
REPORTS=${REPORTS:-primer-reports}

folder=$(mktemp -d)
server=
end() {
  status=$?
  trap - EXIT INT TERM
  if [ -n "$server" ]; then kill "$server" && wait "$server" || true; fi
  [ "$status" -eq 0 ] || tail -n 20 "$folder/serve.log" 2>/dev/null || true
  rm -rf "$folder"
  exit "$status"
}
trap end EXIT INT TERM

export PRIMER_HOME="$folder/home" PRIMER_SERVER__PORT="$PORT"
# All of the load comes from one address and logs in to one account.
export PRIMER_RATE_LIMITS__LOGIN_IP=off PRIMER_RATE_LIMITS__LOGIN_IP_ACCOUNT=off PRIMER_RATE_LIMITS__LOGIN_SERVICE=off
export PRIMER_RATE_LIMITS__GENERAL=off PRIMER_RATE_LIMITS__REFRESH=off

password=$($PRIMER init --yes --json | sed -n 's/.*"password": "\(.*\)".*/\1/p')

$PRIMER serve >"$folder/serve.log" 2>&1 &
server=$!
tries=0
until curl -fs "http://127.0.0.1:$PORT/readyz" >"$folder/ready"; do
  tries=$((tries + 1))
  [ "$tries" -lt 300 ] && kill -0 "$server"
  sleep 0.1
done

printf %s "$password" | $PRIMER bench --url "http://127.0.0.1:$PORT" --username admin --password-stdin \
  --scenario login,refresh,verify --connections 4 --duration "${DURATION:-10s}" \
  --assert 'login.errors<=0%' --assert 'refresh.errors<=0%' --assert 'verify.errors<=0%' \
  --assert "login.p99<${LOGIN_P99:-500ms}" --assert "verify.p99<${VERIFY_P99:-50ms}" \
  --out "$REPORTS/bench.json" --out "$REPORTS/bench.html"

$PRIMER doctor
