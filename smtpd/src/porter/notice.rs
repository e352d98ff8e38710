//! The mail that tells the owner of an account, and the postmaster, that it is held: what happened,
//! what may be the cause, and by which command it goes on.
//!
//! It goes the way of all mail, through the queue, with a null reverse-path and marked as made by a
//! program (RFC 3834 5), so that nothing ever answers it.

use std::time::SystemTime;

use base::date::{self, Date};
use base::envelope::Body;
use base::escape::escape;
use base::{Address, Domain, Envelope, Fail, Recipient, ReversePath};
use queue::{Client, Lane, Origin, Queue, Source};

/// Whom it is about, and who reads it.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub(crate) login: String,
    /// Our name.
    pub(crate) host: Domain,
    /// `None` where the login is no address of anybody.
    pub(crate) owner: Option<(Lane, Address)>,
    pub(crate) postmaster: Address,
}

impl Notice {
    /// Into the queue. Blocks.
    pub(crate) fn send(&self, queue: &Queue) -> Result<(), Fail> {
        let mut sealed = Vec::new();
        let now = SystemTime::now();
        for lane in [Lane::Local, Lane::Relay] {
            let recipients = self.recipients(lane);
            if recipients.is_empty() {
                continue;
            }
            let recipients = recipients.into_iter().map(Recipient::new).collect();
            let mut envelope = Envelope::new(ReversePath::Null, recipients);
            let origin = Origin::now(Source::Network(Client {
                helo: self.host.to_string(),
                protocol: "SMTP".into(),
                ..Client::default()
            }));
            if !self.login.is_ascii() {
                envelope.body = Body::EightBitMime;
            }
            let mut draft = queue.draft(lane, &envelope, &origin)?;
            let id = draft.id().to_string();
            draft.write(self.text(&id, date::unix(now)).as_bytes())?;
            log::info!("{id}: from=<>, account {} is held", escape(&self.login));
            sealed.push(draft.finish()?);
        }
        queue.commit(sealed).map(drop)
    }

    fn recipients(&self, lane: Lane) -> Vec<Address> {
        let postmaster = Some((Lane::Local, self.postmaster.clone()));
        let all = [self.owner.clone(), postmaster].into_iter().flatten();
        let mut found: Vec<Address> = Vec::new();
        for (_, address) in all.filter(|(way, _)| *way == lane) {
            if !found.contains(&address) {
                found.push(address);
            }
        }
        found
    }

    fn text(&self, id: &str, at: i64) -> String {
        let to: Vec<String> = [Lane::Local, Lane::Relay]
            .into_iter()
            .flat_map(|lane| self.recipients(lane))
            .map(|address| format!("<{address}>"))
            .collect();
        let (host, login) = (&self.host, escape(&self.login));
        let encoding = if self.login.is_ascii() {
            "7bit"
        } else {
            "8bit"
        };
        format!(
            "From: Mail system of {host} <{postmaster}>\r\n\
             To: {to}\r\n\
             Subject: An account has sent more than it may: its mail is held\r\n\
             Date: {date}\r\n\
             Message-ID: <{id}@{host}>\r\n\
             Auto-Submitted: auto-generated\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\
             \r\n\
             The account {login} on {host} has sent more mail than it may. What it sends\r\n\
             from now on is kept and not delivered, until the postmaster has looked.\r\n\
             \r\n\
             If that is your account and you did not send so much, somebody else knows\r\n\
             your password: change it now, and tell the postmaster.\r\n\
             \r\n\
             For the postmaster: mailq shows what is held, and one of these ends it.\r\n\
             \r\n    mailq release account={login}\r\n        \
             delivers all that is held for it\r\n    mailq remove account={login}\r\n        \
             deletes it\r\n",
            postmaster = self.postmaster,
            to = to.join(",\r\n "),
            date = Date::local(at).rfc5322(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(login: &str, owner: Option<(Lane, &str)>) -> Notice {
        Notice {
            login: login.into(),
            host: Domain::parse("mx.example.org").unwrap(),
            owner: owner.map(|(lane, address)| (lane, address.parse().unwrap())),
            postmaster: "postmaster@mx.example.org".parse().unwrap(),
        }
    }

    #[test]
    fn owner_and_postmaster_each_by_their_way() {
        let both = notice("ann", Some((Lane::Local, "ann@mx.example.org")));
        assert_eq!(both.recipients(Lane::Local).len(), 2);
        let far = notice("ann@x.org", Some((Lane::Relay, "ann@x.org")));
        assert_eq!(far.recipients(Lane::Local).len(), 1);
        assert_eq!(far.recipients(Lane::Relay).len(), 1);
        let himself = notice(
            "postmaster",
            Some((Lane::Local, "postmaster@mx.example.org")),
        );
        assert_eq!(himself.recipients(Lane::Local).len(), 1);
        assert_eq!(notice("a b", None).recipients(Lane::Relay), []);
    }

    #[test]
    fn a_login_cannot_write_lines_of_its_own() {
        let text = notice("a\r\nBcc: b@c.org\r\n\r\nspam", None).text("ID", 0);
        assert!(!text.contains("\r\nBcc:"), "{text}");
        assert!(text.contains("Auto-Submitted: auto-generated\r\n"));
        assert!(text.lines().all(|line| line.len() < 200));
    }

    #[test]
    fn it_gets_into_the_queue() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::create(&base::Root::new(dir.path())).unwrap();
        let owner = Some((Lane::Local, "ann@mx.example.org"));
        notice("ann", owner).send(&queue).unwrap();
        assert_eq!(queue.scan(Lane::Local).unwrap().len(), 1);
        assert_eq!(queue.scan(Lane::Relay).unwrap().len(), 0);
    }
}
