//! The corpora of what needs nothing from inside of a program, and that each target has all it needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fuzz_targets::{corpus, replay};

#[test]
fn the_corpus_of_address() {
    replay("address", fuzz_targets::address);
}

#[test]
fn the_corpus_of_mailauth() {
    replay("mailauth", fuzz_targets::mailauth);
}

#[test]
fn the_corpus_of_milter() {
    replay("milter", fuzz_targets::milter);
}

#[test]
fn the_corpus_of_mime() {
    replay("mime", fuzz_targets::mime);
}

/// A target is three things: a body, an engine's program and a corpus; and somebody replays it.
#[test]
fn each_target_is_whole() {
    let names = |dir: &Path| -> BTreeSet<String> {
        fs::read_dir(dir)
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let engines = names(&fuzz.join("fuzz_targets"));
    assert_eq!(engines, names(&corpus()));
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let docs = fs::read_to_string(fuzz.join("../docs/fuzzing.md")).unwrap();
    let mut replays = include_str!("replay.rs").to_owned();
    for inside in ["smtpd", "common/net", "common/queue"] {
        let file = fuzz.join("..").join(inside).join("src/fuzz.rs");
        replays.push_str(&fs::read_to_string(file).unwrap());
    }
    for name in engines {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(docs.contains(&format!("`{name}`")), "{name}");
        let call = format!("replay(\"{name}\", ");
        assert!(replays.contains(&call), "{name}");
    }
}
