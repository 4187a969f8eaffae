#!/bin/bash
# A receiver whose owner changes his mind: Postfix, which takes any mail or defers all of it, with
# TLS or without. What it takes is in one Maildir.  mailbox.sh NAME
set -euo pipefail
readonly NAME=$1

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
    -subj "/CN=$NAME" -keyout /etc/postfix/key.pem -out /etc/postfix/cert.pem 2>/dev/null
cat >/etc/postfix/main.cf <<END
compatibility_level = 3.10
maillog_file = /dev/stdout
myhostname = $NAME
inet_interfaces = all
inet_protocols = all
mydestination =
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = static:all
virtual_mailbox_base = /var/mail
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:$(id -u nobody)
virtual_gid_maps = static:$(id -g nobody)
smtpd_tls_security_level = may
smtpd_tls_cert_file = /etc/postfix/cert.pem
smtpd_tls_key_file = /etc/postfix/key.pem
smtpd_client_connection_count_limit = 0
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = permit
END
postconf -F '*/*/chroot = n'
install -d -o nobody -g nogroup -m 0700 /var/mail/box /var/mail/box/{new,cur,tmp}
exec postfix start-fg
