//! See [`crate::fuzz`].

use super::record;

/// What is read from a batch and written is read the same again.
pub(crate) fn entries(batch: &[u8]) {
    record::entries(batch, |entry| {
        let written = entry.encode().expect("it was short enough to be read");
        let mut again = 0;
        record::entries(&written, |same| {
            assert_eq!(same, entry);
            again += 1;
        });
        assert_eq!(again, 1);
    });
}
