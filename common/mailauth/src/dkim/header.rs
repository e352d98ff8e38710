//! A message's header, read once and held for all who verify and sign.
//!
//! What is signed of it is chosen here (RFC 6376 5.4.2): each name in `h=` takes the lowest field of
//! that name that is not taken yet, and nothing when there is none left. So the octets chosen are never
//! more than the header has, whatever `h=` says.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::dkim::canonical::Canonical;
use crate::dkim::tags::trim;

/// The header of one message. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Header(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes: Vec<u8>,
    fields: Vec<Place>,
    /// By name in lower case, from the top.
    names: HashMap<Vec<u8>, Vec<usize>>,
}

#[derive(Debug)]
struct Place {
    all: Range<usize>,
    value: Range<usize>,
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Name to line end.
    pub all: &'a [u8],
    /// Behind the colon to the line end.
    pub value: &'a [u8],
}

impl Header {
    /// `bytes`: the fields, with or without the empty line that ends them. The caller bounds them.
    pub fn new(bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        let mut names: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for field in mime::header::fields(bytes) {
            let name = field.name.to_ascii_lowercase();
            names.entry(name).or_default().push(fields.len());
            let value = field.range.end.saturating_sub(field.raw.len())..field.range.end;
            fields.push(Place {
                all: field.range,
                value,
            });
        }
        let bytes = bytes.to_vec();
        Self(Arc::new(Inner {
            bytes,
            fields,
            names,
        }))
    }

    /// The fields of a name (lower case), from the top.
    pub fn named(&self, name: &str) -> impl DoubleEndedIterator<Item = Field<'_>> {
        self.places(name.as_bytes())
            .iter()
            .filter_map(|at| self.field(*at))
    }

    /// How many fields of a name (lower case) there are.
    pub fn count(&self, name: &str) -> usize {
        self.places(name.as_bytes()).len()
    }

    fn places(&self, name: &[u8]) -> &[usize] {
        self.0
            .names
            .get(name)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    fn field(&self, at: usize) -> Option<Field<'_>> {
        let place = self.0.fields.get(at)?;
        Some(Field {
            all: self.0.bytes.get(place.all.clone())?,
            value: self.0.bytes.get(place.value.clone())?,
        })
    }

    /// Adds the fields that `names` (lower case) choose, in canonical form, to `out`.
    pub fn choose<'n>(
        &self,
        names: impl IntoIterator<Item = &'n [u8]>,
        canonical: Canonical,
        out: &mut Vec<u8>,
    ) {
        let mut taken: HashMap<&[u8], usize> = HashMap::new();
        for name in names {
            let taken = taken.entry(name).or_default();
            *taken += 1;
            let places = self.places(name);
            let field = places.len().checked_sub(*taken);
            let field = field.and_then(|at| self.field(*places.get(at)?));
            if let Some(field) = field {
                canonical.field(field.all, out);
            }
        }
    }
}

/// Adds a signature field in canonical form, the value of `b=` emptied and without its line end
/// (RFC 6376 3.7): what a signature says of itself.
pub(crate) fn without_b(field: &[u8], canonical: Canonical, out: &mut Vec<u8>) {
    let mut emptied = Vec::with_capacity(field.len());
    let colon = memchr::memchr(b':', field).map_or(field.len(), |at| at + 1);
    let (name, value) = field.split_at_checked(colon).unwrap_or((field, b""));
    emptied.extend_from_slice(name);
    for (n, spec) in value.split(|b| *b == b';').enumerate() {
        if n > 0 {
            emptied.push(b';');
        }
        let equals = memchr::memchr(b'=', spec).unwrap_or(spec.len());
        let (tag, _) = spec.split_at_checked(equals).unwrap_or((spec, b""));
        if trim(tag) == b"b" && equals < spec.len() {
            emptied.extend_from_slice(tag);
            emptied.push(b'=');
        } else {
            emptied.extend_from_slice(spec);
        }
    }
    canonical.field(&emptied, out);
    if out.ends_with(b"\r\n") {
        out.truncate(out.len() - 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_chosen_from_the_bottom() {
        let header = Header::new(b"A: 1\r\nB: 2\r\na: 3\r\nC: 4\r\n\r\nA: body\r\n");
        let table = [
            ("a", "a:3\r\n"),
            ("a:a", "a:3\r\na:1\r\n"),
            ("a:b:a:a:a", "a:3\r\nb:2\r\na:1\r\n"),
            ("x:c", "c:4\r\n"),
        ];
        for (names, wanted) in table {
            let mut out = Vec::new();
            header.choose(
                names.as_bytes().split(|b| *b == b':'),
                Canonical::Relaxed,
                &mut out,
            );
            assert_eq!(String::from_utf8(out).unwrap(), wanted, "{names}");
        }
        assert_eq!(header.count("a"), 2);
        let values: Vec<_> = header.named("a").map(|f| f.value.to_vec()).collect();
        assert_eq!(values, [b" 1\r\n", b" 3\r\n"]);
    }

    #[test]
    fn a_signature_does_not_sign_its_own_b() {
        let table = [
            ("S: a=1; b=xyz; bh=b=q;\r\n", "S: a=1; b=; bh=b=q;"),
            ("S: b=x\r\n y ;c\r\n", "S: b=;c"),
            ("S: a=1;\r\n\tb = xy\r\n\t z\r\n", "S: a=1;\r\n\tb ="),
            ("S: bb=1; B=2\r\n", "S: bb=1; B=2"),
            ("S:b=", "S:b="),
            ("S: b\r\n", "S: b"),
        ];
        for (field, wanted) in table {
            let mut out = Vec::new();
            without_b(field.as_bytes(), Canonical::Simple, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), wanted, "{field:?}");
        }
    }
}
