//! Several processes and threads at once, restarts, damage.

use super::*;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn root() -> (tempfile::TempDir, Root, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    let path = root.path(file::PATH);
    (dir, root, path)
}

fn key(n: u64) -> Key {
    Key::new("t", [&n.to_le_bytes()])
}

fn add(tally: &Tally, key: &Key, now: SystemTime) -> u64 {
    tally.update(key, now, |slot| {
        slot.worth = Worth::Count;
        slot.keep(now, Duration::from_secs(60));
        slot.numbers[0] += 1;
        slot.numbers[0]
    })
}

#[test]
fn what_one_knows_the_other_knows_and_a_restart_forgets_nothing() {
    let (_dir, root, _) = root();
    let now = SystemTime::now();
    let (a, b) = (Tally::open(&root).unwrap(), Tally::open(&root).unwrap());
    assert_eq!(add(&a, &key(1), now), 1);
    assert_eq!(add(&b, &key(1), now), 2);
    assert_eq!(a.look(&key(1), now).unwrap().numbers[0], 2);
    drop((a, b));
    let again = Tally::open(&root).unwrap();
    assert_eq!(again.look(&key(1), now).unwrap().numbers[0], 2);
    assert_eq!(again.look(&key(2), now), None);
    again.forget(&key(1), now);
    assert_eq!(again.look(&key(1), now), None);
    assert_eq!(again.look(&key(1), now + Duration::from_secs(61)), None);
}

#[test]
fn no_change_is_lost_between_threads_and_openings() {
    let (_dir, root, _) = root();
    let now = SystemTime::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // Each opening has locks of its own, as another process has; two threads share one.
            let tally = Tally::open(&root).unwrap();
            for _ in 0..2 {
                let tally = tally.clone();
                scope.spawn(move || {
                    for n in 0..200 {
                        add(&tally, &key(n % 3), now);
                    }
                });
            }
        }
    });
    let tally = Tally::open(&root).unwrap();
    let sum: u64 = (0..3)
        .map(|n| tally.look(&key(n), now).unwrap().numbers[0])
        .sum();
    assert_eq!(sum, 1600);
}

#[test]
fn damage_is_mended_and_a_deleted_file_made_again() {
    let (_dir, root, path) = root();
    let now = SystemTime::now();
    let tally = Tally::open(&root).unwrap();
    add(&tally, &key(1), now);
    let size = path.metadata().unwrap().len();
    let raw = File::options().read(true).write(true).open(&path).unwrap();
    let (bucket, _) = tally.place(&key(1));
    raw.write_all_at(&[0xa5; BUCKET], bucket.range().start)
        .unwrap();
    assert_eq!(tally.look(&key(1), now), None);
    assert_eq!(add(&tally, &key(1), now), 1);

    raw.write_all_at(b"x", 20).unwrap();
    let anew = Tally::open(&root).unwrap();
    assert_eq!(anew.look(&key(1), now), None);
    assert_eq!(add(&tally, &key(1), now), 2, "who has the old one goes on");
    for bad in [0, 100, size - 1] {
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(bad)
            .unwrap();
        let anew = Tally::open(&root).unwrap();
        assert_eq!(add(&anew, &key(1), now), 1);
        assert_eq!(path.metadata().unwrap().len(), size, "{bad}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(Tally::open_if_there(&root).unwrap().is_none());
    assert_eq!(add(&anew, &key(1), now), 1);
    assert_eq!(add(&Tally::open(&root).unwrap(), &key(1), now), 1);
    let names = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(names, 1, "nothing is left beside it");
}

#[test]
fn garbage_under_a_good_head_is_empty_places() {
    let (_dir, root, path) = root();
    let now = SystemTime::now();
    let tally = Tally::open(&root).unwrap();
    let raw = File::options().write(true).open(&path).unwrap();
    let mut garbage = vec![0; 1 << 20];
    for at in 0..16 {
        getrandom::fill(&mut garbage).unwrap();
        raw.write_all_at(&garbage, 4096 + (at << 20)).unwrap();
    }
    for n in 0..500 {
        assert_eq!(tally.look(&key(n), now), None);
        assert_eq!(add(&tally, &key(n), now), 1);
        assert_eq!(add(&tally, &key(n), now), 2);
    }
}

#[test]
fn what_is_no_file_of_ours_is_not_written_to() {
    let (dir, root, path) = root();
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "mine").unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    type Put = fn(&Path, &Path);
    let table: [(&str, Put); 3] = [
        ("symlink", |from, to| {
            std::os::unix::fs::symlink(from, to).unwrap();
        }),
        ("hard link", |from, to| {
            std::fs::hard_link(from, to).unwrap();
        }),
        ("fifo", |_, to| {
            nix::unistd::mkfifo(to, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
    ];
    for (what, place) in table {
        place(&victim, &path);
        assert!(file::open(&root).is_err(), "{what}");
        // The process goes on with a memory of its own.
        let tally = Tally::open(&root).unwrap();
        assert_eq!(add(&tally, &key(1), SystemTime::now()), 1, "{what}");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine", "{what}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn it_is_bounded_and_what_is_worth_more_stays() {
    let tally = Tally::new(file::anonymous(64).unwrap());
    let now = SystemTime::now();
    tally.hold_account("ann", now);
    tally.offence(&Key::new("net", [b"x"]), Duration::from_secs(30), now);
    let size = tally.0.file.metadata().unwrap().len();
    for n in 0..4000 {
        tally.update(&key(n), now, |slot| slot.keep(now, Duration::from_secs(9)));
    }
    assert!(tally.is_held("ann", now));
    assert!(tally.standing(&Key::new("net", [b"x"]), now).is_shut_out());
    assert_eq!(tally.0.file.metadata().unwrap().len(), size);
    let left = (0..4000).filter(|n| tally.look(&key(*n), now).is_some());
    assert!(left.count() > 900);
}

/// What an update costs is said in docs/internals.md; here only that nothing is badly wrong.
#[test]
fn an_update_takes_microseconds() {
    let (_dir, root, _) = root();
    let tally = Tally::open(&root).unwrap();
    let now = SystemTime::now();
    let start = Instant::now();
    for n in 0..20_000 {
        add(&tally, &key(n % 1000), now);
    }
    let each = start.elapsed() / 20_000;
    eprintln!("an update: {each:?}");
    assert!(each < Duration::from_millis(1), "{each:?}");
}
