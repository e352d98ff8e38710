//! A proxy that said by XCLIENT whose connection it brings: what is known of the connection is made
//! anew, as if that client had come itself. TLS, the right to say it again and the socket stay.

use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use mailauth::iprev::Iprev;
use net::{Accepted, Control, Encryption, Peer};

use super::{Connection, Done, Shared};
use crate::gate::{Hello, Login, Tls};
use crate::session::Input;
use crate::xclient::Xclient;

impl Shared {
    pub(super) fn may_xclient(&self, ip: Option<IpAddr>) -> bool {
        ip.is_some_and(|ip| self.xclient_from.iter().any(|network| network.contains(ip)))
    }
}

impl Connection {
    pub(super) fn become_client(&mut self, said: Xclient, control: &mut Control<'_, Done>) {
        let tls = self.session.is_tls();
        let encryption = match tls {
            true => Encryption::Implicit,
            false => Encryption::OnRequest,
        };
        let accepted = Accepted {
            peer: said.source(self.client).map_or(Peer::Local, Peer::Ip),
            local: said.destination(self.local),
            service: self.service,
            encryption,
            tls: tls || control.has_tls(),
            check: false,
        };
        let mut other = Self::new(Arc::clone(&self.shared), &accepted);
        other.session.come_by_proxy(self.session.messages());
        other.named = said
            .name
            .map(|name| name.map_or(Iprev::PermError, Iprev::Pass));
        other.sender.tls = self.sender.tls.take();
        let helo = said.helo.map(|name| (name, said.extended));
        if let Some(visit) = &mut other.visit {
            visit.facts.tls = control.tls_info().map(Tls::from);
            visit.facts.hello = helo
                .clone()
                .map(|(name, extended)| Hello { name, extended });
            visit.facts.login = said.login.clone().map(|user| Login {
                user,
                mechanism: "XCLIENT",
            });
        }
        other.session.presume(helo, said.login);
        let old = mem::replace(self, other);
        if let Some(visit) = old.visit {
            old.shared.gate.leave(visit);
        }
        log::info!("{}: XCLIENT from {}", self.shown, old.shown);
        self.step(Input::Open, control);
    }
}
