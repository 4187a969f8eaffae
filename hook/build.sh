#!/bin/sh
# build.sh OPTION…: compiles the hook, with the warnings and the protections that it has everywhere.
# The Dockerfile says where to and that it is static; the tests have it checked at run time.
exec "${CC:-cc}" -std=c17 -O2 -Wall -Wextra -Werror -Wconversion -Wshadow -Wformat=2 \
    -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fPIE \
    "$(dirname "$0")/post-data.c" "$@"
