#!/usr/bin/env bash
# Holds the API of a running `flowtrail up` against its own description, with schemathesis: openapi.sh TARGET_DIR
set -euo pipefail
cd "$(dirname "$0")/../.."

target=$1
schemathesis=$target/schemathesis/bin/schemathesis
version=4.32.5
if ! "$schemathesis" --version 2>/dev/null | grep -qF "$version"; then
  python3 -m venv "$target/schemathesis"
  "$target/schemathesis/bin/pip" install --quiet "schemathesis==$version"
fi

directory=$(mktemp -d)
"$target/debug/flowtrail" up --data "$directory/data" --read capture/tests/golden/answered_late.pcap \
  --listen 127.0.0.1:0 --clickhouse-listen 127.0.0.1:0 >"$directory/said" 2>"$directory/log" &
up=$!
trap 'kill "$up"; wait "$up" || true; rm -r "$directory"' EXIT
until grep -q ^http "$directory/said"; do
  kill -0 "$up" 2>/dev/null || { cat "$directory/log" >&2; exit 1; }
  sleep 0.2
done
graph=$(grep ^http "$directory/said")
window=${graph#*\?}

# What the description cannot say of valid values, the service refuses: a window that ends before it begins, or
# a regular expression that is none.
run() {
  SCHEMATHESIS_HOOKS=openapi_hooks PYTHONPATH=query/tests PYTHONDONTWRITEBYTECODE=1 \
    "$schemathesis" --config-file "$1" run "${graph%/api/*}/openapi.json" --exclude-checks positive_data_acceptance \
    --max-examples "${OPENAPI_EXAMPLES:-50}" --seed 1 --no-color
}

# Any window; then the one that has the connections of the capture in it. What is not valid is refused in these ways:
# by default, failing would do.
cat >"$directory/any.toml" <<TOML
[checks.negative_data_rejection]
expected-statuses = [400, 404, 414, 431]
TOML
cat - "$directory/any.toml" >"$directory/capture.toml" <<TOML
[parameters]
"query.from" = "$(sed 's/from=\([0-9]*\).*/\1/' <<<"$window")"
"query.to" = "${window##*to=}"
TOML
run "$directory/any.toml"
run "$directory/capture.toml"
