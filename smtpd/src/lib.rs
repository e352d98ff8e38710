//! The insides of smtpd(8). Only [`main`] is for others: no program links another's code.

mod access;
mod auth;
mod body;
mod command;
mod disowned;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gate;
mod message;
mod policy;
mod porter;
mod proof;
mod received;
mod relay_domains;
mod reply;
mod senders;
mod serve;
mod session;
mod table;
mod xclient;
mod xforward;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use account::{Answer, Checkpw, Mechanism, Request, Service};
use base::{Config, Fail, Root, log as logging, privilege, say};
use dns::Resolve;
use net::pool::Pool;
use net::tls::Acceptor;
use net::{Encryption, Listen, Opts, activate, poll};
use queue::{Logging, Queue};
use tally::Tally;

use crate::disowned::Handling;
use crate::gate::copies::Copies;
use crate::gate::{Gate, checks};
use crate::policy::{Exists, Policy, Tables, Told};
use crate::porter::Porter;
use crate::proof::Prover;
use crate::serve::{Connection, REINJECT, SMTP, SMTPS, SUBMISSION, Shared, WayBack};
use crate::session::Terms;

/// Look-ups of one door that are under way at the same time. Who makes the names of his hosts slow to
/// look up must not keep the lists from being asked.
const LOOKUPS: usize = 200;

/// The whole program: its arguments are those of the process.
pub fn main() -> ExitCode {
    logging::init("smtpd");
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    run(&args).unwrap_or_else(|fail| fail.report())
}

fn run(args: &[OsString]) -> Result<ExitCode, Fail> {
    let Some(opts) = Opts::parse("smtpd", args)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let client_waits = !opts.check && activate::is_inetd(opts.inetd);
    start(&opts).inspect_err(|_| {
        if client_waits {
            // What it was, is for the log only. SMTP ends its lines with CRLF.
            say("421 4.3.0 Service not available, try again later\r");
        }
    })
}

/// Everything that can fail before the first byte is served, in this order, so that a bad flag,
/// file or socket is reported on stderr and nothing is opened after privileges are gone.
fn start(opts: &Opts) -> Result<ExitCode, Fail> {
    // What it writes is for its group too, and for nobody else.
    nix::sys::stat::umask(nix::sys::stat::Mode::S_IRWXO);
    let root = Root::from_env();
    let conf = Config::load(&root, opts.config.as_deref())?;
    let acceptor = Acceptor::configured(&conf)?;
    let tables = Tables::open(&conf)?;
    let checks = checks::Tables::open(&conf)?;
    let copies = Copies::open(&conf)?;
    let listens = listens(&conf, acceptor.is_some());
    if opts.check {
        account::server::check(&root, &conf, Service::Smtp)?;
        say("configuration good");
        return Ok(ExitCode::SUCCESS);
    }
    let sockets = activate::listen(&listens, opts.inetd)?;
    let queue = Queue::open(&root)?;
    if !activate::is_inetd(opts.inetd) {
        queue.keep_log(Logging::Accepts, conf.commit_log);
    }
    let dns = dns::open(&root, &conf)?;
    let prover = prover(&conf, &dns);
    let porter = porter(&root, &conf, &dns)?;
    let checkpw = Checkpw::start(&root, opts.config.as_deref(), Service::Smtp)?;
    privilege::drop_to(&root, privilege::SMTP_USER)?;

    for (address, service) in sockets.addresses() {
        log::info!("listening on {address} ({service})");
    }
    let gate = Gate::new(doors(&conf, &dns, checks, copies, &queue));
    let shared = Arc::new(Shared {
        terms: Arc::new(terms(&conf, checkpw.mechanisms().to_vec())),
        policy: Arc::new(Policy::new(
            &conf,
            tables,
            ask_who_lives_here(checkpw.clone()),
        )),
        checkpw,
        queue,
        spare: conf.min_free_space,
        plaintext_login: conf.plaintext_login,
        greet_delay: conf.greet_delay,
        prover,
        gate,
        porter,
        xclient_from: conf.xclient_from.clone(),
        content_filter: conf.content_filter.clone(),
        way_back: WayBack {
            terms: Arc::new(way_back(&conf)),
            from: conf.reinject_from.clone(),
        },
    });
    let options = net::Options {
        acceptor,
        people: &[SUBMISSION, SMTPS],
        max_connections: conf.max_connections,
        // Most of them are between two messages, or their message fits into memory.
        work_share: 4,
        max_per_client: conf.max_connections_per_client,
        busy: b"421 4.3.2 Too many connections, try again later\r\n",
        proxies: conf.proxy_from.clone(),
        // A filter has nobody before it.
        direct: &[REINJECT],
        ..net::Options::default()
    };
    poll::run(
        sockets,
        |accepted| Connection::new(Arc::clone(&shared), accepted),
        options,
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Who counts what comes, with the other processes.
fn porter(root: &Root, conf: &Config, dns: &Arc<dyn Resolve>) -> Result<Option<Porter>, Fail> {
    match Porter::is_wanted(conf) {
        true => Ok(Some(Porter::new(conf, &Tally::open(root)?, dns))),
        false => Ok(None),
    }
}

/// Who looks into strangers' messages.
fn prover(conf: &Config, dns: &Arc<dyn Resolve>) -> Option<Prover> {
    conf.authentication_results.then(|| Prover {
        name: conf.official_name.clone(),
        dns: Arc::clone(dns),
        handling: Handling {
            dmarc: conf.dmarc,
            arc_trust: conf.arc_trust.clone(),
        },
    })
}

/// The doors of all sessions, in the order in which they are asked.
fn doors(
    conf: &Config,
    dns: &Arc<dyn Resolve>,
    checks: Option<checks::Tables>,
    copies: Option<Copies>,
    queue: &Queue,
) -> Vec<gate::Maker> {
    let mut doors = Vec::new();
    if conf.client_names {
        doors.push(gate::names::maker(Arc::clone(dns), Pool::new(LOOKUPS)));
    }
    if !conf.dnsbl.is_empty() {
        let (lists, limit) = (&conf.dnsbl, conf.dnsbl_limit);
        let lookups = Pool::new(LOOKUPS);
        doors.push(gate::dnsbl::maker(lists, limit, Arc::clone(dns), lookups));
    }
    if !conf.policy_services.is_empty() {
        doors.push(gate::policy::maker(
            &conf.policy_services,
            &conf.policy_states,
        ));
    }
    doors.extend(checks.map(|tables| checks::maker(tables, queue.clone())));
    doors.extend(copies.map(gate::copies::maker));
    doors.extend(gate::milter::makers(conf, queue));
    doors
}

/// Port 25 for mail from anywhere; 587 and 465 for our own users; REINJECT for content filters.
/// Without a certificate there is no 465.
fn listens(conf: &Config, has_tls: bool) -> Vec<Listen> {
    [
        (conf.smtp_port, Encryption::OnRequest, SMTP),
        (conf.submission_port, Encryption::OnRequest, SUBMISSION),
        (
            if has_tls { conf.smtps_port } else { 0 },
            Encryption::Implicit,
            SMTPS,
        ),
    ]
    .into_iter()
    .filter(|(port, ..)| *port != 0)
    .flat_map(|(port, encryption, service)| Listen::each(&conf.listen, port, encryption, service))
    .chain(conf.reinject.iter().map(|addr| Listen {
        addr: *addr,
        encryption: Encryption::OnRequest,
        service: REINJECT,
    }))
    .collect()
}

/// Users are asked for at checkpw: smtpd may not read the file that has their secrets too.
fn ask_who_lives_here(checkpw: Checkpw) -> Exists {
    Box::new(move |name: String, told: Told| {
        checkpw.submit(&Request::Lookup { name }, move |answer| {
            told(match answer {
                Answer::Found(_) => Ok(true),
                Answer::Unknown => Ok(false),
                Answer::Unavailable(why) => Err(Fail::temp(why)),
                other => Err(Fail::temp(format!("checkpw answers {other:?}"))),
            });
        });
    })
}

fn terms(conf: &Config, mechanisms: Vec<Mechanism>) -> Terms {
    Terms {
        name: conf.official_name.clone(),
        here: conf.from_address.clone(),
        size_limit: conf.message_size_limit,
        recipient_limit: conf.recipient_limit,
        hop_limit: conf.hop_limit,
        future_release: conf.future_release,
        etrn_domains: conf.etrn_domains.clone(),
        patience: conf.smtp_timeout,
        mechanisms,
    }
}

/// For content filters: what was small enough when it came is so with what the filter has added, and
/// what only clients need is not there.
fn way_back(conf: &Config) -> Terms {
    Terms {
        size_limit: conf.message_size_limit.saturating_mul(2),
        etrn_domains: Vec::new(),
        future_release: std::time::Duration::ZERO,
        ..terms(conf, Vec::new())
    }
}
