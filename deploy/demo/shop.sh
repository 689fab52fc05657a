#!/bin/sh
# The parts of the shop of docker-compose.yml's demo profile, with nothing but busybox:
#
#   visitors → shop → cart → db (one connection that stays open)
#                     cart → payments, at an address of the outside world
#   scanner → db on a port that refuses, and → an address where nobody answers
#
#   shop.sh visitors|shop|cart|db|payments|scanner
set -eu

payments=198.51.100.10
nobody=198.51.100.99
get="wget -q -T 5 -O -"

# page NAME COMMAND…: an HTTP server on port 80 that answers /cgi-bin/NAME with what a command prints.
page() {
    name=$1
    shift
    mkdir -p /tmp/www/cgi-bin
    echo "flowtrail demo" >/tmp/www/index.html
    printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\nexec %s\n' "$*" >"/tmp/www/cgi-bin/$name"
    chmod +x "/tmp/www/cgi-bin/$name"
    exec httpd -f -p 80 -h /tmp/www
}

# What is said over a connection that stays open.
statements() {
    while sleep 2; do echo "UPDATE carts SET items = items + 1"; done
}

case ${1:-} in
visitors)
    while sleep 1; do
        # shellcheck disable=SC2086  # a command and its words
        if $get http://shop/cgi-bin/basket >/dev/null; then touch /tmp/alive; fi
    done
    ;;
shop) page basket "$get http://cart/cgi-bin/items" ;;
cart)
    while true; do
        statements | nc db 5432 >/dev/null || true
        sleep 1
    done &
    while sleep 5; do
        # shellcheck disable=SC2086
        $get "http://$payments:443/" >/dev/null || true
    done &
    page items "seq 1 100"
    ;;
db) exec tcpsvd -c 64 0.0.0.0 5432 cat ;;
payments)
    ip address add "$payments/24" dev eth0
    # Two doors, the second for the health check.
    mkdir -p /tmp/www
    seq 1 500 >/tmp/www/index.html
    httpd -p 443 -h /tmp/www
    exec httpd -f -p 80 -h /tmp/www
    ;;
scanner)
    # Packets to it leave, and reach no interface.
    arp -s "$nobody" 02:00:00:00:00:63
    while sleep 10; do
        nc -w 2 db 6379 </dev/null 2>/dev/null || true
        nc -w 2 "$nobody" 443 </dev/null 2>/dev/null || true
        touch /tmp/alive
    done
    ;;
*)
    echo "usage: shop.sh visitors|shop|cart|db|payments|scanner" >&2
    exit 2
    ;;
esac
