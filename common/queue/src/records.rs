//! The records before the journal, but for the origin: envelope, recipient, END.

use base::envelope::{Body, Needs, Notify, Ret};
use base::release::Release;
use base::{Address, Envelope, Filter, Recipient, ReversePath};

use crate::fields::{self, Fields};
use crate::queue::Lane;

/// The END record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) content_length: u64,
    /// crc32c of the content.
    pub(crate) content_sum: u32,
    /// crc32c of the file up to this record.
    pub(crate) whole: u32,
}

impl End {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = fields::Writer::default();
        out.number(LENGTH, self.content_length);
        out.number(CONTENT_SUM, self.content_sum.into());
        out.number(WHOLE_SUM, self.whole.into());
        out.finish()
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let fields = Fields::read(payload)?;
        Some(Self {
            content_length: fields.number(LENGTH)?,
            content_sum: u32::try_from(fields.number(CONTENT_SUM)?).ok()?,
            whole: u32::try_from(fields.number(WHOLE_SUM)?).ok()?,
        })
    }
}

/// The envelope record: everything but the recipients.
pub(crate) struct Wishes {
    pub(crate) reverse_path: Option<ReversePath>,
    pub(crate) body: Body,
    pub(crate) ret: Option<Ret>,
    pub(crate) envid: Option<String>,
    pub(crate) needs: Needs,
    pub(crate) release: Option<Release>,
    pub(crate) filter: Option<Filter>,
    pub(crate) lane: Option<Lane>,
}

impl Wishes {
    pub(crate) fn of(envelope: &Envelope, lane: Lane) -> Self {
        Self {
            reverse_path: Some(envelope.reverse_path.clone()),
            body: envelope.body,
            ret: envelope.ret,
            envid: envelope.envid.clone(),
            needs: envelope.needs,
            release: envelope.release,
            filter: envelope.filter.clone(),
            lane: Some(lane),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = fields::Writer::default();
        if let Some(reverse_path) = &self.reverse_path {
            out.bytes(REVERSE_PATH, reverse_path.to_string().as_bytes());
        }
        out.number(
            BODY,
            match self.body {
                Body::SevenBit => 7,
                Body::EightBitMime => 8,
                Body::Binary => BINARY,
            },
        );
        match self.ret {
            Some(Ret::Full) => out.number(RET, 1),
            Some(Ret::Headers) => out.number(RET, 2),
            None => (),
        }
        if let Some(envid) = &self.envid {
            out.bytes(ENVID, envid.as_bytes());
        }
        if self.needs != Needs::default() {
            let Needs {
                smtputf8,
                require_tls,
            } = self.needs;
            out.number(NEEDS, u64::from(smtputf8) | u64::from(require_tls) << 1);
        }
        if let Some(release) = &self.release {
            out.time(RELEASE, release.at);
            if let Some(seconds) = release.seconds {
                out.number(HOLD_FOR, seconds.into());
            }
        }
        if let Some(filter) = &self.filter {
            out.bytes(FILTER, filter.to_string().as_bytes());
        }
        if let Some(lane) = self.lane {
            out.bytes(LANE, lane.as_str().as_bytes());
        }
        out.finish()
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let fields = Fields::read(payload)?;
        Some(Self {
            reverse_path: match fields.text(REVERSE_PATH) {
                Some(path) if path.is_empty() => Some(ReversePath::Null),
                Some(path) => Some(ReversePath::Address(Address::parse(&path).ok()?)),
                None => None,
            },
            body: match fields.number(BODY)? {
                7 => Body::SevenBit,
                8 => Body::EightBitMime,
                BINARY => Body::Binary,
                _ => return None,
            },
            ret: match fields.number(RET) {
                None => None,
                Some(1) => Some(Ret::Full),
                Some(2) => Some(Ret::Headers),
                Some(_) => return None,
            },
            envid: fields.text(ENVID),
            // What we do not know we cannot keep.
            needs: match fields.number(NEEDS).unwrap_or(0) {
                bits @ 0..4 => Needs {
                    smtputf8: bits & 1 != 0,
                    require_tls: bits & 2 != 0,
                },
                _ => return None,
            },
            release: match fields.time(RELEASE) {
                None => None,
                Some(at) => Some(Release {
                    at,
                    seconds: match fields.number(HOLD_FOR) {
                        None => None,
                        Some(seconds) => Some(u32::try_from(seconds).ok()?),
                    },
                }),
            },
            filter: match fields.text(FILTER) {
                None => None,
                Some(filter) => Some(Filter::parse(&filter).ok()?),
            },
            lane: match fields.text(LANE) {
                Some(lane) => Some(Lane::parse(&lane)?),
                None => None,
            },
        })
    }
}

pub(crate) fn encode_recipient(recipient: &Recipient) -> Vec<u8> {
    let mut out = fields::Writer::default();
    out.bytes(ADDRESS, recipient.address.to_string().as_bytes());
    if let Some(orcpt) = &recipient.orcpt {
        out.bytes(ORCPT, orcpt.as_bytes());
    }
    out.number(
        NOTIFY,
        match recipient.notify {
            Notify::Never => 0,
            Notify::On {
                success,
                failure,
                delay,
            } => 8 | u64::from(success) | u64::from(failure) << 1 | u64::from(delay) << 2,
        },
    );
    out.finish()
}

pub(crate) fn decode_recipient(payload: &[u8]) -> Option<Recipient> {
    let fields = Fields::read(payload)?;
    Some(Recipient {
        address: Address::parse(&fields.text(ADDRESS)?).ok()?,
        orcpt: fields.text(ORCPT),
        notify: match fields.number(NOTIFY)? {
            0 => Notify::Never,
            bits @ 8..16 => Notify::On {
                success: bits & 1 != 0,
                failure: bits & 2 != 0,
                delay: bits & 4 != 0,
            },
            _ => return None,
        },
    })
}

// Fields of the records of version 1. A number is never used again for something else.
const REVERSE_PATH: u8 = 1;
const BODY: u8 = 2;
const RET: u8 = 3;
const ENVID: u8 = 4;
const LANE: u8 = 5;
const NEEDS: u8 = 6;
const RELEASE: u8 = 7;
const HOLD_FOR: u8 = 8;
const FILTER: u8 = 9;

/// Of BODY, behind the bits of an octet.
const BINARY: u64 = 1 << 8;

const ADDRESS: u8 = 1;
const ORCPT: u8 = 2;
const NOTIFY: u8 = 3;

const LENGTH: u8 = 1;
const CONTENT_SUM: u8 = 2;
const WHOLE_SUM: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_release_there_and_back() {
        let mut envelope = crate::queue::tests::envelope(&["ann@example.org"]);
        for seconds in [None, Some(1), Some(999_999_999)] {
            let at = base::date::system_time(1_796_112_000);
            envelope.release = Some(Release { at, seconds });
            let read = Wishes::decode(&Wishes::of(&envelope, Lane::Relay).encode()).unwrap();
            assert_eq!(read.release, envelope.release);
        }
        let mut later = fields::Writer::default();
        later.number(BODY, 7);
        later.number(RELEASE, 1);
        later.number(HOLD_FOR, 1 << 32);
        assert!(Wishes::decode(&later.finish()).is_none());
    }

    #[test]
    fn the_filter_there_and_back() {
        let mut envelope = crate::queue::tests::envelope(&["ann@example.org"]);
        for filter in [None, Some("smtp:[127.0.0.1]:10024"), Some("smtp:a.example")] {
            envelope.filter = filter.map(|text| Filter::parse(text).unwrap());
            let read = Wishes::decode(&Wishes::of(&envelope, Lane::Relay).encode()).unwrap();
            assert_eq!(read.filter, envelope.filter);
        }
        let mut later = fields::Writer::default();
        later.number(BODY, 7);
        later.bytes(FILTER, b"quic:[::1]");
        assert!(Wishes::decode(&later.finish()).is_none());
    }

    #[test]
    fn needs_there_and_back() {
        let mut envelope = crate::queue::tests::envelope(&["j\u{f6}rg@example.org"]);
        let plain = Wishes::of(&envelope, Lane::Relay).encode();
        for (smtputf8, require_tls) in [(false, false), (true, false), (false, true), (true, true)]
        {
            envelope.needs = Needs {
                smtputf8,
                require_tls,
            };
            envelope.body = Body::Binary;
            let read = Wishes::decode(&Wishes::of(&envelope, Lane::Relay).encode()).unwrap();
            assert_eq!((read.needs, read.body), (envelope.needs, Body::Binary));
        }
        // Who needs nothing looks as in the first release.
        assert!(Fields::read(&plain).unwrap().number(NEEDS).is_none());
        let mut later = fields::Writer::default();
        later.number(BODY, 7);
        later.number(NEEDS, 4);
        assert!(Wishes::decode(&later.finish()).is_none());
        let recipient = &envelope.recipients[0];
        assert_eq!(
            decode_recipient(&encode_recipient(recipient)).as_ref(),
            Some(recipient)
        );
    }
}
