#!/bin/bash
# A git server: git@git.example.net:backup.git over SSH, and https://git.example.net/backup.git
# with the token of /srv/token. Both run git's own programs. /srv/ca.pem vouches for HTTPS.
#
# What a test changes: /srv/authorized_keys, /srv/token, the repositories in /srv/git.
set -euo pipefail

id git >/dev/null 2>&1 || useradd --home-dir /srv/git --no-create-home --shell /usr/bin/git-shell git
# sshd takes no locked account.
usermod --password '*' git
install -d /srv /run/sshd
install -d -o git -g git /srv/git
touch /srv/authorized_keys
cd /srv
if [[ ! -e /srv/ca.pem ]]; then
    openssl rand -hex 20 >token
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
        -subj "/CN=Small internet git root" -keyout ca-key.pem -out ca.pem 2>/dev/null
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
        -CA ca.pem -CAkey ca-key.pem -subj "/CN=git.example.net" \
        -addext "subjectAltName=DNS:git.example.net" -addext "basicConstraints=critical,CA:FALSE" \
        -keyout key.pem -out cert.pem 2>/dev/null
    ssh-keygen -q -t ed25519 -N '' -C '' -f /srv/host_key
fi

cat >sshd_config <<END
HostKey /srv/host_key
AuthorizedKeysFile /srv/authorized_keys
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
AllowUsers git
LogLevel VERBOSE
END

python3 /world/githttps.py &
exec /usr/sbin/sshd -D -e -f /srv/sshd_config
