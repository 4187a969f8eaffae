"""Answers as large mailbox providers and much-used servers give them, line by line.

The words are those that the providers publish or that their servers say; addresses and names are
examples. `hint` is what entrypoint.delivery.replies must make of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """`lines` are what follows the number of the reply, each on a line of its own."""

    provider: str
    code: int
    lines: tuple[str, ...]
    hint: str

    @property
    def reply(self) -> str:
        """As it is sent (RFC 5321 4.2), without the last line break."""
        *first, last = self.lines
        return "\r\n".join([*(f"{self.code}-{line}" for line in first), f"{self.code} {last}"])

    @property
    def name(self) -> str:
        return f"{self.provider}-{self.code}-{self.hint}"


def _answer(provider: str, hint: str, code: int, *lines: str) -> Answer:
    return Answer(provider, code, lines, hint)


ANSWERS = (
    _answer(
        "gmail", "ptr", 550,
        "5.7.25 [203.0.113.10] The IP address sending this message does not have a",
        "5.7.25 PTR record setup, or the corresponding forward DNS entry does not",
        "5.7.25 match the sending IP. As a policy, Gmail does not accept messages",
        "5.7.25 from IPs with missing PTR records. For more information, go to",
        "5.7.25 https://support.google.com/a?p=sender-guidelines-ip a1-20si1.1 - gsmtp",
    ),
    _answer(
        "gmail", "ptr-ipv6", 550,
        "5.7.1 [2001:db8::10] Our system has detected that this message does not meet",
        "5.7.1 IPv6 sending guidelines regarding PTR records and authentication.",
        "5.7.1 For more information, go to",
        "5.7.1 https://support.google.com/mail/?p=IPv6AuthError a1-20si1.1 - gsmtp",
    ),
    _answer(
        "gmail", "ptr", 421,
        "4.7.23 Your email has been rate limited because the sending IP address does",
        "4.7.23 not have a PTR record, or the PTR record's forward DNS entry does not",
        "4.7.23 match the sending IP address. a1-20si1.1 - gsmtp",
    ),
    _answer(
        "gmail", "unauthenticated", 550,
        "5.7.26 Your email has been blocked because the sender is unauthenticated.",
        "5.7.26 Gmail requires all senders to authenticate with either SPF or DKIM.",
        "5.7.26  Authentication results:",
        "5.7.26  DKIM = did not pass",
        "5.7.26  SPF [example.com] with ip: [203.0.113.10] = did not pass",
        "5.7.26  For instructions on setting up authentication, go to",
        "5.7.26 https://support.google.com/mail/answer/81126#authentication a1 - gsmtp",
    ),
    _answer(
        "gmail", "dmarc", 550,
        "5.7.26 Unauthenticated email from example.com is not accepted due to",
        "5.7.26 domain's DMARC policy. Please contact the administrator of",
        "5.7.26 example.com domain if this was a legitimate mail. To learn about the",
        "5.7.26 DMARC initiative, go to",
        "5.7.26  https://support.google.com/mail/?p=DmarcRejection a1-20si1.1 - gsmtp",
    ),
    _answer(
        "gmail", "spf", 421,
        "4.7.27 Your email has been rate limited because SPF authentication didn't pass",
        "4.7.27 for this message. Gmail requires all bulk email senders to authenticate",
        "4.7.27 their email with SPF. a1-20si1.1 - gsmtp",
    ),
    _answer(
        "gmail", "dkim", 421,
        "4.7.30 Your email has been rate limited because DKIM authentication didn't",
        "4.7.30 pass for this message. Gmail requires all bulk email senders to",
        "4.7.30 authenticate their email with DKIM. a1-20si1.1 - gsmtp",
    ),
    _answer(
        "gmail", "tls-required", 421,
        "4.7.29 Your email has been rate limited because this message wasn't sent over a",
        "4.7.29 TLS connection. Gmail requires all bulk email senders to use TLS/SSL for",
        "4.7.29 SMTP connections. a1-20si1.1 - gsmtp",
    ),
    _answer(
        "gmail", "rate", 421,
        "4.7.28 [203.0.113.10      15] Our system has detected an unusual rate of",
        "4.7.28 unsolicited mail originating from your IP address. To protect our",
        "4.7.28 users from spam, mail sent from your IP address has been temporarily",
        "4.7.28 rate limited. Please visit",
        "4.7.28  https://support.google.com/mail/?p=UnsolicitedRateLimitError to",
        "4.7.28 review our Bulk Email Senders Guidelines. a1-20si1.1 - gsmtp",
    ),
    _answer("gmail", "rate", 421, "4.7.0 Try again later, closing connection. (EHLO) a1 - gsmtp"),
    _answer(
        "gmail", "rate", 450,
        "4.2.1 The user you are trying to contact is receiving mail at a rate that",
        "4.2.1 prevents additional messages from being delivered. Please resend your",
        "4.2.1 message at a later time. a1-20si1.1 - gsmtp",
    ),
    _answer(
        "gmail", "reputation", 550,
        "5.7.1 [203.0.113.10      12] Our system has detected that this message is",
        "5.7.1 likely unsolicited mail. To reduce the amount of spam sent to Gmail,",
        "5.7.1 this message has been blocked. Please visit",
        "5.7.1  https://support.google.com/mail/?p=UnsolicitedMessageError",
        "5.7.1  for more information. a1-20si1.1 - gsmtp",
    ),
    _answer(
        "gmail", "reputation", 550,
        "5.7.1 [203.0.113.10      19] Our system has detected that this message is",
        "5.7.1 likely suspicious due to the very low reputation of the sending",
        "5.7.1 domain. To best protect our users from spam, the message has been",
        "5.7.1 blocked. a1-20si1.1 - gsmtp",
    ),
    _answer(
        "gmail", "dynamic", 550,
        "5.7.1 [203.0.113.10] The IP you're using to send mail is not authorized to",
        "5.7.1 send email directly to our servers. Please use the SMTP relay at your",
        "5.7.1 service provider instead. Learn more at",
        "5.7.1  https://support.google.com/mail/?p=NotAuthorizedError a1 - gsmtp",
    ),
    _answer(
        "gmail", "no-mailbox", 550,
        "5.1.1 The email account that you tried to reach does not exist. Please try",
        "5.1.1 double-checking the recipient's email address for typos or",
        "5.1.1 unnecessary spaces. For more information, go to",
        "5.1.1  https://support.google.com/mail/?p=NoSuchUser a1-20si1.1 - gsmtp",
    ),
    _answer(
        "gmail", "full", 452,
        "4.2.2 The recipient's inbox is out of storage space. Please direct the",
        "4.2.2 recipient to https://support.google.com/mail/?p=OverQuotaTemp - gsmtp",
    ),
    _answer(
        "gmail", "size", 552,
        "5.3.4 Your message exceeded Google's message size limits. To view our",
        "5.3.4 message size guidelines, go to",
        "5.3.4  https://support.google.com/mail/?p=MaxSizeError a1-20si1.1 - gsmtp",
    ),
    _answer(
        "outlook", "outlook-blocked", 550,
        "5.7.1 Unfortunately, messages from [203.0.113.10] weren't sent. Please contact your "
        "Internet service provider since part of their network is on our block list (S3140). You "
        "can also refer your provider to http://mail.live.com/mail/troubleshooting.aspx#errors. "
        "[AM7EUR06FT053.eop-eur06.prod.protection.outlook.com]",
    ),
    _answer(
        "outlook", "outlook-blocked", 550,
        "5.7.1 Unfortunately, messages from [203.0.113.10] weren't sent. Please contact your "
        "Internet service provider since part of their network is on our block list (S3150). You "
        "can also refer your provider to http://mail.live.com/mail/troubleshooting.aspx#errors. "
        "[DB3EUR04FT007.eop-eur04.prod.protection.outlook.com]",
    ),
    _answer(
        "outlook", "outlook-blocked", 550,
        "SC-001 (BAY004-MC4F49) Unfortunately, messages from 203.0.113.10 weren't sent. Please "
        "contact your Internet service provider since part of their network is on our block list.",
    ),
    _answer(
        "outlook", "outlook-rate", 421,
        "RP-001 (COL004-MC1F12) Unfortunately, some messages from 203.0.113.10 weren't sent. "
        "Please try again. We have limits for how many messages can be sent per hour and per day. "
        "You can also refer to http://mail.live.com/mail/troubleshooting.aspx#errors.",
    ),
    _answer(
        "outlook", "outlook-rate", 451,
        "4.7.650 The mail server [203.0.113.10] has been temporarily rate limited due to IP "
        "reputation. For e-mail delivery information, see https://postmaster.live.com (S775) "
        "[DB5EUR01FT024.eop-EUR01.prod.protection.outlook.com]",
    ),
    _answer(
        "outlook", "microsoft-banned", 550,
        "5.7.511 Access denied, banned sender[203.0.113.10]. To request removal from this list "
        "please forward this message to delist@microsoft.com. For more information please go to "
        "https://go.microsoft.com/fwlink/?LinkId=526653. AS(1410)",
    ),
    _answer(
        "outlook", "microsoft-banned", 550,
        "5.7.606 Access denied, banned sending IP [203.0.113.10]. To request removal from this "
        "list please visit https://sender.office.com/ and follow the directions. For more "
        "information please go to http://go.microsoft.com/fwlink/?LinkID=526655 AS(1430)",
    ),
    _answer(
        "outlook", "dmarc", 550,
        "5.7.509 Access denied, sending domain example.com does not pass DMARC verification and "
        "has a DMARC policy of reject. [AM7EUR06FT053.eop-eur06.prod.protection.outlook.com]",
    ),
    _answer(
        "outlook", "unauthenticated", 550,
        "5.7.515 Access denied, sending domain EXAMPLE.COM does not meet the required "
        "authentication level. The sender's domain in the 5322.From address doesn't meet the "
        "authentication requirements defined for the sender. To learn how to fix this see: "
        "https://go.microsoft.com/fwlink/p/?linkid=2319303 Spf= Fail , Dkim= Pass , DMARC= Pass",
    ),
    _answer(
        "outlook", "spf", 550,
        "5.7.23 The message was rejected because of Sender Policy Framework violation -> 550 5.7.1 "
        "SPF check failed.",
    ),
    _answer(
        "outlook", "ptr-ipv6", 550,
        "5.7.25 Service unavailable, sending IPv6 address [2001:db8::10] must have reverse DNS "
        "record. [AM7EUR06FT053.eop-eur06.prod.protection.outlook.com]",
    ),
    _answer(
        "outlook", "unauthenticated", 450,
        "4.7.26 Service unavailable, message sent over IPv6 [2001:db8::10] must pass either SPF or "
        "DKIM validation (message not signed)",
    ),
    _answer(
        "outlook", "no-mailbox", 550,
        "5.5.0 Requested action not taken: mailbox unavailable (S2017062302). "
        "[AM7EUR06FT053.eop-eur06.prod.protection.outlook.com]",
    ),
    _answer(
        "outlook", "no-mailbox", 550,
        "5.4.1 Recipient address rejected: Access denied. [AS(201806281)] "
        "[DB5EUR03FT032.eop-EUR03.prod.protection.outlook.com]",
    ),
    _answer(
        "outlook", "rate", 451,
        "4.7.500 Server busy. Please try again later from [203.0.113.10]. (S77714)",
    ),
    _answer(
        "yahoo", "yahoo-deferred", 421,
        "4.7.0 [TSS04] Messages from 203.0.113.10 temporarily deferred due to unexpected volume or "
        "user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
    ),
    _answer(
        "yahoo", "yahoo-permanent", 421,
        "4.7.1 [TS03] All messages from 203.0.113.10 will be permanently deferred; Retrying will "
        "NOT succeed. See https://postmaster.yahooinc.com/error-codes",
    ),
    _answer(
        "yahoo", "blocklist", 553,
        "5.7.1 [BL21] Connections will not be accepted from 203.0.113.10, because the ip is in "
        "Spamhaus's list; see https://postmaster.yahooinc.com/error-codes",
    ),
    _answer(
        "yahoo", "unauthenticated", 554,
        "5.7.9 Message not accepted for policy reasons. See "
        "https://postmaster.yahooinc.com/error-codes",
    ),
    _answer(
        "yahoo", "reputation", 554,
        "Message not allowed - [PH01] Email not accepted for policy reasons. Please visit "
        "https://postmaster.yahooinc.com/error-codes",
    ),
    _answer(
        "yahoo", "no-mailbox", 554,
        "delivery error: dd This user doesn't have a yahoo.com account (someone@yahoo.com) [-5] - "
        "mta4321.mail.bf1.yahoo.com",
    ),
    _answer(
        "icloud", "reputation", 554,
        "5.7.1 [CS01] Message rejected due to local policy. Please visit "
        "https://support.apple.com/en-us/HT204137",
    ),
    _answer(
        "icloud", "blocklist", 550,
        "5.7.0 Blocked - see https://support.proofpoint.com/dnsbl-lookup.cgi?ip=203.0.113.10",
    ),
    _answer("icloud", "helo", 450,
            "4.7.1 <smtp.example.com>: Helo command rejected: Host not found"),
    _answer("icloud", "full", 552, "5.2.2 <someone@icloud.com>: user is over quota"),
    _answer(
        "gmx", "blocklist", 554,
        "gmx.net (mxgmx104) Nemesis ESMTP Service not available",
        "No SMTP service",
        "IP address is block listed.",
        "For explanation visit https://postmaster.gmx.net/en/case?c=r0201&i=ip&v=203.0.113.10",
    ),
    _answer(
        "gmx", "ptr", 554,
        "gmx.net (mxgmx016) Nemesis ESMTP Service not available",
        "No SMTP service",
        "Bad DNS PTR resource record.",
        "For explanation visit https://postmaster.gmx.net/en/error-messages?ip=203.0.113.10&c=rdns",
    ),
    _answer(
        "gmx", "spf", 550,
        "<i@example.com>: Reject due to SPF policy. The originating IP of the message is not "
        "permitted by the domain owner",
    ),
    _answer(
        "gmx", "reputation", 554,
        "Transaction failed",
        "Reject due to policy restrictions.",
        "For explanation visit https://postmaster.gmx.net/en/case?c=hi&i=ip&v=203.0.113.10",
    ),
    _answer("web.de", "no-mailbox", 550,
            "<someone@web.de>: Requested action not taken: mailbox unavailable"),
    _answer(
        "t-online", "t-online", 554,
        "IP=203.0.113.10 - A problem occurred. (Ask your postmaster for help or to contact "
        "tosa@rx.t-online.de to clarify.)",
    ),
    _answer(
        "qq", "rate", 550,
        "Ip frequency limited. http://service.mail.qq.com/cgi-bin/help?subtype=1&&id=20022&&no="
        "1000725",
    ),
    _answer(
        "qq", "reputation", 550,
        "Mail content denied. http://service.mail.qq.com/cgi-bin/help?subtype=1&&id=20022&&no="
        "1000726",
    ),
    _answer(
        "qq", "no-mailbox", 550,
        "Mailbox not found. http://service.mail.qq.com/cgi-bin/help?subtype=1&&id=20022&&no=1000728",
    ),
    _answer(
        "qq", "dmarc", 550,
        "DMARC check failed http://service.mail.qq.com/cgi-bin/help?subtype=1&&no=1001508&&id=16",
    ),
    _answer("qq", "recipient-refuses", 550, "Mail is rejected by recipients"),
    _answer(
        "163", "spf", 550,
        "MI:SPF mx32,QMCowECpA0qTiftVaeB3Cg--.872S2 1442548128 "
        "http://mail.163.com/help/help_spam_16.htm?ip=203.0.113.10&hostid=mx32&time=1442548128",
    ),
    _answer(
        "163", "reputation", 554,
        "DT:SPM 163 mx32,QMCowECpA0qTiftVaeB3Cg--.872S2 1442548128 please see "
        "http://mail.163.com/help/help_spam_16.htm?ip=203.0.113.10&hostid=mx32&time=1442548128",
    ),
    _answer("163", "rate", 421, "HL:REP 163 mx32,QMCowECpA0qTiftVaeB3Cg--.872S2 1442548128"),
    _answer("163", "blocklist", 450, "DT:RBL 163 mx32,QMCowECpA0qTiftVaeB3Cg--.872S2 1442548128"),
    _answer(
        "postfix", "greylisting", 450,
        "4.2.0 <you@example.net>: Recipient address rejected: Greylisted, see "
        "http://postgrey.schweikert.ch/help/example.net.html",
    ),
    _answer("postfix", "no-mailbox", 550,
            "5.1.1 <you@example.net>: Recipient address rejected: User unknown in virtual mailbox "
            "table"),
    _answer("postfix", "ptr", 450,
            "4.7.25 Client host rejected: cannot find your hostname, [203.0.113.10]"),
    _answer(
        "postfix", "blocklist", 554,
        "5.7.1 Service unavailable; Client host [203.0.113.10] blocked using zen.spamhaus.org; "
        "https://www.spamhaus.org/query/ip/203.0.113.10",
    ),
    _answer("postfix", "relay", 554,
            "5.7.1 <you@example.net>: Recipient address rejected: Relay access denied"),
    _answer("postfix", "tls-required", 530, "5.7.0 Must issue a STARTTLS command first"),
    _answer("postfix", "size", 552, "5.3.4 Message size exceeds fixed limit"),
    _answer("postfix", "full", 552, "5.2.2 <you@example.net>: Mailbox size limit exceeded"),
    _answer("exim", "no-mailbox", 550, "No Such User Here"),
    _answer("exim", "relay", 550, "relay not permitted"),
)  # fmt: skip
