"""How mail panels configure Postfix: what matters of their public templates, rebuilt in our own words.

Of each: main.cf, master.cf, and the services at which users log in to send. The tables of lookups exist nowhere.
"""

from typing import NamedTuple


class Panel(NamedTuple):
    """A stock configuration."""

    logins: tuple[str, ...]
    main: str
    master: str


DEBIAN = Panel(
    ("submission", "submissions"),
    """\
smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)
biff = no
smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination
mydestination = $myhostname, localhost
mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128
""",
    """\
smtp      inet  n       -       y       -       -       smtpd
submission inet n       -       y       -       -       smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_tls_auth_only=yes
  -o local_header_rewrite_clients=static:all
  -o smtpd_reject_unlisted_recipient=no
  -o smtpd_client_restrictions=
  -o smtpd_helo_restrictions=
  -o smtpd_sender_restrictions=
  -o smtpd_relay_restrictions=
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
  -o milter_macro_daemon_name=ORIGINATING
submissions inet n      -       y       -       -       smtpd
  -o syslog_name=postfix/submissions
  -o smtpd_tls_wrappermode=yes
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_client_restrictions=$mua_client_restrictions
  -o smtpd_helo_restrictions=$mua_helo_restrictions
  -o smtpd_sender_restrictions=$mua_sender_restrictions
  -o smtpd_recipient_restrictions=
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
""",
)
"""Both ways in which its master.cf has had the blocks of submission, uncommented."""


def _back(listen: str, *more: str, client: str = "permit_mynetworks,reject") -> str:
    """The port that a content filter returns mail to."""
    options = (
        "content_filter=",
        f"smtpd_client_restrictions={client}",
        "smtpd_helo_restrictions=",
        "smtpd_sender_restrictions=",
        "smtpd_recipient_restrictions=permit_mynetworks,reject",
        "mynetworks=127.0.0.0/8,[::1]/128",
        "receive_override_options=no_unknown_recipient_checks,no_header_body_checks",
        *more,
    )
    return f"{listen} inet n - n - - smtpd\n" + "".join(f"  -o {option}\n" for option in options)


ISPCONFIG = Panel(
    ("smtp", "submission", "smtps"),
    """\
virtual_mailbox_domains = proxy:mysql:/etc/postfix/mysql-virtual_domains.cf
mynetworks = 127.0.0.0/8 [::1]/128
smtpd_sasl_auth_enable = yes
smtpd_restriction_classes = greylisting
greylisting = check_policy_service inet:127.0.0.1:10023
smtpd_client_restrictions = check_client_access proxy:mysql:/etc/postfix/mysql-virtual_client.cf,
  permit_inet_interfaces, permit_mynetworks, permit_sasl_authenticated, reject_rbl_client zen.spamhaus.org, permit
smtpd_helo_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_invalid_helo_hostname, permit
smtpd_sender_restrictions = check_sender_access proxy:mysql:/etc/postfix/mysql-virtual_sender.cf, permit_mynetworks,
  reject_authenticated_sender_login_mismatch, permit_sasl_authenticated, reject_unlisted_sender
smtpd_recipient_restrictions = permit_mynetworks, reject_unknown_recipient_domain, reject_unlisted_recipient,
  check_recipient_access proxy:mysql:/etc/postfix/mysql-verify_recipients.cf, permit_sasl_authenticated,
  reject_non_fqdn_recipient, reject_unauth_destination, check_recipient_access proxy:mysql:/etc/postfix/mysql-policy.cf
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination
smtpd_data_restrictions = permit_mynetworks, reject_unauth_pipelining, reject_multi_recipient_bounce, permit
content_filter = lmtp:[127.0.0.1]:10024
receive_override_options = no_address_mappings
""",
    "smtp inet n - y - - smtpd\n"
    "submission inet n - y - - smtpd\n  -o syslog_name=postfix/submission\n  -o smtpd_sasl_auth_enable=yes\n"
    "  -o smtpd_client_restrictions=permit_sasl_authenticated,reject\n"
    "smtps inet n - y - - smtpd\n  -o smtpd_tls_wrappermode=yes\n  -o smtpd_sasl_auth_enable=yes\n"
    "  -o smtpd_client_restrictions=permit_sasl_authenticated,reject\n"
    + _back("127.0.0.1:10025", "smtpd_restriction_classes=", client="")
    + _back("127.0.0.1:10027", client=""),
)

IREDMAIL = Panel(
    ("submission", "465"),
    """\
virtual_mailbox_domains = proxy:mysql:/etc/postfix/mysql/virtual_mailbox_domains.cf
mynetworks = 127.0.0.1 [::1]
smtpd_reject_unlisted_recipient = yes
smtpd_helo_restrictions = permit_mynetworks permit_sasl_authenticated
  check_helo_access pcre:/etc/postfix/helo_access.pcre
smtpd_sender_restrictions = reject_non_fqdn_sender reject_unlisted_sender permit_mynetworks permit_sasl_authenticated
smtpd_recipient_restrictions = reject_non_fqdn_recipient reject_unlisted_recipient
  check_policy_service inet:127.0.0.1:7777 permit_mynetworks permit_sasl_authenticated reject_unauth_destination
smtpd_end_of_data_restrictions = check_policy_service inet:127.0.0.1:7777
content_filter = smtp-amavis:[127.0.0.1]:10024
""",
    "smtp inet n - y - 1 postscreen\nsmtpd pass - - y - - smtpd\n"
    "submission inet n - n - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n"
    "  -o smtpd_client_restrictions=permit_sasl_authenticated,reject\n"
    "  -o content_filter=smtp-amavis:[127.0.0.1]:10026\n"
    "465 inet n - n - - smtpd\n  -o smtpd_tls_wrappermode=yes\n  -o smtpd_sasl_auth_enable=yes\n"
    "  -o smtpd_client_restrictions=permit_sasl_authenticated,reject\n"
    + _back("127.0.0.1:10025", "smtpd_delay_reject=no", "smtpd_end_of_data_restrictions="),
)

MODOBOA = Panel(
    ("smtp", "submission", "smtps"),
    """\
virtual_mailbox_domains = proxy:mysql:/etc/postfix/sql-domains.cf
mynetworks = 127.0.0.0/8
smtpd_sasl_auth_enable = yes
smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated,
  check_recipient_access proxy:mysql:/etc/postfix/sql-maintain.cf, reject_unverified_recipient,
  reject_unauth_destination, reject_non_fqdn_recipient
smtpd_end_of_data_restrictions = check_policy_service inet:localhost:9999
content_filter = smtp-amavis:[127.0.0.1]:10024
""",
    "smtp inet n - - - - smtpd\n"
    "submission inet n - - - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n  -o smtpd_helo_restrictions=\n"
    "  -o smtpd_client_restrictions=permit_sasl_authenticated,reject\n"
    "  -o smtpd_sender_restrictions=reject_sender_login_mismatch\n"
    "smtps inet n - - - - smtpd\n  -o smtpd_tls_wrappermode=yes\n"
    "  -o smtpd_client_restrictions=permit_sasl_authenticated,reject\n"
    + _back("127.0.0.1:10025", "smtpd_end_of_data_restrictions="),
)

MAILCOW = Panel(
    ("submission", "smtps", "10587", "588"),
    """\
virtual_mailbox_domains = proxy:mysql:/opt/postfix/conf/sql/mysql_virtual_domains_maps.cf
mynetworks = 127.0.0.0/8 [::1]/128 172.22.1.0/24 [fd4d:6169:6c63:6f77::]/64
smtpd_sasl_auth_enable = yes
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination
smtpd_sender_restrictions = reject_authenticated_sender_login_mismatch, permit_mynetworks, permit_sasl_authenticated,
  reject_unlisted_sender, reject_unknown_sender_domain
smtpd_recipient_restrictions = check_recipient_mx_access proxy:mysql:/opt/postfix/conf/sql/mysql_mbr.cf,
  permit_sasl_authenticated, permit_mynetworks, check_recipient_access proxy:mysql:/opt/postfix/conf/sql/mysql_tls.cf,
  reject_invalid_helo_hostname, reject_unauth_destination
""",
    "smtp inet n - n - 1 postscreen\n"
    "smtpd pass - - n - - smtpd\n  -o smtpd_sasl_auth_enable=no\n"
    "  -o smtpd_sender_restrictions=permit_mynetworks,reject_unlisted_sender,reject_unknown_sender_domain\n"
    "submission inet n - n - - smtpd\n"
    "  -o smtpd_client_restrictions=permit_mynetworks,permit_sasl_authenticated,reject\n"
    "smtps inet n - n - - smtpd\n  -o smtpd_tls_wrappermode=yes\n"
    "  -o smtpd_client_restrictions=permit_mynetworks,permit_sasl_authenticated,reject\n"
    "10587 inet n - n - - smtpd\n  -o smtpd_upstream_proxy_protocol=haproxy\n"
    "588 inet n - n - - smtpd\n  -o smtpd_client_restrictions=permit_mynetworks,permit_sasl_authenticated,reject\n"
    "  -o smtpd_tls_auth_only=no\n" + _back("590"),
)

MAILU = Panel(
    ("10025",),
    """\
mynetworks = 127.0.0.1/32 [::1]/128 192.168.203.0/24
mydestination =
virtual_mailbox_domains = socketmap:unix:/tmp/podop.socket:domain
check_ratelimit = check_sasl_access socketmap:unix:/tmp/podop.socket:senderrate
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
smtpd_recipient_restrictions = reject_unauth_pipelining, permit
unverified_recipient_reject_reason = Address lookup failure
""",
    "smtp inet n - n - 1 smtpd\n"
    "10025 inet n - n - 1 smtpd\n  -o smtpd_sasl_auth_enable=yes\n  -o smtpd_discard_ehlo_keywords=pipelining\n"
    "  -o smtpd_client_restrictions=$check_ratelimit,reject_unlisted_sender,permit\n"
    "  -o smtpd_recipient_restrictions=$smtpd_relay_restrictions\n  -o cleanup_service_name=outclean\n",
)

DOCKER_MAILSERVER = Panel(
    ("submission", "submissions"),
    """\
mynetworks = 127.0.0.0/8 [::1]/128 172.16.0.0/12
mydestination = localhost
virtual_mailbox_domains = /etc/postfix/vhost
smtpd_sasl_auth_enable = no
smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination
smtpd_recipient_restrictions = check_policy_service unix:private/policyd-spf, reject_unauth_destination,
  reject_unlisted_recipient
smtpd_sender_restrictions = permit_sasl_authenticated, permit_mynetworks, reject_unknown_sender_domain
smtpd_data_restrictions = reject_unauth_pipelining
content_filter = smtp-amavis:[127.0.0.1]:10024
""",
    "smtp inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n"
    "submission inet n - n - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n  -o smtpd_tls_auth_only=yes\n"
    "  -o smtpd_sasl_type=dovecot\n  -o smtpd_client_restrictions=permit_sasl_authenticated,reject\n"
    "  -o smtpd_recipient_restrictions=\n  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject\n"
    "  -o smtpd_sender_restrictions=$mua_sender_restrictions\n"
    "submissions inet n - n - - smtpd\n  -o smtpd_tls_wrappermode=yes\n  -o smtpd_sasl_auth_enable=yes\n"
    "  -o smtpd_client_restrictions=permit_sasl_authenticated,reject\n"
    "  -o smtpd_recipient_restrictions=\n  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject\n"
    "  -o smtpd_sender_restrictions=$mua_sender_restrictions\n"
    + _back("127.0.0.1:10025", "smtpd_data_restrictions=reject_unauth_pipelining", client=""),
)

PANELS = {
    "Debian": DEBIAN,
    "ISPConfig": ISPCONFIG,
    "iRedMail": IREDMAIL,
    "Modoboa": MODOBOA,
    "mailcow": MAILCOW,
    "Mailu": MAILU,
    "docker-mailserver": DOCKER_MAILSERVER,
}
