//! What a stranger's host is called, where that can be believed: the log, the trace field and the
//! access table want to know. It is looked up while the client waits for the greeting.
//!
//! Our own clients are not looked up: nothing depends on their names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dns::Resolve;
use mailauth::iprev::{self, Iprev};
use net::pool::Pool;

use super::lookup::Lookup;
use super::{Door, Facts, Maker, Question, Ruling, Stage};

/// For all of a client's names.
const TIME: Duration = Duration::from_secs(5);

/// The door of one connection.
struct Names(Lookup<Iprev>);

/// For strangers that have an address.
pub(crate) fn maker(dns: Arc<dyn Resolve>, lookups: Pool) -> Maker {
    Box::new(move |facts| {
        let ip = facts.ip().filter(|_| !facts.trusted)?;
        let dns = Arc::clone(&dns);
        let name = Lookup::begin(&lookups, TIME, move |until| {
            iprev::check(&*dns, ip, &|| Instant::now() >= until)
        });
        Some(Box::new(Names(name)))
    })
}

impl Door for Names {
    fn wants(&self, stage: Stage) -> bool {
        stage == Stage::Client
    }

    fn ask(&mut self, _: Question<'_>, _: &Facts) -> Ruling {
        Ruling {
            name: Some(self.0.wait().unwrap_or(Iprev::TempError)),
            ..Ruling::default()
        }
    }
}
