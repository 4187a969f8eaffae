#!/bin/bash
# load-zone.sh ZONE: checks the zone file on stdin, then replaces the zone in one
# transaction. On any complaint nothing changes and the status is not 0.
set -euo pipefail

readonly zone=${1:?usage: load-zone.sh ZONE <FILE}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/given"

# Local names only: with the default it would ask the resolver about others.
checked=0
named-checkzone -i local -k fail -m fail -M fail -n fail -r fail -S fail -W fail \
    -D -o "$work/canonical" "$zone" "$work/given" >"$work/words" 2>&1 || checked=$?
# It only warns about a record outside the zone, and drops it.
if ((checked != 0)) || grep -q 'ignoring out-of-zone data' "$work/words"; then
    sed "s#$work/given#$zone#" "$work/words" >&2
    exit 1
fi

replace() {
    pdnsutil load-zone "$zone" "$work/canonical" || return
    # Fills in the empty names in between, else they would be NXDOMAIN.
    pdnsutil rectify-zone "$zone"
}
if ! replace >"$work/words" 2>&1; then
    cat "$work/words" >&2
    exit 1
fi
