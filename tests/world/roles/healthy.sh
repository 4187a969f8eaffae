#!/bin/bash
# healthy.sh ROLE: status 0 when the role really serves.
set -euo pipefail

# answers NAME: the local name server has an address for it
answers() { dig +short +tries=1 +time=2 @127.0.0.1 "$1" A | grep -q .; }
listens() { ss -Hltn "sport = :$1" | grep -q .; }
greets() {
    local banner
    exec {smtp}<>/dev/tcp/127.0.0.1/25
    read -r -t 3 -u "$smtp" banner
    printf 'QUIT\r\n' >&"$smtp"
    [[ $banner == 220* ]]
}

case $1 in
    # The zone that is loaded last.
    authoritative | resolver) answers mx.elsewhere.example ;;
    receiver) listens 8891 && listens 8893 && greets ;;
    outside) listens 8891 && greets ;;
    git) listens 22 && listens 443 ;;
    pebble) curl -sf --cacert /srv/ca.pem https://localhost:14000/dir >/dev/null ;;
esac
