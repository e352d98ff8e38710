//! `_mta-sts.DOMAIN IN TXT "v=STSv1; id=20160831085700Z;"`: RFC 8461 3.1.

/// The id of the one record that there must be. `None`: the domain has no policy.
pub(super) fn record(texts: &[Vec<u8>]) -> Option<String> {
    let mut records = texts.iter().filter(|text| is_ours(text));
    match (records.next(), records.next()) {
        (Some(record), None) => id(record),
        _ => None,
    }
}

/// Of this version.
fn is_ours(text: &[u8]) -> bool {
    text.strip_prefix(b"v=STSv1")
        .is_some_and(|rest| rest.trim_ascii_start().starts_with(b";"))
}

/// sts-id = %s"id" *WSP "=" *WSP 1*32(ALPHA / DIGIT)
fn id(record: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(record).ok()?;
    let mut found = None;
    for field in text.split(';').skip(1).map(str::trim) {
        if field.is_empty() {
            continue; // behind the last one
        }
        let (name, value) = field.split_once('=')?;
        let (name, value) = (name.trim_end(), value.trim_start());
        if name.is_empty() || value.is_empty() {
            return None;
        }
        if name == "id" && found.is_none() {
            let is_id = value.len() <= 32 && value.bytes().all(|b| b.is_ascii_alphanumeric());
            found = Some(is_id.then(|| value.to_owned())?);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_with_an_id() {
        let long = format!("v=STSv1; id={}", "a".repeat(33));
        let table: &[(&[&str], Option<&str>)] = &[
            (&["v=STSv1; id=20160831085700Z;"], Some("20160831085700Z")),
            (&["v=STSv1;id=1"], Some("1")),
            (&["v=STSv1 ; id = 1 ; new=thing ;"], Some("1")),
            (&["v=STSv1; id=1; id=2"], Some("1")),
            (&["v=spf1 -all", "v=STSv1; id=1"], Some("1")),
            (&["v=STSv1; id=1", "v=STSv1; id=1"], None),
            (&["v=STSv2; id=1"], None),
            (&["v=STSv1"], None),
            (&["v=STSv1;"], None),
            (&["v=STSv1; id="], None),
            (&["v=STSv1; id=a-b"], None),
            (&["v=STSv1; id=1; x"], None),
            (&[" v=STSv1; id=1"], None),
            (&["id=1; v=STSv1"], None),
            (&[&long], None),
            (&[], None),
        ];
        for (texts, want) in table {
            let texts: Vec<_> = texts.iter().map(|t| t.as_bytes().to_vec()).collect();
            assert_eq!(record(&texts).as_deref(), *want, "{texts:?}");
        }
        assert_eq!(record(&[b"v=STSv1; id=\xff".to_vec()]), None);
    }
}
