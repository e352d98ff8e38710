//! Mail that the domain of its author does not vouch for (RFC 9989), and what a list that we trust
//! makes of it (RFC 8617).

use tests::Host;
use tests::foreign::{ok, python};
use tests::host::DAEMONS;
use tests::smtp::Smtp;

/// A host that knows nobody on loopback, and a key of lists.else.where.
fn host(def: &str) -> (Host, String) {
    let def = format!(
        "DNS_ZONE_FILE=/etc/yubin/zone\nMY_NETWORKS=192.0.2.0/24\nGREET_DELAY=0s\n\
         ARC_TRUST=else.where\n{def}"
    );
    let mut host = Host::new(&def);
    let key = host.path("home/key.pem").to_str().unwrap().to_owned();
    ok("openssl", &["genrsa", "-out", &key, "2048"], b"");
    let public = ok("openssl", &["rsa", "-in", &key, "-pubout"], b"");
    let public: String = public.lines().filter(|l| !l.starts_with('-')).collect();
    let (one, two) = public.split_at(200);
    host.write(
        "etc/yubin/zone",
        &format!(
            "s._domainkey.lists.else.where. IN TXT \"v=DKIM1; p={one}\" \"{two}\"\n\
             s._domainkey.bank.where. IN TXT \"v=DKIM1; p={one}\" \"{two}\"\n\
             s._domainkey.lists.stranger.where. IN TXT \"v=DKIM1; p={one}\" \"{two}\"\n\
             _dmarc.bank.where. IN TXT \"v=DMARC1; p=reject; sp=quarantine\"\n\
             www.bank.where. IN A 127.0.0.9\n\
             lists.else.where. IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n\
             slow.where. IN A 127.0.0.9\n_dmarc.slow.where. IN FAIL\n"
        ),
    );
    for program in DAEMONS {
        host.start(program);
    }
    (host, key)
}

/// Signed by DKIM as `domain`, by dkimpy.
fn signed(key: &str, domain: &str, message: &str) -> String {
    let script = "
import dkim, sys
text = sys.argv[3].encode()
key = open(sys.argv[1], 'rb').read()
sys.stdout.write((dkim.sign(text, b's', sys.argv[2].encode(), key, include_headers=[b'from', b'subject']) + text).decode())
";
    python(script, &[key, domain, message])
}

/// As a list at `domain` passes it on: with a tag in the subject, its seal, and what it saw.
fn sealed(key: &str, domain: &str, saw: &str, message: &str) -> String {
    let script = "
import dkim, sys
key = open(sys.argv[1], 'rb').read()
domain = sys.argv[2].encode()
text = sys.argv[4].replace('Subject: ', 'Subject: [list] ').encode()
seen = b'Authentication-Results: ' + domain + b'; ' + sys.argv[3].encode() + b'\\r\\n'
seal = dkim.arc_sign(seen + text, b's', domain, key, domain, include_headers=[b'from', b'subject'])
sys.stdout.write((b''.join(seal) + text).decode())
";
    python(script, &[key, domain, saw, message])
}

const FORGED: &str = "From: Bank <help@bank.where>\r\nSubject: urgent\r\n\r\nyour account\r\n";

fn send(host: &Host, message: &str) -> String {
    let mut stranger = Smtp::connect(host.smtp).unwrap();
    stranger.ask("EHLO stranger").unwrap();
    let from = "owner@lists.else.where";
    stranger
        .message(from, &["alice@yubin.test"], message)
        .unwrap()
}

/// What the last message in alice's mailbox says of DMARC.
fn results(host: &Host, count: usize) -> String {
    let mbox = host.wait_for_mail("alice", count);
    let last = mbox.split("\nReturn-Path: ").last().unwrap();
    let last = last.replace("\n\t", " ");
    let from = last.find("dmarc=").unwrap_or_else(|| panic!("{last}"));
    let dmarc = last.get(from..).unwrap();
    dmarc.split([';', '\n']).next().unwrap().to_owned()
}

#[test]
fn by_default_it_is_said_and_nothing_refused() {
    let (host, key) = host("");
    let table = [
        (
            FORGED.to_owned(),
            "dmarc=fail (p=reject dis=none) header.from=bank.where policy.dmarc=reject",
        ),
        (
            signed(&key, "bank.where", FORGED),
            "dmarc=pass (p=reject dis=none) header.from=bank.where policy.dmarc=reject",
        ),
        // By SPF, of the reverse-path.
        (
            FORGED.replace("bank.where", "else.where"),
            "dmarc=none header.from=else.where",
        ),
        (
            "Subject: nobody\r\n\r\nx\r\n".into(),
            "dmarc=permerror reason=\"no domain in From\"",
        ),
    ];
    for (number, (message, want)) in table.iter().enumerate() {
        let reply = send(&host, message);
        assert!(reply.starts_with("250"), "{reply}");
        assert_eq!(results(&host, number + 1), *want);
    }
}

#[test]
fn the_domains_wish_is_followed_where_the_operator_says_so() {
    let (host, key) = host("DMARC=hold\n");
    let reply = send(&host, FORGED);
    assert!(
        reply.starts_with("550 5.7.1 Rejected per DMARC policy of bank.where (p=reject)"),
        "{reply}"
    );
    assert!(
        host.log().contains("NOQUEUE: reject: END-OF-MESSAGE from "),
        "{}",
        host.log()
    );
    // Nobody gets past it by naming more authors, or too many to look at.
    let two = FORGED.replace("From: ", "From: me <me@lists.else.where>, ");
    assert!(send(&host, &two).starts_with("550 5.7.1"));
    let crowd: String = (0..9).map(|n| format!("a@d{n}.where, ")).collect();
    let crowd = FORGED.replace("From: ", &format!("From: {crowd}"));
    assert!(send(&host, &crowd).starts_with("550 5.7.1"));
    let twice = FORGED.replace("\r\nSubject", "\r\nFrom: me@lists.else.where\r\nSubject");
    assert!(send(&host, &twice).starts_with("550 5.7.1"));

    // Its own signature, and one that does not fit.
    assert!(send(&host, &signed(&key, "bank.where", FORGED)).starts_with("250"));
    assert!(send(&host, &signed(&key, "lists.else.where", FORGED)).starts_with("550"));

    // The policy of what is below it.
    let below = FORGED.replace("bank.where", "www.bank.where");
    let reply = send(&host, &below);
    assert!(reply.starts_with("250"), "{reply}");
    let id = reply.trim_end().rsplit(' ').next().unwrap();
    tests::wait_for("the message to be held", || {
        let shown = host.ok("mailq", &[], b"");
        (shown.contains(id) && shown.contains("DMARC policy of www.bank.where is quarantine"))
            .then_some(())
    });
    assert_eq!(
        results(&host, 1),
        "dmarc=pass (p=reject dis=none) header.from=bank.where policy.dmarc=reject"
    );
    host.ok("mailq", &["release", id], b"");
    assert_eq!(
        results(&host, 2),
        "dmarc=fail (p=quarantine dis=quarantine) header.from=www.bank.where policy.dmarc=quarantine"
    );
}

#[test]
fn a_list_that_we_trust_may_change_what_it_passes_on() {
    let (host, key) = host("DMARC=reject\n");
    let saw = "dmarc=pass (p=reject) header.from=bank.where; spf=pass";
    let original = signed(&key, "bank.where", FORGED);
    let reply = send(&host, &sealed(&key, "lists.else.where", saw, &original));
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(
        results(&host, 1),
        "dmarc=fail (p=reject dis=none) reason=\"trusted ARC chain\" header.from=bank.where policy.dmarc=reject"
    );
    // What it saw was no pass, or of another; the seal is broken; the sealer is a stranger.
    let failed = "dmarc=fail header.from=bank.where";
    let other = "dmarc=pass header.from=other.where";
    let good = sealed(&key, "lists.else.where", saw, &original);
    for message in [
        sealed(&key, "lists.else.where", failed, &original),
        sealed(&key, "lists.else.where", other, &original),
        sealed(&key, "lists.stranger.where", saw, &original),
        good.replace("your account", "your acount"),
    ] {
        let reply = send(&host, &message);
        assert!(reply.starts_with("550 5.7.1"), "{reply}: {message}");
    }
}
