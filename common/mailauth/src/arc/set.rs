//! The three fields that each handler adds, and whether they make a row: RFC 8617 4 and 5.2.

use crate::dkim::Header;
use crate::dkim::header::Field;
use crate::dkim::signature::{Bad, Form, Signature, Signer};
use crate::dkim::tags::{Tags, number};
use crate::results::authserv;

/// RFC 8617 4.2.1: instances of a chain.
pub const MAX_SETS: usize = 50;

/// The fields' names, in lower case.
pub(crate) const RESULTS: &str = "arc-authentication-results";
pub(crate) const MESSAGE: &str = "arc-message-signature";
pub(crate) const SEAL: &str = "arc-seal";

/// `cv=`: what a sealer thinks of the chain that came to him.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cv {
    None,
    Pass,
    Fail,
}

/// One ARC set. Its instance is its place in the row.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    /// What stands behind `i=N;` in ARC-Authentication-Results.
    pub(crate) results: Vec<u8>,
    pub(crate) message: Signature,
    pub(crate) seal: Signer,
    pub(crate) cv: Cv,
    /// The fields themselves, name to line end, in the order in which they are sealed.
    pub(crate) fields: [Vec<u8>; 3],
}

/// All sets from the first on; none is a message without ARC. 5.2 steps 1 to 3.
pub(crate) fn sets(header: &Header) -> Result<Vec<Set>, &'static str> {
    let counts = [RESULTS, MESSAGE, SEAL].map(|name| header.count(name));
    let [results, messages, seals] = counts;
    if counts.iter().any(|count| *count > MAX_SETS) {
        return Err("more than 50 ARC sets");
    }
    if results != seals || messages != seals {
        return Err("ARC set not whole");
    }
    let mut results = row(header, RESULTS, results_instance)?;
    let mut messages = row(header, MESSAGE, tag_instance)?;
    let mut seals = row(header, SEAL, tag_instance)?;
    let mut sets = Vec::with_capacity(counts.len());
    while let (Some(results), Some(message), Some(seal)) =
        (results.pop(), messages.pop(), seals.pop())
    {
        sets.push(set(results, message, seal)?);
    }
    sets.reverse();
    // A chain that somebody found broken stays so (step 2).
    if sets.last().is_some_and(|set| set.cv == Cv::Fail) {
        return Err("the last sealer found the chain broken");
    }
    for (n, set) in sets.iter().enumerate() {
        let wanted = if n == 0 { Cv::None } else { Cv::Pass };
        if set.cv != wanted {
            return Err("cv= does not fit its instance");
        }
    }
    Ok(sets)
}

/// The fields of a name by their instance, which must be 1, 2, 3 ... each once.
fn row<'h>(
    header: &'h Header,
    name: &str,
    instance: fn(&[u8]) -> Option<u64>,
) -> Result<Vec<Field<'h>>, &'static str> {
    let mut row = Vec::new();
    for field in header.named(name) {
        let instance = instance(field.value).ok_or("ARC field without an instance")?;
        row.push((instance, field));
    }
    row.sort_by_key(|(instance, _)| *instance);
    match (1..).zip(&row).all(|(n, (instance, _))| n == *instance) {
        true => Ok(row.into_iter().map(|(_, field)| field).collect()),
        false => Err("ARC instances are no row"),
    }
}

fn set(results: Field<'_>, message: Field<'_>, seal: Field<'_>) -> Result<Set, &'static str> {
    let message_tags =
        Tags::parse(message.value).map_err(|_| "ARC-Message-Signature not readable")?;
    let signature = Signature::read(&message_tags, Form::Arc).map_err(Bad::why)?;
    if signature.signs(SEAL) {
        return Err("ARC-Message-Signature signs a seal");
    }
    let seal_tags = Tags::parse(seal.value).map_err(|_| "ARC-Seal not readable")?;
    if seal_tags.value("h").is_some() {
        return Err("ARC-Seal with h=");
    }
    Ok(Set {
        results: behind_instance(results.value).to_vec(),
        message: signature,
        seal: Signer::read(&seal_tags).map_err(Bad::why)?,
        cv: match seal_tags.value("cv") {
            Some(cv) if cv.eq_ignore_ascii_case(b"none") => Cv::None,
            Some(cv) if cv.eq_ignore_ascii_case(b"pass") => Cv::Pass,
            Some(cv) if cv.eq_ignore_ascii_case(b"fail") => Cv::Fail,
            _ => return Err("cv= missing"),
        },
        fields: [results, message, seal].map(|field| field.all.to_vec()),
    })
}

/// `instance = [CFWS] %s"i" [CFWS] "=" [CFWS] position`
fn tag_instance(value: &[u8]) -> Option<u64> {
    number(Tags::parse(value).ok()?.value("i")?, 2)
}

/// `arc-info = instance [CFWS] ";" authres-payload`
fn results_instance(value: &[u8]) -> Option<u64> {
    let head = authserv::head(value)?;
    let (name, position) = head.text.split_once('=')?;
    match (name.trim(), head.semicolon) {
        ("i", true) => number(position.trim().as_bytes(), 2),
        _ => None,
    }
}

fn behind_instance(value: &[u8]) -> &[u8] {
    let length = authserv::head(value).map_or(0, |head| head.length);
    value.get(length..).unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BH: &str = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=";

    fn aar(i: &str) -> String {
        format!("ARC-Authentication-Results: i={i}; mx.test; none\r\n")
    }

    fn ams(i: &str, more: &str) -> String {
        format!(
            "ARC-Message-Signature: i={i}; a=rsa-sha256; d=d.test; s=s; h=from{more}; bh={BH}; b=YWI=\r\n"
        )
    }

    fn seal(i: &str, cv: &str) -> String {
        format!("ARC-Seal: i={i}; a=rsa-sha256; d=d.test; s=s; cv={cv}; b=YWI=\r\n")
    }

    fn whole(n: usize) -> String {
        let cv = |i| if i == 1 { "none" } else { "pass" };
        let set = |i: usize| {
            let text = i.to_string();
            [seal(&text, cv(i)), ams(&text, ""), aar(&text)].concat()
        };
        (1..=n).rev().map(set).collect()
    }

    fn say(header: &str) -> String {
        match sets(&Header::new(header.as_bytes())) {
            Ok(sets) => sets.len().to_string(),
            Err(why) => why.into(),
        }
    }

    #[test]
    fn rows_of_sets() {
        let one = |a: &str, m: &str, s: &str| [seal(s, "none"), ams(m, ""), aar(a)].concat();
        let table = [
            (String::new(), "0"),
            (whole(1), "1"),
            (whole(3), "3"),
            (whole(50), "50"),
            (whole(51), "more than 50 ARC sets"),
            (seal("1", "none") + &ams("1", ""), "ARC set not whole"),
            (seal("1", "none") + &aar("1"), "ARC set not whole"),
            (ams("1", "") + &aar("1"), "ARC set not whole"),
            (whole(1) + &seal("1", "none"), "ARC set not whole"),
            (whole(1) + &whole(1), "ARC instances are no row"),
            (one("2", "2", "2"), "ARC instances are no row"),
            (one("0", "0", "0"), "ARC instances are no row"),
            (one("1", "2", "1"), "ARC instances are no row"),
            (one("x", "1", "1"), "ARC field without an instance"),
            (one("1", "x", "1"), "ARC field without an instance"),
            (one("1", "1", "100"), "ARC field without an instance"),
            (
                seal("1", "pass") + &ams("1", "") + &aar("1"),
                "cv= does not fit its instance",
            ),
            (seal("1", "x") + &ams("1", "") + &aar("1"), "cv= missing"),
            (
                seal("1", "fail") + &ams("1", "") + &aar("1"),
                "the last sealer found the chain broken",
            ),
            (
                seal("2", "none") + &ams("2", "") + &aar("2") + &whole(1),
                "cv= does not fit its instance",
            ),
            (
                seal("1", "none; h=from") + &ams("1", "") + &aar("1"),
                "ARC-Seal with h=",
            ),
            (
                seal("1", "none") + &ams("1", ":ARC-Seal") + &aar("1"),
                "ARC-Message-Signature signs a seal",
            ),
        ];
        for (header, wanted) in table {
            assert_eq!(say(&header), wanted, "{header}");
        }
    }

    #[test]
    fn instances_of_results() {
        let table: &[(&str, Option<u64>, &str)] = &[
            (" i=1; a.b; none\r\n", Some(1), "a.b; none"),
            (" (x) i (y) = 12 (;) ; a.b; none", Some(12), "a.b; none"),
            (" i=1 a.b; none", None, "none"),
            (" a.b; i=1; none", None, "i=1; none"),
            (" i=1", None, ""),
            (" j=1; x", None, "x"),
        ];
        for (value, instance, behind) in table {
            assert_eq!(results_instance(value.as_bytes()), *instance, "{value}");
            assert_eq!(
                behind_instance(value.as_bytes()),
                behind.as_bytes(),
                "{value}"
            );
        }
    }
}
