//! The mail transaction: HELO, MAIL, RCPT, DATA and what answers them. RFC 5321 3.3 and 4.1.1

use std::time::SystemTime;

use account::Mechanism;
use base::date::{Date, unix};
use base::envelope::Body as BodyType;
use base::escape::escape;
use base::{Address, Recipient, ReversePath, Status};

use super::{
    Action, Actions, Hello, How, MAX_REFUSED, MAX_SURPLUS, Queued, Session, Start, State,
    Transaction, Verdict, protocol,
};
use crate::body::{Body, Framing, Limits};
use crate::command::{Mail, Path, Rcpt};
use crate::reply::{self, Reply};
use crate::{xclient, xforward};

impl Session {
    /// RFC 5321 4.1.1.1 and 4.1.4: it also clears a transaction.
    pub(super) fn hello(&mut self, name: String, extended: bool, actions: &mut Actions) {
        self.forget(actions);
        actions.push(Action::AskHello {
            name: name.clone(),
            extended,
        });
        self.enter(State::AskingHello(Hello { name, extended }));
    }

    pub(super) fn hello_answer(
        &mut self,
        answer: Result<SystemTime, Reply>,
        actions: &mut Actions,
    ) {
        let held = self.take(|state| match state {
            State::AskingHello(hello) => Ok(hello),
            other => Err(other),
        });
        let Some(hello) = held else { return };
        let extended = hello.extended;
        self.hello = Some(hello);
        let now = match answer {
            Ok(now) => now,
            Err(refusal) => {
                let stage = if extended { "EHLO" } else { "HELO" };
                self.log_reject(stage, &refusal, None, None, actions);
                self.hello = None;
                return self.reject(refusal, actions);
            }
        };
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
            // RFC 8689 2: only where it can be kept.
            if self.tls {
                text.push_str("\nREQUIRETLS");
            }
            if let Some(limits) = self.future_release(now) {
                text.push_str(&limits);
            }
            // RFC 9422
            text.push_str(&format!("\nLIMITS RCPTMAX={}", self.terms.recipient_limit));
            if self.flushes() {
                text.push_str("\nETRN");
            }
            if self.client.xclient {
                text.push_str(&format!("\n{}", xclient::KEYWORD));
            }
            text.push_str("\nENHANCEDSTATUSCODES\nDSN");
            // A filter may show our keywords to qrun, and know of DATA alone.
            match self.client.filter {
                true => text.push_str(&format!("\n{}", xforward::KEYWORD)),
                false => text.push_str("\nCHUNKING\nBINARYMIME"),
            }
            text.push_str("\nSMTPUTF8\nHELP");
        }
        actions.push(Action::Reply(Reply::made(250, None, text)));
    }

    /// RFC 4865 4: for submissions, by who may send or can still log in.
    fn future_release(&self, now: SystemTime) -> Option<String> {
        let limit = self.terms.future_release;
        let is_offered = self.holds() && (self.may_relay() || self.mechanisms().next().is_some());
        let latest = Date::utc(unix(now.checked_add(limit)?)).iso8601();
        is_offered.then(|| format!("\nFUTURERELEASE {} {latest}", limit.as_secs()))
    }

    /// Whether a message may be told to wait.
    fn holds(&self) -> bool {
        self.client.submission && !self.terms.future_release.is_zero()
    }

    /// Those that may be used on this connection.
    pub(super) fn mechanisms(&self) -> impl Iterator<Item = Mechanism> {
        let private = self.tls || self.client.plaintext_login;
        self.channel.offers(&self.terms.mechanisms, private)
    }

    /// It is one of our own.
    pub(crate) fn may_relay(&self) -> bool {
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
        if mail.hold.is_some() && !self.holds() {
            return self.refuse(reply::UNKNOWN_PARAMETER, actions);
        }
        if mail.needs.require_tls && !self.tls {
            return self.refuse(reply::REQUIRETLS_NEEDS_TLS, actions);
        }
        let size = mail.size.unwrap_or(0);
        if size > self.terms.size_limit {
            let from = reverse_path.to_string();
            self.log_reject("MAIL", &reply::TOO_BIG, Some(&from), None, actions);
            return self.refuse(reply::TOO_BIG, actions);
        }
        let how = match (hello.extended, mail.needs.smtputf8) {
            (_, true) => How::Utf8,
            (true, false) => How::Extended,
            (false, false) => How::Plain,
        };
        let transaction = Box::new(Transaction {
            reverse_path,
            body: mail.body,
            ret: mail.ret,
            envid: mail.envid,
            needs: mail.needs,
            hold: mail.hold,
            local: Vec::new(),
            relay: Vec::new(),
            discarded: Vec::new(),
            helo: hello.name.clone(),
            protocol: protocol(how, self.tls, self.login.is_some()),
            login: self.login.clone(),
            submitted: self.client.submission || self.login.is_some(),
            forwarded: self.forwarded.take(),
        });
        actions.push(Action::AskSender {
            size,
            reverse_path: transaction.reverse_path.clone(),
            login: self.login.clone(),
            body: transaction.body,
            ret: transaction.ret,
            envid: transaction.envid.clone(),
            needs: transaction.needs,
            hold: transaction.hold,
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
                self.log_reject("MAIL", &refusal, Some(&from), None, actions);
                actions.push(Action::Forget);
                self.reject(refusal, actions);
            }
        }
    }

    /// RFC 5321 4.1.1.3
    pub(super) fn rcpt(&mut self, rcpt: Rcpt, actions: &mut Actions) {
        let may_relay = self.may_relay();
        let State::Mail(transaction) = &self.state else {
            return self.refuse(reply::MAIL_FIRST, actions);
        };
        if !rcpt.is_ascii && !transaction.needs.smtputf8 {
            return self.refuse(reply::NEEDS_SMTPUTF8, actions);
        }
        if transaction.len() >= self.terms.recipient_limit {
            return self.surplus(reply::TOO_MANY_RECIPIENTS, actions);
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
        let asked = Recipient {
            address,
            orcpt: rcpt.orcpt,
            notify: rcpt.notify,
        };
        actions.push(Action::AskRecipient {
            recipient: asked.clone(),
            may_relay,
            helo: transaction.helo.clone(),
            reverse_path: transaction.reverse_path.clone(),
        });
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
                self.enter(State::Mail(transaction));
                return self.surplus(reply::RECIPIENT_OK, actions);
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
        self.log_reject("RCPT", &refusal, Some(&from), Some(&asked), actions);
        self.counts.refused = self.counts.refused.saturating_add(1);
        if refusal.code() >= 500 {
            self.counts.unwanted = self.counts.unwanted.saturating_add(1);
        }
        self.reject(refusal, actions);
        if self.counts.refused >= MAX_REFUSED && !matches!(self.state, State::Closed) {
            // Who is only asked to come again has done nothing.
            if self.counts.unwanted > MAX_REFUSED / 2 {
                actions.push(Action::Offence("too many refused recipients"));
            }
            self.part(reply::TOO_MANY_ERRORS, actions);
        }
    }

    /// A recipient that adds nothing to the message. A list that is longer than we take at a time may
    /// well come as a whole, but not without end.
    fn surplus(&mut self, reply: Reply, actions: &mut Actions) {
        actions.push(Action::Reply(reply));
        self.counts.surplus = self.counts.surplus.saturating_add(1);
        if self.counts.surplus >= MAX_SURPLUS {
            let text = format!("too many recipients from {}", self.client.shown);
            actions.push(Action::Log(text));
            actions.push(Action::Offence("too many recipients"));
            self.part(reply::TOO_MANY_ERRORS, actions);
        }
    }

    /// RFC 5321 4.1.1.4
    pub(super) fn data(&mut self, actions: &mut Actions) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Mail(transaction) if transaction.body == BodyType::Binary => {
                self.enter(State::Mail(transaction));
                self.refuse(reply::BINARY_BY_BDAT, actions);
            }
            State::Mail(transaction) if transaction.len() > 0 => {
                actions.push(Action::AskData);
                self.enter(State::AskingData(transaction, Start::Data));
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

    /// The message may begin, or why not.
    pub(super) fn data_answer(&mut self, answer: Result<(), Reply>, actions: &mut Actions) {
        let held = self.take(|state| match state {
            State::AskingData(transaction, start) => Ok((transaction, start)),
            other => Err(other),
        });
        let Some((transaction, start)) = held else {
            return;
        };
        if let Err(refusal) = answer {
            let from = transaction.reverse_path.to_string();
            self.log_reject("DATA", &refusal, Some(&from), None, actions);
            actions.push(Action::Forget);
            return match start {
                Start::Chunk { size, .. } if size > 0 => self.swallow_piece(size, refusal),
                Start::Data | Start::Chunk { .. } => self.reject(refusal, actions),
            };
        }
        let limits = self.limits();
        let body = |framing| Box::new(Body::new(framing, limits));
        actions.push(Action::Begin(transaction.clone()));
        match start {
            Start::Data => {
                actions.push(Action::Reply(reply::START_MAIL));
                self.enter(State::Body(transaction, body(Framing::Dot)));
            }
            Start::Chunk { size, last } => {
                let body = body(match transaction.body {
                    BodyType::Binary => Framing::Binary,
                    BodyType::SevenBit | BodyType::EightBitMime => Framing::Chunks,
                });
                self.enter(State::Chunk(transaction, body, size, last));
                self.empty_chunk(actions);
            }
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            size: self.terms.size_limit,
            hops: self.terms.hop_limit,
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
        actions.push(Action::Forget);
        let from = transaction.reverse_path.to_string();
        let entries = match result {
            Ok(entries) => entries,
            Err(refusal) => {
                self.log_reject("END-OF-MESSAGE", &refusal, Some(&from), None, actions);
                return self.reject(refusal, actions);
            }
        };
        let login = match &transaction.login {
            Some(login) => format!(", sasl_username={}", escape(login)),
            None => String::new(),
        };
        let forwarded = transaction.forwarded.as_ref();
        let forwarded = forwarded.map(ToString::to_string).unwrap_or_default();
        for entry in &entries {
            let Queued { id, recipients } = entry;
            actions.push(Action::Log(format!(
                "{id}: client={}{login}{forwarded}",
                self.client.shown
            )));
            actions.push(Action::Log(format!(
                "{id}: from=<{}>, size={size}, nrcpt={recipients} (queue active)",
                escape(&from)
            )));
        }
        self.counts.idle = 0;
        self.counts.surplus = 0;
        self.counts.messages = self.counts.messages.saturating_add(1);
        let text = match entries.first() {
            Some(entry) => format!("Ok: queued as {}", entry.id),
            None => "Ok: discarded".into(),
        };
        actions.push(Action::Reply(Reply::made(250, Some(Status::OK), text)));
    }
}
