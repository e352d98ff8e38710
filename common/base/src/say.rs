//! What a program says on standard output because it was asked: help, its version, a good
//! configuration. Whether anybody reads it changes nothing of what was done, and must not change
//! the exit code either, so who does not listen misses it.

use std::io::{self, Write};

/// One line, or several.
pub fn say(text: &str) {
    writeln!(io::stdout(), "{text}").ok();
}
