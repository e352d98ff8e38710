//! Addresses: those of the envelope (RFC 5321, RFC 6531), of header fields (RFC 5322), and xtext (RFC
//! 3461).

use std::fmt::{Debug, Display};

use base::address::{MAX_DOMAIN, MAX_LOCAL_PART, bare_local, mailbox, path, reverse_path};
use base::envelope::{Notify, is_envid, is_orcpt, orcpt};
use base::{Address, Domain, LocalPart, ReversePath};

/// What is asserted: what is an address is one again when it is written, and the same; nothing in it is
/// a control character; limits are kept; reading stops behind what was read; header fields make no
/// address that ends a line.
pub fn address(input: &[u8]) {
    paths(input);
    in_a_field(input);
    if let Ok(text) = str::from_utf8(input) {
        words(text);
    }
}

fn paths(input: &[u8]) {
    if let Ok((rest, address)) = mailbox(input) {
        assert!(input.ends_with(rest));
        sound(&address);
    }
    if let Ok((rest, address)) = path(input) {
        assert!(input.ends_with(rest));
        sound(&address);
        let again = format!("<{address}>");
        assert_eq!(path(again.as_bytes()), Ok((&b""[..], address)));
    }
    if let Ok((_, local)) = bare_local(input) {
        let again = format!("<{local}>");
        assert_eq!(bare_local(again.as_bytes()), Ok((&b""[..], local)));
    }
    if let Ok((_, path)) = reverse_path(input) {
        let again = format!("<{path}>");
        assert_eq!(path.is_null(), again == "<>");
        assert_eq!(path.is_ascii(), again.is_ascii());
        if let ReversePath::Address(address) = &path {
            sound(address);
        }
        assert_eq!(reverse_path(again.as_bytes()), Ok((&b""[..], path)));
    }
}

fn words(text: &str) {
    if let Ok(address) = text.parse::<Address>() {
        sound(&address);
    }
    if let Ok(domain) = text.parse::<Domain>() {
        same(&domain, &domain.to_string().parse());
        assert!(domain.is_within(&domain));
        let literal = domain.as_str().starts_with('[');
        assert_eq!(domain.ip().is_some(), literal, "{domain}");
        if let Some(ip) = domain.ip() {
            assert_eq!(Domain::from(ip).ip(), Some(ip));
        }
    }
    if let Ok(local) = LocalPart::new(text) {
        assert!(local.as_str() == text && text.len() <= MAX_LOCAL_PART);
        let address = Address::new(local.clone(), Domain::parse("a.example").unwrap());
        sound(&address);
        let (user, detail) = local.split_detail('+');
        let whole = detail.map_or(user.as_str().into(), |d| format!("{}+{d}", user.as_str()));
        assert_eq!(whole, text);
        let folded = local.fold();
        assert_eq!(base::international::fold(&folded), folded);
    }
    if let Some(kept) = orcpt(text) {
        assert!(kept.is_ascii() && is_orcpt(&kept), "{kept}");
        assert_eq!(orcpt(&kept).as_ref(), Some(&kept));
    }
    if is_envid(text) {
        assert!(text.bytes().all(|b| b.is_ascii_graphic()) && text.len() <= 100);
    }
    if let Some(notify) = Notify::parse(text) {
        assert!(notify != Notify::Never || !notify.wants_failure());
    }
}

/// It is read back as it is written, whatever it was read from.
fn sound(address: &Address) {
    assert!((1..=MAX_LOCAL_PART).contains(&address.local().as_str().len()));
    assert!((1..=MAX_DOMAIN).contains(&address.domain().as_str().len()));
    let text = address.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert_eq!(address.is_ascii(), text.is_ascii());
    same(address, &text.parse());
}

fn same<T: Display + Debug + PartialEq, E: Debug + PartialEq>(value: &T, again: &Result<T, E>) {
    assert_eq!(again.as_ref(), Ok(value), "{value}");
}

/// RFC 5322 3.4.
fn in_a_field(input: &[u8]) {
    let entries = mime::address::list(input);
    assert!(entries.len() <= mime::address::MAX_ENTRIES + 1);
    // The value of a field has line ends only where it is folded, so none without blanks behind it.
    let value: Vec<u8> = input
        .iter()
        .map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b })
        .collect();
    for text in mime::address::addresses(&value) {
        assert!(!text.contains(['\r', '\n']));
        if let Ok(address) = text.parse::<Address>() {
            sound(&address);
        }
    }
}
