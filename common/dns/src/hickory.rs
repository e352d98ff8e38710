//! Answers from the name servers of resolv.conf: the only file that knows the resolver's library
//! and its asynchronous runtime.
//!
//! One thread has the runtime; questions go to it by a channel, each with the place where its
//! answer is wanted, and any number of them are under way at once. resolv.conf is read again when it
//! changes. Names are absolute (no search list), the hosts file is not asked (RFC 5321 5.1 means
//! DNS), and aliases are followed by the library, within a bound of its own.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use base::{Domain, Root};
use hickory_resolver::TokioResolver;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Semantic, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::resolve::{self, DnsError, Mx, MxAnswer, Resolve};

/// How long one name server has for one question.
const SERVER_TIMEOUT: Duration = Duration::from_secs(5);
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
    /// The way to the thread, where there is one.
    questions: Mutex<Option<UnboundedSender<Question>>>,
}

type Maker = dyn FnMut() -> io::Result<TokioResolver> + Send;

#[derive(Debug)]
struct Question {
    name: Name,
    kind: RecordType,
    answer: SyncSender<Result<Vec<RData>, DnsError>>,
}

impl Dns {
    /// The root's resolv.conf counts where there is one, else the system's; that it is missing or wrong
    /// is known only to questions, because it may be mended.
    pub fn new(root: &Root) -> Self {
        let own = root.path("/etc/resolv.conf");
        let path = match own.exists() {
            true => own,
            false => PathBuf::from("/etc/resolv.conf"),
        };
        let mut servers = Servers { path, read: None };
        Self::with(move || servers.resolver())
    }

    /// With resolvers that `servers` makes: it is asked before each question.
    fn with(servers: impl FnMut() -> io::Result<TokioResolver> + Send + 'static) -> Self {
        Self(Arc::new(Inner {
            servers: Arc::new(Mutex::new(servers)),
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
                let new = start(Arc::clone(&inner.servers))
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
                        answer,
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

fn start(servers: Arc<Mutex<Maker>>) -> io::Result<UnboundedSender<Question>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (questions, asked) = unbounded_channel();
    thread::Builder::new()
        .name("dns".into())
        .spawn(move || runtime.block_on(serve(asked, servers)))?;
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
async fn serve(mut asked: UnboundedReceiver<Question>, servers: Arc<Mutex<Maker>>) {
    while let Some(question) = asked.recv().await {
        let resolver = {
            let mut make = servers.lock().unwrap_or_else(PoisonError::into_inner);
            make()
        };
        match resolver {
            Ok(resolver) => {
                tokio::spawn(async move {
                    let found = resolver.lookup(question.name, question.kind).await;
                    // Nobody waits any more: then nobody needs it.
                    question.answer.send(read(found)).ok();
                });
            }
            Err(e) => {
                let why = DnsError::Temporary(format!("set up the resolver: {e}"));
                question.answer.send(Err(why)).ok();
            }
        }
    }
}

/// resolv.conf, and the resolver made from it.
struct Servers {
    path: PathBuf,
    read: Option<(Option<SystemTime>, TokioResolver)>,
}

impl Servers {
    fn resolver(&mut self) -> io::Result<TokioResolver> {
        let modified = fs::metadata(&self.path).and_then(|m| m.modified()).ok();
        if let Some((known, resolver)) = &self.read
            && *known == modified
        {
            return Ok(resolver.clone());
        }
        let resolver = from_file(&self.path)
            .map_err(|e| io::Error::other(format!("{}: {e}", self.path.display())))?;
        self.read = Some((modified, resolver.clone()));
        Ok(resolver)
    }
}

fn from_file(path: &Path) -> io::Result<TokioResolver> {
    let (config, options) = parse_resolv_conf(fs::read(path)?).map_err(io::Error::other)?;
    let provider = TokioRuntimeProvider::default();
    let mut builder = TokioResolver::builder_with_config(config, provider);
    *builder.options_mut() = options;
    builder.options_mut().timeout = SERVER_TIMEOUT;
    builder.build().map_err(io::Error::other)
}

/// The library's answer in our words.
fn read(found: Result<Lookup, NetError>) -> Result<Vec<RData>, DnsError> {
    match found {
        Ok(lookup) => {
            let records = lookup.answers().iter().take(MAX_RECORDS);
            Ok(records.map(|record| record.data.clone()).collect())
        }
        Err(NetError::Dns(Semantic::NoRecordsFound(none))) => Err(match none.response_code {
            ResponseCode::NXDomain => DnsError::NxDomain,
            ResponseCode::NoError => DnsError::NoData,
            code => DnsError::Temporary(format!("{}: {code}", none.query.name())),
        }),
        Err(e) => Err(DnsError::Temporary(format!("DNS: {e}"))),
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

impl Resolve for Dns {
    fn mx(&self, domain: &Domain) -> Result<MxAnswer, DnsError> {
        let records = self.ask(domain, RecordType::MX)?;
        let mut null = false;
        let mut illegal = None;
        let mut hosts = Vec::new();
        for record in records {
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
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use hickory_resolver::config::{
        ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts,
    };
    use hickory_resolver::proto::op::Message;
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::{A, MX};

    use super::*;

    /// A name server on loopback that answers by the first label of what it is asked.
    fn name_server() -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((n, peer)) = socket.recv_from(&mut packet) {
                let asked = Message::from_vec(&packet[..n]).unwrap();
                let answer = answer(&asked);
                socket.send_to(&answer.to_vec().unwrap(), peer).unwrap();
            }
        });
        port
    }

    fn answer(asked: &Message) -> Message {
        let query = asked.queries[0].clone();
        let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        let name = query.name().clone();
        let host = |n: &str| Name::from_ascii(n).unwrap();
        let mut add = |data| {
            answer.add_answer(Record::from_rdata(name.clone(), 60, data));
        };
        let first = name.iter().next().unwrap_or_default().to_ascii_lowercase();
        match (first.as_slice(), query.query_type()) {
            (b"two", RecordType::MX) => {
                add(RData::MX(MX::new(10, host("MX1.test."))));
                add(RData::MX(MX::new(20, host("mx2.test."))));
            }
            (b"null", RecordType::MX) => add(RData::MX(MX::new(0, Name::root()))),
            (b"bad", RecordType::MX) => {
                let labels = [b"not a host".as_slice(), b"test".as_slice()];
                add(RData::MX(MX::new(10, Name::from_labels(labels).unwrap())));
            }
            (b"bad", RecordType::A) => add(RData::A(A::new(192, 0, 2, 9))),
            (b"v4", RecordType::A) => add(RData::A(A::new(192, 0, 2, 1))),
            (b"none", _) => answer.metadata.response_code = ResponseCode::NXDomain,
            (b"broken", _) | (b"half", RecordType::AAAA) => {
                answer.metadata.response_code = ResponseCode::ServFail;
            }
            _ => (),
        }
        answer.add_query(query);
        answer
    }

    fn dns() -> Dns {
        let mut connection = ConnectionConfig::udp();
        connection.port = name_server();
        let server = NameServerConfig::new("127.0.0.1".parse().unwrap(), true, vec![connection]);
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        Dns::with(move || {
            let provider = TokioRuntimeProvider::default();
            let mut builder = TokioResolver::builder_with_config(config.clone(), provider);
            *builder.options_mut() = ResolverOpts::default();
            builder.build().map_err(io::Error::other)
        })
    }

    #[test]
    fn what_does_not_exist_and_what_is_not_known_are_two_things() {
        let dns = dns();
        let d = |n: &str| Domain::parse(n).unwrap();
        assert_eq!(
            dns.mx(&d("two.test")),
            Ok(MxAnswer::Found(vec![
                Mx {
                    preference: 10,
                    host: d("mx1.test")
                },
                Mx {
                    preference: 20,
                    host: d("mx2.test")
                },
            ]))
        );
        assert_eq!(dns.mx(&d("null.test")), Ok(MxAnswer::Null));
        assert_eq!(dns.mx(&d("v4.test")), Err(DnsError::NoData));
        assert_eq!(dns.mx(&d("none.test")), Err(DnsError::NxDomain));
        assert!(dns.mx(&d("broken.test")).unwrap_err().is_temporary());
        assert_eq!(
            dns.addresses(&d("v4.test")),
            Ok(vec!["192.0.2.1".parse().unwrap()])
        );
        assert_eq!(dns.addresses(&d("none.test")), Err(DnsError::NxDomain));
        assert_eq!(dns.addresses(&d("two.test")), Err(DnsError::NoData));
        assert!(dns.addresses(&d("half.test")).unwrap_err().is_temporary());
        assert_eq!(dns.txt(&d("[192.0.2.1]")), Err(DnsError::NxDomain));
    }

    #[test]
    fn exchangers_that_are_no_hosts_are_not_the_same_as_none() {
        let dns = dns();
        let answer = dns.mx(&Domain::parse("bad.test").unwrap());
        assert!(matches!(answer, Ok(MxAnswer::NoHosts(_))), "{answer:?}");
    }

    #[test]
    fn without_servers_nothing_is_known() {
        let dns = Dns::with(|| Err(io::Error::other("no resolv.conf")));
        assert!(
            dns.mx(&Domain::parse("x.test").unwrap())
                .unwrap_err()
                .is_temporary()
        );
    }
}
