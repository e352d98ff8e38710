//! Doors that are mail filters: each is a program of its own, which is told of the session by
//! Sendmail's milter protocol and may refuse, change or put aside what comes.
//!
//! A milter that dies, is late or talks garbage costs no mail: its default action is taken, and the
//! next session connects anew; so does the next message, where it only went away. What it changed
//! counts when it has given its verdict, all of it or nothing.

mod changes;
mod values;

use std::io::Seek;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::config::{Config, Milter, MilterDefault};
use base::escape::escape;
use base::{Domain, Fail, Recipient, Status};
use milter::macros::Values;
use milter::reply::{Answer, Verdict};
use milter::terms::Step;
use milter::{Conversation, Trouble};
use queue::Queue;

use super::{Door, Facts, Mail, Maker, Opened, Question, Ruling, Stage};
use crate::reply::{self, Reply};
use changes::Changes;

/// What is the same for all connections.
struct Filter {
    milter: Milter,
    /// The name we greet with.
    name: Domain,
    queue: Queue,
    /// Octets of a body that a milter makes.
    size_limit: u64,
    /// Connections that wait for a client, and since when; the last is the youngest.
    kept: Mutex<Vec<(Instant, Conversation)>>,
}

/// So many of one milter, for so long.
const MAX_KEPT: usize = 20;
const KEEP: Duration = Duration::from_secs(30);

impl Filter {
    fn take_kept(&self) -> Option<Conversation> {
        if !self.milter.keep {
            return None;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(since, _)| since.elapsed() < KEEP);
        kept.pop().map(|(_, talk)| talk)
    }

    /// The client has left.
    fn keep(&self, talk: Conversation) {
        let Some(talk) = talk.next_client() else {
            return;
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(since, _)| since.elapsed() < KEEP);
        if kept.len() < MAX_KEPT {
            kept.push((Instant::now(), talk));
        }
    }
}

/// The milters of the configuration, in its order.
pub(crate) fn makers(conf: &Config, queue: &Queue) -> Vec<Maker> {
    let maker = |milter: &Milter| -> Maker {
        let filter = Arc::new(Filter {
            milter: milter.clone(),
            name: conf.official_name.clone(),
            queue: queue.clone(),
            size_limit: conf.message_size_limit,
            kept: Mutex::default(),
        });
        Box::new(move |_| {
            let filter = Arc::clone(&filter);
            let state = State::Unmet;
            Some(Box::new(Visitor { filter, state }))
        })
    };
    conf.milters.iter().map(maker).collect()
}

/// One milter for one connection.
struct Visitor {
    filter: Arc<Filter>,
    state: State,
}

enum State {
    Unmet,
    Talking(Box<Conversation>),
    /// It has decided for the whole connection.
    Over,
    /// It is of no use. `gone`: it went away, and may be back.
    Broken {
        gone: bool,
    },
}

impl Door for Visitor {
    fn wants(&self, stage: Stage) -> bool {
        match &self.state {
            State::Unmet => stage != Stage::Unknown,
            State::Talking(talk) if talk.is_over() => false,
            State::Talking(talk) if stage == Stage::Unknown => {
                !talk.has_decided() && talk.terms().wants(Step::Unknown)
            }
            State::Talking(talk) => {
                !talk.has_decided() || matches!(stage, Stage::Hello | Stage::Sender)
            }
            State::Over => false,
            State::Broken { gone } => match stage {
                Stage::Client | Stage::Hello | Stage::Unknown => false,
                Stage::Sender => *gone || self.filter.milter.default != MilterDefault::Accept,
                _ => self.filter.milter.default != MilterDefault::Accept,
            },
        }
    }

    fn ask(&mut self, question: Question<'_>, facts: &Facts) -> Ruling {
        let stage = question.stage();
        if stage == Stage::Sender && matches!(self.state, State::Broken { gone: true }) {
            self.state = State::Unmet;
        }
        match self.tell(question, facts) {
            Some(Ok(verdict)) => self.rule(verdict, stage, facts),
            Some(Err(trouble)) => self.break_off(&trouble, stage, facts),
            None => self.default_ruling(stage),
        }
    }

    fn message(&mut self, mail: &mut Mail, facts: &Facts) -> Result<Ruling, Fail> {
        let State::Talking(talk) = &mut self.state else {
            return Ok(self.default_ruling(Stage::Message));
        };
        let (verdict, hold) = match show(talk, &self.filter, mail, facts) {
            Ok(heard) => heard,
            Err(Trouble::Ours(e)) => {
                self.state = State::Broken { gone: false };
                return Err(Fail::io("show a message to a milter", e));
            }
            Err(trouble) => return Ok(self.break_off(&trouble, Stage::Message, facts)),
        };
        let mut ruling = self.rule(verdict, Stage::Message, facts);
        if let Some(reason) = hold {
            ruling.hold = Some(format!("{}: {reason}", self.filter.milter.name));
        }
        Ok(ruling)
    }

    fn reset(&mut self) {
        if let State::Talking(talk) = &mut self.state
            && let Err(trouble) = talk.abort()
        {
            self.note(&trouble, "the end of a message");
        }
    }

    fn leave(&mut self) {
        if let State::Talking(talk) = mem::replace(&mut self.state, State::Over)
            && self.filter.milter.keep
        {
            self.filter.keep(*talk);
        }
    }
}

impl Visitor {
    /// Tells the milter what it is to be told. `None`: it is of no use already.
    fn tell(&mut self, question: Question<'_>, facts: &Facts) -> Option<Result<Verdict, Trouble>> {
        let filter = Arc::clone(&self.filter);
        let recipient = match question {
            Question::Recipient(recipient) => Some(recipient),
            _ => None,
        };
        let values = values::of(&filter.name, facts, recipient, None);
        let talk = match &mut self.state {
            State::Talking(talk) => talk,
            State::Over => return Some(Ok(Verdict::Continue)),
            State::Broken { .. } => return None,
            State::Unmet => match self.meet(question.stage(), facts) {
                Ok(Verdict::Continue) if question.stage() == Stage::Client => {
                    return Some(Ok(Verdict::Continue));
                }
                Ok(Verdict::Continue) => match &mut self.state {
                    State::Talking(talk) => talk,
                    _ => return None,
                },
                other => return Some(other),
            },
        };
        Some(match question {
            Question::Client => Ok(Verdict::Continue),
            Question::Hello => match &facts.hello {
                Some(hello) => talk.helo(&hello.name, &values),
                None => Ok(Verdict::Continue),
            },
            Question::Sender => match &facts.transaction {
                Some(opened) => talk.mail(&texts(&mail_args(opened)), &values),
                None => Ok(Verdict::Continue),
            },
            Question::Recipient(recipient) => {
                talk.recipient(&texts(&recipient_args(recipient)), &values)
            }
            Question::Data => talk.data(&values),
            Question::Unknown(line) => talk.unknown(line, &values),
        })
    }

    /// Connects, and tells of the client, and later of his name too: the milter may be met again in the
    /// middle of a session.
    fn meet(&mut self, stage: Stage, facts: &Facts) -> Result<Verdict, Trouble> {
        let values = values::of(&self.filter.name, facts, None, None);
        let name = values::client_name(facts);
        let mut begin = |talk: Conversation| connect(talk, &name, facts, &values);
        let again = self.filter.take_kept().map(&mut begin);
        let (mut talk, mut verdict) = match again {
            Some(Ok(begun)) => begun,
            // It has closed the connection meanwhile, or cannot do it after all.
            Some(Err(Trouble::Gone | Trouble::Io(_) | Trouble::Garbage(_))) | None => {
                let talk = Conversation::open(&self.filter.milter)?;
                let name = escape(&self.filter.milter.name);
                log::debug!("milter {name}: {}", talk.terms());
                begin(talk)?
            }
            Some(Err(trouble)) => return Err(trouble),
        };
        if let (Verdict::Continue, Stage::Sender, Some(hello)) = (&verdict, stage, &facts.hello) {
            verdict = talk.helo(&hello.name, &values)?;
        }
        self.state = State::Talking(Box::new(talk));
        Ok(verdict)
    }

    /// What a milter's word means for the session.
    fn rule(&mut self, verdict: Verdict, stage: Stage, facts: &Facts) -> Ruling {
        let refusal = match verdict {
            Verdict::Continue => return Ruling::default(),
            Verdict::Accept => {
                log::debug!("milter {}: accepts", escape(&self.filter.milter.name));
                if matches!(stage, Stage::Client | Stage::Hello) {
                    self.state = State::Over;
                }
                return Ruling::default();
            }
            Verdict::Discard if matches!(stage, Stage::Client | Stage::Hello | Stage::Unknown) => {
                let garbage = milter::packet::Garbage("\"discard\" where there is no message");
                return self.break_off(&garbage.into(), stage, facts);
            }
            Verdict::Discard => {
                self.log("discard", stage, facts);
                let discard = true;
                return Ruling {
                    discard,
                    ..Ruling::default()
                };
            }
            // RFC 5321 3.1 and 3.8: whom we do not serve is told so with 554, or 421 for now.
            Verdict::Reject if stage == Stage::Client => reply::MILTER_UNSERVED,
            Verdict::Reject => reply::MILTER_REJECTS,
            Verdict::TempFail if stage == Stage::Client => reply::MILTER_SHUTDOWN,
            Verdict::TempFail => reply::MILTER_PUTS_OFF,
            Verdict::Shutdown => reply::MILTER_SHUTDOWN,
            Verdict::Answer(answer) => said(answer),
        };
        self.log(&refusal.to_string(), stage, facts);
        refuse(refusal)
    }

    /// It is of no use for the rest of the session.
    fn break_off(&mut self, trouble: &Trouble, stage: Stage, facts: &Facts) -> Ruling {
        self.note(trouble, &format!("{stage:?} of {}", facts.shown));
        self.default_ruling(stage)
    }

    fn note(&mut self, trouble: &Trouble, at: &str) {
        let gone = matches!(trouble, Trouble::Gone);
        self.state = State::Broken { gone };
        let (name, default) = (&self.filter.milter.name, self.filter.milter.default);
        let action = format!("{default:?}").to_ascii_lowercase();
        log::warn!(
            "milter {}: {at}: {trouble}; default_action={action}",
            escape(name)
        );
    }

    /// What happens without the milter. A client may stay, but his mail is the milter's to judge.
    fn default_ruling(&self, stage: Stage) -> Ruling {
        if matches!(stage, Stage::Client | Stage::Hello | Stage::Unknown) {
            return Ruling::default();
        }
        match self.filter.milter.default {
            MilterDefault::Accept => Ruling::default(),
            MilterDefault::TempFail => refuse(reply::MILTER_PUTS_OFF),
            MilterDefault::Reject => refuse(reply::MILTER_REJECTS),
            MilterDefault::Quarantine => Ruling {
                hold: Some(format!("{} does not work", self.filter.milter.name)),
                ..Ruling::default()
            },
        }
    }

    /// Which milter it was that threw a message away; of a refusal, which the session logs itself.
    fn log(&self, verdict: &str, stage: Stage, facts: &Facts) {
        let name = escape(&self.filter.milter.name);
        let from = facts.transaction.as_ref().map(|opened| {
            let id = opened.queue_id.as_deref().unwrap_or("NOQUEUE");
            let from = opened.reverse_path.to_string();
            format!(" id={id} from=<{}>", escape(&from))
        });
        let (shown, from) = (&facts.shown, from.unwrap_or_default());
        log::info!("milter {name}: {stage:?} of {shown}: {verdict}{from}");
    }
}

/// Tells it of the client.
fn connect(
    mut talk: Conversation,
    name: &str,
    facts: &Facts,
    values: Values<'_>,
) -> Result<(Conversation, Verdict), Trouble> {
    let verdict = talk.connect(name, facts.client, values)?;
    Ok((talk, verdict))
}

/// Shows it a whole message and makes its changes; the reason where the message is to be held.
fn show(
    talk: &mut Conversation,
    filter: &Filter,
    mail: &mut Mail,
    facts: &Facts,
) -> Result<(Verdict, Option<String>), Trouble> {
    let header = changes::shown(mail);
    let mut changes = Changes::new(&filter.queue, filter.size_limit);
    let body = &mut mail.content.body;
    body.rewind().map_err(Trouble::Ours)?;
    let verdict = {
        let values = values::of(&filter.name, facts, None, Some(header.own()));
        let mut note = |change| changes.note(change);
        talk.content(&header.shown(), body, &values, &mut note)?
    };
    let hold = match verdict {
        Verdict::Continue | Verdict::Accept => {
            let space = talk.terms().leading_space();
            changes.apply(header, mail, space)?
        }
        _ => None,
    };
    Ok((verdict, hold))
}

fn refuse(refusal: Reply) -> Ruling {
    let refuse = Some(refusal);
    Ruling {
        refuse,
        ..Ruling::default()
    }
}

/// A milter's own words.
fn said(answer: Answer) -> Reply {
    let class = if answer.code < 500 { 4 } else { 5 };
    let status = answer.status.unwrap_or_else(|| Status::new(class, 7, 1));
    let text = match answer.text.as_str() {
        "" => "Command rejected".to_owned(),
        _ => answer.text,
    };
    Reply::made(answer.code, Some(status), text)
}

fn texts(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// What MAIL said.
fn mail_args(opened: &Opened) -> Vec<String> {
    use base::envelope::{Body, Ret};
    let mut args = vec![format!("<{}>", opened.reverse_path)];
    if opened.size > 0 {
        args.push(format!("SIZE={}", opened.size));
    }
    match opened.body {
        Body::SevenBit => {}
        Body::Binary => args.push("BODY=BINARYMIME".into()),
        Body::EightBitMime => args.push("BODY=8BITMIME".into()),
    }
    args.extend(opened.ret.map(|ret| match ret {
        Ret::Full => "RET=FULL".to_owned(),
        Ret::Headers => "RET=HDRS".to_owned(),
    }));
    args.extend(opened.envid.as_ref().map(|id| format!("ENVID={id}")));
    if opened.needs.smtputf8 {
        args.push("SMTPUTF8".into());
    }
    if opened.needs.require_tls {
        args.push("REQUIRETLS".into());
    }
    args
}

/// What RCPT said.
fn recipient_args(recipient: &Recipient) -> Vec<String> {
    use base::envelope::Notify;
    let mut args = vec![format!("<{}>", recipient.address)];
    match recipient.notify {
        notify if notify == Notify::default() => {}
        Notify::Never => args.push("NOTIFY=NEVER".into()),
        Notify::On {
            success,
            failure,
            delay,
        } => {
            let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
            let words: Vec<_> = words.iter().filter(|w| w.0).map(|w| w.1).collect();
            args.push(format!("NOTIFY={}", words.join(",")));
        }
    }
    args.extend(recipient.orcpt.as_ref().map(|o| format!("ORCPT={o}")));
    args
}
