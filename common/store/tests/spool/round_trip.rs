//! Octets that go in come out.

use store::Part;

use crate::house::{House, houses};

/// Messages that SMTP can bring: CRLF line ends, no other CR or LF; and, from BDAT and APPEND, some
/// without a line end at their end.
fn odd_messages() -> Vec<Vec<u8>> {
    let long = "x".repeat(100_000);
    let texts = [
        "".to_owned(),
        "\r\n".into(),
        "\r\n\r\n".into(),
        "no header and no end".into(),
        "Subject: header only\r\n".into(),
        "Subject: header only, no end".into(),
        "Subject: empty body\r\n\r\n".into(),
        "Subject: x\r\n\r\nFrom here\r\n>From there\r\n>>From\r\nFrom ann Thu Jan  1 00:00:00 1970\r\n".into(),
        "From ann Thu Jan  1 00:00:00 1970\r\nFrom x\r\nSubject: x\r\n\r\nFrom \r\n".into(),
        ">From ann Thu Jan  1 00:00:00 1970\r\nA: b\r\n\r\n\r\n\r\n\r\n".into(),
        " folded first line\r\n\tand second\r\nA: b\r\n\r\n x\r\n".into(),
        "Subject: x\r\n\r\nStatus: RO\r\nX-UID: 7\r\n".into(),
        "Subject: x\r\n\r\nends in From".into(),
        "Subject: x\r\n\r\nFrom ".into(),
        "A: \r\n\r\n\r\n".into(),
        format!("Subject: {long}\r\n\r\n{long}\r\n{long}"),
        format!("A: b\r\n{long}\r\n"),
        format!("{}From x\r\n", ">".repeat(5000)),
        format!("A: b\r\n\r\n{}\r\n{}From x\r\n", ">".repeat(999), ">".repeat(999)),
        format!("A: b\r\n\r\n{}\r\n{}From x\r\n", ">".repeat(1000), ">".repeat(1000)),
        "A: b\r\n\r\n.\r\n..\r\n\u{e9}\u{4ef6}\r\n".into(),
    ];
    let mut all: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    all.push(b"A: b\r\n\r\n\x00\xff\xfe\x80 8 bit\r\n".to_vec());
    all.push(b"\xff\xfe\r\n".to_vec());
    all
}

/// A small generator; the seed is in the failure message.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn message(&mut self) -> Vec<u8> {
        const PARTS: [&[u8]; 16] = [
            b"From ",
            b">",
            b"From",
            b"\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b" ",
            b"Subject: x",
            b"X-",
            b"Status",
            b": 5",
            b"\xff\x00",
            b"Thu Jan  1 00:00:00 1970",
            b"a",
            b"\t",
            b"UID",
        ];
        let mut all = Vec::new();
        for _ in 0..self.next(40) {
            all.extend_from_slice(PARTS[self.next(PARTS.len())]);
        }
        all
    }
}

/// What is served of a message in an mbox: forged fields of ours are renamed.
fn renamed(message: &[u8]) -> Vec<u8> {
    const OURS: [&str; 10] = [
        "status",
        "x-status",
        "x-keywords",
        "x-uid",
        "x-imapbase",
        "x-imap",
        "x-uidvalidity",
        "x-delivery-id",
        "x-mbox-eol",
        "content-length",
    ];
    let mut out = Vec::new();
    let mut in_header = true;
    for line in message.split_inclusive(|b| *b == b'\n') {
        in_header &= line != b"\r\n";
        let name = line.split(|b| *b == b':').next().unwrap().trim_ascii_end();
        let name = String::from_utf8_lossy(name).to_lowercase();
        let starts = !line.starts_with(b" ") && !line.starts_with(b"\t");
        if in_header && starts && line.contains(&b':') && OURS.contains(&name.as_str()) {
            out.extend_from_slice(b"X-Orig-");
        }
        out.extend_from_slice(line);
    }
    out
}

fn round_trip(house: &House, messages: &[Vec<u8>], is_mbox: bool) {
    let mut reader = house.reader();
    let before = reader.uids().len();
    for (n, message) in messages.iter().enumerate() {
        house.deliver(&format!("q{before}-{n}"), message);
    }
    reader.poll();
    let all = reader.read_all();
    assert_eq!(all.len(), before + messages.len());
    for ((uid, there), message) in all[before..].iter().zip(messages) {
        let expected = if is_mbox {
            renamed(message)
        } else {
            message.clone()
        };
        assert_eq!(
            String::from_utf8_lossy(there),
            String::from_utf8_lossy(&expected),
            "uid {uid}"
        );
        assert_eq!(*there, expected);
        let header = reader.part(*uid, Part::Header, 7000);
        let text = reader.part(*uid, Part::Text, 1 << 20);
        assert_eq!([header.as_slice(), &text].concat(), expected);
        let end = header
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .map(|at| at + 4);
        assert!(header.starts_with(b"\r\n") || end.is_none_or(|end| end == header.len()));
    }
    // The same from the files alone.
    assert_eq!(house.reader().read_all(), all);
}

#[test]
fn odd_messages_come_back_byte_for_byte() {
    for (house, is_mbox) in houses().into_iter().zip([true, false]) {
        round_trip(&house, &odd_messages(), is_mbox);
    }
}

#[test]
fn random_messages_come_back_byte_for_byte() {
    for (house, is_mbox) in houses().into_iter().zip([true, false]) {
        for seed in 1..12 {
            let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
            let messages: Vec<Vec<u8>> = (0..25).map(|_| random.message()).collect();
            round_trip(&house, &messages, is_mbox);
        }
    }
}

#[test]
fn a_message_larger_than_memory_is_streamed() {
    let mut big = b"Subject: big\r\n\r\n".to_vec();
    while big.len() < 18 << 20 {
        big.extend_from_slice(b"From the beginning to the end, sixty octets or so in a line\r\n");
    }
    for house in houses() {
        house.deliver("big", &big);
        let mut reader = house.reader();
        let uid = reader.uids()[0];
        assert!(reader.whole(uid) == big);
    }
}

#[test]
fn a_last_line_without_an_end_is_not_given_one_in_a_maildir() {
    let house = House::new("maildir");
    house.deliver("d1", b"Subject: x\r\n\r\none\r\nlast");
    let mut reader = house.reader();
    assert_eq!(
        reader.read_all()[0].1,
        b"Subject: x\r\n\r\none\r\nlast".to_vec()
    );
    assert_eq!(reader.messages()[0].size, 23);
    let file = std::fs::read_dir(house.inbox().join("cur"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    assert_eq!(std::fs::read(&file).unwrap(), b"Subject: x\n\none\nlast");
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(name.contains(",S=20,W=23,"), "{name}");
}
