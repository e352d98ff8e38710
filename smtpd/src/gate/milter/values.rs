//! The values of macros, by the names that Sendmail and Postfix have for them.

use base::{Address, Domain, Recipient};
use queue::Lane;

use crate::gate::{Facts, Opened};

/// Gives each macro its value. `header`: of a whole message.
pub(super) fn of<'a>(
    name: &'a Domain,
    facts: &'a Facts,
    recipient: Option<&'a Recipient>,
    header: Option<&'a [u8]>,
) -> impl Fn(&str) -> Option<String> + 'a {
    move |what| {
        let opened = facts.transaction.as_ref();
        match what {
            "j" | "if_name" => Some(name.to_string()),
            "v" => Some(concat!("yubin ", env!("CARGO_PKG_VERSION")).into()),
            "_" => Some(match facts.client {
                Some(client) => format!("{} [{}]", client_name(facts), client.ip()),
                None => client_name(facts),
            }),
            "daemon_name" => Some(facts.service.into()),
            "daemon_addr" | "if_addr" => facts.local.map(|local| local.ip().to_string()),
            "daemon_port" => facts.local.map(|local| local.port().to_string()),
            "client_addr" => facts.client.map(|client| client.ip().to_string()),
            "client_port" => facts.client.map(|client| client.port().to_string()),
            "client_name" | "client_ptr" => Some(client_name(facts)),
            "tls_version" => facts.tls.as_ref().map(|tls| tls.version.into()),
            "cipher" => facts.tls.as_ref().map(|tls| tls.cipher.clone()),
            "cipher_bits" => facts.tls.as_ref().map(|tls| tls.bits.to_string()),
            "auth_type" => facts.login.as_ref().map(|login| login.mechanism.into()),
            "auth_authen" => facts.login.as_ref().map(|login| login.user.clone()),
            "i" => opened?.queue_id.clone(),
            "nrcpts" => Some(opened?.recipients.len().to_string()),
            "msg_id" => mime::header::value(header?, "Message-ID")
                .map(|id| String::from_utf8_lossy(&id).into_owned()),
            "mail_addr" => Some(opened?.reverse_path.to_string()),
            "mail_host" => Some(sender(opened?).map_or_else(String::new, host)),
            "mail_mailer" => Some(if facts.is_ours() { "local" } else { "esmtp" }.into()),
            "rcpt_addr" => Some(recipient?.address.to_string()),
            "rcpt_host" => Some(host(&recipient?.address)),
            "rcpt_mailer" => Some(match opened?.lane {
                Some(Lane::Relay) => "esmtp".into(),
                _ => "local".into(),
            }),
            _ => None,
        }
    }
}

/// The client's name as far as it is known; as Sendmail, an address in brackets where it is not.
pub(super) fn client_name(facts: &Facts) -> String {
    let name = facts.shown.split('[').next().unwrap_or_default();
    match facts.client {
        Some(client) if name.is_empty() || name == "unknown" => format!("[{}]", client.ip()),
        _ => name.to_owned(),
    }
}

fn sender(opened: &Opened) -> Option<&Address> {
    opened.reverse_path.address()
}

fn host(address: &Address) -> String {
    address.domain().to_string()
}
