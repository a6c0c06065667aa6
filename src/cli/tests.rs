use super::*;
use crate::name::Username;
use std::path::PathBuf;
use std::sync::Arc;

#[test]
fn a_password_is_the_first_line_as_it_is() {
    let long = "x".repeat(1024);
    for (input, expected) in [
        ("secret\n", "secret"),
        ("secret", "secret"),
        ("secret\r\n", "secret"),
        ("secret\r", "secret\r"),
        (" two words \nsecond line\n", " two words "),
        ("pässword\n", "pässword"),
        ("\n", ""),
        (&format!("{long}\r\n"), &long),
        (&long, &long),
    ] {
        let password = password_line(&mut input.as_bytes(), "a file").unwrap();
        assert_eq!(password.as_bytes(), expected.as_bytes(), "{input:?}");
    }
}

#[test]
fn what_is_no_password_is_bad_data() {
    let too_long = "x".repeat(1025);
    for input in [b"".as_slice(), b"\xff\xfe\n", too_long.as_bytes(), format!("{too_long}\n").as_bytes(), "x".repeat(1 << 20).as_bytes()] {
        let failure = password_line(&mut &*input, "a file").unwrap_err();
        assert_eq!(failure.code, 65, "{failure}");
        assert!(!failure.message.contains("xxx"), "{failure}");
    }
}

#[test]
fn no_more_than_a_password_is_read() {
    let endless = io::repeat(b'x');
    assert!(password_line(&mut io::BufReader::new(endless), "a file").is_err());
}

#[test]
fn each_trouble_of_the_store_has_its_exit_code() {
    let path = PathBuf::from("/x/bester.db");
    let alice = Username::new("alice").unwrap();
    let io = |kind| StoreError::Io { path: path.clone(), source: Arc::new(io::Error::from(kind)) };
    for (error, code) in [
        (StoreError::Unknown(alice.clone()), 67),
        (StoreError::Taken(alice.clone()), 65),
        (StoreError::Changed(alice), 75),
        (StoreError::Busy, 75),
        (StoreError::Stopped, 69),
        (StoreError::NotOurs { path: path.clone() }, 78),
        (StoreError::Newer { path: path.clone(), found: 2, known: 1 }, 78),
        (StoreError::Exposed { path: path.clone(), mode: 0o644 }, 77),
        (StoreError::Foreign { path: path.clone(), owner: 1, us: 2 }, 77),
        (io(ErrorKind::PermissionDenied), 77),
        (io(ErrorKind::NotADirectory), 69),
    ] {
        let failure = Failure::from(error);
        assert_eq!(failure.code, code, "{failure}");
        assert!(!failure.message.ends_with('.') && !failure.message.contains('\n'));
    }
}

#[test]
fn a_cause_stands_behind_its_error() {
    let error = StoreError::Io { path: "/x/bester.db".into(), source: Arc::new(io::Error::other("the disk is on fire")) };
    let message = Failure::from(error).message;
    assert_eq!(message, "cannot use /x/bester.db: the disk is on fire");
}

#[test]
fn a_closed_reader_is_a_good_end() {
    let end = |kind: ErrorKind| output(|_| Err(io::Error::from(kind).into()));
    assert_eq!(end(ErrorKind::BrokenPipe), Ok(()));
    assert_eq!(end(ErrorKind::StorageFull).unwrap_err().code, 74);
    let failed = output(|_| Err(Failure::data("no").into()));
    assert_eq!(failed.unwrap_err().code, 65);
}
