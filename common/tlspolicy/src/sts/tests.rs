use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const POLICY: &str = "version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: 86400\n";

/// DNS and a web server that say what they are told to.
struct World {
    dir: tempfile::TempDir,
    page: Arc<Mutex<Result<String, FetchError>>>,
    fetched: Arc<AtomicUsize>,
    age: u64,
}

impl World {
    fn new() -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
            page: Arc::new(Mutex::new(Ok(POLICY.into()))),
            fetched: Arc::default(),
            age: 0,
        };
        fs::write(world.zone(), "").unwrap();
        world
    }

    fn zone(&self) -> std::path::PathBuf {
        self.dir.path().join("zone")
    }

    fn dns(&mut self, zone: &str) {
        fs::write(self.zone(), zone).unwrap();
        // Each change has a time of its own.
        self.age += 10;
        let time = SystemTime::now() - Duration::from_secs(self.age);
        let file = fs::File::options().append(true).open(self.zone()).unwrap();
        file.set_modified(time).unwrap();
    }

    fn web(&self, page: Result<&str, FetchError>) {
        *self.page.lock().unwrap() = page.map(Into::into);
    }

    /// As a new process has them.
    fn policies(&self) -> Policies {
        let dns = Arc::new(dns::Zone::load(&self.zone()).unwrap());
        let (page, fetched) = (Arc::clone(&self.page), Arc::clone(&self.fetched));
        let fetch = move |host: &str, path: &str| {
            assert_eq!(
                (host, path),
                ("mta-sts.example.org", "/.well-known/mta-sts.txt")
            );
            fetched.fetch_add(1, Ordering::SeqCst);
            page.lock().unwrap().clone().map(String::into_bytes)
        };
        Policies::new(&self.dir.path().join("sts"), dns, Box::new(fetch))
    }

    fn fetches(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }

    fn grow_old(&self, seconds: u64) {
        let path = self.dir.path().join("sts/example.org");
        let text = fs::read_to_string(&path).unwrap();
        let then = SystemTime::now() - Duration::from_secs(seconds);
        let then = then
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let line = text.lines().find(|l| l.starts_with("fetched=")).unwrap();
        fs::write(&path, text.replace(line, &format!("fetched={then}"))).unwrap();
    }
}

const RECORD: &str = "_mta-sts.example.org TXT \"v=STSv1; id=1\"\n";

fn mode(sts: Sts) -> &'static str {
    match sts {
        Sts::None => "no policy",
        Sts::Unknown(_) => "unknown",
        Sts::Policy(policy) => match policy.mode {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        },
    }
}

fn example() -> Domain {
    Domain::parse("example.org").unwrap()
}

#[test]
fn a_policy_is_fetched_once_and_stands_whatever_happens() {
    let mut world = World::new();
    assert_eq!(mode(world.policies().of(&example())), "no policy");
    assert_eq!(world.fetches(), 0);
    world.dns(RECORD);
    let policies = world.policies();
    assert_eq!(mode(policies.of(&example())), "enforce");
    assert_eq!(mode(policies.of(&example())), "enforce");
    assert_eq!(mode(world.policies().of(&example())), "enforce");
    assert_eq!(world.fetches(), 1);
    // Nobody takes it away: no DNS, an answer without a record, a web server that is gone.
    world.web(Err(FetchError::Failed("refused".into())));
    for zone in [
        "_mta-sts.example.org FAIL\n",
        "",
        "_mta-sts.example.org TXT \"v=STSv1; id=2\"\n",
    ] {
        world.dns(zone);
        assert_eq!(mode(world.policies().of(&example())), "enforce", "{zone}");
    }
    // Its owner does.
    world.web(Ok("version: STSv1\nmode: none\nmax_age: 86400\n"));
    assert_eq!(mode(world.policies().of(&example())), "none");
    world.grow_old(86_401);
    world.dns("");
    assert_eq!(mode(world.policies().of(&example())), "no policy");
}

#[test]
fn what_was_never_read_is_as_none_and_not_asked_for_again_at_once() {
    let mut world = World::new();
    world.dns(RECORD);
    for why in [
        FetchError::Certificate("expired".into()),
        FetchError::Failed("404".into()),
    ] {
        world.web(Err(why.clone()));
        let (policies, before) = (world.policies(), world.fetches());
        assert_eq!(policies.of(&example()), Sts::Unknown(why.clone()));
        assert_eq!(policies.of(&example()), Sts::Unknown(why));
        assert_eq!(world.fetches(), before + 1);
    }
    world.web(Ok("<html>"));
    let policies = world.policies();
    assert!(matches!(
        policies.of(&example()),
        Sts::Unknown(FetchError::Invalid(_))
    ));
    // A new id is a new try.
    world.web(Ok(POLICY));
    assert_eq!(mode(policies.of(&example())), "unknown");
    world.dns("_mta-sts.example.org TXT \"v=STSv1; id=2\"\n");
    assert_eq!(mode(policies.of(&example())), "enforce");
}

#[test]
fn it_is_read_again_behind_the_senders_back() {
    let mut world = World::new();
    world.dns(RECORD);
    assert_eq!(mode(world.policies().of(&example())), "enforce");
    world.grow_old(50_000);
    world.web(Ok(&POLICY.replace("enforce", "testing")));
    let policies = world.policies();
    assert_eq!(mode(policies.of(&example())), "enforce");
    let end = Instant::now() + Duration::from_secs(20);
    while mode(policies.of(&example())) != "testing" {
        assert!(Instant::now() < end, "waited 20 s in vain");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(world.fetches(), 2);
}

#[test]
fn it_is_read_again_every_day_as_long_as_somebody_wrote_there() {
    let mut world = World::new();
    world.dns(RECORD);
    assert_eq!(mode(world.policies().of(&example())), "enforce");
    let file = world.dir.path().join("sts/example.org");
    let other = world.dir.path().join("sts/other.example");
    fs::write(&other, "damaged").unwrap();
    world.policies().upkeep();
    assert_eq!(world.fetches(), 1, "it is fresh");
    assert!(!other.exists());
    let day = Duration::from_secs(24 * 3600);
    for (days_unused, fetches) in [(29, 2), (31, 2), (1, 3)] {
        world.grow_old(80_000);
        let used = SystemTime::now() - day * days_unused;
        let set = fs::File::options().write(true).open(&file).unwrap();
        set.set_modified(used).unwrap();
        world.policies().upkeep();
        assert_eq!(world.fetches(), fetches, "{days_unused}");
        let after = fs::metadata(&file).unwrap().modified().unwrap();
        assert_eq!(after, used, "that was no mail");
    }
    assert_eq!(mode(world.policies().of(&example())), "enforce");
    let literal = Domain::parse("[192.0.2.1]").unwrap();
    assert_eq!(world.policies().of(&literal), Sts::None);
}
