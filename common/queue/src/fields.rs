//! The inside of a record: fields of a tag, a length and bytes, so that a later version can add
//! fields which this one skips. Integers are little-endian; times are microseconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Builds a payload.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        // A field longer than 4 GiB cannot be: frame::append refuses payloads far below that.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.push(tag);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn number(&mut self, tag: u8, number: u64) {
        self.bytes(tag, &number.to_le_bytes());
    }

    /// What lies before 1970 or after the year 500,000 is brought to that bound.
    pub(crate) fn time(&mut self, tag: u8, time: SystemTime) {
        let micros = time
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_micros();
        self.number(tag, u64::try_from(micros).unwrap_or(u64::MAX).min(1 << 53));
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// A payload taken apart. Where a tag occurs twice the first one counts, except in
/// [`Fields::all`].
pub(crate) struct Fields<'a>(Vec<(u8, &'a [u8])>);

impl<'a> Fields<'a> {
    /// `None` when a length does not fit.
    pub(crate) fn read(mut rest: &'a [u8]) -> Option<Self> {
        let mut fields = Vec::new();
        while let Some((tag, after)) = rest.split_first() {
            let (length, after) = after.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (bytes, after) = after.split_at_checked(length)?;
            fields.push((*tag, bytes));
            rest = after;
        }
        Some(Self(fields))
    }

    pub(crate) fn bytes(&self, tag: u8) -> Option<&'a [u8]> {
        self.0
            .iter()
            .find(|(t, _)| *t == tag)
            .map(|(_, bytes)| *bytes)
    }

    pub(crate) fn all(&self, tag: u8) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |(t, _)| *t == tag)
            .map(|(_, bytes)| *bytes)
    }

    pub(crate) fn number(&self, tag: u8) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(tag)?.try_into().ok()?))
    }

    /// Text that is not UTF-8 is shown with replacement characters: it is for people only.
    pub(crate) fn text(&self, tag: u8) -> Option<String> {
        self.bytes(tag)
            .map(|b| String::from_utf8_lossy(b).into_owned())
    }

    pub(crate) fn time(&self, tag: u8) -> Option<SystemTime> {
        self.number(tag)
            .map(|micros| UNIX_EPOCH + Duration::from_micros(micros.min(1 << 53)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_not_trusted() {
        for bad in [
            &[1][..],
            &[1, 0, 0],
            &[1, 1, 0, 0, 0],
            &[1, 255, 255, 255, 255, 0],
        ] {
            assert!(Fields::read(bad).is_none(), "{bad:?}");
        }
        assert!(Fields::read(&[]).is_some());
    }

    #[test]
    fn unknown_fields_are_skipped_and_times_are_bounded() {
        let mut out = Writer::default();
        out.bytes(200, b"from the future");
        out.number(1, u64::MAX);
        out.time(2, UNIX_EPOCH - Duration::from_secs(1));
        let payload = out.finish();
        let fields = Fields::read(&payload).unwrap();
        assert!(fields.time(1).unwrap() > SystemTime::now());
        assert_eq!(fields.time(2), Some(UNIX_EPOCH));
        assert_eq!(fields.number(3), None);
    }
}
