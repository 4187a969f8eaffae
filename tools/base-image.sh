#!/usr/bin/env bash
# Prints the name of the image to build on: the official debian:trixie-slim,
# or, where no image can be pulled, a stand-in made here from Debian's packages.
# The stand-in has its own name, so it never passes for the official image.
set -euo pipefail
umask 022

readonly OFFICIAL=debian:trixie-slim
readonly STAND_IN=tambo-base:trixie-slim
readonly LOCK=/run/lock/tambo-base.lock
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf 'base-image: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

present() { docker image inspect "$1" >/dev/null 2>&1; }

# pull SECONDS
pull() {
    say "pulling $OFFICIAL (at most $1 s)"
    timeout "$1" docker pull -q "$OFFICIAL" >&2
}

host_packages() {
    apt-get update -qq >&2 || say "apt-get update had errors (above), going on"
    command -v debootstrap >/dev/null && [[ -f $KEYRING ]] && return
    say "installing debootstrap"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 debootstrap debian-archive-keyring >/dev/null
}

# stanza URI SUITES
stanza() {
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$1" "$2" "$KEYRING"
}

# The official image's apt sources: one deb822 file with updates and security.
# debootstrap knows the archive, only this machine's sources know of a mirror of
# the security updates.
write_sources() {
    local root=$1 archive security sources=$1/etc/apt/sources.list.d/debian.sources
    archive=$(awk '$1 == "deb" { print $2; exit }' "$root/etc/apt/sources.list")
    # shellcheck disable=SC2016 # apt's own placeholder
    security=$(apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Label: Debian-Security' | sort -u | head -n 1)
    rm "$root/etc/apt/sources.list"
    {
        stanza "$archive" "trixie trixie-updates"
        [[ -z $security ]] || { echo && stanza "$security" trixie-security; }
    } >"$sources"
    in_root "$root" apt-get update -qq --error-on=any && return
    say "no updates or security suite within reach: going on without"
    stanza "$archive" trixie >"$sources"
    in_root "$root" apt-get update -qq
}

# What docker's official image sets for dpkg and apt: no documentation, no
# translations, no cache, no service started by a package.
write_slim_settings() {
    local root=$1
    cat >"$root/etc/dpkg/dpkg.cfg.d/docker" <<'END'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
END
    cat >"$root/etc/apt/apt.conf.d/docker-clean" <<'END'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::GzipIndexes "true";
Acquire::Languages "none";
Apt::AutoRemove::SuggestsImportant "false";
END
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
}

# A machine behind a mirror past its date, or behind a proxy with its own CA,
# has settings for that; a build on this machine needs the same ones.
inherit_from_host() {
    local root=$1
    apt-config dump | grep -E '^Acquire::Check-(Valid-Until|Date) ' \
        >"$root/etc/apt/apt.conf.d/from-host" || true
    find /usr/local/share/ca-certificates -name '*.crt' \
        -exec cp -t "$root/usr/local/share/ca-certificates" {} +
    in_root "$root" update-ca-certificates
}

remove_what_slim_leaves_out() {
    local root=$1
    find "$root/usr/share/doc" ! -type d ! -name copyright -delete
    find "$root/usr/share/doc" -type d -empty -delete
    rm -rf "$root"/usr/share/{info,lintian,locale,man}/* "$root"/var/lib/apt/lists/* \
        "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/ldconfig/* \
        "$root"/var/log/{apt/*,bootstrap.log,dpkg.log,alternatives.log} \
        "$root"/etc/{hostname,resolv.conf}
    : >"$root/etc/machine-id"
}

# in_root ROOT COMMAND...
in_root() {
    DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 chroot "$@" >>"$work/log" 2>&1
}

clean_up() {
    local status=$?
    ((status == 0)) || tail -n 20 "$work/log" >&2 || true
    rm -rf --one-file-system "$work"
}

make_stand_in() {
    local root
    say "making $STAND_IN with debootstrap"
    # Not /tmp: often mounted nodev, where debootstrap cannot work.
    work=$(mktemp -d /var/tmp/tambo-base.XXXXXX)
    trap clean_up EXIT
    root=$work/root
    # In a mount namespace of its own: an interrupted run leaves no mount behind.
    unshare --mount debootstrap --variant=minbase --include=ca-certificates trixie "$root" \
        >"$work/log" 2>&1
    write_slim_settings "$root"
    inherit_from_host "$root"
    write_sources "$root"
    in_root "$root" apt-get upgrade -y -qq
    remove_what_slim_leaves_out "$root"
    tar -C "$root" --exclude='./dev/*' -c . | docker import \
        --change 'CMD ["bash"]' \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change "LABEL tambo.base=\"stand-in for $OFFICIAL, made with debootstrap\"" \
        - "$STAND_IN" >/dev/null
}

docker info >/dev/null 2>&1 || die "no Docker engine answers: run tools/engine.sh first"

# With a stand-in at hand, a registry that does not answer at once is no reason to wait.
patience=60
present "$STAND_IN" && patience=5

if present "$OFFICIAL" || pull "$patience"; then
    echo "$OFFICIAL"
    exit 0
fi

if ! present "$STAND_IN"; then
    [[ $EUID -eq 0 ]] || die "$OFFICIAL cannot be pulled; run $0 as root to make a stand-in with debootstrap"
    exec 9>"$LOCK"
    flock 9
    if ! present "$STAND_IN"; then # another run may have made it meanwhile
        host_packages
        make_stand_in
    fi
fi
say "using $STAND_IN; to have the official image tried at length again: docker image rm $STAND_IN"
echo "$STAND_IN"
