//! The form of a message: header fields and addresses (RFC 5322), parts (RFC 2045), encoded words and
//! parameters (RFC 2047, 2231), transfer encodings and charsets.
//!
//! Everything here is a function from bytes to values: no files, no sockets, no clock. Reading never
//! fails, it degrades: a message is what somebody else wrote, and the user wants to see it anyway.
//! Every reader is linear in its input, does not recurse, and stops at a limit that is written down
//! beside it. Lines may end in CRLF or in LF, but for [`binary`], where CRLF alone ends one.

pub mod address;
pub mod binary;
pub mod charset;
pub mod compose;
pub mod content;
pub mod date;
pub mod encoding;
pub mod header;
pub mod parameter;
mod scan;
pub mod structure;
pub mod submitted;
pub mod token;
pub mod words;
