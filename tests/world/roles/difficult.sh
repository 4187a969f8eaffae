#!/bin/bash
# Receivers that make it difficult, each at an address of its own:
#
#   .30  greylisting: Postfix with postgrey, which takes a second try after a second
#   .31  Postfix without TLS
#   .32  refuses or defers every recipient with the words of a large provider: answering.py
#   .33  accepts connections and never says a word
#   .34  a black hole: not even connections are answered
#
# The same digits behind :: for IPv6. /peer/answers.json has the replies, by local part.
set -euo pipefail
: "${WORLD_NET4:?}" "${WORLD_NET6:?}"

readonly NAME=mx.difficult.example
readonly MAILDIR=/var/mail/world

for host in 31 32 33 34; do
    ip addr add "$WORLD_NET4.$host/24" dev eth0
    ip addr add "$WORLD_NET6::$host/64" dev eth0 nodad preferred_lft 0
done

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
    -subj "/CN=$NAME" -addext "subjectAltName=DNS:mx-grey.difficult.example" \
    -keyout /etc/postfix/key.pem -out /etc/postfix/cert.pem 2>/dev/null

cat >/etc/postfix/main.cf <<END_OF_FILE
compatibility_level = 3.10
maillog_file = /dev/stdout
myhostname = $NAME
inet_interfaces = all
inet_protocols = all
mynetworks_style = host
mydestination =
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = grey.difficult.example, plain.difficult.example
virtual_mailbox_base = /var/mail
virtual_mailbox_maps = static:world/
virtual_uid_maps = static:$(id -u nobody)
virtual_gid_maps = static:$(id -g nobody)
smtpd_tls_cert_file = /etc/postfix/cert.pem
smtpd_tls_key_file = /etc/postfix/key.pem
smtpd_relay_restrictions = reject_unauth_destination
END_OF_FILE
postconf -F '*/*/chroot = n'
postconf -MX smtp/inet
for address in "$WORLD_NET4.30" "[$WORLD_NET6::30]"; do
    cat >>/etc/postfix/master.cf <<END_OF_FILE
$address:smtp inet n - n - - smtpd
    -o smtpd_tls_security_level=may
    -o { smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:10023 }
END_OF_FILE
done
for address in "$WORLD_NET4.31" "[$WORLD_NET6::31]"; do
    echo "$address:smtp inet n - n - - smtpd -o smtpd_tls_security_level=none" >>/etc/postfix/master.cf
done
install -d -o nobody -g nogroup -m 0700 "$MAILDIR" "$MAILDIR"/{new,cur,tmp}
install -d -o postgrey -g postgrey /run/postgrey

trap 'exit 0' TERM INT
syslog.py &
postgrey --inet=127.0.0.1:10023 --delay=1 --auto-whitelist-clients=0 --user=postgrey \
    --dbdir=/run/postgrey &
answering.py "$WORLD_NET4" "$WORLD_NET6" /peer/answers.json &
postfix start-fg &
wait -n || true
echo "difficult: a daemon has ended, and so do we" >&2
exit 1
