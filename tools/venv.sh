#!/usr/bin/env bash
# Makes the development environment in the folder given, every file known by its hash.
set -euo pipefail

venv=$1
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "venv: Python 3.11 or newer is needed; this is $(python3 --version)" >&2
    exit 1
}
# Debian and Ubuntu keep venv's half in a package of its own.
if ! python3 -c 'import ensurepip' 2>/dev/null; then
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        echo "venv: install python3-venv first" >&2
        exit 1
    fi
    echo "venv: installing python3-venv" >&2
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
fi
echo "venv: installing the development tools into $venv" >&2
python3 -m venv --clear "$venv"
pip=("$venv/bin/pip" install -q --disable-pip-version-check --require-hashes)
"${pip[@]}" -r requirements/build.txt
"${pip[@]}" --no-build-isolation -r requirements/dev.txt
