//! Answers whose signatures are checked, from the trust anchors down (RFC 4035 5).
//!
//! The library checks the signatures; what is ours is the memory below it, so that the chain of
//! keys is not asked for with each question, the way along aliases, and the proof that nothing
//! closer exists where an answer comes from a wildcard.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::{self, Stream};
use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer, RetryDnsHandle};
use hickory_resolver::net::{DnsError as Semantic, NetError};
use hickory_resolver::proto::dnssec::rdata::{DNSSECRData, NSEC};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Message, Query, ResponseCode,
};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, ResponseCache, TlsConfig, TtlConfig};

use super::MAX_RECORDS;
use crate::proven::{Proven, ProvenError, State};

/// How many aliases are followed to a name.
const MAX_ALIASES: usize = 8;

/// Sets of records whose signatures were checked, that are remembered.
const MAX_REMEMBERED: usize = 8192;

/// Checks answers. Cheap to clone; all clones have one memory.
#[derive(Clone)]
pub(super) struct Validator {
    handle: DnssecDnsHandle<Remembering>,
    options: DnsRequestOptions,
}

impl Validator {
    pub(super) fn new(
        servers: Vec<NameServerConfig>,
        options: ResolverOpts,
        anchors: Arc<TrustAnchors>,
    ) -> io::Result<Self> {
        let remembered = ResponseCache::new(options.cache_size, TtlConfig::from_opts(&options));
        let attempts = options.attempts;
        let mut asked = DnsRequestOptions::default();
        asked.use_edns = true;
        asked.edns_set_dnssec_ok = true;
        asked.edns_payload_len = options.edns_payload_len;
        let tls = TlsConfig::new().map_err(io::Error::other)?;
        let context = Arc::new(PoolContext::new(options, tls));
        let pool = NameServerPool::from_config(servers, context, TokioRuntimeProvider::default());
        let servers = Remembering {
            servers: RetryDnsHandle::new(pool, attempts),
            remembered,
        };
        Ok(Self {
            handle: DnssecDnsHandle::with_trust_anchor(servers, anchors)
                .validation_cache_size(MAX_REMEMBERED),
            options: asked,
        })
    }

    /// The records of a kind, with the aliases that lead there before them.
    pub(super) async fn lookup(
        &self,
        mut name: Name,
        kind: RecordType,
    ) -> Result<Proven<Vec<Record>>, ProvenError> {
        let mut all = Proven {
            state: State::Secure,
            value: Vec::new(),
        };
        for _ in 0..MAX_ALIASES {
            let query = Query::query(name.clone(), kind);
            let found = self.handle.lookup(query, self.options).first_answer().await;
            let response = accept(found)?;
            let end = follow(&response, name.clone(), kind, &mut all)?;
            if all.value.iter().any(|record| record.record_type() == kind) {
                return Ok(all);
            }
            if end == name || response.response_code == ResponseCode::NXDomain {
                return Err(ProvenError::None);
            }
            name = end;
        }
        Err(ProvenError::Temporary(format!(
            "{name}: aliases without end"
        )))
    }
}

/// An answer that is none of the library's errors, or is no error after all.
fn accept(found: Result<DnsResponse, NetError>) -> Result<DnsResponse, ProvenError> {
    let response = match found {
        Ok(response) => response,
        Err(NetError::Dns(Semantic::Nsec {
            response,
            proof,
            query,
            ..
        })) => match proof {
            // Below an opt-out, or with more rounds of NSEC3 than anybody needs: nothing is proven.
            Proof::Insecure => *response,
            _ if is_wildcard(&response, &query) => *response,
            _ => return Err(bogus(query.name())),
        },
        Err(e) => return Err(super::Failed(e).into()),
    };
    match response.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(response),
        code => {
            let name = response
                .queries
                .first()
                .map(Query::name)
                .map(ToString::to_string);
            let name = name.unwrap_or_default();
            Err(ProvenError::Temporary(format!("{name}: {code}")))
        }
    }
}

fn bogus(name: &Name) -> ProvenError {
    ProvenError::Bogus(format!("{name}: DNSSEC validation failed"))
}

/// Goes along the aliases of an answer as far as it tells; gives the name where it ends.
fn follow(
    response: &DnsResponse,
    mut name: Name,
    kind: RecordType,
    all: &mut Proven<Vec<Record>>,
) -> Result<Name, ProvenError> {
    for _ in 0..MAX_ALIASES {
        let here = |record: &&Record| record.name == name;
        let of = |kind: RecordType| {
            let records = response.answers.iter().filter(here);
            records.filter(move |record| record.record_type() == kind)
        };
        let found: Vec<&Record> = match of(kind).next() {
            Some(_) => of(kind).take(MAX_RECORDS).collect(),
            None => of(RecordType::CNAME).take(1).collect(),
        };
        let mut next = None;
        for record in found {
            match record.proof {
                Proof::Secure => (),
                Proof::Insecure | Proof::Indeterminate => all.state = State::Insecure,
                Proof::Bogus => return Err(bogus(&record.name)),
            }
            if let (RData::CNAME(alias), true) = (&record.data, kind != RecordType::CNAME) {
                next = Some(alias.0.clone());
            }
            all.value.push(record.clone());
        }
        match next {
            Some(next) => name = next,
            None => return Ok(name),
        }
    }
    Ok(name)
}

/// Whether an answer comes from a wildcard and nothing closer exists: RFC 4035 5.3.4. The library
/// wants a proof that the wildcard itself is not there.
fn is_wildcard(response: &DnsResponse, query: &Query) -> bool {
    let is_data = |record: &&Record| record.record_type() != RecordType::RRSIG;
    let mut data = response.answers.iter().filter(is_data);
    let has_answer = response.answers.iter().any(|r| &r.name == query.name());
    response.response_code == ResponseCode::NoError
        && has_answer
        && data.all(|record| record.proof == Proof::Secure)
        && response.answers.iter().all(|record| match &record.data {
            RData::DNSSEC(DNSSECRData::RRSIG(signature)) if record.proof == Proof::Secure => {
                let signed = signature.input().num_labels;
                // The next closer name: one label more than the signature has.
                signed >= record.name.num_labels()
                    || is_denied(response, &record.name.trim_to(usize::from(signed) + 1))
            }
            _ => true,
        })
}

/// Whether a proven NSEC record says that a name does not exist.
fn is_denied(response: &DnsResponse, name: &Name) -> bool {
    let covers = |owner: &Name, nsec: &NSEC| {
        let next = nsec.next_domain_name();
        let is_last = next <= owner && next.zone_of(name);
        // With names below it, it exists, without records.
        owner < name
            && (name < next || is_last)
            && !name.zone_of(next)
            // The parent's record at a cut says nothing about what is below.
            && !(owner.zone_of(name) && is_cut(nsec))
    };
    response
        .authorities
        .iter()
        .any(|record| match &record.data {
            RData::DNSSEC(DNSSECRData::NSEC(nsec)) => {
                record.proof == Proof::Secure && covers(&record.name, nsec)
            }
            _ => false,
        })
}

fn is_cut(nsec: &NSEC) -> bool {
    let has = |kind| nsec.type_set().contains(kind);
    has(RecordType::DNAME) || has(RecordType::NS) && !has(RecordType::SOA)
}

/// The name servers, whose answers are remembered as long as they hold.
#[derive(Clone)]
struct Remembering {
    servers: RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>,
    remembered: ResponseCache,
}

impl Remembering {
    async fn answer(self, request: DnsRequest) -> Result<DnsResponse, NetError> {
        let Some(query) = request.queries.first().cloned() else {
            return self.servers.send(request).first_answer().await;
        };
        if let Some(known) = self.remembered.get(&query, Instant::now()) {
            return known.and_then(|message| Ok(DnsResponse::from_message(message)?));
        }
        let answer = self.servers.send(request).first_answer().await;
        let worth: Option<Result<Message, NetError>> = match &answer {
            Ok(response) if response.response_code == ResponseCode::NoError => {
                Some(Ok(response.clone().into_message()))
            }
            Err(e @ NetError::Dns(Semantic::NoRecordsFound(_))) => Some(Err(e.clone())),
            _ => None,
        };
        if let Some(answer) = worth {
            self.remembered.insert(query, answer, Instant::now());
        }
        answer
    }
}

impl DnsHandle for Remembering {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        Box::pin(stream::once(self.clone().answer(request)))
    }
}
