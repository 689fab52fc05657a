#!/bin/sh
# Makes the passwords that docker-compose.yml asks for, once: .env, and .secrets/query/tokens, the tokens of
# the query service. What is there already stays, so it may be run again; delete both for new ones.
set -eu
cd "$(dirname "$0")/../.."

# 256 bits, as 64 letters and digits.
password() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

# value NAME: what .env says of it.
value() { sed -n "s/^$1=//p" .env; }

umask 077
if [ ! -e .env ]; then
    # Whole or not at all: a half file would be kept by the next run.
    trap 'rm -f .env.new' EXIT
    while IFS= read -r line; do
        case $line in
        FLOWTRAIL_USER=) printf '%s%s\n' "$line" "$(id -u):$(id -g)" ;;
        [A-Z]*=) printf '%s%s\n' "$line" "$(password)" ;;
        *) printf '%s\n' "$line" ;;
        esac
    done <.env.example >.env.new
    mv .env.new .env
    echo "secrets.sh: made .env" >&2
fi

tokens=.secrets/query/tokens
if [ ! -e "$tokens" ]; then
    token=$(value FLOWTRAIL_GRAFANA_TOKEN)
    [ -n "$token" ] || {
        echo "secrets.sh: .env has no FLOWTRAIL_GRAFANA_TOKEN: set it, or delete .env and run this again" >&2
        exit 1
    }
    mkdir -p .secrets/query
    printf '# NAME TOKEN NAMESPACES: see "Who may ask" in README.md. Reread when it changes.\ngrafana %s *\n' \
        "$token" >"$tokens"
    echo "secrets.sh: made $tokens" >&2
fi
