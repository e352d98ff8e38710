//! What lists in DNS say of a stranger (RFC 5782): those of bad clients, and those of good ones with a
//! weight below zero.
//!
//! All lists are asked when the client connects, at once, within one bound of time. Where the sum of
//! what they say reaches the operator's limit each recipient is refused, so that the log names sender
//! and recipient. A list that does not answer counts nothing. What was answered is kept by the resolver
//! for as long as its TTL says.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base::config::Dnsbl;
use base::escape::escape;
use base::{Domain, Status};
use dns::Resolve;
use net::pool::Pool;

use super::lookup::Lookup;
use super::{Door, Facts, Maker, Question, Ruling, Stage};
use crate::reply::Reply;
use crate::serve::SMTP;

/// For all lists.
const TIME: Duration = Duration::from_secs(3);
/// Characters of what a list says that the client is told.
const MAX_TEXT: usize = 200;

/// A zone, asked once for all that is said of it.
#[derive(Debug)]
struct Zone {
    name: Domain,
    entries: Vec<Dnsbl>,
    /// It has refused to answer us, and the log says so.
    refuses: AtomicBool,
}

/// What one zone says of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listing {
    zone: Domain,
    weight: i32,
    /// Its TXT record, where it lists the client.
    text: Option<String>,
}

/// The door of one connection.
struct Lists {
    lookups: Vec<Lookup<Option<Listing>>>,
    /// Some list may speak for the client.
    may_welcome: bool,
    limit: i32,
    /// When all have answered.
    verdict: Option<Verdict>,
}

#[derive(Debug, Clone)]
enum Verdict {
    Welcome,
    Nothing,
    Refused(Reply),
}

/// For strangers on the SMTP port. Refused is who reaches `limit`.
pub(crate) fn maker(lists: &[Dnsbl], limit: i32, dns: Arc<dyn Resolve>, lookups: Pool) -> Maker {
    let zones = by_zone(lists);
    let may_welcome = lists.iter().any(|list| list.weight < 0);
    Box::new(move |facts| {
        let ip = facts
            .ip()
            .filter(|_| !facts.trusted && facts.service == SMTP)?;
        let begin = |zone: &Arc<Zone>| {
            let (zone, dns) = (Arc::clone(zone), Arc::clone(&dns));
            Lookup::begin(&lookups, TIME, move |until| ask(&*dns, &zone, ip, until))
        };
        Some(Box::new(Lists {
            lookups: zones.iter().map(begin).collect(),
            may_welcome,
            limit,
            verdict: None,
        }))
    })
}

fn by_zone(lists: &[Dnsbl]) -> Vec<Arc<Zone>> {
    let mut zones: Vec<Zone> = Vec::new();
    for list in lists {
        match zones.iter_mut().find(|zone| zone.name == list.zone) {
            Some(zone) => zone.entries.push(list.clone()),
            None => zones.push(Zone {
                name: list.zone.clone(),
                entries: vec![list.clone()],
                refuses: AtomicBool::new(false),
            }),
        }
    }
    zones.into_iter().map(Arc::new).collect()
}

/// What a zone says; `None` where it knows nothing of the client or does not answer.
fn ask(dns: &dyn Resolve, zone: &Zone, ip: IpAddr, until: Instant) -> Option<Listing> {
    let name = dns::listed(ip, &zone.name)?;
    let answers = match dns.ipv4(&name) {
        Ok(answers) => answers,
        Err(e) => {
            if e.is_temporary() {
                log::debug!("DNSBL {}: {e}", zone.name);
            }
            return None;
        }
    };
    zone.heed(&answers);
    let said = |entry: &&Dnsbl| answers.iter().any(|answer| entry.matches(*answer));
    let found: Vec<_> = zone.entries.iter().filter(said).collect();
    if found.is_empty() {
        return None;
    }
    let weight = found
        .iter()
        .fold(0, |sum: i32, entry| sum.saturating_add(entry.weight));
    let text = match dns.txt(&name) {
        Ok(texts) if weight > 0 && Instant::now() < until => texts.first().map(|t| printable(t)),
        _ => None,
    };
    let zone = zone.name.clone();
    Some(Listing { zone, weight, text })
}

impl Zone {
    /// Some answer so who asks by a public resolver, or too often: it says nothing of the client.
    fn heed(&self, answers: &[Ipv4Addr]) {
        let refusal = answers
            .iter()
            .find(|a| a.octets().starts_with(&[127, 255, 255]));
        let was = self.refuses.swap(refusal.is_some(), Ordering::Relaxed);
        if let Some(answer) = refusal.filter(|_| !was) {
            log::warn!(
                "DNSBL {} does not answer us: {answer}, see its documentation",
                self.name
            );
        }
    }
}

fn printable(text: &[u8]) -> String {
    escape(text).to_string().chars().take(MAX_TEXT).collect()
}

impl Lists {
    /// Waits for all.
    fn verdict(&mut self, facts: &Facts) -> &Verdict {
        if self.verdict.is_none() {
            let found: Vec<_> = self
                .lookups
                .drain(..)
                .filter_map(|lookup| lookup.wait()?)
                .collect();
            self.verdict = Some(judge(&found, self.limit, facts));
        }
        self.verdict.as_ref().unwrap_or(&Verdict::Nothing)
    }
}

fn judge(found: &[Listing], limit: i32, facts: &Facts) -> Verdict {
    let Some(ip) = facts.ip() else {
        return Verdict::Nothing;
    };
    let rank = found
        .iter()
        .fold(0, |sum: i32, listing| sum.saturating_add(listing.weight));
    if !found.is_empty() {
        let zones: Vec<_> = found
            .iter()
            .map(|l| format!("{}*{}", l.zone, l.weight))
            .collect();
        log::info!("DNSBL rank {rank} for [{ip}]: {}", zones.join(" "));
    }
    let worst = found.iter().max_by_key(|listing| listing.weight);
    match worst {
        _ if rank < 0 => Verdict::Welcome,
        Some(worst) if rank >= limit => Verdict::Refused(refusal(worst, ip)),
        _ => Verdict::Nothing,
    }
}

/// In Postfix's words.
fn refusal(listing: &Listing, ip: IpAddr) -> Reply {
    let mut text = format!(
        "Service unavailable; Client host [{ip}] blocked using {}",
        listing.zone
    );
    if let Some(why) = &listing.text {
        text.push_str(&format!("; {why}"));
    }
    Reply::made(554, Some(Status::new(5, 7, 1)), text)
}

impl Door for Lists {
    fn wants(&self, stage: Stage) -> bool {
        match stage {
            Stage::Client => self.may_welcome,
            Stage::Recipient => !matches!(self.verdict, Some(Verdict::Welcome | Verdict::Nothing)),
            _ => false,
        }
    }

    fn ask(&mut self, question: Question<'_>, facts: &Facts) -> Ruling {
        let at_recipient = question.stage() == Stage::Recipient;
        if at_recipient && (facts.is_ours() || facts.permitted) {
            return Ruling::default();
        }
        let verdict = self.verdict(facts);
        Ruling {
            welcome: matches!(verdict, Verdict::Welcome),
            refuse: match verdict {
                Verdict::Refused(reply) if at_recipient => Some(reply.clone()),
                _ => None,
            },
            ..Ruling::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Config;
    use base::Root;
    use net::{Accepted, Encryption, Peer};
    use std::path::Path;

    const ZONE: &str = "2.2.0.192.bl.example. IN A 127.0.0.2\n\
        2.2.0.192.bl.example. IN TXT \"see http://bl.example/2\"\n\
        3.2.0.192.bl.example. IN A 127.0.0.9\n\
        2.2.0.192.good.example. IN A 127.0.5.1\n\
        4.2.0.192.good.example. IN A 127.0.5.1\n\
        5.2.0.192.bl.example. IN A 127.255.255.254\n\
        5.2.0.192.two.example. IN FAIL\n\
        6.2.0.192.two.example. IN A 127.0.0.2\n\
        6.2.0.192.bl.example. IN A 127.0.0.2\n\
        1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.two.example. IN A 127.0.0.2\n";

    fn facts(ip: &str) -> Facts {
        let accepted = Accepted {
            peer: Peer::Ip(std::net::SocketAddr::new(ip.parse().unwrap(), 25)),
            local: None,
            service: SMTP,
            encryption: Encryption::OnRequest,
            tls: false,
            check: false,
        };
        Facts::new(&accepted, "unknown".into(), false)
    }

    /// A maker with these lists, asking the zone above.
    fn lists(lists: &str, limit: i32) -> (tempfile::TempDir, Maker) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zone");
        std::fs::write(&path, ZONE).unwrap();
        let zone = Arc::new(dns::Zone::load(&path).unwrap());
        let text = format!("DNSBL='{lists}'\n");
        let conf = Config::parse(&Root::new("/r"), &text, Path::new("yubin.def")).unwrap();
        (dir, maker(&conf.dnsbl, limit, zone, Pool::new(8)))
    }

    fn at_rcpt(maker: &Maker, facts: &Facts) -> String {
        let recipient = base::Recipient::new("ann@example.org".parse().unwrap());
        let mut door = maker(facts).unwrap();
        match door.ask(Question::Recipient(&recipient), facts) {
            Ruling {
                refuse: Some(reply),
                ..
            } => reply.to_string(),
            Ruling { welcome: true, .. } => "welcome".into(),
            _ => "-".into(),
        }
    }

    #[test]
    fn weights_are_added() {
        let (_dir, maker) = lists("bl.example=127.0.0.[2..4]*2 two.example good.example*-3", 2);
        let blocked = |ip: &str, zone: &str| {
            format!("554 5.7.1 Service unavailable; Client host [{ip}] blocked using {zone}")
        };
        for (ip, want) in [
            ("192.0.2.1", "-".to_owned()),
            // Also on the good list.
            ("192.0.2.2", "welcome".into()),
            // Its answer does not count.
            ("192.0.2.3", "-".into()),
            ("192.0.2.4", "welcome".into()),
            ("192.0.2.5", "-".into()),
            ("192.0.2.6", blocked("192.0.2.6", "bl.example")),
            ("::ffff:192.0.2.6", blocked("192.0.2.6", "bl.example")),
            ("2001:db8::1", "-".into()),
        ] {
            assert_eq!(at_rcpt(&maker, &facts(ip)), want, "{ip}");
        }
        let (_dir, one) = lists("bl.example two.example", 1);
        let told = blocked("192.0.2.2", "bl.example") + "; see http://bl.example/2";
        assert_eq!(at_rcpt(&one, &facts("192.0.2.2")), told);
        let told = blocked("2001:db8::1", "two.example");
        assert_eq!(at_rcpt(&one, &facts("2001:db8::1")), told);
    }

    #[test]
    fn only_strangers_at_the_front_door_are_looked_up() {
        let (_dir, maker) = lists("bl.example", 1);
        let stranger = facts("192.0.2.2");
        assert!(at_rcpt(&maker, &stranger).starts_with("554"));
        let permitted = Facts {
            permitted: true,
            ..stranger.clone()
        };
        assert_eq!(at_rcpt(&maker, &permitted), "-");
        assert!(
            maker(&Facts {
                trusted: true,
                ..stranger.clone()
            })
            .is_none()
        );
        assert!(
            maker(&Facts {
                service: "submission",
                ..stranger
            })
            .is_none()
        );
    }

    #[test]
    fn the_greeting_waits_for_lists_of_good_clients_only() {
        let (_dir, bad) = lists("bl.example", 1);
        assert!(!bad(&facts("192.0.2.2")).unwrap().wants(Stage::Client));
        let (_dir, good) = lists("good.example*-1", 1);
        let facts = facts("192.0.2.4");
        let mut door = good(&facts).unwrap();
        assert!(door.wants(Stage::Client));
        assert!(door.ask(Question::Client, &facts).welcome);
        assert!(!door.wants(Stage::Recipient));
    }
}
