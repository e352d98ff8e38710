//! The messages that the RFCs sign.

use crate::{crlf, say, verify, zone};

/// RFC 6376 A.2, the body as its erratum has it.
const RFC_6376: &str = "\
DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
";

/// RFC 6376 C.
const RFC_6376_KEY: &str = "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/\
    DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/\
    NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB";

#[test]
fn rfc_6376_appendix_a() {
    let (_file, zone) = zone(&[("brisbane._domainkey.example.com.", RFC_6376_KEY)]);
    let verdicts = verify(&crlf(RFC_6376), &zone, 1_057_982_514);
    assert_eq!(say(&verdicts), ["pass"]);
    let verdict = verdicts.first().unwrap();
    assert_eq!(
        verdict.identity.as_ref().unwrap().to_string(),
        "joe@football.example.com"
    );
    assert_eq!(verdict.domain.as_ref().unwrap().as_str(), "example.com");
    assert_eq!(verdict.selector.as_ref().unwrap().as_str(), "brisbane");
    assert_eq!(verdict.key_bits, Some(1024));
    assert_eq!(verdict.b, "AuUoFEfD");
    // Simple is strict: one space more in a field, and in the body.
    for (from, to, why) in [
        ("Subject: Is", "Subject:  Is", "signature does not verify"),
        ("game. Are", "game.  Are", "body hash differs"),
    ] {
        let message = RFC_6376.replace(from, to);
        assert_eq!(say(&verify(&crlf(&message), &zone, 0)), [why]);
    }
}

/// RFC 8463 A.3.
const RFC_8463: &str = "\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
";

/// RFC 8463 A.2.
const ED25519_KEY: &str = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
pub(crate) const RSA_KEY: &str = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR\
    iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+\
    PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";

#[test]
fn rfc_8463_appendix_a() {
    let (_file, zone) = zone(&[
        ("brisbane._domainkey.football.example.com.", ED25519_KEY),
        ("test._domainkey.football.example.com.", RSA_KEY),
    ]);
    let time = 1_528_637_909;
    let verdicts = verify(&crlf(RFC_8463), &zone, time);
    assert_eq!(say(&verdicts), ["pass", "pass"]);
    let algorithms: Vec<_> = verdicts
        .iter()
        .map(|v| v.algorithm.unwrap().as_str())
        .collect();
    assert_eq!(algorithms, ["ed25519-sha256", "rsa-sha256"]);
    // Each name oversigned: none can be added.
    for added in [
        "Subject: More\n",
        "From: Eve <eve@example.org>\n",
        "Date: now\n",
    ] {
        let message = format!("{added}{RFC_8463}");
        let wrong = "signature does not verify";
        assert_eq!(
            say(&verify(&crlf(&message), &zone, time)),
            [wrong, wrong],
            "{added}"
        );
    }
    // Not oversigned.
    let message = format!("To: More <more@example.org>\n{RFC_8463}");
    assert_eq!(say(&verify(&crlf(&message), &zone, time)), ["pass", "pass"]);
}
