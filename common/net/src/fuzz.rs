//! What is asserted of any input at all: see docs/fuzzing.md.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a finding is a panic"
)]

use crate::proxy::{MAX_HEADER, Said, Start, read};

/// The header of a PROXY connection: it is found as soon as it is whole and not before, behind it nothing
/// counts, what is none is known after at most as many octets as one may have, and addresses that are
/// said are those of one family.
pub fn proxy(input: &[u8]) {
    let said = read(input);
    match said {
        Start::Partial => assert!(input.len() < MAX_HEADER),
        Start::Bad => {}
        Start::Header(length, said) => {
            assert!(length <= input.len() && length <= MAX_HEADER);
            if let Said::Proxied {
                source,
                destination,
            } = said
            {
                assert_eq!(source.is_ipv4(), destination.is_ipv4());
            }
        }
    }
    for end in 0..input.len().min(MAX_HEADER) {
        match (read(&input[..end]), said) {
            // What follows may make it bad, or whole.
            (Start::Partial, _) => {}
            (Start::Header(length, _), _) => {
                assert_eq!(read(&input[..end]), said);
                assert!(length <= end);
            }
            (Start::Bad, _) => assert_eq!(said, Start::Bad),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_of_proxy() {
        fuzz_targets::replay("proxy", super::proxy);
    }
}
