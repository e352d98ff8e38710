//! The mail transaction: HELO, MAIL, RCPT, DATA and what answers them. RFC 5321 3.3 and 4.1.1

use account::Mechanism;
use base::escape::escape;
use base::{Address, Recipient, ReversePath, Status};

use super::{
    Action, Actions, Hello, MAX_REFUSED, Queued, Session, State, Transaction, Verdict, protocol,
};
use crate::body::{Body, Framing, Limits};
use crate::command::{Mail, Path, Rcpt};
use crate::reply::{self, Reply};

impl Session {
    /// RFC 5321 4.1.1.1 and 4.1.4: it also clears a transaction.
    pub(super) fn hello(&mut self, name: String, extended: bool, actions: &mut Actions) {
        self.forget(actions);
        let mut text = self.terms.name.to_string();
        if extended {
            text.push_str(&format!(
                "\nPIPELINING\nSIZE {}\n8BITMIME",
                self.terms.size_limit
            ));
            if self.client.tls_offered && !self.tls {
                text.push_str("\nSTARTTLS");
            }
            let names: Vec<_> = self.mechanisms().map(Mechanism::name).collect();
            if !names.is_empty() {
                text.push_str(&format!("\nAUTH {}", names.join(" ")));
            }
            // RFC 9422
            text.push_str(&format!("\nLIMITS RCPTMAX={}", self.terms.recipient_limit));
            text.push_str("\nENHANCEDSTATUSCODES\nDSN\nCHUNKING\nHELP");
        }
        self.hello = Some(Hello { name, extended });
        actions.push(Action::Reply(Reply::made(250, None, text)));
    }

    /// Those that may be used on this connection.
    pub(super) fn mechanisms(&self) -> impl Iterator<Item = Mechanism> {
        let private = self.tls || self.client.plaintext_login;
        let all = self.terms.mechanisms.iter().copied();
        all.filter(move |mechanism| private || !mechanism.is_plaintext())
    }

    pub(super) fn may_relay(&self) -> bool {
        self.client.trusted || self.login.is_some()
    }

    /// RFC 5321 4.1.1.2
    pub(super) fn mail(&mut self, mail: Mail, actions: &mut Actions) {
        let Some(hello) = &self.hello else {
            return self.refuse(reply::HELLO_FIRST, actions);
        };
        if !matches!(self.state, State::Idle) {
            return self.refuse(reply::NESTED_MAIL, actions);
        }
        if self.client.submission && !self.may_relay() {
            return self.refuse(reply::AUTH_FIRST, actions);
        }
        let reverse_path = match mail.from {
            None => ReversePath::Null,
            Some(Path::Full(address)) => ReversePath::Address(address),
            Some(Path::Local(local)) if self.may_relay() => {
                ReversePath::Address(Address::new(local, self.terms.here.clone()))
            }
            Some(Path::Local(_)) => return self.refuse(reply::BAD_SENDER, actions),
        };
        let size = mail.size.unwrap_or(0);
        if size > self.terms.size_limit {
            let from = reverse_path.to_string();
            self.log_reject("MAIL", &reply::TOO_BIG, &from, None, actions);
            return self.refuse(reply::TOO_BIG, actions);
        }
        let transaction = Box::new(Transaction {
            reverse_path,
            body: mail.body,
            ret: mail.ret,
            envid: mail.envid,
            local: Vec::new(),
            relay: Vec::new(),
            discarded: Vec::new(),
            helo: hello.name.clone(),
            protocol: protocol(hello.extended, self.tls, self.login.is_some()),
            login: self.login.clone(),
            submitted: self.client.submission || self.login.is_some(),
        });
        actions.push(Action::AskSender {
            size,
            reverse_path: transaction.reverse_path.clone(),
            login: self.login.clone(),
        });
        self.enter(State::AskingSender(transaction));
    }

    pub(super) fn sender(&mut self, verdict: Result<(), Reply>, actions: &mut Actions) {
        let held = self.take(|state| match state {
            State::AskingSender(transaction) => Ok(transaction),
            other => Err(other),
        });
        let Some(transaction) = held else { return };
        match verdict {
            Ok(()) => {
                self.enter(State::Mail(transaction));
                actions.push(Action::Reply(reply::SENDER_OK));
            }
            Err(refusal) => {
                let from = transaction.reverse_path.to_string();
                self.log_reject("MAIL", &refusal, &from, None, actions);
                actions.push(Action::Reply(refusal));
            }
        }
    }

    /// RFC 5321 4.1.1.3
    pub(super) fn rcpt(&mut self, rcpt: Rcpt, actions: &mut Actions) {
        let may_relay = self.may_relay();
        let State::Mail(transaction) = &self.state else {
            return self.refuse(reply::MAIL_FIRST, actions);
        };
        if transaction.len() >= self.terms.recipient_limit {
            return actions.push(Action::Reply(reply::TOO_MANY_RECIPIENTS));
        }
        let address = match rcpt.to {
            Path::Full(address) => address,
            // RFC 5321 4.5.1: postmaster needs no domain, from anybody.
            Path::Local(local) if may_relay || local.fold() == "postmaster" => {
                Address::new(local, self.terms.name.clone())
            }
            Path::Local(_) => return self.refuse(reply::BAD_RECIPIENT, actions),
        };
        let State::Mail(transaction) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        actions.push(Action::AskRecipient {
            address: address.clone(),
            may_relay,
            helo: transaction.helo.clone(),
            reverse_path: transaction.reverse_path.clone(),
        });
        let asked = Recipient {
            address,
            orcpt: rcpt.orcpt,
            notify: rcpt.notify,
        };
        self.enter(State::AskingRecipient(transaction, asked));
    }

    pub(super) fn recipient(&mut self, verdict: Verdict, actions: &mut Actions) {
        let held = self.take(|state| match state {
            State::AskingRecipient(transaction, asked) => Ok((transaction, asked)),
            other => Err(other),
        });
        let Some((mut transaction, wishes)) = held else {
            return;
        };
        let asked = wishes.address.clone();
        let refusal = match verdict {
            Verdict::Refuse(refusal) => Some(refusal),
            // A recipient named twice gets one copy.
            Verdict::Local(a) | Verdict::Relay(a) | Verdict::Discard(a)
                if transaction.contains(&a) =>
            {
                None
            }
            Verdict::Local(address) => {
                transaction.local.push(Recipient { address, ..wishes });
                None
            }
            Verdict::Relay(address) => {
                transaction.relay.push(Recipient { address, ..wishes });
                None
            }
            Verdict::Discard(address) => {
                transaction.discarded.push(address);
                None
            }
        };
        let from = transaction.reverse_path.to_string();
        self.enter(State::Mail(transaction));
        let Some(refusal) = refusal else {
            return actions.push(Action::Reply(reply::RECIPIENT_OK));
        };
        self.log_reject("RCPT", &refusal, &from, Some(&asked), actions);
        self.counts.refused = self.counts.refused.saturating_add(1);
        actions.push(Action::Reply(refusal));
        if self.counts.refused >= MAX_REFUSED {
            self.part(reply::TOO_MANY_ERRORS, actions);
        }
    }

    /// RFC 5321 4.1.1.4
    pub(super) fn data(&mut self, actions: &mut Actions) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Mail(transaction) if transaction.len() > 0 => {
                let limits = Limits {
                    size: self.terms.size_limit,
                    hops: self.terms.hop_limit,
                };
                actions.push(Action::Begin(transaction.clone()));
                actions.push(Action::Reply(reply::START_MAIL));
                self.enter(State::Body(
                    transaction,
                    Box::new(Body::new(Framing::Dot, limits)),
                ));
            }
            State::Mail(transaction) => {
                self.enter(State::Mail(transaction));
                self.refuse(reply::NO_RECIPIENTS, actions);
            }
            // RFC 3030 2: not in one transaction.
            between @ State::BetweenChunks(..) => {
                self.enter(between);
                self.refuse(reply::BDAT_HAS_BEGUN, actions);
            }
            _ => self.refuse(reply::MAIL_FIRST, actions),
        }
    }

    pub(super) fn queued(&mut self, result: Result<Vec<Queued>, Reply>, actions: &mut Actions) {
        let held = self.take(|state| match state {
            State::Committing(transaction, size) => Ok((transaction, size)),
            other => Err(other),
        });
        let Some((transaction, size)) = held else {
            return;
        };
        let from = transaction.reverse_path.to_string();
        let entries = match result {
            Ok(entries) => entries,
            Err(refusal) => {
                self.log_reject("END-OF-MESSAGE", &refusal, &from, None, actions);
                return actions.push(Action::Reply(refusal));
            }
        };
        let login = match &transaction.login {
            Some(login) => format!(", sasl_username={}", escape(login)),
            None => String::new(),
        };
        for entry in &entries {
            let Queued { id, recipients } = entry;
            actions.push(Action::Log(format!(
                "{id}: client={}{login}",
                self.client.shown
            )));
            actions.push(Action::Log(format!(
                "{id}: from=<{}>, size={size}, nrcpt={recipients} (queue active)",
                escape(&from)
            )));
        }
        self.counts.idle = 0;
        self.counts.messages = self.counts.messages.saturating_add(1);
        let text = match entries.first() {
            Some(entry) => format!("Ok: queued as {}", entry.id),
            None => "Ok: discarded".into(),
        };
        actions.push(Action::Reply(Reply::made(250, Some(Status::OK), text)));
    }
}
