#!/bin/bash
# Somebody else's mail server, which sends: Postfix with OpenDKIM signs as
# writer.example and delivers to whatever MX there is. v4@writer.example
# leaves by IPv4, v6@ by IPv6. /srv/dkim.txt is its DKIM record, for a zone file.
set -euo pipefail
: "${WORLD_NET4:?}" "${WORLD_NET6:?}"

readonly NAME=out.writer.example DOMAIN=writer.example SELECTOR=out

opendkim-genkey -b 2048 -d "$DOMAIN" -s "$SELECTOR" -D /srv
mv "/srv/$SELECTOR.txt" /srv/dkim.txt
chown opendkim "/srv/$SELECTOR.private"

cat >/run/opendkim.conf <<END_OF_FILE
Mode s
Socket inet:8891@127.0.0.1
UserID opendkim
Syslog yes
Domain $DOMAIN
Selector $SELECTOR
KeyFile /srv/$SELECTOR.private
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
END_OF_FILE

cat >/etc/postfix/main.cf <<END_OF_FILE
compatibility_level = 3.10
maillog_file = /dev/stdout
myhostname = $NAME
inet_interfaces = loopback-only
smtp_bind_address = $WORLD_NET4.40
smtp_bind_address6 = $WORLD_NET6::40
inet_protocols = all
mydestination =
alias_maps =
smtp_tls_security_level = may
non_smtpd_milters = inet:127.0.0.1:8891
# No signature, no mail.
milter_default_action = tempfail
sender_dependent_default_transport_maps = inline:{ { v4@$DOMAIN = smtp4: } { v6@$DOMAIN = smtp6: } }
minimal_backoff_time = 1s
queue_run_delay = 1s
END_OF_FILE
postconf -F '*/*/chroot = n'
for family in 4 6; do
    postconf -M "smtp$family/unix=smtp$family unix - - n - - smtp -o inet_protocols=ipv$family"
done

trap 'exit 0' TERM INT
syslog.py &
opendkim -f -x /run/opendkim.conf &
postfix start-fg &
wait -n || true
echo "outside: a daemon has ended, and so do we" >&2
exit 1
