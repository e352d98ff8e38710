//! mail - read and write mail. See mail(1).

mod args;
mod command;
mod compose;
mod html;
mod list;
mod mailbox;
mod outgoing;
mod places;
mod reader;
mod render;
mod save;
mod screen;
mod settings;
mod startup;
mod terminal;
mod text;

use std::process::ExitCode;

use base::log::init_command;
use base::{Config, Doing, Domain, Fail, Root, Sysexit};
use nix::unistd::{Uid, User};

use args::{Common, Mode, Read, Send, USAGE};
use compose::{Composer, Outcome};
use outgoing::Letter;
use places::{Place, Places};
use reader::Reader;
use settings::Settings;
use terminal::Terminal;

/// A message from a pipe is at most this large; the queue's own limit is sendmail's to enforce.
const MAX_BODY: u64 = 256 << 20;

fn main() -> ExitCode {
    init_command("mail");
    let words: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|w| mime::charset::guess(std::os::unix::ffi::OsStrExt::as_bytes(w.as_os_str())))
        .collect();
    run(&words).unwrap_or_else(|fail| match fail.kind() {
        // `mail -H | head`: who reads has seen enough.
        Some(std::io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        _ => fail.report(),
    })
}

fn run(words: &[String]) -> Result<ExitCode, Fail> {
    match args::parse(words).map_err(Fail::usage)? {
        Mode::Help => {
            base::say(USAGE);
            Ok(ExitCode::SUCCESS)
        }
        Mode::Version => {
            base::say(concat!("mail (yubin) ", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::SUCCESS)
        }
        Mode::Send(send) => self::send(send),
        Mode::Read(read) => self::read(&read),
    }
}

/// What the start-up files and `-S` set.
fn settings(root: &Root, common: &Common, sending: bool, terminal: bool) -> Result<Settings, Fail> {
    let mut settings = Settings::default();
    let system = (!common.no_system_file).then(|| root.path("/etc/mail.rc"));
    let own = settings.path(&settings.value_or("MAILRC", "~/.mailrc"));
    for path in system.into_iter().chain([own]) {
        for problem in startup::read(&mut settings, &path, sending, terminal)? {
            log::warn!("{}", text::clean_line(&problem));
        }
    }
    for word in &common.settings {
        settings.set(word);
    }
    if common.ignore {
        settings.set("ignore");
    }
    if common.verbose {
        settings.set("verbose");
    }
    Ok(settings)
}

/// The domain of this host's users, where the configuration can be read: only for the header.
fn here(root: &Root) -> Option<Domain> {
    Config::load(root, None)
        .ok()
        .map(|config| config.from_address)
}

fn send(send: Send) -> Result<ExitCode, Fail> {
    let root = Root::from_env();
    let mut terminal = Terminal::open(true)?;
    let settings = settings(&root, &send.common, true, terminal.interactive)?;
    let mut letter = Letter {
        to: send
            .to
            .iter()
            .map(|a| compose::addresses(a))
            .collect::<Vec<_>>()
            .join(", "),
        cc: send.cc.join(", "),
        bcc: send.bcc.join(", "),
        subject: send.subject.unwrap_or_default(),
        from: send.from.or_else(|| settings.value("from")),
        attachments: send
            .attachments
            .iter()
            .map(|name| settings.path(name))
            .collect(),
        ..Letter::default()
    };
    if terminal.interactive {
        let mut quote = |_: &str, _: Option<&str>| -> Result<String, Fail> {
            Err(Fail::usage("no mailbox is open"))
        };
        let mut composer = Composer {
            terminal: &mut terminal,
            settings: &settings,
            quote: &mut quote,
        };
        match composer.write(letter)? {
            Outcome::Send(written) => letter = *written,
            Outcome::Abort { keep, body } => {
                if keep && !body.is_empty() {
                    let path = compose::bury(&settings, &body)?;
                    eprintln!("mail: the text is in {}", path.display());
                }
                return Ok(ExitCode::FAILURE);
            }
        }
    } else {
        let body = terminal.rest(MAX_BODY)?;
        letter.body = mime::charset::guess(&body).replace("\r\n", "\n");
    }
    if send.not_empty && letter.body.trim().is_empty() && letter.attachments.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let ready = letter.ready(&settings, here(&root).as_ref(), outgoing::now())?;
    let sent = outgoing::send(&ready, &settings, letter.from.as_deref());
    if sent.is_err() && settings.is_set("save") && terminal.interactive && !letter.body.is_empty() {
        let path = compose::bury(&settings, &letter.body)?;
        eprintln!("mail: the text is in {}", path.display());
    }
    sent.map(|()| ExitCode::SUCCESS)
}

fn read(read: &Read) -> Result<ExitCode, Fail> {
    let root = Root::from_env();
    let terminal = Terminal::open(true)?;
    let settings = settings(&root, &read.common, false, terminal.interactive)?;
    let user = match &read.user {
        Some(user) => user.clone(),
        None => user_name(&root)?,
    };
    let places = Places {
        config: Config::load(&root, None)?,
        root,
        user,
    };
    let place = match &read.file {
        None => Place::Inbox(places.user.clone()),
        Some(name) => places.parse(name.as_deref().unwrap_or("&"), &settings)?,
    };
    let mailbox = places
        .open(&place)?
        .filter(|mailbox| !mailbox.messages.is_empty());
    let Some(mailbox) = mailbox else {
        if !read.exists {
            base::say(&match &place {
                Place::Inbox(user) => format!("No mail for {user}"),
                Place::Folder(folder) => format!("+{folder}: no messages"),
                Place::File(path) => format!("{}: no messages", path.display()),
            });
        }
        return Ok(ExitCode::FAILURE);
    };
    if read.exists {
        return Ok(ExitCode::SUCCESS);
    }
    let here = Some(places.config.from_address.clone());
    let list = !read.no_list && settings.is_set("header");
    let mut reader = Reader::new(terminal, settings, places, here, place, mailbox);
    if read.list_only {
        reader.list()?;
        return Ok(ExitCode::SUCCESS);
    }
    reader.run(list).map(ExitCode::from)
}

/// Whose mail is read: who runs this. In a private root one uid is many users: there LOGNAME or
/// USER says which.
fn user_name(root: &Root) -> Result<String, Fail> {
    let told = |name| std::env::var(name).ok().filter(|n: &String| !n.is_empty());
    if root.is_private()
        && let Some(name) = told("LOGNAME").or_else(|| told("USER"))
    {
        return Ok(name);
    }
    let uid = Uid::current();
    let user = User::from_uid(uid).doing(|| format!("look up uid {uid}"))?;
    user.map(|user| user.name).ok_or_else(|| {
        Fail::new(
            Sysexit::NoUser,
            format!("uid {uid} has no user name: say -u"),
        )
    })
}
