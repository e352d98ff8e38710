//! The maildrop as a session sees it: a snapshot of UIDs and sizes, and which of them are marked.
//!
//! It locks nobody out. RFC 1939 8 wants an exclusive lock so that message numbers stay true for
//! the length of a session; here they do because they are names in this snapshot, and every access
//! goes by UID. A message that somebody else removed meanwhile answers `-ERR`.

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) uid: u32,
    /// Octets with CRLF line ends.
    pub(crate) size: u64,
}

/// The snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Maildrop {
    uidvalidity: u32,
    messages: Vec<(Listed, Mark)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Kept,
    Deleted,
}

impl Maildrop {
    pub(crate) fn new(uidvalidity: u32, messages: impl IntoIterator<Item = Listed>) -> Self {
        let messages = messages.into_iter().map(|m| (m, Mark::Kept)).collect();
        Self {
            uidvalidity,
            messages,
        }
    }

    /// Number and octets of the messages that are not marked.
    pub(crate) fn stat(&self) -> (usize, u64) {
        self.kept()
            .fold((0, 0), |(count, size), (_, m)| (count + 1, size + m.size))
    }

    /// The messages that are not marked, with their numbers.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (u32, Listed)> {
        (1..)
            .zip(&self.messages)
            .filter(|(_, (_, mark))| *mark == Mark::Kept)
            .map(|(n, (m, _))| (n, *m))
    }

    /// The message of that number, unless it is marked or there is none.
    pub(crate) fn get(&self, number: u32) -> Option<Listed> {
        match self.messages.get(index(number)?)? {
            (message, Mark::Kept) => Some(*message),
            (_, Mark::Deleted) => None,
        }
    }

    /// Marks it; `false` where there is none.
    pub(crate) fn delete(&mut self, number: u32) -> bool {
        match index(number).and_then(|at| self.messages.get_mut(at)) {
            Some((_, mark @ Mark::Kept)) => {
                *mark = Mark::Deleted;
                true
            }
            Some((_, Mark::Deleted)) | None => false,
        }
    }

    /// Takes all marks off.
    pub(crate) fn reset(&mut self) {
        for (_, mark) in &mut self.messages {
            *mark = Mark::Kept;
        }
    }

    /// The UIDs of the marked messages.
    pub(crate) fn deleted(&self) -> Vec<u32> {
        self.messages
            .iter()
            .filter(|(_, mark)| *mark == Mark::Deleted)
            .map(|(m, _)| m.uid)
            .collect()
    }

    /// RFC 1939 7: never used again for another message of this maildrop, because UIDs are not.
    pub(crate) fn unique_id(&self, message: Listed) -> String {
        format!("{:08x}{:08x}", self.uidvalidity, message.uid)
    }
}

/// Message numbers begin with 1.
fn index(number: u32) -> Option<usize> {
    usize::try_from(number).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_hide_a_message_until_reset() {
        let listed = |uid, size| Listed { uid, size };
        let mut drop = Maildrop::new(0xabc, [listed(5, 120), listed(9, 200)]);
        assert_eq!(drop.stat(), (2, 320));
        assert!(drop.delete(1));
        assert!(!drop.delete(1) && !drop.delete(0) && !drop.delete(3));
        assert_eq!(
            (drop.stat(), drop.get(1), drop.get(2)),
            ((1, 200), None, Some(listed(9, 200)))
        );
        assert_eq!(drop.kept().collect::<Vec<_>>(), [(2, listed(9, 200))]);
        assert_eq!(drop.deleted(), [5]);
        assert_eq!(drop.unique_id(listed(9, 200)), "00000abc00000009");
        drop.reset();
        assert_eq!(drop.stat(), (2, 320));
    }
}
