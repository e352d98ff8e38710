//! pop3d - serve mailboxes by POP3. See pop3d(8).

mod ahead;
mod command;
mod mail;
mod maildrop;
mod multiline;
mod serve;
mod session;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use account::{Checkpw, Service};
use base::{Config, Fail, Root, log as logging, privilege};
use net::tls::Acceptor;
use net::{Encryption, Listen, Opts, activate, poll};
use tally::login::Logins;

use crate::serve::{Connection, POP3, POP3S, Shared};

fn main() -> ExitCode {
    logging::init("pop3d");
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    run(&args).unwrap_or_else(|fail| fail.report())
}

/// Everything that can fail before the first byte is served, in this order, so that a bad flag,
/// file or socket is reported on stderr and nothing is opened after privileges are gone.
fn run(args: &[OsString]) -> Result<ExitCode, Fail> {
    let Some(opts) = Opts::parse("pop3d", args)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let root = Root::from_env();
    let config = Config::load(&root, opts.config.as_deref())?;
    let acceptor = Acceptor::configured(&config)?;
    let listens = listens(&config, acceptor.is_some());
    if opts.check {
        account::server::check(&root, &config, Service::Pop3)?;
        base::say("configuration good");
        return Ok(ExitCode::SUCCESS);
    }
    let sockets = activate::listen(&listens, opts.inetd)?;
    let checkpw = Checkpw::start(&root, opts.config.as_deref(), Service::Pop3)?;
    let logins = Logins::open(&root, &config)?;
    privilege::drop_to(&root, privilege::FRONT_USER)?;

    for (address, service) in sockets.addresses() {
        log::info!("listening on {address} ({service})");
    }
    let options = net::Options {
        acceptor,
        people: &[POP3, POP3S],
        max_connections: config.max_connections,
        max_per_client: config.max_connections_per_client,
        busy: b"-ERR [SYS/TEMP] too many connections, try again later\r\n",
        proxies: config.proxy_from.clone(),
        ..net::Options::default()
    };
    let shared = Arc::new(Shared {
        root,
        config,
        checkpw,
        logins,
    });
    poll::run(
        sockets,
        |accepted| Connection::new(Arc::clone(&shared), accepted),
        options,
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Port 110 with STLS and 995 with TLS from the start. Without a certificate there is no 995.
fn listens(config: &Config, has_tls: bool) -> Vec<Listen> {
    let pop3s = if has_tls { config.pop3s_port } else { 0 };
    [
        (config.pop3_port, Encryption::OnRequest, POP3),
        (pop3s, Encryption::Implicit, POP3S),
    ]
    .into_iter()
    .filter(|(port, ..)| *port != 0)
    .flat_map(|(port, encryption, service)| Listen::each(&config.listen, port, encryption, service))
    .collect()
}
