//! An entry in a file of this program's own.
//!
//! smtpd makes the files, as another user, and only a file's owner may set its time. So when the
//! time of the next attempt is to be set, the owner of the lane puts a copy in the file's place;
//! from then on nobody who had the old file open can touch the message.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use base::sys::{self, LockKind};
use base::{Doing, Fail};

use crate::commit::DURABLE;
use crate::crash;
use crate::entry::Entry;
use crate::logged::LOGGED;
use crate::queue::Place;

impl Entry {
    /// Puts a copy that belongs to this program in the file's place, durable before it replaces it.
    pub(crate) fn adopt(&mut self) -> Result<(), Fail> {
        let doing = || format!("copy queue file {}", self.id);
        let incoming = self.queue.dir(Place::Incoming)?;
        let lane = self.queue.dir(self.place)?;
        let name = format!("{}.copy", self.id);
        incoming.unlink(name.as_str()).doing(doing)?;
        let (file, named) = match incoming.unnamed().doing(doing)? {
            Some(file) => (file, false),
            None => (incoming.named(&name).doing(doing)?, true),
        };
        if !sys::try_ofd_lock(&file, LockKind::Exclusive).doing(doing)? {
            return Err(Fail::temp(doing()));
        }
        copy(&self.file, &file, self.contents.end).doing(doing)?;
        // What the commit log has is still to be noted there when it is finished.
        let mark = if self.marked { DURABLE } else { LOGGED };
        nix::sys::stat::fchmod(&file, mark).doing(doing)?;
        file.sync_all().doing(doing)?;
        if !named {
            incoming.link(&file, &name).doing(doing)?;
        }
        crash::point("copy linked");
        lane.replace(incoming, &name, &self.id).doing(doing)?;
        self.file = file;
        self.contents.torn = false;
        self.contents.room = 0;
        self.durable = false;
        lane.sync()?;
        self.durable = true;
        Ok(())
    }
}

/// The first `length` bytes of a file.
fn copy(from: &File, to: &File, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut at = 0;
    while at < length {
        let wanted = usize::try_from(length - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        from.read_exact_at(part, at)?;
        to.write_all_at(part, at)?;
        at += wanted as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Claim;
    use crate::entry::tests::{delivered, is_delivered};
    use crate::queue::Lane;
    use crate::queue::tests::{claimed, put, scratch};
    use nix::fcntl::OFlag;
    use std::io::Read;

    #[test]
    fn an_adopted_entry_is_the_same_in_a_file_of_our_own() {
        let (_dir, queue) = scratch();
        let id = put(&queue, Lane::Local, &vec![b'x'; 200_000]);
        let mut entry = claimed(&queue, Lane::Local, &id);
        entry.record(&[delivered(0)]).unwrap();
        let before = nix::sys::stat::fstat(&entry.file).unwrap().st_ino;
        let waiting = queue
            .dir(Place::Local)
            .unwrap()
            .open_entry(&id, OFlag::O_RDWR)
            .unwrap();
        entry.adopt().unwrap();
        assert_ne!(nix::sys::stat::fstat(&entry.file).unwrap().st_ino, before);
        assert!(
            !queue
                .dir(Place::Local)
                .unwrap()
                .still_names(&id, &waiting)
                .unwrap()
        );
        assert!(matches!(queue.claim(Lane::Local, &id), Ok(Claim::Busy)));
        entry.record_synced(&[delivered(1)]).unwrap();
        drop(entry);
        let entry = claimed(&queue, Lane::Local, &id);
        assert!(is_delivered(&entry, 0) && is_delivered(&entry, 1));
        let mut content = Vec::new();
        entry.content().read_to_end(&mut content).unwrap();
        assert!(content == vec![b'x'; 200_000]);
        assert_eq!(
            std::fs::read_dir(queue.path().join("incoming"))
                .unwrap()
                .count(),
            0
        );
    }
}
