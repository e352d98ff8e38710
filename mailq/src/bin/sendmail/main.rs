//! sendmail - submit a message, as every program on Unix knows it. See sendmail(8).
//!
//! It runs as the caller and has no privilege: a message goes into drop/, from where qrun takes
//! it. Everything else that sendmail does is another program, and is run as that.

mod args;
#[path = "../newaliases/check.rs"]
mod check;
mod message;
mod programs;
#[path = "../mailq/show.rs"]
mod show;
mod smtp;
mod submit;
mod verify;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use account::Users;
use base::log::init_command;
use base::{Config, Doing, Fail, LocalPart, Root, Sysexit, say};
use nix::unistd::{Uid, User};
use rules::Router;
use rules::aliases::Aliases;

use args::{Args, BadArgs, Mode};
use submit::{Caller, Desk};
use verify::Verifier;

const USAGE: &str =
    "usage: sendmail [-itv] [-f address] [-F name] [-N dsn] [-R ret] [-V envid] [address ...]
       sendmail -bv address ... | -bp | -bi | -bs | -bd | -q";

fn main() -> ExitCode {
    init_command("sendmail");
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    run(&called, words).unwrap_or_else(|fail| fail.report())
}

fn run(called: &OsString, words: impl Iterator<Item = OsString>) -> Result<ExitCode, Fail> {
    let name = Path::new(called)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let words: Vec<String> = words
        .map(|word| mime::charset::guess(std::os::unix::ffi::OsStrExt::as_bytes(word.as_os_str())))
        .collect();
    match &*name {
        "mailq" => return show::command(&words),
        "newaliases" => return check::command(&words),
        _ => {}
    }
    if words.first().is_some_and(|word| word == "--help") {
        say(USAGE);
        return Ok(ExitCode::SUCCESS);
    }
    let args =
        Args::parse(&words).map_err(|BadArgs(what)| Fail::usage(format!("{what}\n{USAGE}")))?;
    for word in &args.ignored {
        log::warn!("{word}");
    }
    let root = Root::from_env();
    match args.mode {
        Mode::Submit => deliver(&root, &args),
        Mode::Verify => verify(&root, &args.operands),
        Mode::Mailq => show::command(&args.operands),
        Mode::Newaliases => check::command(&[]),
        // A connection from the network, as inetd gives it: who may relay is smtpd's to say.
        Mode::Smtp if net::activate::is_inetd(false) => Err(programs::exec("smtpd", &["-i"])),
        Mode::Smtp => converse(&root),
        Mode::RunQueue => {
            programs::run_all(&[("qrun", &["-q"]), ("deliver", &["-q"])]).map(Into::into)
        }
        Mode::Daemon { smtp } => {
            let all = ["qrun", "deliver", "smtpd"];
            let names = if smtp { &all[..] } else { &all[..2] };
            programs::start(&root, names).map(Into::into)
        }
    }
}

fn deliver(root: &Root, args: &Args) -> Result<ExitCode, Fail> {
    let config = Config::load(root, None)?;
    let router = Router::new(&config);
    let caller = caller(root)?;
    let desk = Desk {
        root,
        config: &config,
        router: &router,
        caller: &caller,
    };
    let id = desk.submit(&args.submit, &args.operands, &mut std::io::stdin().lock())?;
    if args.verbose {
        say(&format!("queued as {id}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// SMTP with who runs us.
fn converse(root: &Root) -> Result<ExitCode, Fail> {
    let config = Config::load(root, None)?;
    let router = Router::new(&config);
    let session = smtp::Session {
        root,
        config: &config,
        router: &router,
        input: &mut std::io::stdin().lock(),
        output: &mut std::io::stdout().lock(),
    };
    session.run()?;
    Ok(ExitCode::SUCCESS)
}

/// Who runs us. In a private root one uid is many users: there LOGNAME or USER says which.
fn caller(root: &Root) -> Result<Caller, Fail> {
    let uid = Uid::current();
    let user = User::from_uid(uid).doing(|| format!("look up uid {uid}"))?;
    let name = |variable| {
        let name = std::env::var(variable).ok()?;
        LocalPart::new(&name).ok()
    };
    let told = if root.is_private() {
        name("LOGNAME").or_else(|| name("USER"))
    } else {
        None
    };
    // A uid without a name, as in a container, is called as qrun calls it.
    let known = match user.as_ref().and_then(|u| LocalPart::new(&u.name).ok()) {
        Some(name) => Some(name),
        None => LocalPart::new(&format!("uid{uid}")).ok(),
    };
    let proven = told.is_none() || told == known;
    let Some(login) = told.or_else(|| known.clone()) else {
        let text = format!("uid {uid} has no user name: who is the sender?");
        return Err(Fail::new(Sysexit::NoUser, text));
    };
    let gecos = match user {
        Some(user) if Some(&login) == known.as_ref() => full_name(&user),
        _ => String::new(),
    };
    Ok(Caller {
        login,
        full_name: gecos,
        proven,
    })
}

/// passwd(5): the name is what stands before the first comma, `&` is the login name.
fn full_name(user: &User) -> String {
    let gecos = mime::charset::guess(user.gecos.to_bytes());
    let name = gecos.split(',').next().unwrap_or_default();
    let mut letters = user.name.chars();
    let first = letters
        .next()
        .map(|c| c.to_uppercase().to_string())
        .unwrap_or_default();
    name.replace('&', &format!("{first}{}", letters.as_str()))
}

fn verify(root: &Root, words: &[String]) -> Result<ExitCode, Fail> {
    if words.is_empty() {
        return Err(Fail::usage("-bv: say which addresses"));
    }
    let config = Config::load(root, None)?;
    let router = Router::new(&config);
    let (aliases, _) = Aliases::load(&config.alias_files)?;
    // A users file that the caller may not read is a doubt about each name, not an end.
    let users = Users::open(root, &config);
    let is_user = |name: &LocalPart| match &users {
        // As deliver looks them up.
        Ok(users) => {
            Ok(users.lookup(name.as_str())?.is_some() || users.lookup(&name.fold())?.is_some())
        }
        Err(fail) => Err(Fail::temp(fail.to_string())),
    };
    let verifier = Verifier::new(&config, &router, &aliases, &is_user);
    let mut worst = Sysexit::Ok;
    for line in words.iter().flat_map(|word| verifier.word(word)) {
        say(&line.text);
        if worst == Sysexit::Ok {
            worst = line.code;
        }
    }
    Ok(worst.into())
}
