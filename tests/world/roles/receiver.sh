#!/bin/bash
# A big mailbox provider: Postfix that accepts every local part and never rejects
# for SPF, DKIM or DMARC, but writes the verdicts into Authentication-Results.
# Everything ends up in one Maildir. If one daemon ends, the machine ends.
set -euo pipefail
: "${WORLD_NET4:?}" "${WORLD_NET6:?}" "${RELAY_DOMAINS:?}"

readonly NAME=mx.example.net
readonly MAILDIR=/var/mail/world

# The further addresses, never the source of what it sends itself.
addresses() {
    local host
    for host in 26 27; do
        ip addr add "$WORLD_NET4.$host/24" dev eth0
    done
    for host in 26 28; do
        ip addr add "$WORLD_NET6::$host/64" dev eth0 nodad preferred_lft 0
    done
}

certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
        -subj "/CN=$NAME" \
        -addext "subjectAltName=DNS:$NAME,DNS:mx4.example.net,DNS:mx6.example.net,DNS:mx.elsewhere.example" \
        -keyout /etc/postfix/key.pem -out /etc/postfix/cert.pem 2>/dev/null
}

configure_postfix() {
    cat >/etc/postfix/main.cf <<END
compatibility_level = 3.10
maillog_file = /dev/stdout
myhostname = $NAME
inet_interfaces = all
inet_protocols = all
mynetworks_style = host
mydestination =
alias_maps =
local_recipient_maps =

virtual_mailbox_domains = example.net, v4.example.net, v6.example.net, $RELAY_DOMAINS
virtual_mailbox_base = /var/mail
virtual_mailbox_maps = static:world/
virtual_uid_maps = static:$(id -u nobody)
virtual_gid_maps = static:$(id -g nobody)
virtual_mailbox_limit = 0
message_size_limit = 52428800

smtpd_tls_security_level = may
smtpd_tls_cert_file = /etc/postfix/cert.pem
smtpd_tls_key_file = /etc/postfix/key.pem
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
# A burst from one address is no reason to refuse; tests that want a limit set one.
smtpd_client_connection_count_limit = 0

smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_policy_service unix:private/policyd-spf
policyd-spf_time_limit = 3600
smtpd_milters = inet:127.0.0.1:8891, inet:127.0.0.1:8893
# No verdict, no mail: rather a temporary error than an unmarked message.
milter_default_action = tempfail
END
    postconf -F '*/*/chroot = n'
    postconf -M 'policyd-spf/unix=policyd-spf unix - n n - 0 spawn user=policyd-spf argv=/usr/bin/policyd-spf'
    install -d -o nobody -g nogroup -m 0700 "$MAILDIR" "$MAILDIR"/{new,cur,tmp}
}

configure_spf() {
    cat >/etc/postfix-policyd-spf-python/policyd-spf.conf <<END
debugLevel = 1
TestOnly = 1
HELO_reject = False
Mail_From_reject = False
PermError_reject = False
TempError_Defer = False
Header_Type = AR
Authserv_Id = $NAME
END
}

configure_opendkim() {
    # Its resolver is its own and does not read resolv.conf. No ResolverConfiguration: each message
    # reads that file, and two at a time end the daemon.
    cat >/run/opendkim.conf <<END
Mode v
Socket inet:8891@127.0.0.1
UserID opendkim
Syslog yes
SyslogSuccess yes
LogResults yes
AuthservID $NAME
AlwaysAddARHeader yes
MaximumSignaturesToVerify 10
Nameservers $WORLD_NET4.53
END
}

configure_opendmarc() {
    cat >/run/opendmarc.conf <<END
Socket inet:8893@127.0.0.1
UserID opendmarc
Syslog true
AuthservID $NAME
TrustedAuthservIDs $NAME
RejectFailures false
SPFIgnoreResults false
SPFSelfValidate false
PublicSuffixList /usr/share/publicsuffix/public_suffix_list.dat
END
}

addresses
certificate
configure_postfix
configure_spf
configure_opendkim
configure_opendmarc

trap 'exit 0' TERM INT
syslog.py &
opendkim -f -x /run/opendkim.conf &
opendmarc -f -c /run/opendmarc.conf &
postfix start-fg &
wait -n || true
echo "receiver: a daemon has ended, and so do we" >&2
exit 1
