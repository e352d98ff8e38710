use std::io::Cursor;

use super::*;

fn convert(message: &[u8]) -> Vec<u8> {
    let mut content = Cursor::new(message);
    let plan = Plan::of(&mut content).unwrap();
    let mut out = Vec::new();
    Converter::new(&plan, content)
        .read_to_end(&mut out)
        .unwrap();
    out
}

fn text(message: &[u8]) -> String {
    String::from_utf8(convert(message)).unwrap()
}

#[test]
fn what_becomes_of_parts() {
    let table: &[(&str, &str)] = &[
        ("", ""),
        ("A: b\r\n\r\nx\r\n", "A: b\r\n\r\nx\r\n"),
        ("A: b\r\n\r\nx", "A: b\r\n\r\nx\r\n"),
        ("A: b\r\n", "A: b\r\n"),
        ("A: b", "A: b\r\n"),
        ("\r\n", "\r\n"),
        // What is only called binary.
        (
            "Content-Transfer-Encoding: binary\r\nA: b\r\n\r\nx\r\n",
            "A: b\r\nContent-Transfer-Encoding: 8bit\r\n\r\nx\r\n",
        ),
        // Whose last line does not end, and has to come back as it is.
        (
            "content-transfer-encoding :\r\n BINARY\r\nA: b\r\n\r\nx",
            "A: b\r\nContent-Transfer-Encoding: base64\r\n\r\neA==\r\n",
        ),
        (
            "\r\na\0b\r\n",
            "Content-Transfer-Encoding: base64\r\n\r\nYQBiDQo=\r\n",
        ),
        (
            "\r\na\nb\r\n",
            "Content-Transfer-Encoding: base64\r\n\r\nYQpiDQo=\r\n",
        ),
        (
            "\r\na\rb\r\n",
            "Content-Transfer-Encoding: base64\r\n\r\nYQ1iDQo=\r\n",
        ),
        (
            "\r\na\r\r\n",
            "Content-Transfer-Encoding: base64\r\n\r\nYQ0NCg==\r\n",
        ),
        (
            "\r\na\r",
            "Content-Transfer-Encoding: base64\r\n\r\nYQ0=\r\n",
        ),
        // Encoded already, with a line end that is none.
        (
            "Content-Transfer-Encoding: quoted-printable\r\n\r\na=\nb=00\r\n",
            "Content-Transfer-Encoding: base64\r\n\r\nYWIADQo=\r\n",
        ),
        (
            "Content-Transfer-Encoding: base64\r\n\r\nYQ\nA=\r\n",
            "Content-Transfer-Encoding: base64\r\n\r\nYQA=\r\n",
        ),
        // Parts, and the text around them.
        (
            "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\npre\nx\r\n--b\r\n\
             Content-Transfer-Encoding: BINARY\r\nContent-Type: image/x\r\n\r\na\0\n--b\r\r\n--b\r\n\r\ntext\r\n--b--\r\npost\0",
            "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\npre x\r\n--b\r\n\
             Content-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\nYQAKLS1iDQ==\r\n--b\r\n\r\ntext\r\n--b--\r\npost \r\n",
        ),
        // A message in a message.
        (
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: binary\r\n\r\nA: b\r\nContent-Transfer-Encoding: binary\r\n\r\n\0",
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nA: b\r\nContent-Transfer-Encoding: base64\r\n\r\nAA==\r\n",
        ),
        // A multipart without a boundary, one without parts, and what must not be encoded.
        (
            "Content-Type: multipart/mixed\r\n\r\n\0",
            "X-Original-Content-Type: multipart/mixed\r\nContent-Type: application/octet-stream\r\n\
             Content-Transfer-Encoding: base64\r\n\r\nAA==\r\n",
        ),
        (
            "Content-Type: multipart/mixed;\r\n boundary=b\r\n\r\n--c\r\n\0\r\n--c--\r\n",
            "X-Original-Content-Type: multipart/mixed;\r\n boundary=b\r\nContent-Type: application/octet-stream\r\n\
             Content-Transfer-Encoding: base64\r\n\r\nLS1jDQoADQotLWMtLQ0K\r\n",
        ),
        (
            "Content-Type: message/delivery-status\r\n\r\nA: \0\r\n",
            "X-Original-Content-Type: message/delivery-status\r\nContent-Type: application/octet-stream\r\n\
             Content-Transfer-Encoding: base64\r\n\r\nQTogAA0K\r\n",
        ),
        (
            "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\n--c\r\nx\r\n",
            "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--c\r\nx\r\n",
        ),
        // Headers: no octet of theirs makes a line.
        (
            "A: b\nContent-Transfer-Encoding: binary\0\r\n\r\nx\r\n",
            "A: b Content-Transfer-Encoding: binary \r\n\r\nx\r\n",
        ),
        // A header that a delimiter ends, and a part without one.
        (
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: binary\r\n--b\r\n\r\n\0\r\n--b\r\n--b--\r\n",
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\nAA==\r\n--b\r\n--b--\r\n",
        ),
    ];
    for (message, want) in table {
        assert_eq!(text(message.as_bytes()), *want, "{message:?}");
    }
}

#[test]
fn long_lines_are_only_for_what_was_never_binary() {
    let (long, most) = ("x".repeat(999) + "\r\n", "x".repeat(998) + "\r\n");
    let binary = "Content-Transfer-Encoding: binary\r\n\r\n";
    assert!(text(format!("{binary}{long}").as_bytes()).contains("base64"));
    assert!(text(format!("{binary}{most}").as_bytes()).contains("8bit"));
    let text8 = format!("A: b\r\n\r\n{long}");
    assert_eq!(text(text8.as_bytes()), text8);
}

/// Deeper, and of more parts, than is looked at: it stays a message that goes by lines.
#[test]
fn floods_are_bounded_and_lose_nothing() {
    let mut deep = String::new();
    for level in 0..200 {
        deep += &format!("Content-Type: multipart/mixed; boundary={level}\r\n\r\n--{level}\r\n");
    }
    deep += "\r\n\0";
    let out = text(deep.as_bytes());
    assert!(out.contains("X-Original-Content-Type: multipart/mixed; boundary=50\r\n"));
    assert!(by_lines(out.as_bytes()));

    let many = "Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_owned()
        + &"--b\r\n\r\n\0\r\n".repeat(3000)
        + "--b--\r\n";
    let out = text(many.as_bytes());
    assert_eq!(out.matches("base64").count(), 999);
    assert!(by_lines(out.as_bytes()));

    let wide = format!("{}\r\n\0", "X: y\r\n".repeat(500_000));
    let out = text(wide.as_bytes());
    assert!(out.ends_with("Content-Transfer-Encoding: base64\r\n\r\nAA==\r\n"));
}

/// Whether nothing but CRLF ends a line, and the last one ends.
fn by_lines(message: &[u8]) -> bool {
    let rest = String::from_utf8_lossy(message).replace("\r\n", "");
    !rest.contains(['\r', '\n', '\0']) && (message.is_empty() || message.ends_with(b"\r\n"))
}

/// The bodies of all parts, decoded.
fn bodies(message: &[u8], builder: Builder) -> Vec<Vec<u8>> {
    let mut builder = builder;
    builder.feed(message);
    let parts = builder.parts();
    let slice = |range: &std::ops::Range<u64>| {
        let at = |offset: u64| usize::try_from(offset).unwrap();
        &message[at(range.start)..at(range.end)]
    };
    let leaves = parts.iter().filter(|part| part.children.is_empty());
    leaves
        .map(|part| part.content.transfer_encoding().decode(slice(&part.body)))
        .collect()
}

mod any {
    use super::*;
    use proptest::prelude::*;

    /// Octets of which many matter here.
    fn octets() -> impl Strategy<Value = Vec<u8>> {
        let octet = prop_oneof![
            Just(b'\r'),
            Just(b'\n'),
            Just(0),
            Just(b'-'),
            Just(b'.'),
            any::<u8>()
        ];
        let some = prop::collection::vec(octet, 0..200);
        prop_oneof![some, prop::collection::vec(any::<u8>(), 0..3000)]
    }

    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let words = prop::sample::select(vec![
            "Content-Type: multipart/mixed; boundary=b\r\n",
            "Content-Type: message/rfc822\r\n",
            "Content-Transfer-Encoding: binary\r\n",
            "Content-Transfer-Encoding: quoted-printable\r\n",
            " folded\r\n",
            "A:",
            "\r\n",
            "\r",
            "\n",
            "\0",
            "x",
            "--b",
            "--b\r\n",
            "--b--\r\n",
        ]);
        prop::collection::vec(words, 0..40).prop_map(|words| words.concat().into_bytes())
    }

    proptest! {
        /// Binary parts come out as they went in, whatever is in them but their boundary.
        #[test]
        fn binary_parts_survive(parts in prop::collection::vec(octets(), 1..4)) {
            let mut message = b"Content-Type: multipart/mixed; boundary=B0undary\r\n\r\n".to_vec();
            for part in &parts {
                message.extend_from_slice(b"--B0undary\r\nContent-Transfer-Encoding: binary\r\n\r\n");
                message.extend_from_slice(part);
                message.extend_from_slice(b"\r\n");
            }
            message.extend_from_slice(b"--B0undary--\r\n");
            let out = convert(&message);
            prop_assert!(by_lines(&out));
            prop_assert_eq!(bodies(&out, Builder::new()), parts);
        }

        /// And so does a message of one part, to its last octet.
        #[test]
        fn a_binary_body_survives(body in octets()) {
            let head = b"Content-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n";
            let out = convert(&[&head[..], &body].concat());
            prop_assert!(by_lines(&out));
            prop_assert_eq!(bodies(&out, Builder::new()), vec![body]);
        }

        /// Whatever comes, lines go out; and what goes by lines is not changed again.
        #[test]
        fn nothing_else_than_lines_comes_out(message in prop_oneof![octets(), lines()]) {
            let once = convert(&message);
            prop_assert!(by_lines(&once), "{:?}", String::from_utf8_lossy(&once));
            prop_assert_eq!(convert(&once), once);
        }
    }
}
