#!/usr/bin/env bash
# tests.sh KIND [OPTION…]: the tests of a kind (pytest's -m), in parallel, then those marked alone.
# Modules that failed beside others get one more chance by themselves: see tools/failed.py.
# WORKERS: processes; OPTION: for the parallel run alone.
set -euo pipefail
kind=$1
shift
pytest=(.venv/bin/pytest --durations=25)
status=0

"${pytest[@]}" -n "${WORKERS:-auto}" -m "($kind) and not alone" "$@" || {
    mapfile -t modules < <(.venv/bin/python -m tools.failed)
    ((${#modules[@]})) && "${pytest[@]}" -m "($kind) and not alone" "${modules[@]}"
} || status=1
"${pytest[@]}" -m "($kind) and alone" || (($? == 5)) || status=1  # 5: there are none
exit $status
