//! A session behind a socket.
use std::os::unix::net::UnixStream;
use base::Fail;
use crate::session::Session;

/// Serves until the other end closes.
pub fn serve(_socket: UnixStream, _session: Session) -> Result<(), Fail> { Ok(()) }
