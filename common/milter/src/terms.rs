//! Negotiation: what a milter may change, what it is asked, what it answers, and which macros it
//! wants. A milter may ask for less than we offer, never for more.

use crate::macros::Stage;
use crate::packet::{self, Garbage};
use crate::reply::Modification;

/// The version that we speak. A milter may speak an older one, down to [`OLDEST`].
const VERSION: u32 = 6;
const OLDEST: u32 = 2;
/// The code of the first packet in both directions.
pub const CODE: u8 = b'O';
/// A choice of macros that comes before the answer, in a packet of its own.
pub(crate) const MACROS: u8 = b'l';

// What a milter may do at the end of a message.
pub const ADD_HEADERS: u32 = 0x1;
pub const CHANGE_BODY: u32 = 0x2;
pub const ADD_RECIPIENTS: u32 = 0x4;
pub const REMOVE_RECIPIENTS: u32 = 0x8;
pub const CHANGE_HEADERS: u32 = 0x10;
pub const QUARANTINE: u32 = 0x20;
pub const CHANGE_SENDER: u32 = 0x40;
pub const ADD_RECIPIENTS_WITH_ARGS: u32 = 0x80;
/// All of these, and to choose its macros.
const ACTIONS: u32 = 0x1ff;

/// It may answer a piece of the body with "no more of them".
const SKIP: u32 = 0x400;
/// It wants to see the recipients that we refuse: that we do not offer.
const REFUSED_RECIPIENTS: u32 = 0x800;
/// The space behind a field's colon belongs to the value.
const LEADING_SPACE: u32 = 0x10_0000;
/// How many octets of data a packet may have: 64 KiB, or these.
const DATA_256K: u32 = 0x1000_0000;
const DATA_1M: u32 = 0x2000_0000;
const FLAGS: u32 = (0x1f_ffff & !REFUSED_RECIPIENTS) | DATA_256K | DATA_1M;
/// Those that version 2 has: not to be asked things.
const FLAGS_OF_OLD: u32 = 0x7f;

/// What a milter is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Connect,
    Helo,
    Mail,
    Recipient,
    Data,
    Header,
    EndOfHeader,
    Body,
    EndOfMessage,
    Unknown,
}

impl Step {
    /// Its code on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Connect => b'C',
            Self::Helo => b'H',
            Self::Mail => b'M',
            Self::Recipient => b'R',
            Self::Data => b'T',
            Self::Header => b'L',
            Self::EndOfHeader => b'N',
            Self::Body => b'B',
            Self::EndOfMessage => b'E',
            Self::Unknown => b'U',
        }
    }

    /// The macros that go before it.
    pub fn stage(self) -> Option<Stage> {
        match self {
            Self::Connect => Some(Stage::Connect),
            Self::Helo => Some(Stage::Helo),
            Self::Mail => Some(Stage::Mail),
            Self::Recipient => Some(Stage::Recipient),
            Self::Data => Some(Stage::Data),
            Self::EndOfHeader => Some(Stage::EndOfHeader),
            Self::EndOfMessage => Some(Stage::EndOfMessage),
            Self::Header | Self::Body | Self::Unknown => None,
        }
    }

    /// The flag that says "not to me".
    fn unwanted(self) -> u32 {
        match self {
            Self::Connect => 0x1,
            Self::Helo => 0x2,
            Self::Mail => 0x4,
            Self::Recipient => 0x8,
            Self::Body => 0x10,
            Self::Header => 0x20,
            Self::EndOfHeader => 0x40,
            Self::Unknown => 0x100,
            Self::Data => 0x200,
            Self::EndOfMessage => 0,
        }
    }

    /// The flag that says "I do not answer it".
    fn unanswered(self) -> u32 {
        match self {
            Self::Header => 0x80,
            Self::Connect => 0x1000,
            Self::Helo => 0x2000,
            Self::Mail => 0x4000,
            Self::Recipient => 0x8000,
            Self::Data => 0x1_0000,
            Self::Unknown => 0x2_0000,
            Self::EndOfHeader => 0x4_0000,
            Self::Body => 0x8_0000,
            Self::EndOfMessage => 0,
        }
    }

    /// The first version that has it.
    fn since(self) -> u32 {
        match self {
            Self::Unknown => 3,
            Self::Data => 4,
            _ => OLDEST,
        }
    }
}

/// What was agreed with a milter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    version: u32,
    actions: u32,
    flags: u32,
    macros: [Option<Vec<String>>; Stage::COUNT],
}

/// The packet that opens a conversation: all that we can do.
pub fn offer() -> Vec<u8> {
    let mut out = Vec::new();
    let parts = [VERSION, ACTIONS, FLAGS].map(u32::to_be_bytes);
    packet::write(CODE, &[parts.as_flattened()], &mut out);
    out
}

impl Terms {
    /// The data of a milter's answer to [`offer`].
    pub fn parse(data: &[u8]) -> Result<Self, Garbage> {
        let (version, rest) = packet::number(data)?;
        let (actions, rest) = packet::number(rest)?;
        let (flags, mut rest) = packet::number(rest)?;
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(Garbage("a version that is none of 2 to 6"));
        }
        if actions & !ACTIONS != 0 {
            return Err(Garbage("actions that were not offered"));
        }
        if flags & !FLAGS != 0 {
            return Err(Garbage("protocol flags that were not offered"));
        }
        let flags = match version {
            2 => flags & FLAGS_OF_OLD,
            _ => flags,
        };
        let mut terms = Self {
            version,
            actions,
            flags,
            macros: Default::default(),
        };
        while !rest.is_empty() {
            rest = terms.set_macros(rest)?;
        }
        Ok(terms)
    }

    /// Reads which macros are wanted at one stage; what follows.
    pub(crate) fn set_macros<'a>(&mut self, data: &'a [u8]) -> Result<&'a [u8], Garbage> {
        let (stage, rest) = packet::number(data)?;
        let (names, rest) = packet::text(rest)?;
        let place = usize::try_from(stage)
            .ok()
            .and_then(|stage| self.macros.get_mut(stage))
            .ok_or(Garbage("macros for a stage that is none"))?;
        *place = Some(Stage::names(names));
        Ok(rest)
    }

    /// Whether the milter is told of a step at all.
    pub fn wants(&self, step: Step) -> bool {
        self.version >= step.since() && self.flags & step.unwanted() == 0
    }

    /// Whether it answers.
    pub fn answers(&self, step: Step) -> bool {
        step.unanswered() == 0 || self.flags & step.unanswered() == 0
    }

    /// Whether another client may follow on the same connection.
    pub fn knows_next_client(&self) -> bool {
        self.version == VERSION
    }

    /// Whether it may say that it has seen enough of a body.
    pub fn may_skip(&self) -> bool {
        self.flags & SKIP != 0
    }

    /// Whether the space behind a field's colon is part of the value, both ways.
    pub fn leading_space(&self) -> bool {
        self.flags & LEADING_SPACE != 0
    }

    /// Octets of data in a packet of ours.
    pub fn most_data(&self) -> usize {
        if self.flags & DATA_1M != 0 {
            (1 << 20) - 1
        } else if self.flags & DATA_256K != 0 {
            (256 << 10) - 1
        } else {
            (64 << 10) - 1
        }
    }

    /// The macros that it wants before a step, if it said which.
    pub fn macros(&self, stage: Stage) -> Option<&[String]> {
        self.macros.get(stage as usize)?.as_deref()
    }

    /// Whether it announced that it does such a thing.
    pub fn allows(&self, modification: &Modification) -> bool {
        let action = match modification {
            Modification::AddHeader { .. } | Modification::InsertHeader { .. } => ADD_HEADERS,
            Modification::ChangeHeader { .. } => CHANGE_HEADERS,
            Modification::AddRecipient { args: None, .. } => ADD_RECIPIENTS,
            Modification::AddRecipient { .. } => ADD_RECIPIENTS_WITH_ARGS,
            Modification::RemoveRecipient(_) => REMOVE_RECIPIENTS,
            Modification::ChangeSender { .. } => CHANGE_SENDER,
            Modification::ReplaceBody(_) => CHANGE_BODY,
            Modification::Quarantine(_) => QUARANTINE,
        };
        self.actions & action != 0
    }
}

/// For the log.
impl std::fmt::Display for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (version, actions, flags) = (self.version, self.actions, self.flags);
        write!(
            f,
            "version={version}, actions={actions:#x}, flags={flags:#x}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(version: u32, actions: u32, flags: u32, rest: &[u8]) -> Vec<u8> {
        let mut data = [version, actions, flags].map(u32::to_be_bytes).concat();
        data.extend_from_slice(rest);
        data
    }

    #[test]
    fn we_offer_everything_but_refused_recipients() {
        assert_eq!(
            offer(),
            b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\x30\x1f\xf7\xff"
        );
    }

    #[test]
    fn a_milter_chooses_what_it_sees_and_answers() {
        let terms = Terms::parse(&answer(6, 0x11, 0x40a | 0x80 | 0x10_0000, b"")).unwrap();
        for (step, wants, answers) in [
            (Step::Connect, true, true),
            (Step::Helo, false, true),
            (Step::Recipient, false, true),
            (Step::Header, true, false),
            (Step::EndOfMessage, true, true),
        ] {
            assert_eq!((terms.wants(step), terms.answers(step)), (wants, answers));
        }
        assert!(terms.may_skip() && terms.leading_space());
        let remove = Modification::RemoveRecipient("<a@b>".into());
        assert!(!terms.allows(&remove));
    }

    #[test]
    fn sizes_and_old_versions() {
        for (flags, most) in [
            (0, 65_535),
            (DATA_256K, 262_143),
            (DATA_1M, 1_048_575),
            (DATA_1M | DATA_256K, 1_048_575),
        ] {
            let terms = Terms::parse(&answer(6, 0, flags, b"")).unwrap();
            assert_eq!(terms.most_data(), most);
        }
        let old = Terms::parse(&answer(2, 0, 0xff, b"")).unwrap();
        assert!(!old.wants(Step::Data) && !old.wants(Step::Unknown) && !old.wants(Step::Connect));
        assert!(old.answers(Step::Header) && old.wants(Step::EndOfMessage));
    }

    #[test]
    fn macros_are_chosen_by_stage() {
        let lists = b"\0\0\0\0j {client_addr}\0\0\0\0\x05\0";
        let terms = Terms::parse(&answer(6, 0x100, 0, lists)).unwrap();
        let connect = ["j".to_owned(), "client_addr".to_owned()];
        assert_eq!(terms.macros(Stage::Connect), Some(&connect[..]));
        assert_eq!(terms.macros(Stage::EndOfMessage), Some(&[][..]));
        assert_eq!(terms.macros(Stage::Mail), None);
    }

    #[test]
    fn who_asks_for_more_is_refused() {
        for bad in [
            answer(7, 0, 0, b""),
            answer(1, 0, 0, b""),
            answer(6, 0x200, 0, b""),
            answer(6, 0, 0x800, b""),
            answer(6, 0, 0x4000_0000, b""),
            answer(6, 0, 0, b"\0"),
            answer(6, 0, 0, b"\0\0\0\x07j\0"),
            answer(6, 0, 0, b"\0\0\0\0j"),
            b"\0\0\0\x06".to_vec(),
        ] {
            assert!(Terms::parse(&bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn anything_is_terms_or_none(data: Vec<u8>) {
            if let Ok(terms) = Terms::parse(&data) {
                prop_assert!(terms.wants(Step::EndOfMessage) && terms.answers(Step::EndOfMessage));
            }
        }
    }
}
