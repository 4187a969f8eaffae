#!/usr/bin/env bash
# A C compiler and its library, with which the hook (hook/post-data.c) is checked and tested.
# Does nothing when they work already.
set -euo pipefail

program=$(mktemp)
trap 'rm -f "$program"' EXIT
works() {
    # The tests look at memory and arithmetic while it runs.
    echo 'int main(void) { return 0; }' |
        "${CC:-cc}" -fsanitize=address,undefined -x c -o "$program" - 2>/dev/null
}

works && exit
if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "compiler: install a C compiler with its sanitizers first (Debian: apt-get install gcc libc6-dev)" >&2
    exit 1
fi
echo "compiler: installing gcc" >&2
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o DPkg::Lock::Timeout=300 gcc libc6-dev >/dev/null
works || {
    echo "compiler: gcc is installed, and ${CC:-cc} still does not compile" >&2
    exit 1
}
