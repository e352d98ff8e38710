//! OAUTHBEARER (RFC 7628) and its forerunner XOAUTH2: what the client claims, and how it is told
//! that its token is no good. What a token is worth, a program of the operator's says.

use super::scram::saslname;

/// `key=value` and the end of the message are divided by this.
const SEPARATOR: u8 = 1;

/// What a client says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    /// Who it wants to be; the token says who it is.
    pub(super) name: Option<String>,
    pub(super) token: String,
}

/// RFC 7628 3.1: `gs2-header kvsep *kvpair kvsep`
pub(super) fn bearer(message: &[u8]) -> Result<Bearer, &'static str> {
    let message = std::str::from_utf8(message).map_err(|_| "not UTF-8")?;
    let form = "OAUTHBEARER is n,a=NAME, and key=value pairs";
    let (header, pairs) = message.split_once('\u{1}').ok_or(form)?;
    let (flag, rest) = header.split_once(',').ok_or(form)?;
    let authzid = rest.strip_suffix(',').ok_or(form)?;
    if !matches!(flag, "n" | "y") {
        return Err("OAUTHBEARER is not bound to a channel");
    }
    let name = match authzid.strip_prefix("a=") {
        Some(name) => Some(saslname(name).map_err(|_| "no user name")?),
        None if authzid.is_empty() => None,
        None => return Err(form),
    };
    let token = token(pairs)?;
    Ok(Bearer { name, token })
}

/// `user=NAME`, `auth=Bearer TOKEN`, each with its separator, and one more.
pub(super) fn xoauth2(message: &[u8]) -> Result<Bearer, &'static str> {
    let message = std::str::from_utf8(message).map_err(|_| "not UTF-8")?;
    let form = "XOAUTH2 is user=NAME and auth=Bearer TOKEN";
    let (user, pairs) = message.split_once('\u{1}').ok_or(form)?;
    let name = user.strip_prefix("user=").ok_or(form)?;
    let name = super::prep::prepare(name).filter(|name| !name.is_empty());
    let name = Some(name.ok_or("no user name")?.into_owned());
    let token = token(pairs)?;
    Ok(Bearer { name, token })
}

/// The one `auth` among the pairs; others, as `host` and `port`, are passed over.
fn token(pairs: &str) -> Result<String, &'static str> {
    let mut pairs = pairs
        .strip_suffix("\u{1}\u{1}")
        .ok_or("the pairs do not end")?
        .split('\u{1}')
        .map(|pair| pair.split_once('=').filter(|(key, _)| is_key(key)));
    let mut token = None;
    if pairs.any(|pair| match pair {
        Some((key, value)) if key.eq_ignore_ascii_case("auth") => {
            token.replace(value).is_some() // twice
        }
        Some(_) => false,
        None => true,
    }) {
        return Err("a pair that is none, or auth twice");
    }
    let (scheme, token) = token
        .and_then(|auth| auth.split_once(' '))
        .ok_or("no auth=Bearer TOKEN")?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err("a token that is no bearer's");
    }
    // RFC 6750 2.1: b64token
    let inner = token.trim_end_matches('=');
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
    match !inner.is_empty() && inner.bytes().all(good) {
        true => Ok(token.into()),
        false => Err("a token with characters that none has"),
    }
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphabetic())
}

/// RFC 7628 3.2.2: what the client is told before it is refused.
pub(super) const BAD_TOKEN: &[u8] = br#"{"status":"invalid_token","schemes":"bearer"}"#;
/// The same in the words that clients of XOAUTH2 know.
pub(super) const BAD_XOAUTH2: &[u8] = br#"{"status":"401","schemes":"bearer"}"#;

/// Who the first response says that it is, for the log: not the token.
pub(super) fn claimed(message: &[u8]) -> Option<&[u8]> {
    let head = message.split(|b| *b == SEPARATOR).next()?;
    let xoauth2 = head.strip_prefix(b"user=");
    xoauth2.or_else(|| {
        let mut parts = head.split(|b| *b == b',');
        parts.find_map(|part| part.strip_prefix(b"a="))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bearer: Result<Bearer, &str>) -> String {
        match bearer {
            Ok(Bearer { name, token }) => format!("{} {token}", name.unwrap_or_default()),
            Err(_) => "bad".into(),
        }
    }

    #[test]
    fn oauthbearer() {
        let table = [
            // RFC 7628 4.1
            (
                "n,a=user@example.com,^host=server.example.com^port=143^auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==^^",
                "user@example.com vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==",
            ),
            ("n,,^auth=bearer t^^", " t"),
            ("y,a=a=2Cb,^AUTH=Bearer t^^", "a,b t"),
            ("p=tls-exporter,,^auth=Bearer t^^", "bad"),
            ("n,a=,^auth=Bearer t^^", "bad"),
            ("n,x,^auth=Bearer t^^", "bad"),
            ("n,,^auth=Bearer t^", "bad"),
            ("n,,^auth=Bearer ^^", "bad"),
            ("n,,^auth=Bearer ===^^", "bad"),
            ("n,,^auth=Bearer a b^^", "bad"),
            ("n,,^auth=Bearer a\nb^^", "bad"),
            ("n,,^auth=Basic t^^", "bad"),
            ("n,,^auth=Bearer t^auth=Bearer u^^", "bad"),
            ("n,,^auth=Bearer t^x^^", "bad"),
            ("n,,^auth=Bearer t^=x^^", "bad"),
            ("n,,^host=x^^", "bad"),
            ("n,,^^", "bad"),
            ("^", "bad"),
            ("", "bad"),
        ];
        for (message, want) in table {
            let got = bearer(message.replace('^', "\u{1}").as_bytes());
            assert_eq!(shown(got), want, "{message}");
        }
        assert_eq!(shown(bearer(b"n,,\x01auth=Bearer \xff\x01\x01")), "bad");
    }

    #[test]
    fn xoauth2_is_shorter() {
        let table = [
            (
                "user=ann@example.org^auth=Bearer ya29.x^^",
                "ann@example.org ya29.x",
            ),
            ("user=^auth=Bearer t^^", "bad"),
            ("user=a^auth=Bearer t^", "bad"),
            ("n,,^auth=Bearer t^^", "bad"),
            ("", "bad"),
        ];
        for (message, want) in table {
            let got = xoauth2(message.replace('^', "\u{1}").as_bytes());
            assert_eq!(shown(got), want, "{message}");
        }
    }

    #[test]
    fn the_log_gets_the_name_alone() {
        let table: [(&[u8], Option<&[u8]>); 5] = [
            (b"n,a=ann,\x01auth=Bearer t\x01\x01", Some(b"ann")),
            (b"user=ann\x01auth=Bearer t\x01\x01", Some(b"ann")),
            (b"n,,\x01auth=Bearer t\x01\x01", None),
            (b"t", None),
            (b"", None),
        ];
        for (message, want) in table {
            assert_eq!(claimed(message), want);
        }
    }
}
