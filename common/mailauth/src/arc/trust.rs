//! Whose seals are believed, and what they are believed of: RFC 8617 7.2.

use base::Domain;

use crate::arc::Sealer;
use crate::results::dmarc_passed;

/// The sealer, of those whom the operator trusts, who saw DMARC pass for this author. To be asked
/// only where the chain passes.
///
/// All who sealed after him must be trusted too: any of them could have changed the message and
/// whatever was said about it. `trusted`: domains, each with those below it.
pub fn vouches<'a>(
    sealers: &'a [Sealer],
    trusted: &[Domain],
    author: &Domain,
) -> Option<&'a Sealer> {
    let is_trusted = |sealer: &&Sealer| trusted.iter().any(|one| sealer.domain.is_within(one));
    let mut latest = sealers.iter().rev().take_while(is_trusted);
    latest.find(|sealer| dmarc_passed(&sealer.results, author))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_behind_the_witness_are_trusted() {
        let table = [
            ("list.example+", Some(1)),
            ("list.example-", None),
            ("stranger.example+", None),
            ("stranger.example+ list.example-", None),
            ("stranger.example- list.example+", Some(2)),
            ("list.example+ stranger.example-", None),
            ("list.example+ mx.list.example-", Some(1)),
            ("list.example+ home.example-", Some(1)),
            ("xlist.example+", None),
            ("", None),
        ];
        let domains = |text: &str| text.parse::<Domain>().unwrap();
        let trusted = ["list.example", "home.example"].map(domains);
        let author = domains("b.example");
        for (chain, wanted) in table {
            let words = chain.split_ascii_whitespace();
            let sealers: Vec<Sealer> = (1..)
                .zip(words)
                .map(|(instance, word)| Sealer {
                    instance,
                    domain: domains(word.trim_end_matches(['+', '-'])),
                    selector: domains("s"),
                    results: match word.ends_with('+') {
                        true => b"mx; dmarc=pass header.from=b.example".to_vec(),
                        false => b"mx; dmarc=fail header.from=b.example".to_vec(),
                    },
                })
                .collect();
            let found = vouches(&sealers, &trusted, &author).map(|sealer| sealer.instance);
            assert_eq!(found, wanted, "{chain}");
        }
    }
}
