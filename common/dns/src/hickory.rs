//! Answers from the name servers of resolv.conf: the only file that knows the resolver's library
//! and its asynchronous runtime.
//!
//! One thread has the runtime; questions go to it by a channel, each with the place where its
//! answer is wanted, and any number of them are under way at once. resolv.conf is read again when it
//! changes. Names are absolute (no search list), the hosts file is not asked (RFC 5321 5.1 means
//! DNS), and aliases are followed by the library, within a bound of its own.
//!
//! Who asks for proof is answered by a second resolver with a memory of its own, that asks for
//! signatures and checks them itself up to the root (RFC 4035 5); nobody else pays for that.

mod servers;
mod validator;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use base::{Config, Domain, Fail, Root};
use hickory_resolver::TokioResolver;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError as Semantic, NetError};
use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::servers::{Servers, Validation};
use self::validator::Validator;
use crate::proven::{Place, Proven, ProvenError, State, Tlsa};
use crate::resolve::{self, DnsError, Mx, MxAnswer, Resolve};

/// How long a caller waits for anything.
const DEADLINE: Duration = Duration::from_secs(40);
/// Records beyond this many are not looked at: nobody has them for mail.
const MAX_RECORDS: usize = 200;

/// The system's resolver. Cheap to clone; the thread begins with the first question and ends with
/// the last clone.
#[derive(Clone)]
pub struct Dns(Arc<Inner>);

struct Inner {
    /// Makes the resolvers, on the thread.
    servers: Arc<Mutex<Maker>>,
    validation: Arc<Validation>,
    /// The way to the thread, where there is one.
    questions: Mutex<Option<UnboundedSender<Question>>>,
}

/// Gives the resolvers, with one that validates if so asked.
type Maker = dyn FnMut(bool) -> io::Result<Resolvers> + Send;

/// Those of the name servers in force.
#[derive(Clone)]
struct Resolvers {
    plain: TokioResolver,
    validator: Option<Validator>,
}

#[derive(Debug)]
struct Question {
    name: Name,
    kind: RecordType,
    answer: Wanted,
}

/// Where the answer is waited for, and what it is to be.
#[derive(Debug)]
enum Wanted {
    Plain(SyncSender<Result<Vec<RData>, DnsError>>),
    Proven(SyncSender<Result<Proven<Vec<Record>>, ProvenError>>),
}

impl Dns {
    /// The root's resolv.conf counts where there is one, else the system's; that it is missing or wrong
    /// is known only to questions, because it may be mended.
    /// DNS_SERVERS goes before both.
    pub fn new(root: &Root, config: &Config) -> Result<Self, Fail> {
        let mut servers = Servers::new(root, config)?;
        let validation = Validation::new(config.dnssec);
        Ok(Self::with(validation, move |validates| {
            servers.resolvers(validates)
        }))
    }

    /// With resolvers that `servers` makes: it is asked before each question.
    fn with(
        validation: Validation,
        servers: impl FnMut(bool) -> io::Result<Resolvers> + Send + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            servers: Arc::new(Mutex::new(servers)),
            validation: Arc::new(validation),
            questions: Mutex::new(None),
        }))
    }

    /// The way to the thread, which is started if there is none.
    fn questions(&self) -> Result<UnboundedSender<Question>, DnsError> {
        let inner = &self.0;
        let mut running = inner
            .questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*running {
            Some(questions) if !questions.is_closed() => Ok(questions.clone()),
            _ => {
                let new = start(Arc::clone(&inner.servers), Arc::clone(&inner.validation))
                    .map_err(|e| DnsError::Temporary(format!("start the resolver: {e}")))?;
                Ok(running.insert(new).clone())
            }
        }
    }

    fn ask(&self, name: &Domain, kind: RecordType) -> Result<Vec<RData>, DnsError> {
        self.ask_all(name, &[kind])
            .pop()
            .unwrap_or_else(|| Err(gone()))
    }

    fn prove(&self, name: &Domain, kind: RecordType) -> Result<Proven<Vec<Record>>, ProvenError> {
        let name = absolute(name).ok_or(ProvenError::None)?;
        let (answer, answered) = sync_channel(1);
        let what = name.to_string();
        let question = Question {
            name,
            kind,
            answer: Wanted::Proven(answer),
        };
        let silence = || ProvenError::Temporary(format!("{what}: no answer from DNS"));
        self.questions()?
            .send(question)
            .map_err(|_| ProvenError::from(gone()))?;
        answered
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|_| Err(silence()))
    }

    /// Several kinds at once, answered in their order.
    fn ask_all(&self, name: &Domain, kinds: &[RecordType]) -> Vec<Result<Vec<RData>, DnsError>> {
        let Some(absolute) = absolute(name) else {
            return kinds.iter().map(|_| Err(DnsError::NxDomain)).collect();
        };
        let questions = match self.questions() {
            Ok(questions) => questions,
            Err(why) => return kinds.iter().map(|_| Err(why.clone())).collect(),
        };
        let answers: Vec<_> = kinds
            .iter()
            .map(|kind| {
                let (answer, answered) = sync_channel(1);
                let name = absolute.clone();
                questions
                    .send(Question {
                        name,
                        kind: *kind,
                        answer: Wanted::Plain(answer),
                    })
                    .is_ok()
                    .then_some(answered)
            })
            .collect();
        answers
            .into_iter()
            .map(
                |answered| match answered.map(|a| a.recv_timeout(DEADLINE)) {
                    Some(Ok(answer)) => answer,
                    Some(Err(_)) => Err(DnsError::Temporary(format!("{name}: no answer from DNS"))),
                    None => Err(gone()),
                },
            )
            .collect()
    }
}

/// The thread.
fn start(
    servers: Arc<Mutex<Maker>>,
    validation: Arc<Validation>,
) -> io::Result<UnboundedSender<Question>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (questions, asked) = unbounded_channel();
    thread::Builder::new()
        .name("dns".into())
        .spawn(move || runtime.block_on(serve(asked, servers, validation)))?;
    Ok(questions)
}

fn gone() -> DnsError {
    DnsError::Temporary("the resolver has stopped".into())
}

/// A name with its dot at the end; `None` for an address literal, which is no name.
fn absolute(name: &Domain) -> Option<Name> {
    if name.ip().is_some() {
        return None;
    }
    Name::from_ascii(format!("{}.", name.as_str())).ok()
}

/// Takes questions until nobody can ask any more.
async fn serve(
    mut asked: UnboundedReceiver<Question>,
    servers: Arc<Mutex<Maker>>,
    validation: Arc<Validation>,
) {
    while let Some(Question { name, kind, answer }) = asked.recv().await {
        let resolvers = {
            let proves = matches!(answer, Wanted::Proven(_));
            let mut make = servers.lock().unwrap_or_else(PoisonError::into_inner);
            make(proves).map_err(|e| format!("set up the resolver: {e}"))
        };
        // In each case: nobody waits any more, then nobody needs it.
        match (answer, resolvers) {
            (Wanted::Plain(answer), Ok(resolvers)) => {
                tokio::spawn(async move {
                    let found = resolvers.plain.lookup(name, kind).await;
                    answer.send(read(found)).ok();
                });
            }
            (Wanted::Proven(answer), Ok(resolvers)) => {
                let validation = Arc::clone(&validation);
                tokio::spawn(async move {
                    let found = prove(&validation, resolvers, name, kind).await;
                    answer.send(found).ok();
                });
            }
            (Wanted::Plain(answer), Err(why)) => {
                answer.send(Err(DnsError::Temporary(why))).ok();
            }
            (Wanted::Proven(answer), Err(why)) => {
                answer.send(Err(ProvenError::Temporary(why))).ok();
            }
        }
    }
}

/// An answer with its state, where there is somebody who can tell.
async fn prove(
    validation: &Validation,
    resolvers: Resolvers,
    name: Name,
    kind: RecordType,
) -> Result<Proven<Vec<Record>>, ProvenError> {
    if let Some(validator) = resolvers.validator
        && validation.is_possible(&validator).await?
    {
        return validator.lookup(name, kind).await;
    }
    match resolvers.plain.lookup(name, kind).await {
        Ok(lookup) => {
            let all = lookup.answers().iter().take(MAX_RECORDS);
            Ok(Proven::insecure(all.cloned().collect()))
        }
        Err(e) => Err(Failed(e).into()),
    }
}

/// The library's answer in our words.
fn read(found: Result<Lookup, NetError>) -> Result<Vec<RData>, DnsError> {
    match found {
        Ok(lookup) => {
            let records = lookup.answers().iter().take(MAX_RECORDS);
            Ok(records.map(|record| record.data.clone()).collect())
        }
        Err(e) => Err(Failed(e).into()),
    }
}

/// The library's error.
struct Failed(NetError);

impl From<Failed> for ProvenError {
    fn from(failed: Failed) -> Self {
        DnsError::from(failed).into()
    }
}

impl From<Failed> for DnsError {
    fn from(failed: Failed) -> Self {
        match failed.0 {
            NetError::Dns(Semantic::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => Self::NxDomain,
                ResponseCode::NoError => Self::NoData,
                code => Self::Temporary(format!("{}: {code}", none.query.name())),
            },
            e => Self::Temporary(format!("DNS: {e}")),
        }
    }
}

/// No records of the kind are no data.
fn some<T>(records: impl Iterator<Item = T>) -> Result<Vec<T>, DnsError> {
    let all: Vec<T> = records.collect();
    match all.is_empty() {
        true => Err(DnsError::NoData),
        false => Ok(all),
    }
}

fn exchangers<'a>(data: impl Iterator<Item = &'a RData>) -> Result<MxAnswer, DnsError> {
    let mut null = false;
    let mut illegal = None;
    let mut hosts = Vec::new();
    for record in data {
        let RData::MX(mx) = record else { continue };
        if mx.exchange.is_root() {
            null = true;
            continue;
        }
        let name = mx.exchange.to_ascii();
        match Domain::parse(&name) {
            Ok(host) => hosts.push(Mx {
                preference: mx.preference,
                host,
            }),
            Err(_) => illegal = Some(name),
        }
    }
    match (hosts.is_empty(), null, illegal) {
        (false, _, _) => Ok(MxAnswer::Found(hosts)),
        (true, true, _) => Ok(MxAnswer::Null),
        (true, false, Some(name)) => Ok(MxAnswer::NoHosts(name)),
        (true, false, None) => Err(DnsError::NoData),
    }
}

/// Where the addresses of `host` stand, of one family.
fn place(host: &Domain, found: &Proven<Vec<Record>>) -> Option<Proven<Place>> {
    let is_address = |r: &&Record| matches!(r.data, RData::A(_) | RData::AAAA(_));
    let end = found.value.iter().find(is_address)?;
    let own = absolute(host)?;
    // The library has followed the aliases; the first bears the host's own name.
    let first = found
        .value
        .iter()
        .find(|r| r.name == own && r.record_type() != RecordType::RRSIG);
    let is_secure = first.is_some_and(|r| r.proof == Proof::Secure);
    Some(Proven {
        state: found.state,
        value: Place {
            alias: match end.name == own {
                true => None,
                false => Domain::parse(&end.name.to_ascii()).ok(),
            },
            first: match is_secure {
                true => State::Secure,
                false => State::Insecure,
            },
        },
    })
}

impl Resolve for Dns {
    fn mx(&self, domain: &Domain) -> Result<MxAnswer, DnsError> {
        exchangers(self.ask(domain, RecordType::MX)?.iter())
    }

    fn addresses(&self, host: &Domain) -> Result<Vec<IpAddr>, DnsError> {
        let mut found = Vec::new();
        let mut errors = Vec::new();
        for answer in self.ask_all(host, &[RecordType::AAAA, RecordType::A]) {
            match answer {
                Ok(records) => found.extend(records.iter().filter_map(|data| match data {
                    RData::A(a) => Some(IpAddr::V4(a.0)),
                    RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
                    _ => None,
                })),
                Err(e) => errors.push(e),
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        // A doubt about one family is a doubt about the host.
        let doubt = errors.iter().position(DnsError::is_temporary).unwrap_or(0);
        Err(errors.into_iter().nth(doubt).unwrap_or(DnsError::NoData))
    }

    fn ipv4(&self, host: &Domain) -> Result<Vec<Ipv4Addr>, DnsError> {
        let records = self.ask(host, RecordType::A)?;
        some(records.iter().filter_map(|data| match data {
            RData::A(a) => Some(a.0),
            _ => None,
        }))
    }

    fn ipv6(&self, host: &Domain) -> Result<Vec<Ipv6Addr>, DnsError> {
        let records = self.ask(host, RecordType::AAAA)?;
        some(records.iter().filter_map(|data| match data {
            RData::AAAA(aaaa) => Some(aaaa.0),
            _ => None,
        }))
    }

    fn ptr(&self, ip: IpAddr) -> Result<Vec<Domain>, DnsError> {
        let name = Domain::parse(&resolve::reverse(ip)).map_err(|_| DnsError::NxDomain)?;
        let records = self.ask(&name, RecordType::PTR)?;
        some(records.iter().filter_map(|data| match data {
            RData::PTR(ptr) => Domain::parse(&ptr.0.to_ascii()).ok(),
            _ => None,
        }))
    }

    fn txt(&self, name: &Domain) -> Result<Vec<Vec<u8>>, DnsError> {
        let records = self.ask(name, RecordType::TXT)?;
        let all: Vec<Vec<u8>> = records
            .iter()
            .filter_map(|data| match data {
                RData::TXT(txt) => Some(txt.txt_data.concat()),
                _ => None,
            })
            .collect();
        if all.is_empty() {
            return Err(DnsError::NoData);
        }
        Ok(all)
    }

    fn proven_mx(&self, domain: &Domain) -> Result<Proven<MxAnswer>, ProvenError> {
        let found = self.prove(domain, RecordType::MX)?;
        Ok(Proven {
            state: found.state,
            value: exchangers(found.value.iter().map(|record| &record.data))?,
        })
    }

    fn place(&self, host: &Domain) -> Result<Proven<Place>, ProvenError> {
        let mut error = ProvenError::None;
        // One family tells where the host is. That the other cannot be asked proves nothing, and a
        // forged answer must not be worth more than none.
        for kind in [RecordType::A, RecordType::AAAA] {
            match self.prove(host, kind) {
                Ok(found) => {
                    if let Some(place) = place(host, &found) {
                        return Ok(place);
                    }
                }
                Err(ProvenError::None) => (),
                Err(e) => error = e,
            }
        }
        Err(error)
    }

    fn tlsa(&self, name: &Domain) -> Result<Proven<Vec<Tlsa>>, ProvenError> {
        let found = self.prove(name, RecordType::TLSA)?;
        let all = found
            .value
            .into_iter()
            .filter_map(|record| match record.data {
                RData::TLSA(tlsa) => Some(Tlsa {
                    usage: tlsa.cert_usage.into(),
                    selector: tlsa.selector.into(),
                    matching: tlsa.matching.into(),
                    data: tlsa.cert_data,
                }),
                _ => None,
            });
        Ok(Proven {
            state: found.state,
            value: some(all)?,
        })
    }
}

#[cfg(test)]
mod tests;
