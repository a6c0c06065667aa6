use super::*;
use rcgen::PublicKeyData;
use std::os::unix::fs::PermissionsExt;

fn name() -> ServerName {
    ServerName::new("a.example").expect("a name")
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("a file").permissions().mode() & 0o777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}

#[test]
fn a_server_makes_its_own_once() {
    let home = tempfile::tempdir().expect("a directory");
    let state = home.path().join("a/state");
    let paths = Paths::own(&state);
    let made = Identity::own(&state, &name()).expect("made");
    assert_eq!((mode(&state), mode(&paths.key), mode(&paths.certificate)), (0o700, 0o600, 0o644));
    let files = || (fs::read(&paths.key).expect("a key"), fs::read(&paths.certificate).expect("a certificate"));
    let before = files();
    assert_eq!(Identity::own(&state, &name()).expect("read").pin(), made.pin());
    assert_eq!(files(), before, "nothing is written again");
    assert_eq!(fs::read_dir(&state).expect("a directory").count(), 2, "nothing is left behind");
    let key = KeyPair::from_pem(std::str::from_utf8(&before.0).expect("PEM")).expect("a key");
    assert_eq!(made.pin(), Pin::of(&key.subject_public_key_info()));
    assert!(!made.is_out_of_date());
}

#[test]
fn a_certificate_that_is_gone_is_made_for_the_same_key_and_a_key_that_is_gone_is_missed() {
    let home = tempfile::tempdir().expect("a directory");
    let paths = Paths::own(home.path());
    let pin = Identity::own(home.path(), &name()).expect("made").pin();
    fs::remove_file(&paths.certificate).expect("the file");
    assert_eq!(Identity::own(home.path(), &name()).expect("made").pin(), pin);
    fs::remove_file(&paths.key).expect("the file");
    let error = Identity::own(home.path(), &name()).expect_err("no key");
    assert!(matches!(error.flaw, IdentityFlaw::NoKey(_)) && error.path == paths.key, "{error}");
    assert!(error.to_string().contains("put it back"), "{error}");
}

#[test]
fn who_was_faster_stays() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("file");
    for text in ["first", "second"] {
        publish(home.path(), &path, 0o600, text.to_owned()).expect("no error");
    }
    assert_eq!(fs::read_to_string(&path).expect("a file"), "first");
}

#[test]
fn odd_names_are_taken() {
    for odd in ["localhost", "127.0.0.1", "a:1", "A_b-", "x..y", "::1"].into_iter().filter_map(|odd| ServerName::new(odd).ok()) {
        let home = tempfile::tempdir().expect("a directory");
        Identity::own(home.path(), &odd).unwrap_or_else(|error| panic!("{odd}: {error}"));
    }
}

#[test]
fn what_is_no_certificate_with_its_key_is_refused() {
    let (home, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (paths, others) = (Paths::own(home.path()), Paths::own(other.path()));
    for directory in [&home, &other] {
        Identity::own(directory.path(), &name()).expect("made");
    }
    let load = |certificate: &Path, key: &Path| {
        let paths = Paths { certificate: certificate.to_owned(), key: key.to_owned() };
        Identity::load(&paths).map(|identity| identity.pin()).map_err(|error| (error.path.clone(), error.to_string()))
    };
    #[track_caller]
    fn refused(loaded: Result<Pin, (PathBuf, String)>, path: &Path, words: &str) {
        let (found, told) = loaded.expect_err("refused");
        assert!(found == path && told.contains(words), "{told}");
    }
    refused(load(&paths.certificate, &others.key), &others.key, "is not the key of the certificate in");
    refused(load(&paths.key, &paths.key), &paths.key, "has no certificate in PEM");
    refused(load(&paths.certificate, &others.certificate), &others.certificate, "is open to other users");
    let gone = home.path().join("gone");
    refused(load(&gone, &paths.key), &gone, "No such file");
    refused(load(&paths.certificate, &gone), &gone, "No such file");
    for (text, words) in
        [("", "has no key"), ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "of no use"), ("-----BEGIN PR", "no PEM")]
    {
        let bad = home.path().join("bad");
        fs::write(&bad, text).expect("written");
        chmod(&bad, 0o600);
        refused(load(&paths.certificate, &bad), &bad, words);
    }
    let bad = home.path().join("bad.crt");
    fs::write(&bad, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("written");
    refused(load(&bad, &paths.key), &bad, "of no use");
    fs::write(&bad, vec![b'x'; FILE_BYTES_MAX as usize + 1]).expect("written");
    refused(load(&bad, &paths.key), &bad, "has more than");
    for open in [0o640, 0o604, 0o660, 0o610] {
        chmod(&paths.key, open);
        refused(load(&paths.certificate, &paths.key), &paths.key, "run: chmod 0600 ");
    }
}

#[test]
fn a_key_is_ours_or_given_by_root() {
    let judged = |owner, mode, us| judge(owner, mode, us).is_ok();
    assert!(judged(7, 0o600, 7) && judged(0, 0o600, 7) && judged(0, 0o640, 7));
    assert!(!judged(8, 0o600, 7) && !judged(7, 0o640, 7) && !judged(0, 0o644, 7) && !judged(0, 0o660, 7) && !judged(0, 0o640, 0));
}

#[test]
fn nothing_of_a_key_is_printed() {
    let home = tempfile::tempdir().expect("a directory");
    let identity = Identity::own(home.path(), &name()).expect("made");
    assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.pin()));
}

#[test]
fn a_time_that_is_over_or_has_not_come_is_seen() {
    for (from, until, out_of_date) in [(2000, 2020, true), (2900, 3000, true), (2000, 3000, false)] {
        let home = tempfile::tempdir().expect("a directory");
        let paths = Paths::own(home.path());
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["b.example".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        fs::write(&paths.certificate, params.self_signed(&key).expect("a certificate").pem()).expect("written");
        fs::write(&paths.key, key.serialize_pem()).expect("written");
        chmod(&paths.key, 0o600);
        assert_eq!(Identity::load(&paths).expect("good").is_out_of_date(), out_of_date, "{from} {until}");
    }
}
