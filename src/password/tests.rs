use super::*;
use crossbeam_channel::bounded;
use std::time::Duration;

/// What the memory of a connection's thread allows; hashing runs there.
const STACK_BYTES: usize = 256 << 10;
/// Far more than a test takes; only a failing one waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// "password" by the reference implementation, from its own tests.
const CHEAP: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$\
                     nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
/// The same with two lanes.
const TWO_LANES: &str = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$\
                         bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";
/// The same of the variant and version that came first.
const OLD: &str = "$argon2i$v=16$m=256,t=2,p=1$c29tZXNhbHQ$\
                   /U3YPXYsSb3q9XxHvc0MLxur+GP960kN9j7emXX8zwY";

fn password(text: &str) -> Password {
    Password::new(text.to_owned()).unwrap()
}

fn permit() -> Permit {
    Permits::new(1).acquire(Instant::now()).unwrap()
}

fn cost(hash: &str) -> (Algorithm, Version, u32, u32, u32, usize) {
    let r = Record::parse(hash).unwrap();
    let p = &r.params;
    (r.algorithm, r.version, p.m_cost(), p.t_cost(), p.p_cost(), r.output.len())
}

#[test]
fn a_password_is_verified_by_its_hash_alone() {
    let right = password("correct horse");
    let hash = hash(&right).unwrap();
    let mut permit = permit();
    assert_eq!(permit.verify(&right, &hash), Ok(true));
    for wrong in ["correct horsf", "correct horse ", "Correct horse", ""] {
        assert_eq!(permit.verify(&password(wrong), &hash), Ok(false), "{wrong:?}");
    }
}

#[test]
fn equal_passwords_have_different_hashes() {
    let mut permit = permit();
    let hashes = [(); 2].map(|()| permit.hash(&password("same same")).unwrap());
    assert_ne!(hashes[0], hashes[1]);
    for hash in &hashes {
        assert_eq!(permit.verify(&password("same same"), hash), Ok(true));
    }
}

#[test]
fn an_unknown_user_costs_what_a_new_hash_costs() {
    let new = hash(&password("whatever")).unwrap();
    assert_eq!(cost(NOBODY), cost(new.as_str()));
    let (salt, nobodys) = (Record::parse(new.as_str()).unwrap().salt, Record::parse(NOBODY).unwrap().salt);
    assert_eq!(salt.as_ref().len(), nobodys.as_ref().len());
    assert_eq!(cost(NOBODY).2, 19_456);
    let mut permit = permit();
    assert_eq!(permit.verify_unknown(&password("whatever")), Ok(()));
    assert_eq!(permit.memory.0.len(), 19_456);
}

#[test]
fn records_of_other_programs_are_understood_at_their_own_cost() {
    let mut permit = permit();
    for record in [CHEAP, TWO_LANES, OLD] {
        let hash = Hash::parse(record).unwrap();
        assert_eq!(permit.verify(&password("password"), &hash), Ok(true));
        assert_eq!(permit.verify(&password("sassword"), &hash), Ok(false));
    }
    assert_eq!(permit.memory.0.len(), 256);
}

#[test]
fn records_beyond_the_bounds_are_refused() {
    let with = |from: &str, to: &str| CHEAP.replacen(from, to, 1);
    for good in [
        with("m=256", "m=262144"),
        with("t=2", "t=64"),
        with("p=1", "p=16"),
        with("argon2id", "argon2i"),
        with("argon2id", "argon2d"),
        with("v=19", "v=16"),
        with("m=256,t=2,p=1", "t=2,m=256,p=1"),
    ] {
        assert_eq!(Hash::parse(&good).map(|h| h.0), Ok(good.into()));
    }
    for bad in [
        String::new(),
        "secret".into(),
        "$2b$12$abcdefghijklmnopqrstuv".into(),
        with("argon2id", "scrypt"),
        with("v=19", "v=20"),
        with("$v=19", ""),
        with("m=256", "m=262145"),
        with("m=256", "m=7"),
        with("m=256", "m=99999999999"),
        with("t=2", "t=65"),
        with("t=2", "t=0"),
        with("p=1", "p=17"),
        with("p=1", "p=1,p=1"),
        with(",p=1", ""),
        with("p=1", "p=1,keyid=c29tZQ"),
        with("p=1", "p=1,data=c29tZQ"),
        with("$c29tZXNhbHQ", ""),
        with("$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", ""),
        with("nf65", "\u{e9}65"),
        with("$argon2id", " $argon2id"),
        CHEAP.to_owned() + "$",
        CHEAP.to_owned() + "\n",
        CHEAP.to_owned() + &"A".repeat(512),
    ] {
        let refused = Hash::parse(&bad);
        assert!(matches!(refused, Err(PasswordError::BadHash(_))), "{bad:?}: {refused:?}");
    }
}

#[test]
fn new_passwords_are_measured_in_bytes() {
    let too_short = Err(PasswordError::TooShort { minimum: 8 });
    for good in ["12345678", "ääää", &"x".repeat(1024)] {
        assert_eq!(password(good).check_new(8), Ok(()));
    }
    assert!(Password::new("x".repeat(1024)).is_ok());
    assert!(Password::new("x".repeat(1025)).is_err());
    assert_eq!(password("1234567").check_new(8), too_short);
}

#[test]
fn nothing_prints_a_secret() {
    let hash = Hash::parse(CHEAP).unwrap();
    let shown = format!("{:?} {:?} {:?}", password("tomato"), hash, permit());
    assert_eq!(shown, "Password(..) Hash(..) Permit(..)");
}

#[test]
fn no_more_than_the_permits_hash_at_once() {
    let permits = Permits::new(2);
    let now = Instant::now();
    let held = [(); 2].map(|()| permits.acquire(now).unwrap());
    assert!(permits.acquire(now).is_none());
    let soon = Instant::now() + Duration::from_millis(5);
    assert!(permits.acquire(soon).is_none());
    drop(held);
    let again = [(); 3].map(|()| permits.acquire(now));
    assert!(again[0].is_some() && again[1].is_some() && again[2].is_none());
}

#[test]
fn a_permit_that_comes_back_wakes_whoever_waits() {
    let permits = Permits::new(1);
    // Often enough that he surely waited once before it came back. If nobody woke him he would find it when his
    // deadline passes, so that is far behind the one of this test.
    for _ in 0..100 {
        let held = permits.acquire(Instant::now()).unwrap();
        let (waiting, waits) = bounded(1);
        let (got, gets) = bounded(1);
        let theirs = permits.clone();
        let other = crate::thread::spawn("other", STACK_BYTES, move || {
            waiting.send(()).unwrap();
            let permit = theirs.acquire(Instant::now() + PATIENCE * 10);
            got.send(permit.is_some()).unwrap();
        });
        waits.recv().unwrap();
        (0..10).for_each(|_| std::thread::yield_now());
        assert!(gets.is_empty());
        drop(held);
        assert_eq!(gets.recv_timeout(PATIENCE), Ok(true));
        other.unwrap().join().unwrap();
    }
}

#[test]
fn a_panic_gives_the_permit_back() {
    let permits = Permits::new(1);
    let theirs = permits.clone();
    let doomed = crate::thread::spawn("doomed", STACK_BYTES, move || {
        let _permit = theirs.acquire(Instant::now()).unwrap();
        panic!("on purpose");
    });
    doomed.unwrap().join().unwrap_err();
    assert!(permits.acquire(Instant::now()).is_some());
}

#[test]
fn memory_is_kept_up_to_the_default_cost() {
    let permits = Permits::new(1);
    let dear = CHEAP.replacen("m=256,t=2", "m=32768,t=1", 1);
    let mut permit = permits.acquire(Instant::now()).unwrap();
    permit.verify(&password("x"), &Hash::parse(&dear).unwrap()).unwrap();
    assert_eq!(permit.memory.0.len(), 32_768);
    drop(permit);

    let mut permit = permits.acquire(Instant::now()).unwrap();
    assert_eq!(permit.memory.0.capacity(), 19_456);
    let place = permit.memory.0.as_ptr();
    permit.hash(&password("another")).unwrap();
    assert_eq!(permit.memory.0.as_ptr(), place);
}

#[test]
fn hashing_fits_the_stack_of_a_connection() {
    // A third of it, so that what calls the hashing has room as well.
    let body = || hash(&password("small stack")).is_ok();
    let hashed = crate::thread::spawn("small", STACK_BYTES / 3, body);
    assert!(hashed.unwrap().join().unwrap());
}
