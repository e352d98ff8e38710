//! A byte queue that gives its memory back when it is empty, so that an idle session costs none.

/// Bytes appended at the end and consumed at the front.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

/// An empty buffer keeps at most this much memory.
const KEEP: usize = 512;

impl Buffer {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.start)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        // Move the rest to the front before growing, when that is cheap for what it gains.
        if self.start > 0 && self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes `n` bytes off the front; more than there are takes all.
    pub(crate) fn consume(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.bytes.len());
        if self.is_empty() {
            self.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.start = 0;
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_bytes_in_order_and_memory_back() {
        let mut b = Buffer::default();
        b.push(b"hello ");
        b.push(&[b'x'; 5000]);
        b.consume(6);
        assert_eq!(b.len(), 5000);
        b.consume(4999);
        b.push(b"yz");
        assert_eq!(b.bytes(), b"xyz");
        b.consume(99);
        assert!(b.is_empty());
        assert!(b.bytes.capacity() <= KEEP);
    }
}
