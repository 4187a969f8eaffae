#!/bin/bash
# PowerDNS, authoritative for the root and so for everything: an unknown name is
# NXDOMAIN, nothing is ever refused and no question leaves the world.
set -euo pipefail
: "${WORLD_NET4:?}" "${WORLD_NET6:?}" "${WORLD_API_KEY:?}"

readonly DB=/var/lib/powerdns/world.sqlite3

cat >/etc/powerdns/pdns.conf <<END
launch=gsqlite3
gsqlite3-database=$DB
gsqlite3-dnssec=yes
local-address=0.0.0.0, ::
setuid=pdns
setgid=pdns
# An edit shows at once.
cache-ttl=0
query-cache-ttl=0
negquery-cache-ttl=0
zone-cache-refresh-interval=0
# Else it asks its maker's servers about its own version.
security-poll-suffix=
api=yes
api-key=$WORLD_API_KEY
webserver=yes
webserver-address=0.0.0.0
webserver-allow-from=127.0.0.0/8, $WORLD_NET4.0/24
webserver-loglevel=none
log-timestamp=no
loglevel=4
END
rm -f /etc/powerdns/pdns.d/*

# nibbles6 WIDTH HEX: the digits of HEX, right-aligned in WIDTH, in reverse order
nibbles6() {
    local digits
    printf -v digits "%$1s" "$2"
    rev <<<"${digits// /0}" | sed 's/./&./g'
}
ptr4() { echo "$1.$REVERSE4 PTR $2."; }
ptr6() { echo "$(nibbles6 16 "$1")$REVERSE6 PTR $2."; }

IFS=. read -r a b c <<<"$WORLD_NET4"
readonly REVERSE4=$c.$b.$a.in-addr.arpa.
prefix=
for group in ${WORLD_NET6//:/ }; do
    prefix+=$(printf '%04x' "0x$group")
done
printf -v prefix '%-16s' "$prefix"
REVERSE6=$(nibbles6 16 "${prefix// /0}")ip6.arpa.
readonly REVERSE6

# start ZONE: the two records that every zone begins with
start() {
    echo "\$TTL 60"
    echo "$1 SOA ns.example.net. hostmaster.example.net. 1 3600 600 86400 60"
    echo "$1 NS ns.example.net."
}

root_zone() {
    start .
    cat <<END
ns.example.net.  A    $WORLD_NET4.2
ns.example.net.  AAAA $WORLD_NET6::2
END
}

reverse4_zone() {
    start "$REVERSE4"
    ptr4 2 ns.example.net
    ptr4 14 acme.example.net
    ptr4 25 mx.example.net
    ptr4 26 mx.elsewhere.example
    ptr4 27 mx4.example.net
    ptr4 40 out.writer.example
    ptr4 53 resolver.example.net
}

reverse6_zone() {
    start "$REVERSE6"
    ptr6 2 ns.example.net
    ptr6 14 acme.example.net
    ptr6 25 mx.example.net
    ptr6 26 mx.elsewhere.example
    ptr6 28 mx6.example.net
    ptr6 40 out.writer.example
    ptr6 53 resolver.example.net
}

provider_zone() {
    start example.net.
    cat <<END
\$ORIGIN example.net.
@         MX   10 mx
@         TXT  "v=spf1 mx -all"
_dmarc    TXT  "v=DMARC1; p=none"
mx        A    $WORLD_NET4.25
mx        AAAA $WORLD_NET6::25
mx        TXT  "v=spf1 a -all"
v4        MX   10 mx4
mx4       A    $WORLD_NET4.27
v6        MX   10 mx6
mx6       AAAA $WORLD_NET6::28
ns        A    $WORLD_NET4.2
ns        AAAA $WORLD_NET6::2
acme      A    $WORLD_NET4.14
acme      AAAA $WORLD_NET6::14
git       A    $WORLD_NET4.22
resolver  A    $WORLD_NET4.53
resolver  AAAA $WORLD_NET6::53
END
}

elsewhere_zone() {
    start elsewhere.example.
    cat <<END
\$ORIGIN elsewhere.example.
@      MX   10 mx
mx     A    $WORLD_NET4.26
mx     AAAA $WORLD_NET6::26
END
}

writer_zone() {
    start writer.example.
    cat <<END
\$ORIGIN writer.example.
@      MX   10 mx.elsewhere.example.
@      TXT  "v=spf1 a:out.writer.example -all"
_dmarc TXT  "v=DMARC1; p=reject"
out    A    $WORLD_NET4.40
out    AAAA $WORLD_NET6::40
END
}

create_database() {
    # With a write-ahead log a loader never waits for the server.
    {
        echo 'PRAGMA journal_mode = WAL;'
        cat /usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql
    } | sqlite3 "$DB" >/dev/null
    chown pdns:pdns "$DB"
}

# What was loaded outlives a restart of the container.
[[ -e $DB ]] || create_database
root_zone | load-zone.sh .
reverse4_zone | load-zone.sh "$REVERSE4"
reverse6_zone | load-zone.sh "$REVERSE6"
provider_zone | load-zone.sh example.net.
elsewhere_zone | load-zone.sh elsewhere.example.
writer_zone | load-zone.sh writer.example.

exec pdns_server --daemon=no --guardian=no --disable-syslog --write-pid=no
