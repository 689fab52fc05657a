#!/bin/sh
# Checks that what Flowtrail is built and tried with is on this machine, and installs what is missing
# on Debian and Ubuntu (as root or with sudo); elsewhere it names what to install.
#
#   deploy/setup.sh build|demo|test|bench|golden|kafka|helm …
set -eu

missing=""

# need COMMAND PACKAGE
need() {
    command -v "$1" >/dev/null 2>&1 || PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1 ||
        missing="$missing $2"
}

# need_header HEADER PACKAGE
need_header() {
    printf '#include <%s>\n' "$1" | cc -E - >/dev/null 2>&1 || missing="$missing $2"
}

for purpose in "$@"; do
    case $purpose in
    build)
        need cc gcc
        need c++ g++
        need make make
        need npm npm
        need_header openssl/ssl.h libssl-dev
        ;;
    demo)
        need ip iproute2
        need nft nftables
        need sysctl procps
        need setpriv util-linux
        ;;
    test)
        need curl curl
        need openssl openssl
        ;;
    golden)
        need tcpdump tcpdump
        ;;
    kafka)
        need java openjdk-17-jre-headless
        need mvn maven
        need openssl openssl
        ;;
    helm)
        # Debian's own may be too old.
        command -v go >/dev/null 2>&1 || {
            echo "setup.sh: Go is missing: install 1.26 or newer" >&2
            exit 1
        }
        need openssl openssl
        ;;
    bench)
        need ip iproute2
        need setpriv util-linux
        need taskset util-linux
        need softflowd softflowd
        need tcpdump tcpdump
        ;;
    *)
        echo "usage: deploy/setup.sh build|demo|test|bench|golden|kafka|helm …" >&2
        exit 2
        ;;
    esac
done

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup.sh: Rust is missing: install it with rustup (stable, 1.95 or newer)" >&2
    exit 1
fi
[ -z "$missing" ] && exit 0

install="apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup.sh: missing, by their Debian names:$missing; install them and try again" >&2
    exit 1
elif [ "$(id -u)" -eq 0 ]; then
    sudo=""
elif command -v sudo >/dev/null 2>&1; then
    sudo=sudo
else
    echo "setup.sh: missing:$missing; as root, run: apt-get update && $install" >&2
    exit 1
fi
echo "installing$missing …" >&2
$sudo apt-get update -qq
# shellcheck disable=SC2086  # a list of words
$sudo env DEBIAN_FRONTEND=noninteractive $install >/dev/null
