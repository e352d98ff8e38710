//! OAUTH_CHECK: the operator's program that knows whose a bearer token is. It gets the token on its
//! standard input and, as its one argument, the name that the client goes by, where it gave one; it
//! says the name of the token's owner, and by its exit status whether the token is good.

use std::path::{Path, PathBuf};

use base::{Config, Fail, Root, privilege};

use crate::message::Service;
use crate::program;
use crate::user::{User, UserName};
use crate::users::Users;

#[derive(Debug)]
pub(crate) struct Tokens {
    program: PathBuf,
    service: Service,
    /// It is not to be root: in a private root there is one uid.
    drops: bool,
}

impl Tokens {
    /// `None` where the operator has no such program.
    pub(crate) fn open(
        root: &Root,
        config: &Config,
        service: Service,
    ) -> Result<Option<Self>, Fail> {
        let Some(program) = config.oauth_check.clone() else {
            return Ok(None);
        };
        program::check("OAUTH_CHECK", &program)?;
        Ok(Some(Self {
            program,
            service,
            drops: privilege::is_installed_root(root),
        }))
    }

    /// The user whose token it is, where that is who the client says. The program is asked for
    /// unknown users too, so that the answer takes as long.
    pub(crate) fn verify(
        &self,
        users: &Users,
        name: Option<&str>,
        token: &str,
    ) -> Result<Option<User>, Fail> {
        let wanted = match name {
            // What could be no user's name is not for a command line either.
            Some(name) if UserName::parse(name).is_none() => return Ok(None),
            Some(name) => Some((name, users.lookup(name)?)),
            None => None,
        };
        let mut command = program::command(&self.program, self.service.name());
        if self.drops {
            program::without_root(&mut command)?;
        }
        command.args(wanted.iter().map(|(name, _)| name));
        let said = program::run(&mut command, format!("{token}\n").as_bytes())?;
        match said.code {
            Some(0) => {}
            Some(1) => return Ok(None),
            code => {
                let code = code.map_or_else(|| "by a signal".into(), |code| format!("with {code}"));
                let program = Path::display(&self.program);
                return Err(Fail::temp(format!(
                    "{program} ended {code}, not with 0 or 1"
                )));
            }
        }
        let owner = owner(&said.output).map_or(Ok(None), |name| users.lookup(name))?;
        match wanted {
            None => Ok(owner),
            Some((_, wanted)) => Ok(wanted.filter(|wanted| {
                owner
                    .as_ref()
                    .is_some_and(|owner| owner.name == wanted.name)
            })),
        }
    }
}

/// One line.
fn owner(output: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(output).ok()?;
    let name = text.strip_suffix('\n').unwrap_or(text);
    (!name.is_empty() && !name.contains('\n')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_one_line() {
        let table: [(&[u8], Option<&str>); 6] = [
            (b"ann\n", Some("ann")),
            (b"ann", Some("ann")),
            (b"ann\nbob\n", None),
            (b"\n", None),
            (b"", None),
            (b"\xff\n", None),
        ];
        for (output, want) in table {
            assert_eq!(owner(output), want);
        }
    }
}
