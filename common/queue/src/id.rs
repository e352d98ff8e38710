//! Queue ids: the name of a message's file, of its lines in the log, and in its Received field.
//!
//! Twenty characters of Postfix's long-id alphabet (digits and consonants, so that no id is a word
//! and log tools know it): eight of the time in milliseconds, so that names sort by age, and twelve
//! random ones (68 bits), so that a name that was not told cannot be guessed. [`QueueId::parse`]
//! takes nothing else, so an id is always a safe file name.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use base::Fail;

/// In ASCII order, so that ids sort as their times do.
const ALPHABET: &[u8; 52] = b"0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz";
const TIME: usize = 8;
const RANDOM: usize = 12;
const LENGTH: usize = TIME + RANDOM;

/// The name of one queue entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId([u8; LENGTH]);

/// Not a queue id: it has another length, or characters that no id has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadId;

impl QueueId {
    /// A new id, of now.
    pub fn generate() -> Result<Self, Fail> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|e| Fail::temp(format!("get random bytes for a queue id: {e}")))?;
        Ok(Self::from_parts(
            SystemTime::now(),
            u128::from_le_bytes(random),
        ))
    }

    fn from_parts(time: SystemTime, random: u128) -> Self {
        let millis = time
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let mut id = [0; LENGTH];
        let (head, tail) = id.split_at_mut(TIME);
        write_digits(head, millis);
        write_digits(tail, random);
        Self(id)
    }

    /// Reads an id; anything that is not exactly one is refused.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, BadId> {
        let id: [u8; LENGTH] = text.as_ref().try_into().map_err(|_| BadId)?;
        if id.iter().all(|b| ALPHABET.binary_search(b).is_ok()) {
            Ok(Self(id))
        } else {
            Err(BadId)
        }
    }

    /// As a file name and as a word of the log.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The lowest digits of `number` in base 52, most significant first.
fn write_digits(out: &mut [u8], mut number: u128) {
    for place in out.iter_mut().rev() {
        let digit = usize::try_from(number % 52).unwrap_or(0);
        *place = ALPHABET.get(digit).copied().unwrap_or(b'0');
        number /= 52;
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for QueueId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        Self::parse(text)
    }
}

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a queue id")
    }
}

impl std::error::Error for BadId {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ids_sort_by_time_and_read_back() {
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        let mut last = QueueId::from_parts(at(0), u128::MAX);
        for ms in [
            1,
            51,
            52,
            53,
            1_000_000,
            1_795_309_200_000,
            1_795_309_200_001,
            40_000_000_000_000,
        ] {
            let id = QueueId::from_parts(at(ms), 0);
            assert!(last < id, "{last} < {id}");
            assert_eq!(QueueId::parse(id.as_str()), Ok(id));
            last = QueueId::from_parts(at(ms), u128::MAX);
        }
    }

    #[test]
    fn nothing_else_is_an_id() {
        let id = QueueId::generate().unwrap().to_string();
        let (short, shorter) = (id.split_at(1).1, id.split_at(2).1);
        assert_eq!(id.len(), 20);
        for bad in [
            "",
            ".",
            "..",
            short,
            &format!("{id}0"),
            &format!("/{short}"),
            &format!("{short}."),
            &format!("{short}\n"),
            &format!("{short}A"),
            &format!("{shorter}ä"),
            &format!("{short}\0"),
        ] {
            assert_eq!(QueueId::parse(bad), Err(BadId), "{bad:?}");
        }
    }

    #[test]
    fn two_ids_of_one_millisecond_differ() {
        let ids: std::collections::HashSet<_> =
            (0..1000).map(|_| QueueId::generate().unwrap()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
