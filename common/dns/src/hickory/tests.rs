use std::net::UdpSocket;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::rdata::{A, MX};

use base::config::Dnssec;
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::*;

/// A name server on loopback that answers by the first label of what it is asked.
fn name_server() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((n, peer)) = socket.recv_from(&mut packet) {
            let asked = Message::from_vec(&packet[..n]).unwrap();
            let answer = answer(&asked);
            socket.send_to(&answer.to_vec().unwrap(), peer).unwrap();
        }
    });
    port
}

fn answer(asked: &Message) -> Message {
    let query = asked.queries[0].clone();
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    let name = query.name().clone();
    let host = |n: &str| Name::from_ascii(n).unwrap();
    let mut add = |data| {
        answer.add_answer(Record::from_rdata(name.clone(), 60, data));
    };
    let first = name.iter().next().unwrap_or_default().to_ascii_lowercase();
    match (first.as_slice(), query.query_type()) {
        (b"two", RecordType::MX) => {
            add(RData::MX(MX::new(10, host("MX1.test."))));
            add(RData::MX(MX::new(20, host("mx2.test."))));
        }
        (b"null", RecordType::MX) => add(RData::MX(MX::new(0, Name::root()))),
        (b"bad", RecordType::MX) => {
            let labels = [b"not a host".as_slice(), b"test".as_slice()];
            add(RData::MX(MX::new(10, Name::from_labels(labels).unwrap())));
        }
        (b"bad", RecordType::A) => add(RData::A(A::new(192, 0, 2, 9))),
        (b"v4", RecordType::A) => add(RData::A(A::new(192, 0, 2, 1))),
        (b"none", _) => answer.metadata.response_code = ResponseCode::NXDomain,
        (b"broken", _) | (b"half", RecordType::AAAA) => {
            answer.metadata.response_code = ResponseCode::ServFail;
        }
        _ => (),
    }
    answer.add_query(query);
    answer
}

fn dns() -> Dns {
    let mut connection = ConnectionConfig::udp();
    connection.port = name_server();
    let server = NameServerConfig::new("127.0.0.1".parse().unwrap(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    Dns::with(Validation::new(Dnssec::Auto), move |_| {
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config.clone(), provider);
        *builder.options_mut() = ResolverOpts::default();
        let plain = builder.build().map_err(io::Error::other)?;
        Ok(Resolvers {
            plain,
            validator: None,
        })
    })
}

#[test]
fn what_does_not_exist_and_what_is_not_known_are_two_things() {
    let dns = dns();
    let d = |n: &str| Domain::parse(n).unwrap();
    assert_eq!(
        dns.mx(&d("two.test")),
        Ok(MxAnswer::Found(vec![
            Mx {
                preference: 10,
                host: d("mx1.test")
            },
            Mx {
                preference: 20,
                host: d("mx2.test")
            },
        ]))
    );
    assert_eq!(dns.mx(&d("null.test")), Ok(MxAnswer::Null));
    assert_eq!(dns.mx(&d("v4.test")), Err(DnsError::NoData));
    assert_eq!(dns.mx(&d("none.test")), Err(DnsError::NxDomain));
    assert!(dns.mx(&d("broken.test")).unwrap_err().is_temporary());
    assert_eq!(
        dns.addresses(&d("v4.test")),
        Ok(vec!["192.0.2.1".parse().unwrap()])
    );
    assert_eq!(dns.addresses(&d("none.test")), Err(DnsError::NxDomain));
    assert_eq!(dns.addresses(&d("two.test")), Err(DnsError::NoData));
    assert!(dns.addresses(&d("half.test")).unwrap_err().is_temporary());
    assert_eq!(dns.txt(&d("[192.0.2.1]")), Err(DnsError::NxDomain));
}

#[test]
fn exchangers_that_are_no_hosts_are_not_the_same_as_none() {
    let dns = dns();
    let answer = dns.mx(&Domain::parse("bad.test").unwrap());
    assert!(matches!(answer, Ok(MxAnswer::NoHosts(_))), "{answer:?}");
}

#[test]
fn without_servers_nothing_is_known() {
    let dns = Dns::with(Validation::new(Dnssec::Auto), |_| {
        Err(io::Error::other("no resolv.conf"))
    });
    assert!(
        dns.mx(&Domain::parse("x.test").unwrap())
            .unwrap_err()
            .is_temporary()
    );
}
