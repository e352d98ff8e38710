//! smtpd - accept mail by SMTP and queue it. See smtpd(8). All of it is in the library, so that the
//! engine that makes bad input reaches what is inside: see docs/fuzzing.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    smtpd::main()
}
