//! FETCH (RFC 3501 6.4.5) as a machine of its own: requests to the store, pieces of responses out.
//!
//! It never holds more than one piece of a large message, or as many octets of small ones that were
//! read ahead, and what `mime` keeps of a structure: bodies are passed on as they come, and after
//! [`FULL`] octets of output the machine rests until the client has taken them.

use mime::structure::{Builder, Structure};
use store::request::{Answer, Change, Message, Part, Request, Why};
use store::{Flags, Ranges, Set};

use crate::ahead::Ahead;
use crate::item::{Item, SectionText};
use crate::response;
use crate::section::{self, Source};
use crate::structure;

/// Octets asked of the store at once.
const PIECE: u32 = 256 << 10;
/// Of a header, what ENVELOPE and HEADER.FIELDS look at.
const HEADER: u32 = 1 << 20;
/// Output that is enough for a while.
const FULL: usize = 128 << 10;

/// What the machine wants next.
#[derive(Debug)]
pub(crate) enum Step {
    /// An answer to this.
    Ask(Request),
    /// To be called again when the client has taken the output.
    Flush,
    /// Nothing: the response is complete.
    Done(Outcome),
    /// Nothing: a literal was begun that cannot be finished. The connection must end.
    Broken,
}

/// How a FETCH ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Complete,
    /// Some messages were expunged by another session.
    SomeGone,
    Failed(store::Failed),
}

/// A FETCH at work.
#[derive(Debug)]
pub(crate) struct Fetch {
    items: Vec<Item>,
    /// Whether the folder takes `\Seen`.
    marks: bool,
    set: Set,
    list: std::vec::IntoIter<Message>,
    more: bool,
    marked: Vec<u32>,
    some_gone: bool,
    phase: Phase,
    ahead: Ahead,
    kept: Option<Kept>,
}

/// The structure of the message that was looked at last: who asked for it asks for parts next, and
/// the whole message need not be read again to find them.
#[derive(Debug)]
pub(crate) struct Kept {
    uid: u32,
    structure: Structure,
}

#[derive(Debug)]
enum Phase {
    /// The list of messages was asked for.
    Listing,
    /// `\Seen` was asked for.
    Marking,
    /// The next message is due.
    Next,
    Reading(Box<Reading>),
}

/// One message whose text is needed.
#[derive(Debug)]
struct Reading {
    message: Message,
    header: Vec<u8>,
    builder: Option<Builder>,
    offset: u64,
    structure: Option<Structure>,
    /// Whether the structure is of all there is.
    whole: bool,
    /// The next item to write.
    item: usize,
    /// The response so far; it is kept back until the first octets of a body are there.
    line: Vec<u8>,
    /// Whether some of this response has gone out.
    begun: bool,
    /// What is being asked for.
    asked: Asked,
}

#[derive(Debug)]
enum Asked {
    Header,
    Structure,
    /// A body; `announced` is its end once the literal has begun.
    Body {
        source: Source,
        announced: Option<u64>,
    },
}

impl Fetch {
    /// `items` of the messages in `set`; `marks` unless the folder is read-only; `kept` of the last
    /// FETCH of this folder.
    pub(crate) fn new(
        mut items: Vec<Item>,
        set: Set,
        marks: bool,
        kept: Option<Kept>,
    ) -> (Self, Request) {
        if matches!(set, Set::Uid(_)) && !items.contains(&Item::Uid) {
            items.insert(0, Item::Uid);
        }
        let marks = marks && items.iter().any(Item::marks_seen);
        let request = Request::Fetch(set.clone());
        let fetch = Self {
            ahead: Ahead::new(&items),
            items,
            marks,
            set,
            list: Vec::new().into_iter(),
            more: false,
            marked: Vec::new(),
            some_gone: false,
            phase: Phase::Listing,
            kept,
        };
        (fetch, request)
    }

    /// For the next FETCH of the same folder.
    pub(crate) fn into_kept(self) -> Option<Kept> {
        self.kept
    }

    /// The store has answered.
    pub(crate) fn answer(&mut self, answer: Answer, out: &mut Vec<u8>) -> Step {
        let step = match answer {
            Answer::Contents(list) => {
                let Phase::Reading(reading) = std::mem::replace(&mut self.phase, Phase::Next)
                else {
                    let failed = unexpected(&Answer::Contents(list));
                    return Step::Done(Outcome::Failed(failed));
                };
                self.ahead.fill(list);
                let here = self.ahead.has(reading.message.uid);
                let step = self.ask(reading);
                if !here {
                    // It is gone, or larger than it was said to be: asked for alone it answers so.
                    return step;
                }
                step
            }
            answer => self.answered(answer, out),
        };
        self.drive(step, out)
    }

    /// Goes on with what was read ahead; what was not is asked for together with what follows.
    fn drive(&mut self, mut step: Step, out: &mut Vec<u8>) -> Step {
        loop {
            let Step::Ask(Request::Content {
                uid,
                part,
                offset,
                length,
            }) = step
            else {
                return step;
            };
            let Phase::Reading(reading) = std::mem::replace(&mut self.phase, Phase::Next) else {
                return step;
            };
            let headers = self.ahead.headers();
            let Some(whole) = self.ahead.take(uid) else {
                let rest = self.list.as_slice();
                let together = self.ahead.plan(&reading.message, rest);
                // Of a message whose parts are known, only the octets that are wanted.
                let together = together.filter(|_| !reading.begun && reading.structure.is_none());
                self.phase = Phase::Reading(reading);
                return together.map_or(step, Step::Ask);
            };
            match whole.piece(part, offset, length, headers) {
                Some((size, bytes)) => step = self.read(reading, size, bytes, out),
                None => {
                    self.phase = Phase::Reading(reading);
                    return step;
                }
            }
            self.ahead.put_back(whole);
        }
    }

    fn answered(&mut self, answer: Answer, out: &mut Vec<u8>) -> Step {
        match (std::mem::replace(&mut self.phase, Phase::Next), answer) {
            (Phase::Listing, Answer::Messages(messages)) => {
                self.more = messages.more;
                self.listed(messages.list)
                    .unwrap_or_else(|| self.go_on(out))
            }
            (Phase::Marking, Answer::Stored(stored)) => {
                self.update(&stored.list);
                self.go_on(out)
            }
            // A flag that cannot be set must not keep the message from its reader.
            (Phase::Marking, Answer::Failed(_)) => self.go_on(out),
            (Phase::Reading(reading), Answer::Content(content)) => {
                self.read(reading, content.size, &content.bytes, out)
            }
            (Phase::Reading(reading), _) if reading.begun => Step::Broken,
            (Phase::Reading(_), Answer::Failed(failed)) if failed.why == Why::Gone => {
                self.some_gone = true;
                self.go_on(out)
            }
            (_, Answer::Failed(failed)) => Step::Done(Outcome::Failed(failed)),
            (_, other) => Step::Done(Outcome::Failed(unexpected(&other))),
        }
    }

    /// The client has taken the output.
    pub(crate) fn flushed(&mut self, out: &mut Vec<u8>) -> Step {
        out.reserve(FULL + FULL / 4);
        let step = match std::mem::replace(&mut self.phase, Phase::Next) {
            Phase::Reading(reading) => self.ask(reading),
            _ => self.go_on(out),
        };
        self.drive(step, out)
    }

    /// Marks what is to be marked before anything is sent.
    fn listed(&mut self, list: Vec<Message>) -> Option<Step> {
        self.marked.clear();
        if self.marks {
            let unseen = list.iter().filter(|m| !m.flags.has(Flags::SEEN));
            self.marked = unseen.map(|m| m.uid).collect();
        }
        self.list = list.into_iter();
        if self.marked.is_empty() {
            return None;
        }
        self.phase = Phase::Marking;
        Some(Step::Ask(Request::StoreFlags {
            set: Set::Uid(Ranges::of(self.marked.iter().copied())),
            change: Change::Add,
            flags: Flags::SEEN,
            keywords: Vec::new(),
        }))
    }

    fn update(&mut self, stored: &[Message]) {
        let list: Vec<_> = std::mem::take(&mut self.list)
            .map(|mut message| {
                let at = stored.binary_search_by_key(&message.uid, |s| s.uid);
                if let Some(now) = at.ok().and_then(|at| stored.get(at)) {
                    message.flags = now.flags;
                    message.keywords.clone_from(&now.keywords);
                }
                message
            })
            .collect();
        self.list = list.into_iter();
    }

    fn go_on(&mut self, out: &mut Vec<u8>) -> Step {
        loop {
            if out.len() >= FULL {
                return Step::Flush;
            }
            let Some(message) = self.list.next() else {
                return self.batch_done();
            };
            let last = (message.seq, message.uid);
            if self.list.len() == 0 && self.more {
                self.set = behind(&self.set, last);
            }
            match self.begin(message, out) {
                Some(step) => return step,
                None => continue,
            }
        }
    }

    fn batch_done(&mut self) -> Step {
        if std::mem::take(&mut self.more) {
            self.phase = Phase::Listing;
            return Step::Ask(Request::Fetch(self.set.clone()));
        }
        Step::Done(if self.some_gone {
            Outcome::SomeGone
        } else {
            Outcome::Complete
        })
    }

    /// Answers from what is known, or begins to read the message.
    fn begin(&mut self, message: Message, out: &mut Vec<u8>) -> Option<Step> {
        let line = format!("* {} FETCH (", message.seq).into_bytes();
        let mut reading = Box::new(Reading {
            message,
            header: Vec::new(),
            builder: None,
            offset: 0,
            structure: None,
            whole: false,
            item: 0,
            line,
            begun: false,
            asked: Asked::Header,
        });
        if self.items.iter().any(section::needs_structure) {
            let kept = self
                .kept
                .take()
                .filter(|kept| kept.uid == reading.message.uid);
            if let Some(kept) = kept {
                reading.whole = true;
                reading.know(kept.structure);
                return self.write_items(reading, out);
            }
            reading.builder = Some(Builder::new());
            reading.asked = Asked::Structure;
            return Some(self.ask(reading));
        }
        if self.items.iter().any(section::needs_header) {
            return Some(self.ask(reading));
        }
        self.write_items(reading, out)
    }

    /// The request for what `reading` wants.
    fn ask(&mut self, reading: Box<Reading>) -> Step {
        let uid = reading.message.uid;
        let request = match &reading.asked {
            Asked::Header => Request::Content {
                uid,
                part: Part::Header,
                offset: reading.header.len() as u64,
                length: HEADER,
            },
            Asked::Structure => Request::Content {
                uid,
                part: Part::Whole,
                offset: reading.offset,
                length: PIECE,
            },
            Asked::Body { source, .. } => {
                let wanted = source.end.saturating_sub(source.start);
                let length = u32::try_from(wanted).unwrap_or(PIECE).min(PIECE);
                Request::Content {
                    uid,
                    part: source.part,
                    offset: source.start,
                    length,
                }
            }
        };
        self.phase = Phase::Reading(reading);
        Step::Ask(request)
    }

    /// Takes a piece of a part that has `size` octets.
    fn read(
        &mut self,
        mut reading: Box<Reading>,
        size: u64,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Step {
        match &mut reading.asked {
            Asked::Header => {
                reading.header.extend_from_slice(bytes);
                let whole = reading.header.len() as u64 >= size.min(HEADER.into());
                if !whole && !bytes.is_empty() {
                    return self.ask(reading);
                }
            }
            Asked::Structure => {
                if let Some(builder) = &mut reading.builder {
                    builder.feed(bytes);
                }
                reading.offset = reading.offset.saturating_add(bytes.len() as u64);
                if !bytes.is_empty() && reading.offset < size {
                    return self.ask(reading);
                }
                reading.whole = reading.offset >= size;
                let structure = reading.builder.take().map(Builder::finish);
                if let Some(structure) = structure {
                    reading.know(structure);
                }
            }
            Asked::Body { source, announced } => {
                if announced.is_none() {
                    source.bound(size);
                    *announced = Some(source.end);
                    let size = source.end.saturating_sub(source.start);
                    reading
                        .line
                        .extend_from_slice(format!("{{{size}}}\r\n").as_bytes());
                }
                let left = source.end.saturating_sub(source.start);
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                out.append(&mut reading.line);
                response::body(out, bytes.get(..take).unwrap_or_default());
                source.start = source.start.saturating_add(take as u64);
                let finished = source.start >= source.end;
                if take == 0 && !finished {
                    return Step::Broken;
                }
                reading.begun = true;
                if !finished {
                    return if out.len() >= FULL {
                        self.phase = Phase::Reading(reading);
                        Step::Flush
                    } else {
                        self.ask(reading)
                    };
                }
            }
        }
        match self.write_items(reading, out) {
            Some(step) => step,
            None => self.go_on(out),
        }
    }

    /// Writes items until one needs the store; `None` when the response is complete.
    fn write_items(&mut self, mut reading: Box<Reading>, out: &mut Vec<u8>) -> Option<Step> {
        while let Some(item) = self.items.get(reading.item) {
            if reading.item > 0 {
                reading.line.push(b' ');
            }
            reading.item += 1;
            if let Some(source) = write_item(&mut reading, item) {
                reading.asked = Asked::Body {
                    source,
                    announced: None,
                };
                return Some(self.ask(reading));
            }
        }
        let tells_flags = self.items.contains(&Item::Flags);
        if !tells_flags && self.marked.binary_search(&reading.message.uid).is_ok() {
            let flags = format!(" FLAGS {}", response::flags(&reading.message));
            reading.line.extend_from_slice(flags.as_bytes());
        }
        reading.line.extend_from_slice(b")\r\n");
        out.append(&mut reading.line);
        let (uid, whole) = (reading.message.uid, reading.whole);
        if let Some(structure) = reading.structure.filter(|_| whole) {
            self.kept = Some(Kept { uid, structure });
        }
        None
    }
}

impl Reading {
    fn know(&mut self, structure: Structure) {
        let root = structure.root();
        self.header = root
            .map(|root| root.header_text.clone())
            .unwrap_or_default();
        self.structure = Some(structure);
    }
}

/// Appends an item, or only its name when its octets are still in the store.
fn write_item(reading: &mut Reading, item: &Item) -> Option<Source> {
    let Reading {
        message,
        header,
        structure,
        line,
        ..
    } = reading;
    match item {
        Item::Flags => line.extend(format!("FLAGS {}", response::flags(message)).into_bytes()),
        Item::Uid => line.extend(format!("UID {}", message.uid).into_bytes()),
        Item::Rfc822Size => line.extend(format!("RFC822.SIZE {}", message.size).into_bytes()),
        Item::InternalDate => {
            let date = response::internal_date(message.date);
            line.extend(format!("INTERNALDATE {date}").into_bytes());
        }
        Item::Envelope => {
            line.extend_from_slice(b"ENVELOPE ");
            structure::envelope(line, header);
        }
        Item::Body | Item::BodyStructure => {
            let extended = *item == Item::BodyStructure;
            line.extend_from_slice(if extended {
                b"BODYSTRUCTURE "
            } else {
                b"BODY "
            });
            match structure {
                Some(structure) => structure::body(line, structure, extended),
                None => line.extend_from_slice(b"NIL"),
            }
        }
        Item::Rfc822 => {
            line.extend_from_slice(b"RFC822 ");
            return Some(Source::whole(Part::Whole));
        }
        Item::Rfc822Header => {
            line.extend_from_slice(b"RFC822.HEADER ");
            return Some(Source::whole(Part::Header));
        }
        Item::Rfc822Text => {
            line.extend_from_slice(b"RFC822.TEXT ");
            return Some(Source::whole(Part::Text));
        }
        Item::Section {
            section, partial, ..
        } => {
            section::label(line, section, *partial);
            line.push(b' ');
            let found = if let (SectionText::HeaderFields { not, names }, true) =
                (&section.text, section.path.is_empty())
            {
                section::Found::Text(section::header_fields(header, names, *not))
            } else {
                section::find(structure.as_ref(), section)
            };
            return section::write(line, found, *partial);
        }
    }
    None
}

/// What is left of a set behind the last message that was listed.
pub(crate) fn behind(set: &Set, (seq, uid): (u32, u32)) -> Set {
    let rest = |ranges: &Ranges, last: u32| {
        let next = last.saturating_add(1);
        let left = ranges.as_slice().iter().filter(|(_, end)| *end > last);
        Ranges::new(left.map(|(start, end)| ((*start).max(next), *end))).unwrap_or_default()
    };
    match set {
        Set::Seq(ranges) => Set::Seq(rest(ranges, seq)),
        Set::Uid(ranges) => Set::Uid(rest(ranges, uid)),
    }
}

/// An answer that does not fit the question: ours, not the client's fault.
pub(crate) fn unexpected(answer: &Answer) -> store::Failed {
    // Its name only: an answer may hold a body.
    let name = match answer {
        Answer::Done => "Done",
        Answer::Selected(_) => "Selected",
        Answer::Status(_) => "Status",
        Answer::Folders(_) => "Folders",
        Answer::Messages(_) => "Messages",
        Answer::Content(_) => "Content",
        Answer::Contents(_) => "Contents",
        Answer::Stored(_) => "Stored",
        Answer::Appended { .. } => "Appended",
        Answer::Copied { .. } => "Copied",
        Answer::Updates(_) => "Updates",
        Answer::Changed => "Changed",
        Answer::Failed(_) => "Failed",
    };
    log::error!("the store answered {name}, which was not asked for");
    store::Failed {
        why: Why::Temporary,
        text: "Internal error".into(),
    }
}
