//! DKIM signatures for what our own users send (RFC 6376), put before a message when it is relayed.
//! The keys lie in DKIM_KEYS as DOMAIN/SELECTOR.pem; every key of the domain in From signs, or of the
//! nearest domain above it.
//!
//! Signed is what sendmail(1) submitted, what came by a login, and what came from MY_NETWORKS. What
//! strangers sent is never signed, whatever its From says, and neither is what was made out of it: a
//! forward, a list, a bounce. What goes through a content filter is signed when it has come back, by what
//! our trace field says of who sent it. smtpd sees no key.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base::config::Network;
use base::{Config, Doing, Domain, Fail};
use mailauth::dkim::{Bodies, Header, Signer};
use mime::address::{self, Entry as Author};
use queue::{Entry, Source};

use crate::trace;

/// A longer header is not signed.
const MAX_HEADER: usize = 256 * 1024;
/// Keys of one domain: the signatures of more would be no help to anybody.
const MAX_KEYS: usize = 10;
/// Octets hashed at a time.
const PIECE: usize = 64 * 1024;

/// All keys.
#[derive(Debug, Default)]
pub(crate) struct Signing {
    keys: HashMap<Domain, Vec<Signer>>,
    networks: Vec<Network>,
    /// Our name in trace fields; `None` where there are no keys.
    host: Option<Domain>,
}

impl Signing {
    /// Reads the keys. No directory, no keys.
    pub(crate) fn open(config: &Config) -> Result<Self, Fail> {
        let mut keys = HashMap::new();
        for (name, path) in entries(&config.dkim_keys)? {
            let domain = Domain::parse(&name).map_err(|e| {
                Fail::config(format!("{}: {e}; name it after the domain", path.display()))
            })?;
            let mut signers = Vec::new();
            for (file, path) in entries(&path)? {
                let Some(selector) = file.strip_suffix(".pem") else {
                    continue;
                };
                let pem = std::fs::read_to_string(&path)
                    .map_err(|e| Fail::config(format!("read DKIM key {}: {e}", path.display())))?;
                signers.push(Signer::load(&domain, selector, &pem, &path)?);
            }
            if signers.len() > MAX_KEYS {
                let text = format!(
                    "{}: more than {MAX_KEYS} keys, remove old ones",
                    path.display()
                );
                return Err(Fail::config(text));
            }
            keys.insert(domain, signers);
        }
        let networks = config.my_networks.clone();
        let host = Some(config.official_name.clone()).filter(|_| !keys.is_empty());
        Ok(Self {
            keys,
            networks,
            host,
        })
    }

    /// What has to stand in DNS, a line for each key.
    pub(crate) fn records(&self) -> Vec<String> {
        let line = |signer: &Signer| {
            let name = format!("{}._domainkey.{}", signer.selector(), signer.domain());
            format!("{name}. TXT {}", quoted(&signer.record()))
        };
        let mut lines: Vec<String> = self.keys.values().flatten().map(line).collect();
        lines.sort_unstable();
        lines
    }

    /// The fields to put before a message, of which this is the content that is sent; empty where it is
    /// not to be signed.
    pub(crate) fn fields(&self, entry: &Entry, content: &mut dyn Read) -> Result<String, Fail> {
        let source = &entry.origin().source;
        let came_back = matches!(source, Source::Network(client) if client.by_filter);
        if self.keys.is_empty()
            || entry.envelope().filter.is_some()
            || !(came_back || self.is_ours(source))
        {
            return Ok(String::new());
        }
        self.sign(content, came_back)
            .doing(|| format!("read message {}", entry.id()))
    }

    /// Whether one of our own has sent it; of what a content filter brought back that is not known.
    pub(crate) fn is_ours(&self, source: &Source) -> bool {
        match source {
            Source::Submission { .. } => true,
            Source::Network(client) if client.by_filter => false,
            Source::Network(client) => {
                client.login.is_some() || client.ip.is_none_or(|ip| self.is_near(ip))
            }
            Source::Child { .. } => false,
        }
    }

    fn is_near(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(ip))
    }

    /// `by_trace`: only where our trace field says that it is ours.
    fn sign(&self, content: &mut dyn Read, by_trace: bool) -> io::Result<String> {
        let mut text = Vec::new();
        let mut piece = vec![0; PIECE];
        let header = loop {
            let n = content.read(&mut piece)?;
            text.extend_from_slice(piece.get(..n).unwrap_or_default());
            match memchr::memmem::find(&text, b"\r\n\r\n") {
                Some(end) => break end + 4,
                None if n == 0 || text.len() > MAX_HEADER => return Ok(String::new()),
                None => {}
            }
        };
        let (fields, body) = text.split_at(header);
        let ours = |host| trace::is_ours(fields, host, |ip| self.is_near(ip));
        if by_trace && !self.host.as_ref().is_some_and(ours) {
            return Ok(String::new());
        }
        let header = Header::new(fields);
        let signers = self.signers(&header);
        if signers.is_empty() {
            return Ok(String::new());
        }
        let mut bodies = Bodies::default();
        signers.iter().for_each(|signer| signer.want(&mut bodies));
        bodies.feed(body);
        loop {
            match content.read(&mut piece)? {
                0 => break,
                n => bodies.feed(piece.get(..n).unwrap_or_default()),
            }
        }
        let hashes = bodies.finish();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        let mut out = String::new();
        for signer in signers {
            match signer.sign(&header, &hashes, now) {
                Ok(field) => out.push_str(&field),
                // A message without a signature is better than none.
                Err(why) => log::warn!("{signer:?}: {why}"),
            }
        }
        Ok(out)
    }

    /// Those of the domain of the only author, or of the nearest one above it.
    fn signers(&self, header: &Header) -> &[Signer] {
        let author = author(header);
        let mut name = author.as_ref().map(Domain::as_str);
        while let Some(text) = name {
            let keys = Domain::parse(text).ok().and_then(|d| self.keys.get(&d));
            if let Some(keys) = keys {
                return keys;
            }
            name = text.split_once('.').map(|(_, above)| above);
        }
        &[]
    }
}

/// The domain in From; of several authors, none.
fn author(header: &Header) -> Option<Domain> {
    let mut fields = header.named("from");
    let list = address::list(fields.next()?.value);
    let mut hosts = list.iter().filter_map(|entry| match entry {
        Author::Mailbox(mailbox) => Some(&mailbox.host),
        Author::GroupStart(_) | Author::GroupEnd => None,
    });
    let host = hosts.next()?;
    let only = fields.next().is_none() && hosts.next().is_none();
    let domain = Domain::parse(std::str::from_utf8(host).ok()?).ok()?;
    only.then_some(domain)
}

/// Names and paths in a directory; none where it does not exist.
fn entries(dir: &Path) -> Result<Vec<(String, std::path::PathBuf)>, Fail> {
    let doing = |e| Fail::config(format!("read {}: {e}", dir.display()));
    let list = match std::fs::read_dir(dir) {
        Ok(list) => list,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(doing(e)),
    };
    let mut all = Vec::new();
    for entry in list {
        let entry = entry.map_err(doing)?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            all.push((name, entry.path()));
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// As a zone file has a long text: strings of at most 255 octets.
fn quoted(text: &str) -> String {
    let pieces = text.as_bytes().chunks(250);
    let strings = pieces.map(|piece| format!("\"{}\"", String::from_utf8_lossy(piece)));
    strings.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Root;

    #[test]
    fn who_is_the_author() {
        let table = [
            ("From: Ann <ann@Example.org>\r\n\r\n", Some("example.org")),
            ("From: a@b.c, d@e.f\r\n\r\n", None),
            ("From: a@b.c\r\nFrom: d@e.f\r\n\r\n", None),
            ("From: friends: a@b.c;\r\n\r\n", Some("b.c")),
            ("From: nobody\r\n\r\n", None),
            ("Sender: a@b.c\r\n\r\n", None),
        ];
        for (header, want) in table {
            let author = author(&Header::new(header.as_bytes()));
            assert_eq!(author.as_ref().map(Domain::as_str), want, "{header}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let config = Config::parse(&root, "", Path::new("yubin.def")).unwrap();
        assert!(Signing::open(&config).unwrap().records().is_empty());
        let keys = dir.path().join("etc/yubin/dkim/example.org");
        std::fs::create_dir_all(&keys).unwrap();
        std::fs::write(keys.join("README"), "no key").unwrap();
        std::fs::write(keys.join("s1.pem"), "no key").unwrap();
        let fail = Signing::open(&config).unwrap_err().to_string();
        assert!(
            fail.contains("example.org/s1.pem") && fail.contains("openssl genrsa"),
            "{fail}"
        );
        std::fs::remove_file(keys.join("s1.pem")).unwrap();
        assert!(Signing::open(&config).unwrap().records().is_empty());
        std::fs::create_dir(dir.path().join("etc/yubin/dkim/-no")).unwrap();
        let fail = Signing::open(&config).unwrap_err().to_string();
        assert!(fail.contains("dkim/-no"), "{fail}");
    }

    #[test]
    fn long_records_are_cut() {
        let record = quoted(&"x".repeat(400));
        let lengths: Vec<_> = record.split(' ').map(str::len).collect();
        assert_eq!(lengths, [252, 152]);
    }
}
