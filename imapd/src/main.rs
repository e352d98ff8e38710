//! imapd - read mail by IMAP. See imapd(8).
//!
//! From the outside in: `serve` drives a `session` on a connection; a session takes commands from
//! `framer` and `command`, and answers them with the help of `fetch`, `search` and `list`, whose words
//! `response`, `structure` and `section` write. All but `serve` are pure functions of their input.

mod ahead;
mod answers;
mod append;
mod command;
mod dispatch;
#[cfg(test)]
mod fake;
mod fetch;
mod framer;
mod grammar;
mod idle;
mod item;
mod key;
mod list;
mod login;
mod mail;
mod matcher;
mod response;
mod search;
mod section;
mod serve;
mod session;
mod structure;
#[cfg(test)]
mod transcript;
mod utf7;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use account::{Checkpw, Service};
use base::{Config, Fail, Root, log as logging, privilege};
use net::tls::Acceptor;
use net::{Encryption, Listen, Opts, activate, poll};
use store::Watcher;
use tally::login::Logins;

use crate::serve::{Connection, IMAP, IMAPS, Shared};

fn main() -> ExitCode {
    logging::init("imapd");
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    run(&args).unwrap_or_else(|fail| fail.report())
}

/// Everything that can fail before the first byte is served, in this order, so that a bad flag,
/// file or socket is reported on stderr and nothing is opened after privileges are gone.
fn run(args: &[OsString]) -> Result<ExitCode, Fail> {
    let Some(opts) = Opts::parse("imapd", args)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let root = Root::from_env();
    let conf = Config::load(&root, opts.config.as_deref())?;
    let acceptor = Acceptor::configured(&conf)?;
    let listens = listens(&conf, acceptor.is_some());
    if opts.check {
        base::say("configuration good");
        return Ok(ExitCode::SUCCESS);
    }
    let sockets = activate::listen(&listens, opts.inetd)?;
    let checkpw = Checkpw::start(&root, opts.config.as_deref(), Service::Imap)?;
    let logins = Logins::open(&root, &conf)?;
    // Where a login brings a worker with it, this process reads no mail itself.
    let local = (!privilege::is_installed_root(&root)).then(|| (root.clone(), conf.clone()));
    privilege::drop_to(&root, privilege::FRONT_USER)?;

    for (address, service) in sockets.addresses() {
        log::info!("listening on {address} ({service})");
    }
    let watcher = if local.is_some() {
        Some(Watcher::start()?)
    } else {
        None
    };
    let shared = Arc::new(Shared {
        host: conf.official_name.to_string(),
        message_size: conf.message_size_limit,
        plaintext_login: conf.plaintext_login,
        checkpw,
        logins,
        local,
        watcher,
    });
    let options = net::Options {
        acceptor,
        people: &[IMAP, IMAPS],
        max_connections: conf.max_connections,
        max_per_client: conf.max_connections_per_client,
        busy: b"* BYE [LIMIT] Too many connections, try again later\r\n",
        proxies: conf.proxy_from.clone(),
        ..net::Options::default()
    };
    poll::run(
        sockets,
        |accepted| Connection::new(Arc::clone(&shared), accepted),
        options,
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Port 143 with STARTTLS and 993 with TLS from the start. Without a certificate there is no 993.
fn listens(conf: &Config, has_tls: bool) -> Vec<Listen> {
    [
        (conf.imap_port, Encryption::OnRequest, IMAP),
        (
            if has_tls { conf.imaps_port } else { 0 },
            Encryption::Implicit,
            IMAPS,
        ),
    ]
    .into_iter()
    .filter(|(port, ..)| *port != 0)
    .flat_map(|(port, encryption, service)| Listen::each(&conf.listen, port, encryption, service))
    .collect()
}
