#!/bin/bash
# Pebble, the ACME CA: https://acme.example.net:14000/dir. Its own certificate is
# signed by /srv/ca.pem, which a client must be given.
set -euo pipefail
: "${WORLD_NET4:?}"

install -d /srv
cd /srv
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
    -subj "/CN=Small internet ACME root" -keyout ca-key.pem -out ca.pem 2>/dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
    -CA ca.pem -CAkey ca-key.pem -subj "/CN=acme.example.net" \
    -addext "subjectAltName=DNS:acme.example.net,DNS:localhost" \
    -addext "basicConstraints=critical,CA:FALSE" \
    -keyout key.pem -out cert.pem 2>/dev/null

cat >pebble.json <<END
{
  "pebble": {
    "listenAddress": "[::]:14000",
    "managementListenAddress": "[::]:15000",
    "certificate": "cert.pem",
    "privateKey": "key.pem",
    "httpPort": 80,
    "tlsPort": 443,
    "retryAfter": {"authz": 1, "order": 1},
    "certificateValidityPeriod": 7776000,
    "profiles": {
      "default": {"description": "as long as the real ones", "validityPeriod": 7776000},
      "shortlived": {"description": "for tests of renewal", "validityPeriod": 600}
    }
  }
}
END

export PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0
exec pebble -config pebble.json -dnsserver "$WORLD_NET4.53:53"
