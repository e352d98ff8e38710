//! LIST and LSUB (RFC 3501 6.3.8, 6.3.9), with the attributes of RFC 3348. What matches, the store
//! knows.

use store::{Folder, Pattern};

use crate::response::{line, mailbox};
use crate::utf7;

/// A pattern longer than any name matches nothing.
const MAX_PATTERN: usize = 1000;

/// Reference and pattern as one pattern; `None` when it can match nothing.
pub(crate) fn pattern(reference: &[u8], pattern: &[u8]) -> Option<Pattern> {
    let joined = [reference, pattern].concat();
    if joined.len() > MAX_PATTERN {
        return None;
    }
    Pattern::parse(&utf7::decode(&joined)?)
}

/// The responses for these folders.
pub(crate) fn respond(out: &mut Vec<u8>, folders: &[Folder], subscribed: bool) {
    let verb = if subscribed { "LSUB" } else { "LIST" };
    for folder in folders {
        let mut attributes = Vec::new();
        if !folder.selectable {
            attributes.push("\\Noselect");
        }
        if !subscribed {
            attributes.push(if folder.children {
                "\\HasChildren"
            } else {
                "\\HasNoChildren"
            });
        }
        out.extend_from_slice(format!("* {verb} ({}) \"/\" ", attributes.join(" ")).as_bytes());
        mailbox(out, folder.name.as_str());
        line(out, "");
    }
}

/// The answer to an empty pattern: the separator, and the root of the reference.
pub(crate) fn separator(out: &mut Vec<u8>) {
    line(out, "* LIST (\\Noselect) \"/\" \"\"");
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::FolderName;

    #[test]
    fn patterns() {
        let text = |reference: &[u8], text: &[u8]| {
            pattern(reference, text).map(|pattern| pattern.to_string())
        };
        assert_eq!(text(b"inbox/", b"%").as_deref(), Some("inbox/%"));
        assert_eq!(text(b"", b"&U,BTFw-/*").as_deref(), Some("台北/*"));
        assert_eq!(text(b"", b"&&"), None);
        assert_eq!(text(b"", &[b'*'; 2000]), None);
    }

    #[test]
    fn responses() {
        let folder = |name: &str, selectable, children| Folder {
            name: FolderName::parse(name).unwrap(),
            selectable,
            children,
        };
        let folders = [folder("INBOX", true, false), folder("a", false, true)];
        let shown = |subscribed| {
            let mut out = Vec::new();
            respond(&mut out, &folders, subscribed);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            shown(false),
            "* LIST (\\HasNoChildren) \"/\" INBOX\r\n* LIST (\\Noselect \\HasChildren) \"/\" a\r\n"
        );
        assert_eq!(
            shown(true),
            "* LSUB () \"/\" INBOX\r\n* LSUB (\\Noselect) \"/\" a\r\n"
        );
    }
}
