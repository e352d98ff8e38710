//! Chains that others sealed: a part of the ARC test suite.
//!
//! Source: ValiMail/arc_test_suite, tests/arc-draft-validation-tests.yml, whose cases are also in
//! MimeKit's ArcVerifierTests.cs (MIT licence, copyright .NET Foundation and Contributors). The suite
//! states no licence of its own; so only the signed messages below are kept, and the cases that need
//! no other signature are made from them here. Their key is that of RFC 8463 A.2.

use crate::chains::{judge, say};
use crate::examples::RSA_KEY;
use crate::{crlf, zone};

const I1: &str = include_str!("data/arc-i1.eml");
const I2: &str = include_str!("data/arc-i2.eml");
const I2_CHANGED: &str = include_str!("data/arc-i2-changed.eml");

#[test]
fn chains_of_the_arc_test_suite() {
    let (_file, zone) = zone(&[
        ("dummy._domainkey.example.org.", RSA_KEY),
        (
            "invalid._domainkey.example.org.",
            "v=DKIM1; k=rsa; omgwhatsgoingon",
        ),
    ]);
    let change = |text: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    let plain = I1.split_once("Received:").unwrap().1;
    let cases = [
        ("cv_base1", format!("Received:{plain}"), "none"),
        ("cv_empty", String::new(), "none"),
        (
            "cv_no_headers",
            "\nHey gang,\nThis is a test message.\n--J.\n".into(),
            "none",
        ),
        ("cv_pass_i1_1", I1.into(), "pass 0"),
        ("cv_pass_i2_1", I2.into(), "pass 0"),
        ("cv_pass_i2_1_ams1_invalid", I2_CHANGED.into(), "pass 2"),
        (
            "cv_fail_i1_ams_invalid",
            change(I1, "John Q", "Gene Q"),
            "signature does not verify",
        ),
        (
            "cv_fail_i2_ams2_invalid",
            change(I2, "John Q", "Gene Q"),
            "signature does not verify",
        ),
        (
            "cv_fail_i1_as_invalid",
            change(I1, "b=dOdFE", "b=dOdFD"),
            "a seal does not verify",
        ),
        (
            "cv_fail_i2_as1_invalid",
            change(I2, "b=dOdFE", "b=dOdFD"),
            "a seal does not verify",
        ),
        (
            "cv_fail_i1_as_cv_fail",
            change(I1, "cv=none", "cv=fail"),
            "the last sealer found the chain broken",
        ),
        (
            "cv_fail_i1_as_pass",
            change(I1, "cv=none", "cv=pass"),
            "cv= does not fit its instance",
        ),
        (
            "as_struct_i_na",
            change(I1, " i=1; s=dummy;\n    t=12345\nARC-M", " s=dummy\nARC-M"),
            "ARC field without an instance",
        ),
        (
            "as_format_tags_dup",
            change(I1, "cv=none", "cv=none; cv=none"),
            "ARC field without an instance",
        ),
        (
            "ams_missing",
            change(I1, "ARC-Message-Signature:", "X-Other:"),
            "ARC set not whole",
        ),
        (
            "as_missing",
            change(I1, "ARC-Seal:", "X-Other:"),
            "ARC set not whole",
        ),
        (
            "aar_missing",
            change(I1, "ARC-Authentication-Results:", "X-Other:"),
            "ARC set not whole",
        ),
        (
            "aar2_missing",
            change(I2, "ARC-Authentication-Results:", "X-Other:"),
            "ARC set not whole",
        ),
        (
            "aar_i_missing",
            change(I1, "Results: i=1;", "Results:"),
            "ARC field without an instance",
        ),
        (
            "aar_i_wrong",
            change(I1, "Results: i=1;", "Results: i=2;"),
            "ARC instances are no row",
        ),
        (
            "aar_i_not_prefixed",
            change(I1, "i=1; lists.example.org;", "lists.example.org; i=1;"),
            "ARC field without an instance",
        ),
        (
            "aar_i_no_semi",
            change(I1, "i=1; lists", "i=1 lists"),
            "ARC field without an instance",
        ),
        ("public_key_na", change(I1, "s=dummy", "s=na"), "no key"),
        (
            "public_key_invalid",
            change(I1, "s=dummy", "s=invalid"),
            "key record not readable",
        ),
    ];
    assert_eq!(cases.len(), 24);
    for (name, message, wanted) in cases {
        assert_eq!(say(&judge(&crlf(&message), &zone, 12346)), wanted, "{name}");
    }
}
