//! A message of the user's on its way to sendmail, which queues it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base::date::{self, Date};
use base::{Doing, Domain, Fail, Sysexit};
use mime::address::Mailbox;
use mime::compose::{Attachment, Draft};
use mime::words::{self, Target};

use crate::settings::Settings;

/// What the user writes. The lists are as he typed them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Letter {
    pub(crate) to: String,
    pub(crate) cc: String,
    pub(crate) bcc: String,
    pub(crate) subject: String,
    /// Lines that end in LF.
    pub(crate) body: String,
    /// The sender, where it is not who runs this.
    pub(crate) from: Option<String>,
    /// The Message-ID that this answers, and those before it.
    pub(crate) in_reply_to: Option<String>,
    pub(crate) references: Option<String>,
    pub(crate) attachments: Vec<PathBuf>,
}

/// A message, and to whom it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) message: Vec<u8>,
    pub(crate) recipients: Vec<String>,
}

impl Letter {
    /// All who get it.
    fn lists(&self, settings: &Settings) -> [Vec<Mailbox>; 3] {
        [&self.to, &self.cc, &self.bcc].map(|list| settings.expand(list))
    }

    /// Whether anybody gets it.
    pub(crate) fn has_recipients(&self, settings: &Settings) -> bool {
        self.lists(settings).iter().any(|list| !list.is_empty())
    }

    /// The message with its header. `here` is put behind names without a domain in the header.
    pub(crate) fn ready(
        &self,
        settings: &Settings,
        here: Option<&Domain>,
        now: Date,
    ) -> Result<Ready, Fail> {
        let lists = self.lists(settings);
        let mut recipients: Vec<String> = Vec::new();
        for mailbox in lists.iter().flatten() {
            let address = spelling(mailbox)?;
            if !recipients.contains(&address) {
                recipients.push(address);
            }
        }
        if recipients.is_empty() {
            return Err(Fail::usage("no recipients"));
        }
        let mut draft = Draft::new(Target::Utf8);
        draft.date(now);
        if let Some(from) = &self.from {
            draft.addresses("From", &shown(&settings.expand(from), here)?);
        }
        let [to, cc, _] = &lists;
        draft.addresses("To", &shown(to, here)?);
        draft.addresses("Cc", &shown(cc, here)?);
        if !self.subject.is_empty() {
            draft.field("Subject", &self.subject);
        }
        for (name, ids) in [
            ("In-Reply-To", &self.in_reply_to),
            ("References", &self.references),
        ] {
            if let Some(ids) = ids {
                draft.field(name, ids);
            }
        }
        draft.text(&self.body);
        for path in &self.attachments {
            draft.attach(attachment(path)?);
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|e| Fail::temp(format!("get random bytes: {e}")))?;
        Ok(Ready {
            message: draft.finish(&random),
            recipients,
        })
    }
}

fn spelling(mailbox: &Mailbox) -> Result<String, Fail> {
    String::from_utf8(mailbox.address())
        .ok()
        // `a@@b` is somebody's slip, not a local part with an `@` in it.
        .filter(|_| !mailbox.local.is_empty() && !mailbox.local.contains(&b'@'))
        .filter(|address| !address.starts_with('-'))
        .ok_or_else(|| {
            let text = String::from_utf8_lossy(&mailbox.address()).into_owned();
            Fail::data(format!(
                "{}: not a mail address",
                crate::text::clean_line(&text)
            ))
        })
}

/// For the header: names decoded, so that they are encoded once; domains complete.
fn shown(list: &[Mailbox], here: Option<&Domain>) -> Result<Vec<(Option<String>, String)>, Fail> {
    list.iter()
        .map(|mailbox| {
            let address = spelling(mailbox)?;
            let address = match here.filter(|_| mailbox.host.is_empty()) {
                Some(here) => format!("{address}@{here}"),
                None => address,
            };
            Ok((mailbox.name.as_deref().map(words::decode), address))
        })
        .collect()
}

fn attachment(path: &Path) -> Result<Attachment, Fail> {
    let bytes = std::fs::read(path)
        .doing(|| format!("attach {}", path.display()))
        .map_err(|fail| fail.with_code(Sysexit::NoInput))?;
    let file_name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let extension = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    let media_type = match extension.as_str() {
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "html" | "htm" => "text/html",
        "csv" => "text/csv",
        "json" => "application/json",
        _ => "application/octet-stream",
    };
    Ok(Attachment {
        file_name,
        media_type: media_type.into(),
        bytes,
    })
}

/// Where sendmail is: `set sendmail=`, beside this program, /usr/sbin.
fn sendmail(settings: &Settings) -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|me| me.parent().map(|dir| dir.join("sendmail")))
        .filter(|path| path.is_file());
    settings
        .value("sendmail")
        .map(PathBuf::from)
        .or(beside)
        .unwrap_or_else(|| "/usr/sbin/sendmail".into())
}

/// Hands the message to sendmail and waits: it is sent when this is `Ok`. Otherwise the exit code
/// is sendmail's.
pub(crate) fn send(ready: &Ready, settings: &Settings, from: Option<&str>) -> Result<(), Fail> {
    let program = sendmail(settings);
    let doing = || format!("run {}", program.display());
    let mut command = Command::new(&program);
    command.arg("-oi");
    if let Some(sender) = from.and_then(|from| settings.expand(from).into_iter().next()) {
        command.arg("-f").arg(spelling(&sender)?);
    }
    if settings.is_set("verbose") {
        command.arg("-v");
    }
    command
        .arg("--")
        .args(&ready.recipients)
        .stdin(Stdio::piped());
    let mut child = command
        .spawn()
        .doing(doing)
        .map_err(|fail| fail.with_code(Sysexit::Unavailable))?;
    let written = match child.stdin.take() {
        Some(mut input) => input.write_all(&ready.message),
        None => Ok(()),
    };
    let status = child.wait().doing(doing)?;
    if !status.success() {
        let code = status
            .code()
            .and_then(Sysexit::from_code)
            .unwrap_or(Sysexit::TempFail);
        return Err(Fail::new(code, "the message was not sent"));
    }
    // It said yes to less than the message: then it did not get all of it.
    written.doing(doing)
}

/// Now, in the user's zone.
pub(crate) fn now() -> Date {
    Date::local(date::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(letter: &Letter) -> Result<(String, Vec<String>), Fail> {
        let mut settings = Settings::default();
        settings.alias("team", &["ann".into(), "Bob <bob@x.org>".into()]);
        let here = Domain::parse("example.org").unwrap();
        let ready = letter.ready(&settings, Some(&here), Date::utc(0))?;
        Ok((String::from_utf8(ready.message).unwrap(), ready.recipients))
    }

    #[test]
    fn header_and_envelope() {
        let letter = Letter {
            to: "team".into(),
            cc: "山田 <y@x.org>".into(),
            bcc: "secret@x.org, ann".into(),
            subject: "件名".into(),
            body: "Hello\n".into(),
            in_reply_to: Some("<1@x>".into()),
            ..Letter::default()
        };
        let (message, recipients) = ready(&letter).unwrap();
        assert_eq!(recipients, ["ann", "bob@x.org", "y@x.org", "secret@x.org"]);
        for line in [
            "Date: Thu, 1 Jan 1970 00:00:00 +0000\n",
            "To: ann@example.org, Bob <bob@x.org>\n",
            "Cc: =?UTF-8?B?5bGx55Sw?= <y@x.org>\n",
            "Subject: =?UTF-8?B?5Lu25ZCN?=\n",
            "In-Reply-To: <1@x>\n",
            "MIME-Version: 1.0\n",
            "Content-Transfer-Encoding: 7bit\n\nHello\n",
        ] {
            assert!(message.contains(line), "{line}\n{message}");
        }
        assert!(!message.contains("secret"));
    }

    #[test]
    fn nobody_and_nonsense() {
        let to = |to: &str| Letter {
            to: to.into(),
            ..Letter::default()
        };
        assert_eq!(ready(&to("")).unwrap_err().code(), Sysexit::Usage);
        assert_eq!(ready(&to("@x")).unwrap_err().code(), Sysexit::DataErr);
        assert_eq!(ready(&to("a@@x")).unwrap_err().code(), Sysexit::DataErr);
        assert_eq!(ready(&to("-oQ/tmp")).unwrap_err().code(), Sysexit::DataErr);
    }

    #[test]
    fn a_file_goes_along() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pdf");
        std::fs::write(&path, b"ABC").unwrap();
        let mut letter = Letter {
            to: "ann".into(),
            ..Letter::default()
        };
        letter.attachments.push(path);
        let (message, _) = ready(&letter).unwrap();
        assert!(message.contains("multipart/mixed") && message.contains("QUJD"));
        letter.attachments.push("/nowhere".into());
        assert_eq!(ready(&letter).unwrap_err().code(), Sysexit::NoInput);
    }
}
