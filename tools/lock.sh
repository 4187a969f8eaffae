#!/usr/bin/env bash
# Pins every dependency by hash, for every platform. Needs uv.
set -euo pipefail
cd "$(dirname "$0")/.."

lock() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-emit-index-url "$@"
}
lock pyproject.toml -o requirements/runtime.txt
lock pyproject.toml --group dev -o requirements/dev.txt
printf 'setuptools\nwheel\n' | lock --no-annotate - -o requirements/build.txt
