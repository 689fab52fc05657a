#!/bin/sh
# `make demo`: checks the machine, builds, gets the embedded engine, and shows Flowtrail on real traffic.
# DEMO_SECONDS=30 ends by itself and says whether the graph is what happened.
set -eu
cd "$(dirname "$0")/../.."

deploy/setup.sh build demo
echo "building (some minutes the first time) …" >&2
cargo build --bin flowtrail --bin flowtrail-demo
FLOWTRAIL_ENGINE=$(embedded/fetch-engine.sh)
export FLOWTRAIL_ENGINE

# The shell must not be in the way of Ctrl-C: what runs takes its place.
demo=${CARGO_TARGET_DIR:-target}/debug/flowtrail-demo
if [ "$(id -u)" -eq 0 ]; then
    exec "$demo"
fi
command -v sudo >/dev/null 2>&1 || {
    echo "the demo makes network namespaces and needs root: run \`make demo\` as root (sudo is not installed)" >&2
    exit 1
}
echo "the demo makes network namespaces and needs root: using sudo" >&2
exec sudo --preserve-env=DEMO_SECONDS,FLOWTRAIL_ENGINE "$demo"
