#!/bin/sh
# Gets libchdb.so, the embedded ClickHouse, into the cache once, and prints its path.
#
#   FLOWTRAIL_CACHE  where to keep it (default: $XDG_CACHE_HOME/flowtrail or ~/.cache/flowtrail)
set -eu

version=26.7.3-stable.1

say() { printf '%s\n' "fetch-engine: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

case $(uname -s)-$(uname -m) in
Linux-x86_64)
    package=@chdb/lib-linux-x64-gnu
    sha256=36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5
    ;;
*) fail "no pinned engine for $(uname -s) $(uname -m): build chdb $version yourself and pass it with --engine" ;;
esac

cache=${FLOWTRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flowtrail}
folder=$cache/engine/$version
library=$folder/libchdb.so

if [ -f "$library" ]; then
    printf '%s\n' "$library"
    exit 0
fi
for tool in npm tar sha256sum; do
    command -v "$tool" >/dev/null ||
        fail "$tool is needed: install it, or unpack $package@$version elsewhere and pass its libchdb.so with --engine"
done

mkdir -p "$folder"
work=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM

say "getting $package@$version (170 MB, 566 MB unpacked)"
npm pack --silent --pack-destination "$work" "$package@$version" >&2 ||
    fail "npm could not get $package@$version: check the network and npm's registry setting"
tar -xzf "$work"/*.tgz -C "$work" package/libchdb.so

say "checking it"
printf '%s  %s\n' "$sha256" "$work/package/libchdb.so" | sha256sum -c - >/dev/null ||
    fail "$package@$version is not the file that was pinned: its sha256 differs, so it is not used"

# The rename is atomic: whoever looks sees the whole library or none.
mv "$work/package/libchdb.so" "$library"
say "kept in $library"
printf '%s\n' "$library"
