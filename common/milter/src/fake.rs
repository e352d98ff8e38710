//! A milter for tests: it says what it is told to say, and keeps what it heard.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use base::config::{Milter, MilterDefault, MilterSocket};

use crate::link::Stream;
use crate::{Conversation, Trouble, packet, terms};

/// What it heard: codes with their data.
pub(crate) type Heard = Vec<(u8, Vec<u8>)>;

/// One that runs in a thread.
pub(crate) struct Fake {
    pub(crate) milter: Milter,
    ours: Option<Stream>,
    thread: JoinHandle<Heard>,
}

/// A packet.
pub(crate) fn packet(code: u8, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    packet::write(code, &[data], &mut out);
    out
}

/// The answer to an offer.
pub(crate) fn agree(actions: u32, flags: u32) -> Vec<u8> {
    let data = [6, actions, flags].map(u32::to_be_bytes).concat();
    packet(terms::CODE, &data)
}

/// A milter as it is configured.
pub(crate) fn configured(socket: MilterSocket) -> Milter {
    Milter {
        name: "fake".into(),
        socket,
        default: MilterDefault::TempFail,
        connect_timeout: Duration::from_secs(5),
        command_timeout: Duration::from_millis(200),
        content_timeout: Duration::from_millis(400),
        keep: false,
    }
}

/// Reads packets until the end of the stream; `answer` says what goes back, and whether to go on.
pub(crate) fn serve(
    mut stream: impl Read + Write,
    mut answer: impl FnMut(u8, &[u8]) -> Option<Vec<u8>>,
) -> Heard {
    let (mut heard, mut input, mut piece) = (Heard::new(), Vec::new(), vec![0; 4096]);
    loop {
        while let Some((packet, length)) = packet::first(&input).unwrap() {
            let (code, data) = (packet.code, packet.data.to_vec());
            input.drain(..length);
            let back = answer(code, &data);
            heard.push((code, data));
            match back {
                None => return heard,
                Some(bytes) if stream.write_all(&bytes).is_err() => return heard,
                Some(_) => {}
            }
        }
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => input.extend_from_slice(piece.get(..n).unwrap()),
            _ => return heard,
        }
    }
}

impl Fake {
    /// It answers the offer with `terms`, and what follows with what `answer` says.
    pub(crate) fn new(
        terms: Vec<u8>,
        mut answer: impl FnMut(u8, &[u8]) -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        let (ours, its) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            serve(its, |code, data| match code {
                terms::CODE => Some(terms.clone()),
                _ => answer(code, data),
            })
        });
        Self {
            milter: configured(MilterSocket::Unix("/nowhere".into())),
            ours: Some(Stream::Unix(ours)),
            thread,
        }
    }

    /// It says yes to everything that `flags` lets it answer, but for some codes.
    pub(crate) fn with(
        actions: u32,
        flags: u32,
        but: impl Fn(u8) -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        Self::new(agree(actions, flags), move |code, _| {
            Some(match code {
                b'D' | b'A' | b'Q' | b'K' => Vec::new(),
                code => but(code).unwrap_or_else(|| packet(b'c', b"")),
            })
        })
    }

    pub(crate) fn open(&mut self) -> Result<Conversation, Trouble> {
        Conversation::over(self.ours.take().unwrap(), &self.milter)
    }

    /// What it heard after the offer, once the conversation is dropped.
    pub(crate) fn heard(self) -> Heard {
        let mut heard = self.thread.join().unwrap();
        heard.remove(0);
        heard
    }

    /// The codes alone.
    pub(crate) fn codes(self) -> String {
        let heard = self.heard();
        heard.iter().map(|(code, _)| char::from(*code)).collect()
    }
}
