//! loadgen: load generator for the mail benchmark.  One JSON object on stdout per run.
//! std only: blocking sockets, one thread per session.
mod imap;
mod mailbox;
mod pop3;
mod smtp;
mod stub;
mod util;

use util::Args;

fn main() {
    let mut argv: Vec<String> = std::env::args().skip(1).collect();
    if argv.is_empty() {
        eprintln!("usage: loadgen fsync|smtp|guests|stub|cli|pop3|imap|fetchall|select|idle|genbox [--key value ...] [-- cmd ...]");
        std::process::exit(2);
    }
    let sub = argv.remove(0);
    let a = Args::parse(argv);
    match sub.as_str() {
        "fsync" => util::fsync_bench(&a),
        "smtp" => smtp::run(&a),
        "guests" => smtp::guests(&a),
        "stub" => stub::run(&a),
        "cli" => smtp::cli(&a),
        "pop3" => pop3::run(&a),
        "imap" => imap::run(&a),
        "fetchall" => imap::fetch_all(&a),
        "select" => imap::select(&a),
        "idle" => imap::idle(&a),
        "genbox" => mailbox::genbox(&a),
        other => {
            eprintln!("unknown subcommand {other}");
            std::process::exit(2);
        }
    }
}
