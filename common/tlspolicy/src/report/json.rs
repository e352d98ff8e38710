//! JSON (RFC 8259), as far as a report needs it: written, never read.

use std::fmt::Write as _;

/// A value.
pub(super) enum Json {
    Text(String),
    Number(u64),
    List(Vec<Self>),
    /// Members in their order.
    Object(Vec<(&'static str, Self)>),
}

impl Json {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn texts(all: &[String]) -> Self {
        Self::List(all.iter().map(|one| Self::Text(one.clone())).collect())
    }

    pub(super) fn write(&self) -> String {
        let mut out = String::new();
        self.write_to(&mut out);
        out
    }

    fn write_to(&self, out: &mut String) {
        match self {
            Self::Text(text) => quote(text, out),
            Self::Number(number) => out.push_str(&number.to_string()),
            Self::List(all) => {
                out.push('[');
                for (i, one) in all.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    one.write_to(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    quote(name, out);
                    out.push(':');
                    value.write_to(out);
                }
                out.push('}');
            }
        }
    }
}

/// RFC 8259 7
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            // Writing to a String cannot fail.
            c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let value = Json::Object(vec![
            ("a", Json::text("x\"\\\n\u{e4}")),
            ("b", Json::List(vec![Json::Number(1), Json::Object(vec![])])),
            ("c", Json::texts(&["y".into(), "z".into()])),
        ]);
        assert_eq!(
            value.write(),
            "{\"a\":\"x\\\"\\\\\\u000a\u{e4}\",\"b\":[1,{}],\"c\":[\"y\",\"z\"]}"
        );
    }
}
