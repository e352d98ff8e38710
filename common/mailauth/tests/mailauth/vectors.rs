//! Chains that others sealed: a part of the ARC test suite.
//!
//! Source: ValiMail/arc_test_suite, tests/arc-draft-validation-tests.yml. It states no licence; the same
//! cases are in MimeKit's ArcVerifierTests.cs under the MIT licence (copyright .NET Foundation and
//! Contributors). Only the messages in data/ and the signatures below are theirs. Their key is the one
//! of RFC 8463 A.2.

use crate::chains::{judge, say};
use crate::examples::RSA_KEY;
use crate::{crlf, zone};

const I1: &str = include_str!("data/arc-i1.eml");
const I2: &str = include_str!("data/arc-i2.eml");
const I2_CHANGED: &str = include_str!("data/arc-i2-changed.eml");

const KEYS: [(&str, &str); 2] = [
    ("dummy._domainkey.example.org.", RSA_KEY),
    (
        "invalid._domainkey.example.org.",
        "v=DKIM1; k=rsa; omgwhatsgoingon",
    ),
];

/// `text` with something else at one place.
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

/// The chain of one set with `b=` of its seal and of its message signature (unless it stays), and
/// something else at one place. A space is a fold.
fn sealed(seal: &str, message: &str, from: &str, to: &str) -> String {
    let (before, rest) = I1.split_once("b=").unwrap();
    let (_, rest) = rest.split_once("; cv=").unwrap();
    let (between, rest) = rest.split_once("b=").unwrap();
    let (old, rest) = rest.split_once(";\n    bh=").unwrap();
    let message = if message.is_empty() { old } else { message };
    let text = format!("{before}b={seal}; cv={between}b={message};\n    bh={rest}");
    with(&text, from, to)
}

/// Cases in which only the message is another one.
#[test]
fn the_messages_of_the_arc_test_suite() {
    let (_file, zone) = zone(&KEYS);
    let plain = I1.split_once("Received: by").unwrap().1;
    let no_body = plain.split_once("\n\n").unwrap().0;
    let body = "gang,\nThis is a test message.\n--J.\n";
    let fields = "signature does not verify";
    let cases = [
        ("cv_empty", String::new(), "none"),
        ("cv_no_headers", format!("\nHey {body}"), "none"),
        ("cv_no_body", format!("Received: by{no_body}\n"), "none"),
        ("cv_base1", format!("Received: by{plain}"), "none"),
        ("cv_pass_i1_1", I1.into(), "pass 0"),
        ("cv_pass_i2_1", I2.into(), "pass 0"),
        ("cv_pass_i2_1_ams1_invalid", I2_CHANGED.into(), "pass 2"),
        (
            "ams_fields_b_mod_headers2",
            with(I1, "Example 1", "Example 1 (Mod)"),
            fields,
        ),
        (
            "ams_fields_bh_rel_eol_wsp",
            with(I1, body, "gang,  \nThis is a test message.  \n--J.  \n"),
            "pass 0",
        ),
        (
            "ams_fields_bh_rel_inl_wsp",
            with(I1, "Hey gang", "Hey       gang"),
            "pass 0",
        ),
        ("ams_fields_bh_rel_end_lines", format!("{I1}\n\n"), "pass 0"),
        (
            "ams_fields_bh_rel_trail_crlf",
            I1.trim_end().into(),
            "pass 0",
        ),
        (
            "aar_i_not_prefixed",
            with(I1, "i=1; lists.example.org;", "lists.example.org; i=1;"),
            "ARC field without an instance",
        ),
        (
            "aar_i_no_semi",
            with(I1, "i=1; lists", "i=1 lists"),
            "ARC field without an instance",
        ),
        (
            "aar2_missing",
            with(I2, "ARC-Authentication-Results:", "X-Other:"),
            "ARC set not whole",
        ),
    ];
    assert_eq!(cases.len(), 15);
    for (name, message, wanted) in cases {
        assert_eq!(say(&judge(&crlf(&message), &zone, 12346)), wanted, "{name}");
    }
}

/// Cases with signatures of their own.
#[test]
fn the_signatures_of_the_arc_test_suite() {
    let (_file, zone) = zone(&KEYS);
    let bh = "bh=KWSe46TZKCcDbH4klJPo+tjk5LWJnVRlP5pvjXFZYLQ=";
    let (simple_seal, simple_message) = (
        "d6sLFV7dCrZT/WzJil6ZyWcA/W5tJGLkP+yx1Fln+uZdjkswYMjvPkO2V2kvMrh2GBgjee \
         j9QiqfGHsJvGqAKrFVzxHEsgVA0IYN6tI5wTKMLgu09b8BeHUr49/XnBEemjbgO8W9n9SCyX \
         hKjsZK5b5ZIYBqjCSDZUwWRWfJywk=",
        "c+pRG+RBumfEVWDAjHVupy4hZHN2F/AMLHoj6Vha9px35oo6eoyMxxOFUvBgVIUVphuSwV \
         198baYTV6Of9DHw44VS5rf6MDZNtVc8lwm8ei8aSAgzSnuhnr0jW2j134QTsEL1TK1bWfs+l \
         QGXDBN5AUDsbk4jN5akoDqmH7gNlc=",
    );
    let simple = sealed(
        simple_seal,
        simple_message,
        "c=relaxed/relaxed",
        "c=relaxed/simple",
    );
    let cases = [
        (
            "ams_format_sc_wsp",
            sealed(
                "OeNJ7p2NdW3mKv4hyenx+QbRuqqq8iwGAyY1WVX/EJiPHS2vNB5lEI/YmVB3diTkKPHWe8 \
                 ZOq18DTVtOVuahLqM7s/4K/gvx3zal0vcedPL/mtRW4A1Ct0/wyLuFADX2HZ815cELx81SuX \
                 3fEbbym1br+0JArsz6n8798lidnWY=",
                "NOLE9bNh30qiTx35h5yKbHlDPahxvhXUWjv8Yiy5L7Ks3NNznK54dmUPZ4D/80tkRYiil0 \
                 8sCqFTh7OH5ZTXXEfArxBMQQl3DAqTjOJQ1c3jPYwaDliWqCLLueSsH+ovaFGRGNPm2O41o0 \
                 J8xUmyji1bXXLKMinB+Adv9ALXsw8=",
                &format!("{bh};"),
                &format!("{bh} ;"),
            ),
            "pass 0",
        ),
        (
            "ams_format_eq_wsp",
            sealed(
                "CcoQW04QZ7n7OTPACcP26R0vJtjEwVmcFpj4+PJnvT1kVeOMfcqwt7FEGlCjeJ0QIYMeNW \
                 TY6kND0fe0WJDVnWvhCyeOb5JjwllbJJ/ThP74I5UPgQ0Cwp1h/O9HIrUJkrje6HQ3nD6Dok \
                 la2keL/t4R7YtMyAmn9sPWuAOwSrE=",
                "KLZ8Io9rZzsWt0Q/Mrx8sYO7HPLptFwGoCdabHuyrQsek+1c5yo5tOQidcTc8ksw5PoAZH \
                 PNOIoyGVte9jMk0LdA1IYjjvvUmEANMZCJf0wm66exDWJ30xMrgbosLN2XvsRk3BDkoCg2AY \
                 HkR11isMdIhrefd7AHw9YEDTnohQw=",
                "c=relaxed/relaxed",
                "c = relaxed/relaxed",
            ),
            "pass 0",
        ),
        (
            "ams_format_tags_trail_sc",
            sealed(
                "Q3iCsG7zmlydzz8zFIm4X+Nyr2636znsyGh+lRhCFtcWbw3m3v8fFrtK3uNvqSM+WW3Cmf \
                 TbteHFaG9YL34KUMi/ThuPoG8sOwJ18BPjXrdBS5EiXYBBFalkVRV0ktqyiNi57LBVS+VGWV \
                 FwOD85C/V/Fju2wETdy0ly1VjfLBg=",
                "H+XsRP2HBJwygQonE/YquKr2y1KqjjlhBQ/hEkIGFjjNhOIvMfuuO054H4+kxMmvHFdwk8 \
                 a8Uwy1MxQBC3a4b0jAQ77rOn5VFhO1tAmCkfZP1bJSxewRfC2Eo7j/07+r8ZLuyuAzlQIW+n \
                 DPJtOhnIIEOGhLgPNlcTwc9R/XKiE=",
                "s=dummy; t=12345\nARC-Auth",
                "s=dummy; t=12345;\nARC-Auth",
            ),
            "pass 0",
        ),
        (
            "ams_format_tags_unknown",
            sealed(
                "hnT0gH/efgds1eGi2XgAPK5ts+d6QZHc910SN6Xpr1TmDPXpNoRlq8F4eeMTj8VMgLWOza \
                 HeMe4quPmcWlZm0vRkiUxK3Q9HJlclElB9ehd+qPKzE92zWdSnkQN3kpyoA9mSAn6eTUmX9d \
                 ZFCA8DnXTQSl3T7V4GWwO9byXtHmg=",
                "jHH5JVvEmO5RMAl5NlbOHuIgc72768gwRv2MjCvgh83McNt2Ogx7yFZTPfcyO9F0jT5EIz \
                 bOzMeH+vIBJjJZz1/FVpBUxXJ7Ir5jQ6rjDGCvztrqeSMkhyF2pdiGIQPn6HuA0qDjMY6IfM \
                 wGoYUNqNE0+2s5p+DuxXMbT0tZBv4=",
                "s=dummy; t=12345\nARC-Auth",
                "s=dummy; t=12345; w=flarp\nARC-Auth",
            ),
            "pass 0",
        ),
        (
            "ams_fields_bh_ignores_wsp",
            sealed(
                "E8x7AZqCzrIuoNF9dWTyteDmtDLHk3J6CSXj1DfRHjk2cd0oeHUIXvtrNtMhYs2sFHoZRR \
                 NuVvgDUIwPcbtr2Bz9eYvUTuOToBRn9FZFqnpR/rHl5VbPAIhSwE98WT6PJt8pqNCyKyZU3I \
                 szoWq5cB3OWUv6QJ8ctb6rCZLbk3g=",
                "xWBIUyGnx5WlX005xU8TYkieptAqvslDc7lkuqyFpACyOklw0t4cAONgr6qUavTnRJyZoJ \
                 mXXIvvPk/7xgH9eT9lCFYk49vpo+fqZACxJwpRk6WbB3fwbfeZe8C2aL6X/G40ROlh4EVcy2 \
                 +NjgNS2X9ZEmxKuGEehFLqaJnx8yM=",
                "bh=KWSe",
                "bh=K WSe",
            ),
            "pass 0",
        ),
        ("ams_fields_bh_sim_base", simple.clone(), "pass 0"),
        (
            "ams_fields_bh_sim_end_lines",
            format!("{simple}\n\n"),
            "pass 0",
        ),
        (
            "ams_fields_bh_sim_inl_wsp",
            with(&simple, "is a test", "is a   test"),
            "body hash differs",
        ),
        (
            "ams_fields_t_na",
            sealed(
                "rx+UjBcicBZ6s5/J7S5oMw3YVWAWg+q4Sb4XqR0tMmhOyhjLq7702sEFlEDHJjdTuTVMg+ \
                 c2qwv/XucEGW8/i4AMzNgkzpwk1Icsr0GHGbR7Jm8V+k6Z08tvQ4x1UaYgrTKmSQeyKq8rQQ \
                 rRdzsqqX73OFp/cKLa42T3JVTrQpc=",
                "iRbmo9I0Qn8ZELD2xJ754eoEATUfoRxli5qMUi3AQTwGLHU6oaLFsAP7JDYjRm6al3XGp8 \
                 73NpnbncM6dnqlBvKK5OmekgztBKiyo7w0Uj6NZbq2KJXYiVW2vAbVkNwy4vPNhMHVTbD/xB \
                 PWROiovFOL0q2mHDT1KKLiSzEfrWA=",
                "s=dummy; t=12345\nARC-Auth",
                "s=dummy\nARC-Auth",
            ),
            "pass 0",
        ),
        (
            "public_key_na",
            sealed(
                "xEoL/6DZn2+/oIsSIAFRrnQdhyrH/aSGdRqBphcyZvTLhDyd8sPHIqNsr0HROjIybe3lUG \
                 /YlYIftmAUP3E7kWbfU7HrolZ/5f4eB0tciltpSyBUPzM2D30IxGmqUvQxk5ATb7WxKAUs4x \
                 XiTmx1MaAUKAExlm45pwp5wEoU/D8=",
                "",
                "s=dummy",
                "s=na",
            ),
            "no key",
        ),
        (
            "public_key_invalid",
            sealed(
                "G6sqFlzmC87EiD80V9Da8JURM2MUxp1tK3iUxrQdSJ6odUYPT8ApwE1GWodzs8UDuKemL+ \
                 qn7E29nhcK8pwjLjWNilPTZJ1Bt1TS8QersJsEe4tD+rcbGd8ZU8C2UcUpv0TFv3m4GrNbwx \
                 JFFf9r1x5VkXulzTwIo1VW6avKShw=",
                "",
                "s=dummy",
                "s=invalid",
            ),
            "key record not readable",
        ),
    ];
    assert_eq!(cases.len(), 11);
    for (name, message, wanted) in cases {
        assert_eq!(say(&judge(&crlf(&message), &zone, 12346)), wanted, "{name}");
    }
}

/// arc_set_duplicate of the suite, which is older than RFC 8617, passes; by RFC 8617 4.2.1 and 5.2 step
/// 3 there is one of each field for each instance, and anything else fails.
#[test]
fn a_set_that_stands_twice_fails() {
    let (_file, zone) = zone(&KEYS);
    let (head, rest) = I1.split_once("ARC-Seal:").unwrap();
    let (set, tail) = rest.split_once("Received: from").unwrap();
    let set = format!("ARC-Seal:{set}");
    let message = format!("{head}{set}{set}Received: from{tail}");
    let chain = judge(&crlf(&message), &zone, 12346);
    assert_eq!(say(&chain), "ARC instances are no row");
}
