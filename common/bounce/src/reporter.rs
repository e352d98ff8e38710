//! Whom to tell, what, and how it enters the queue.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::time::SystemTime;

use base::envelope::{Body, Needs, Ret};
use base::{Address, Config, Doing, Domain, Envelope, Fail, Recipient, ReversePath};
use mime::binary::{Converter, Plan};
use queue::{Entry, Event, Lane, Outcome, QueueId, RecipientState, Report, Spawn};
use rules::{Mailer, Router};

use crate::text::{self, Action, Notice, Part, Told};

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About<'a> {
    /// Every recipient that failed and was not reported.
    Failures,
    /// Every recipient that was delivered, asked to hear of it and was not reported: deliver's.
    Deliveries,
    /// Of these recipients, the same: passed on to a host that cannot report itself: qrun's.
    Relayed(&'a [usize]),
}

/// A message longer than this goes back whole only to who asked for that.
const SHORT: u64 = 50_000;
/// A header longer than this is cut.
const MAX_HEADER: u64 = 256 * 1024;

/// Makes reports.
#[derive(Debug, Clone)]
pub struct Reporter {
    router: Router,
    host: Domain,
}

/// The reader of a report, and the queue it goes to.
struct Reader {
    address: Address,
    lane: Lane,
    is_postmaster: bool,
}

impl Reporter {
    pub fn new(config: &Config) -> Self {
        Self {
            router: Router::new(config),
            host: config.official_name.clone(),
        }
    }

    /// Tells the sender, where there is something to tell and somebody to be told; gives the id of
    /// the report. After `Ok`, all that `about` covers is marked as reported in the journal; after
    /// `Err`, drop the entry and try again later.
    pub fn report(&self, entry: &mut Entry, about: About<'_>) -> Result<Option<QueueId>, Fail> {
        let (all, wanted) = self.select(entry, about);
        if all.is_empty() {
            return Ok(None);
        }
        let reader = if wanted.is_empty() {
            None
        } else {
            self.reader(entry, about)?
        };
        let Some(reader) = reader else {
            let nobody = Event::Reported {
                recipients: all,
                report: kind(about),
                children: vec![],
            };
            entry.record(&[nobody])?;
            return Ok(None);
        };
        let id = self.write(entry, about, &reader, &wanted, all)?;
        let what = match about {
            About::Failures => "non-delivery",
            About::Deliveries | About::Relayed(_) => "delivery",
        };
        log::info!("{}: sender {what} notification: {id}", entry.id());
        Ok(Some(id))
    }

    /// The recipients that this is about and those of them that somebody wants to hear of.
    fn select(&self, entry: &Entry, about: About<'_>) -> (Vec<usize>, Vec<usize>) {
        let null = entry.envelope().reverse_path.is_null();
        let delivered = |s: &RecipientState| {
            matches!(s.outcome, Outcome::Delivered { .. })
                && !s.success_reported
                && s.recipient.notify.wants_success()
        };
        let relayed: HashSet<usize> = match about {
            About::Relayed(list) => list.iter().copied().collect(),
            About::Failures | About::Deliveries => HashSet::new(),
        };
        let (mut all, mut wanted) = (Vec::new(), Vec::new());
        for (i, s) in entry.recipients().iter().enumerate() {
            let covered = match about {
                About::Failures => {
                    matches!(s.outcome, Outcome::Failed { .. }) && !s.failure_reported
                }
                About::Deliveries => delivered(s),
                About::Relayed(_) => relayed.contains(&i) && delivered(s),
            };
            if !covered {
                continue;
            }
            all.push(i);
            // RFC 3461 4.1: NEVER also means that our postmaster need not know.
            let is_wanted = match about {
                About::Failures => s.recipient.notify.wants_failure(),
                About::Deliveries | About::Relayed(_) => !null,
            };
            if is_wanted {
                wanted.push(i);
            }
        }
        (all, wanted)
    }

    /// The sender; for a message without one our postmaster; for his report nobody.
    fn reader(&self, entry: &Entry, about: About<'_>) -> Result<Option<Reader>, Fail> {
        if let ReversePath::Address(sender) = &entry.envelope().reverse_path {
            let lane = match self.router.route(sender).mailer {
                Mailer::Local { .. } => Some(Lane::Local),
                Mailer::Relay { .. } => Some(Lane::Relay),
                Mailer::Error { .. } | Mailer::Discard => None,
            };
            if let Some(lane) = lane {
                return Ok(Some(Reader {
                    address: sender.clone(),
                    lane,
                    is_postmaster: false,
                }));
            }
            log::warn!("{}: no way to the sender {sender}", entry.id());
        }
        if about != About::Failures {
            return Ok(None);
        }
        if text::is_for_postmaster(&header_of(entry)?) {
            log::error!(
                "{}: a report to our postmaster cannot be delivered; dropped",
                entry.id()
            );
            return Ok(None);
        }
        let address = Address::parse_in("postmaster", &self.host)
            .map_err(|e| Fail::config(format!("postmaster@{}: {e}", self.host)))?;
        Ok(Some(Reader {
            address,
            lane: Lane::Local,
            is_postmaster: true,
        }))
    }

    /// Makes the report a child of the entry.
    fn write(
        &self,
        entry: &mut Entry,
        about: About<'_>,
        reader: &Reader,
        wanted: &[usize],
        all: Vec<usize>,
    ) -> Result<QueueId, Fail> {
        let part = part(about, entry);
        let header = match part {
            Part::Header => Some(header_of(entry)?),
            Part::Message => None,
        };
        let international = match &header {
            Some(header) => !header.is_ascii(),
            None => !header_of(entry)?.is_ascii(),
        };
        let eight_bit = match &header {
            Some(header) => !header.is_ascii(),
            None => has_eight_bit(entry)?,
        };
        let told = told(entry.recipients(), wanted);
        let mut envelope = Envelope::new(
            ReversePath::Null,
            vec![Recipient::new(reader.address.clone())],
        );
        if eight_bit
            || told
                .iter()
                .any(|t| !t.reply.is_ascii() || t.is_international())
        {
            envelope.body = Body::EightBitMime;
        }
        envelope.needs = Needs {
            // The reader stands in the header. The rest of the report is content, of any octets.
            smtputf8: !reader.address.is_ascii(),
            // RFC 8689 5
            require_tls: entry.envelope().needs.require_tls,
        };
        let mut draft = entry.child(reader.lane, &envelope)?;
        let own_id = *draft.id();
        let boundary = boundary()?;
        let notice = Notice {
            action: action(about),
            host: &self.host,
            to: &reader.address,
            to_postmaster: reader.is_postmaster,
            id: entry.id(),
            own_id: &own_id,
            now: SystemTime::now(),
            arrived: entry.arrived(),
            release: entry.envelope().release,
            envid: entry.envelope().envid.as_deref(),
            told: &told,
            part,
            eight_bit,
            international: international && entry.envelope().needs.smtputf8,
            boundary: &boundary,
        };
        draft.write(notice.opening().as_bytes())?;
        match &header {
            Some(header) => draft.write(header)?,
            None => each_piece(entry, |piece| draft.write(piece))?,
        }
        draft.write(notice.closing().as_bytes())?;
        let report = kind(about);
        let what = Spawn::Reported {
            recipients: all,
            report,
        };
        entry.spawn(vec![draft.finish()?], what)?;
        Ok(own_id)
    }
}

/// RFC 3461 4.3, and the header alone where nothing was lost.
fn part(about: About<'_>, entry: &Entry) -> Part {
    // RFC 8689 5: as little as possible goes over further ways.
    if entry.envelope().needs.require_tls {
        return Part::Header;
    }
    match (about, entry.envelope().ret) {
        (About::Deliveries | About::Relayed(_), _) | (_, Some(Ret::Headers)) => Part::Header,
        (About::Failures, Some(Ret::Full)) => Part::Message,
        (About::Failures, None) if entry.size() <= SHORT => Part::Message,
        (About::Failures, None) => Part::Header,
    }
}

fn action(about: About<'_>) -> Action {
    match about {
        About::Failures => Action::Failed,
        About::Deliveries => Action::Delivered,
        About::Relayed(_) => Action::Relayed,
    }
}

fn kind(about: About<'_>) -> Report {
    match about {
        About::Failures => Report::Failure,
        About::Deliveries | About::Relayed(_) => Report::Success,
    }
}

/// The outcomes of these recipients, as the journal has them.
fn told(states: &[RecipientState], wanted: &[usize]) -> Vec<Told> {
    let outcome = |s: &RecipientState| match &s.outcome {
        Outcome::Failed { at, attempt } | Outcome::Delivered { at, attempt } => Some(Told {
            address: s.recipient.address.clone(),
            orcpt: s.recipient.orcpt.clone(),
            status: attempt.status,
            reply: attempt.reply.clone(),
            host: attempt.host.clone(),
            at: *at,
        }),
        Outcome::Pending { .. } | Outcome::Became { .. } => None,
    };
    wanted
        .iter()
        .filter_map(|i| states.get(*i).and_then(outcome))
        .collect()
}

/// The content, in pieces, and by lines, as the report goes.
fn each_piece(entry: &Entry, with: impl FnMut(&[u8]) -> Result<(), Fail>) -> Result<(), Fail> {
    let doing = || format!("read queue file {}", entry.id());
    let mut content = entry.content();
    match entry.envelope().body {
        Body::SevenBit | Body::EightBitMime => each_of(content, doing, with),
        Body::Binary => {
            let plan = Plan::of(&mut content).doing(doing)?;
            let converted = BufReader::new(Converter::new(&plan, content));
            each_of(converted, doing, with)
        }
    }
}

fn each_of(
    mut content: impl BufRead,
    doing: impl Fn() -> String,
    mut with: impl FnMut(&[u8]) -> Result<(), Fail>,
) -> Result<(), Fail> {
    loop {
        let piece = content.fill_buf().doing(&doing)?;
        let length = piece.len();
        if length == 0 {
            return Ok(());
        }
        with(piece)?;
        content.consume(length);
    }
}

fn has_eight_bit(entry: &Entry) -> Result<bool, Fail> {
    let mut found = false;
    each_piece(entry, |piece| {
        found |= !piece.is_ascii();
        Ok(())
    })?;
    Ok(found)
}

/// Up to the empty line, which is left out; at most [`MAX_HEADER`], in whole lines.
fn header_of(entry: &Entry) -> Result<Vec<u8>, Fail> {
    let mut bytes = Vec::new();
    entry
        .content()
        .take(MAX_HEADER)
        .read_to_end(&mut bytes)
        .doing(|| format!("read queue file {}", entry.id()))?;
    bytes.truncate(header_length(&bytes));
    Ok(bytes)
}

fn header_length(bytes: &[u8]) -> usize {
    let mut length = 0;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        if matches!(line, b"\r\n" | b"\n") || !line.ends_with(b"\n") {
            break;
        }
        length += line.len();
    }
    length
}

fn boundary() -> Result<String, Fail> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Fail::temp(format!("random numbers: {e}")))?;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("=_yubin_{hex}"))
}

#[cfg(test)]
mod tests;
