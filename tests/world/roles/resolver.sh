#!/bin/bash
# unbound: the resolver of every machine in the world. It asks the authoritative
# server about everything, remembers nothing and validates nothing.
set -euo pipefail
: "${WORLD_NET4:?}" "${WORLD_NET6:?}"

cat >/run/unbound.conf <<END
server:
    username: unbound
    chroot: ""
    directory: "/"
    pidfile: ""
    use-syslog: no
    verbosity: 1
    interface: 0.0.0.0
    interface: ::0
    access-control: 127.0.0.0/8 allow
    access-control: ::1 allow
    access-control: $WORLD_NET4.0/24 allow
    access-control: $WORLD_NET6::/64 allow
    module-config: "iterator"
    qname-minimisation: no
    harden-below-nxdomain: no
    # An edit of a zone shows at once.
    cache-max-ttl: 0
    cache-max-negative-ttl: 0
    # Never write the one server off: it may start after us.
    infra-keep-probing: yes
    infra-host-ttl: 1
    # Names that it would otherwise deny by itself.
    local-zone: "test." nodefault
    local-zone: "2.0.192.in-addr.arpa." nodefault
    local-zone: "100.51.198.in-addr.arpa." nodefault
    local-zone: "113.0.203.in-addr.arpa." nodefault
    local-zone: "8.b.d.0.1.0.0.2.ip6.arpa." nodefault
remote-control:
    control-enable: no
stub-zone:
    name: "."
    stub-addr: $WORLD_NET4.2
END

exec unbound -d -p -c /run/unbound.conf
