//! The forms that a message can go in: by lines, to every server; and, where it has binary parts, as it
//! is, to one that takes them (RFC 3030).
//!
//! What we sign goes by lines only: a signature has to hold for whoever passes it on (RFC 6376 5.3).

use std::io::{self, Read};

use base::envelope::Body;
use base::{Doing, Fail};
use mime::binary::{Converter, Plan};
use queue::Entry;

use crate::signing::Signing;

/// Both forms of one message.
pub(crate) struct Forms {
    /// Where it has binary parts: what becomes of them.
    plan: Option<Plan>,
    signatures: String,
    size: u64,
}

impl Forms {
    pub(crate) fn of(entry: &Entry, signing: &Signing) -> Result<Self, Fail> {
        let mut forms = Self {
            plan: None,
            signatures: String::new(),
            size: entry.size(),
        };
        if entry.envelope().body == Body::Binary {
            let doing = || format!("read message {}", entry.id());
            forms.plan = Some(Plan::of(&mut entry.content()).doing(doing)?);
            let copied = io::copy(&mut forms.by_lines(entry), &mut io::sink());
            forms.size = copied.doing(doing)?;
        }
        let signatures = signing.fields(entry, &mut *forms.by_lines(entry))?;
        forms.size = forms.size.saturating_add(signatures.len() as u64);
        forms.signatures = signatures;
        Ok(forms)
    }

    /// Of the form by lines.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Of the other, where there is one.
    pub(crate) fn binary_size(&self, entry: &Entry) -> Option<u64> {
        (self.plan.is_some() && self.signatures.is_empty()).then(|| entry.size())
    }

    pub(crate) fn by_lines<'a>(&'a self, entry: &'a Entry) -> Box<dyn Read + 'a> {
        let (signatures, content) = (self.signatures.as_bytes(), entry.content());
        match &self.plan {
            Some(plan) => Box::new(signatures.chain(Converter::new(plan, content))),
            None => Box::new(signatures.chain(content)),
        }
    }
}
