#!/usr/bin/env bash
# Makes `docker`, `docker compose` and `docker buildx` work on this machine,
# from the distribution's own packages. Does nothing when they work already.
set -euo pipefail
umask 022

readonly LOG=/var/log/dockerd.log
readonly PID_FILE=/run/docker.pid
readonly CONTAINERD_PID_FILE=/run/docker/containerd/containerd.pid
readonly LOCK=/run/lock/tambo-engine.lock
readonly START_SECONDS=60

say() { printf 'engine: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

# A wedged engine accepts the connection and never answers.
answers() { timeout 10 docker info >/dev/null 2>&1; }
has_compose() { docker compose version >/dev/null 2>&1; }
has_buildx() { docker buildx version >/dev/null 2>&1; }
works() { answers && has_compose && has_buildx; }

distribution() {
    # shellcheck source=/dev/null
    (. /etc/os-release 2>/dev/null && printf '%s %s' "$ID" "${VERSION_ID:-}") || true
}

# missing_packages DISTRIBUTION: the packages to install, one a line
missing_packages() {
    local client='' compose
    case $1 in
        'debian 12' | 'debian 13')
            # trixie's docker.io only recommends the client.
            client=docker-cli
            compose=docker-compose
            ;;
        'ubuntu 22.04' | 'ubuntu 24.04') compose=docker-compose-v2 ;;
        *) return 1 ;;
    esac
    command -v dockerd >/dev/null || echo docker.io
    [[ -z $client ]] || command -v docker >/dev/null || echo "$client"
    has_compose || echo "$compose"
    has_buildx || echo docker-buildx
}

# Debian 12 has compose v1 and no buildx. Its own mirrors serve trixie too:
# the same sources with the suite replaced, pinned so low that nothing that is
# installed already is ever upgraded from there.
add_trixie_source() {
    local uri codename
    say "adding trixie at priority 100: /etc/apt/sources.list.d/tambo-trixie.sources"
    # shellcheck disable=SC2016 # apt's own placeholders
    apt-get indextargets --format '$(REPO_URI) $(CODENAME)' \
        'Created-By: Packages' 'Origin: Debian' 'Component: main' | sort -u |
        while read -r uri codename; do
            case $codename in
                bookworm | bookworm-updates | bookworm-security) ;;
                *) continue ;;
            esac
            printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' \
                "$uri" "${codename/bookworm/trixie}" /usr/share/keyrings/debian-archive-keyring.gpg
        done >/etc/apt/sources.list.d/tambo-trixie.sources
    printf 'Package: *\nPin: release o=Debian,n=trixie*\nPin-Priority: 100\n' \
        >/etc/apt/preferences.d/tambo-trixie
}

read_package_lists() {
    say "reading the package lists"
    # Somebody else's broken source must not stop us: the install decides.
    apt-get update -qq || say "apt-get update had errors (above), going on"
}

# install_packages DISTRIBUTION PACKAGE...
install_packages() {
    local distribution=$1 release=
    shift
    read_package_lists
    if [[ $distribution == 'debian 12' ]]; then
        add_trixie_source
        read_package_lists
        release=/trixie
    fi
    say "installing $*"
    # A machine that has just booted may be upgrading itself: wait for it.
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "${@/%/$release}" >/dev/null
}

# forget_stale FILE COMMAND: a crash leaves the pid file, and when the pid then
# belongs to another program, dockerd believes that it is running already.
forget_stale() {
    local pid
    [[ -f $1 ]] || return 0
    pid=$(<"$1")
    [[ $(cat "/proc/$pid/comm" 2>/dev/null) != "$2" ]] || return 0
    say "removing the stale $1"
    rm -f "$1"
}

# The daemon outlives its caller: no terminal, no open file of the caller's
# (whoever reads one of them to its end would wait for ever).
exec_dockerd() {
    local fd
    for fd in /proc/self/fd/*; do
        fd=${fd##*/}
        ((fd <= 2)) || exec {fd}>&-
    done
    exec setsid dockerd --pidfile "$PID_FILE" </dev/null >>"$LOG" 2>&1
}

start() {
    started= # the process to watch, if it is our child
    if [[ -d /run/systemd/system ]]; then
        say "starting docker.service"
        systemctl start docker || true # wait_until_ready shows why
        return
    fi
    forget_stale "$PID_FILE" dockerd
    forget_stale "$CONTAINERD_PID_FILE" containerd
    if [[ -f $PID_FILE ]]; then
        say "dockerd is running, but not answering yet (pid $(<"$PID_FILE"))"
        return
    fi
    say "starting dockerd (log: $LOG, pid: $PID_FILE)"
    exec_dockerd &
    started=$!
}

died() { [[ -n $started ]] && ! kill -0 "$started" 2>/dev/null; }

show_log() {
    if [[ -d /run/systemd/system ]]; then
        journalctl -u docker -n 20 --no-pager >&2
    else
        tail -n 20 "$LOG" >&2
    fi
}

wait_until_ready() {
    local end=$((SECONDS + START_SECONDS))
    until answers; do
        if ((SECONDS >= end)) || died; then
            show_log || true
            die "the engine does not answer; the end of its log is above"
        fi
        sleep 0.2
    done
}

if works; then
    say "ready"
    exit 0
fi

distribution=$(distribution)
missing=$(missing_packages "$distribution") ||
    die "unknown distribution '$distribution': install and start a Docker engine (24 or newer) with its compose (v2) and buildx plugins"
mapfile -t packages < <(printf '%s' "$missing")

if [[ $EUID -ne 0 ]]; then
    die "run $0 as root: it installs ${packages[*]:-nothing} and starts the engine (if it runs already, your user may not use it: usermod -aG docker USER)"
fi

exec 9>"$LOCK"
flock 9
((${#packages[@]} == 0)) || install_packages "$distribution" "${packages[@]}"
if ! answers; then
    start
    wait_until_ready
fi
works || die "the engine runs, but 'docker compose version' or 'docker buildx version' fails"
say "ready: engine $(docker version --format '{{.Server.Version}}'), compose $(docker compose version --short), buildx $(docker buildx version | cut -d' ' -f2)"
