//! The names of yubin.def: each with its default and its meaning, in the order of yubin.def(5).

/// One name of the file.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    /// As it would be written in the file; empty where the program works it out or there is none.
    pub default: &'static str,
    pub meaning: &'static str,
}

const fn key(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        default,
        meaning,
    }
}

/// All of them.
pub const KEYS: &[Key] = &[
    key(
        "MY_NAME",
        "",
        "the host's short name ($w); from the system's host name",
    ),
    key(
        "MY_DOMAIN",
        "",
        "the domain it is in ($m); from the system's host name",
    ),
    key("OFFICIAL_NAME", "", "the name we greet with ($j); '$w.$m'"),
    key("MY_ALIAS", "", "further names whose mail is ours"),
    key(
        "FROM_ADDRESS",
        "",
        "the domain put behind senders without one; OFFICIAL_NAME",
    ),
    key(
        "DIRECT_DELIVER_DOMAINS",
        "",
        "all, none, or domains that we deliver to by MX; none with DEFAULT_RELAY, else all",
    ),
    key(
        "DEFAULT_RELAY",
        "",
        "mailer:host[:port] that takes all other mail; [host] for no MX look-up",
    ),
    key("MX_SENDMAIL", "yes", "whether MX records are followed"),
    key("RELAY_PORT", "25", "the port that we connect to"),
    key(
        "DNS_ZONE_FILE",
        "",
        "answers come from this zone file, not from DNS",
    ),
    key(
        "DNS_SERVERS",
        "",
        "addresses of name servers, with a port if need be; resolv.conf's",
    ),
    key(
        "DNSSEC",
        "auto",
        "whether signatures in DNS are checked: auto, yes, or no",
    ),
    key(
        "DNSSEC_ANCHORS",
        "",
        "a file of DNSKEY records to trust in place of the root's own keys",
    ),
    key(
        "CONTENT_FILTER",
        "",
        "smtp:[host]:port that all mail goes through, to come back at REINJECT",
    ),
    key(
        "REINJECT",
        "",
        "addresses and ports where a content filter brings mail back, 127.0.0.1:10025",
    ),
    key(
        "REINJECT_FROM",
        "127.0.0.0/8 ::1/128",
        "content filters: what they bring back is taken without any check",
    ),
    key(
        "MY_NETWORKS",
        "127.0.0.0/8 ::1/128",
        "clients here may relay",
    ),
    key(
        "GREET_DELAY",
        "2s",
        "how long a stranger waits for our greeting, once a day",
    ),
    key(
        "CLIENT_NAMES",
        "yes",
        "whether the names of strangers' hosts are looked up",
    ),
    key(
        "RATE_CONNECTIONS",
        "600/1m",
        "SMTP connections that strangers of one network may make",
    ),
    key("RATE_MESSAGES", "6000/10m", "messages that they may begin"),
    key(
        "RATE_RECIPIENTS",
        "30000/10m",
        "recipients that they may name",
    ),
    key(
        "RATE_AUTH_FAILURES",
        "30/10m",
        "failed logins of one network",
    ),
    key(
        "RATE_EXEMPT",
        "",
        "networks that are neither counted nor put off, and may not relay for it",
    ),
    key(
        "RATE_PREFIXES",
        "32 64",
        "how long the prefix of one network is, IPv4's and IPv6's",
    ),
    key(
        "PENALTY",
        "30s",
        "how long a network is shut out that was over a rate; doubled each time",
    ),
    key(
        "TARPIT",
        "20s",
        "the longest that a refusal is held back from who offends",
    ),
    key(
        "ACCOUNT_RATE_MESSAGES",
        "1000/1h",
        "messages of one login; what is more is held, until mailq releases it",
    ),
    key(
        "ACCOUNT_RATE_RECIPIENTS",
        "10000/1h",
        "recipients of one login's messages",
    ),
    key(
        "GREYLIST",
        "no",
        "whether strangers' mail is put off the first time",
    ),
    key("GREYLIST_DELAY", "5m", "how long until it is taken"),
    key(
        "GREYLIST_KEEP",
        "36d",
        "how long who came again is remembered",
    ),
    key(
        "GREYLIST_TRUST",
        "5",
        "a network that came again so often is not put off any more",
    ),
    key(
        "DNSBL",
        "",
        "lists of clients in DNS: zone[=127.0.0.N][*weight], below 0 for good ones",
    ),
    key(
        "DNSBL_LIMIT",
        "1",
        "strangers whose weights in DNSBL come to this are refused",
    ),
    key(
        "SENDER_MUST_BE_OWN",
        "yes",
        "whether who logs in may send under his own addresses only",
    ),
    key(
        "SENDERS_FILE",
        "/etc/yubin/senders",
        "whose login may send under which other address",
    ),
    key(
        "ACCESS_FILE",
        "/etc/yubin/access",
        "whom and what smtpd does not want",
    ),
    key(
        "RELAY_DOMAINS",
        "",
        "domains of other hosts whose mail is taken from everybody",
    ),
    key(
        "ETRN_DOMAINS",
        "",
        "domains whose waiting mail a client may ask for by ETRN, or none; RELAY_DOMAINS",
    ),
    key(
        "RELAY_RECIPIENTS",
        "/etc/yubin/relay_recipients",
        "who lives in RELAY_DOMAINS",
    ),
    key(
        "MILTERS",
        "",
        "mail filters that smtpd asks: unix:/path or inet:host:port",
    ),
    key(
        "HEADER_CHECKS",
        "",
        "a file of patterns for header fields, and what becomes of the message",
    ),
    key("BODY_CHECKS", "", "the same for the lines of bodies"),
    key(
        "AUTHENTICATION_RESULTS",
        "yes",
        "whether the signatures of strangers' mail are looked at",
    ),
    key(
        "DMARC",
        "results",
        "mail that its author's domain disowns: no, results, reject or hold",
    ),
    key(
        "ARC_TRUST",
        "",
        "domains of lists and forwarders whose ARC seals overrule DMARC",
    ),
    key("ALWAYS_BCC", "", "addresses that have a copy of all mail"),
    key(
        "BCC_FILE",
        "",
        "who has copies of the mail of which senders and recipients",
    ),
    key(
        "POLICY_SERVICES",
        "",
        "programs that are asked by Postfix's policy protocol: unix:/path or inet:host:port",
    ),
    key(
        "POLICY_STATES",
        "RCPT",
        "when they are asked: CONNECT, EHLO, MAIL, RCPT, DATA, END-OF-MESSAGE",
    ),
    key(
        "DKIM_KEYS",
        "/etc/yubin/dkim",
        "DOMAIN/SELECTOR.pem: keys that sign what our users send",
    ),
    key(
        "PLAINTEXT_LOGIN",
        "loopback",
        "login without TLS: yes, no, or from loopback only",
    ),
    key("LISTEN", "0.0.0.0 ::", "addresses to listen on"),
    key("SMTP_PORT", "25", "SMTP; 0 for none"),
    key(
        "SUBMISSION_PORT",
        "587",
        "submission with STARTTLS; 0 for none",
    ),
    key("SMTPS_PORT", "465", "submission over TLS; 0 for none"),
    key("POP3_PORT", "110", "POP3; 0 for none"),
    key("POP3S_PORT", "995", "POP3 over TLS; 0 for none"),
    key("IMAP_PORT", "143", "IMAP; 0 for none"),
    key("IMAPS_PORT", "993", "IMAP over TLS; 0 for none"),
    key(
        "MAX_CONNECTIONS",
        "10000",
        "connections a daemon holds at once",
    ),
    key(
        "MAX_CONNECTIONS_PER_CLIENT",
        "200",
        "of these, from one address",
    ),
    key(
        "TLS_CERT_FILE",
        "/etc/yubin/tls/cert.pem",
        "certificate chain; no TLS without it",
    ),
    key("TLS_KEY_FILE", "/etc/yubin/tls/key.pem", "its private key"),
    key(
        "TLS_CERT_DIR",
        "/etc/yubin/tls/names",
        "NAME/cert.pem and NAME/key.pem: certificates of further names",
    ),
    key(
        "TLS_CLIENT_CA_FILE",
        "",
        "authorities of users' certificates; without it nobody is asked for one",
    ),
    key(
        "TLS_POLICY",
        "/etc/yubin/tls_policy",
        "which destinations must have TLS, and which proof",
    ),
    key(
        "MTA_STS",
        "yes",
        "whether domains' policies of MTA-STS are read and kept to",
    ),
    key(
        "MTA_STS_PORT",
        "443",
        "the port of the web servers that have them",
    ),
    key(
        "RELAY_LOGINS",
        "/etc/yubin/relay-logins",
        "our own logins at the hosts that we send to",
    ),
    key(
        "RELAY_LOGIN_NEEDS",
        "proof",
        "what a host must give before it gets a password of ours: proof, tls or nothing",
    ),
    key(
        "TLS_REPORT_FROM",
        "",
        "the address that reports on TLS come from (RFC 8460); none without",
    ),
    key(
        "TLS_CA_FILE",
        "",
        "authorities of the servers that we send to; the system's",
    ),
    key(
        "CERT_USERS",
        "/etc/yubin/cert-users",
        "whose client certificate is whose",
    ),
    key(
        "PROXY_FROM",
        "",
        "proxies whose connections begin with a PROXY header",
    ),
    key(
        "XCLIENT_FROM",
        "",
        "proxies that may say by XCLIENT whose connection they bring",
    ),
    key("MESSAGE_SIZE_LIMIT", "50M", "octets of one message"),
    key("RECIPIENT_LIMIT", "1000", "recipients of one message"),
    key(
        "SMTP_TIMEOUT",
        "5m",
        "how long an SMTP client may be silent, or take for 16K of a message",
    ),
    key(
        "HOP_LIMIT",
        "50",
        "Received fields before we call it a loop",
    ),
    key(
        "MIN_FREE_SPACE",
        "64M",
        "octets that must stay free on the queue's disk",
    ),
    key(
        "COMMIT_LOG",
        "8M",
        "size of a file of the commit log; 0 syncs each message by itself",
    ),
    key(
        "FUTURE_RELEASE",
        "30d",
        "how long what our users submit may wait here before it goes (HOLDFOR, HOLDUNTIL); 0 for none",
    ),
    key("QUEUE_LIFETIME", "5d", "how long delivery is tried"),
    key("MIN_BACKOFF", "5m", "the shortest pause between attempts"),
    key("MAX_BACKOFF", "1h", "the longest pause between attempts"),
    key(
        "USERS_FILE",
        "/etc/yubin/users",
        "passwd-file of the mail users; Unix users where it does not exist",
    ),
    key(
        "CHECKPASSWORD",
        "",
        "pam, or a checkpassword program that knows the users' passwords",
    ),
    key(
        "OAUTH_CHECK",
        "",
        "a program that knows whose an OAuth token is",
    ),
    key(
        "ALIAS_FILES",
        "/etc/aliases",
        "alias files, the first match wins",
    ),
    key(
        "RECIPIENT_DELIMITER",
        "+",
        "user+detail is delivered to user; empty for no such thing",
    ),
    key(
        "MAILBOX_FORMAT",
        "mbox",
        "how new mailboxes are made: mbox or maildir",
    ),
    key(
        "MAILBOX_LOCKS",
        "fcntl dotlock",
        "locks on an mbox, of fcntl, dotlock, flock",
    ),
    key(
        "MAILBOX_LOCK_TIMEOUT",
        "30s",
        "how long a mailbox's locks are waited for",
    ),
];
