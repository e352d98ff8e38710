//! What a message needs of the server that it is passed on to.
//!
//! A sender declares SMTPUTF8 for what might need it; a message that is all ASCII in its addresses and
//! its header goes to any server (RFC 6531 3.2). Nothing is ever rewritten to fit: what a server
//! lacks is said in the report.

use std::io::{self, Read};

use base::envelope::Needs;
use base::{Doing, Fail};
use queue::Entry;

/// How much of a message is searched for its header. A longer one is taken for one that needs it.
const MAX_HEADER: u64 = 256 * 1024;

/// The sender's wishes, without what the header and the addresses do not need after all. The
/// addresses are the transaction's, which asks for itself.
pub(crate) fn of(entry: &Entry) -> Result<Needs, Fail> {
    let declared = entry.envelope().needs;
    let header =
        || is_beyond_ascii(&mut entry.content()).doing(|| format!("read message {}", entry.id()));
    Ok(Needs {
        smtputf8: declared.smtputf8 && header()?,
        ..declared
    })
}

/// Whether there is a header with more than ASCII.
fn is_beyond_ascii(content: &mut dyn Read) -> io::Result<bool> {
    let mut start = Vec::new();
    let length = content.take(MAX_HEADER).read_to_end(&mut start)?;
    let empty = if start.starts_with(b"\r\n") {
        Some(0)
    } else {
        memchr::memmem::find(&start, b"\r\n\r\n")
    };
    let header = start.get(..empty.unwrap_or(length)).unwrap_or_default();
    let is_cut = empty.is_none() && u64::try_from(length).is_ok_and(|n| n >= MAX_HEADER);
    Ok(is_cut || !header.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_header_counts() {
        let long = "X: y\r\n".repeat(100_000);
        for (content, want) in [
            ("Subject: x\r\n\r\n\u{e4}", false),
            ("Subject: \u{e4}\r\n\r\nx", true),
            ("\r\n\u{e4}", false),
            ("Subject: \u{e4}", true),
            ("", false),
            (long.as_str(), true),
        ] {
            assert_eq!(is_beyond_ascii(&mut content.as_bytes()).unwrap(), want);
        }
    }
}
