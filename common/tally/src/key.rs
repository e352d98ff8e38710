//! What a record is about, as bytes that no other thing has.

/// Room for what most keys need, so that making one allocates once.
const USUAL: usize = 96;

/// What a record is about: what kind of thing, and which. Only its keyed hash gets into the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// A thing of this kind. Parts are apart: `("ab", "c")` is not `("a", "bc")`.
    pub fn new<const N: usize>(kind: &str, parts: [&[u8]; N]) -> Self {
        let mut bytes = Vec::with_capacity(USUAL);
        for part in std::iter::once(kind.as_bytes()).chain(parts) {
            bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let key = |kind, a: &str, b: &str| Key::new(kind, [a.as_bytes(), b.as_bytes()]);
        assert_eq!(key("k", "ab", "c"), key("k", "ab", "c"));
        assert_ne!(key("k", "ab", "c"), key("k", "a", "bc"));
        assert_ne!(key("k", "ab", ""), key("ka", "b", ""));
    }
}
