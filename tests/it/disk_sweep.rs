//! The n-th write or sync fails, for every n there is: what was answered good is there, what was not is whole or absent, and
//! nothing that was acknowledged comes back. Then the power fails, too.

use crate::disk::Disk;
use crate::handler_program::example;
use crate::world::Home;
use bester::name::{ServerName, Username};
use bester::store::{Database, StoreError};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

fn name(text: &str) -> Username {
    Username::new(text).expect("a name")
}

/// Gives whether there was an n-th.
fn check(n: u64, error: &str) -> bool {
    let home = Home::new("", "", &["alice", "bob", "dave"]);
    let disk = Disk::of(&home);
    let (path, later) = (home.path().join("state/bester.db"), home.write("later", "\0\0\0\0\0\0\0\0"));
    disk.order(&format!("nth {n} {error}"));
    let mut command = Command::new(example("disk-sweep"));
    disk.put_under(&mut command);
    command.arg(&path).arg(&later).env("BESTER_DISK_LATER", &later).stdin(Stdio::null());
    let output = command.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let case = format!("{n} {error}, {:?}: {told}{}", disk.failures(), String::from_utf8_lossy(&output.stderr));
    // It fails once, so everything becomes good in the end.
    assert!(output.status.success() && told.ends_with("end good\n"), "{case}");
    disk.cut(n, n % 3 * 50);

    let database = Database::open(&path).unwrap_or_else(|error| panic!("{error}: {case}"));
    database.check().unwrap_or_else(|error| panic!("{error}: {case}"));
    let account = |user: &str| database.account(&name(user)).expect("accounts").unwrap_or_else(|| panic!("no {user}: {case}"));
    assert_ne!(account("alice").password.as_str(), account("bob").password.as_str(), "{case}");
    account("carol");
    let texts = |data: Option<Vec<u8>>| String::from_utf8(data.unwrap_or_default()).expect("a text").trim_matches('"').to_owned();
    let mut unsent = Vec::new();
    let listed = database.outgoing(&ServerName::new("b.example").expect("a name"), true, |item| {
        unsent.push(texts(item.data));
        Ok::<_, StoreError>(())
    });
    listed.unwrap_or_else(|error| panic!("{error}: {case}"));
    let mut expected: Vec<&str> = Vec::new();
    for line in told.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["keep", text, _, "good"] => expected.push(text),
            ["keep", text, "bad"] if unsent.iter().any(|one| one == text) => expected.push(text),
            ["sent" | "refused", text, "good"] => expected.retain(|one| *one != text),
            _ => {}
        }
    }
    assert_eq!(unsent, expected, "for the other server: {case}");
    let mut of_two = Vec::new();
    for user in ["bob", "carol", "dave"] {
        let mut mail = Vec::new();
        let listed = database.letters(&name(user), true, |item| {
            mail.push(texts(item.data));
            Ok::<_, StoreError>(())
        });
        listed.unwrap_or_else(|error| panic!("{error}: {case}"));
        let (reports, mail): (Vec<String>, Vec<String>) = mail.into_iter().partition(|text| text.starts_with('{'));
        assert_eq!(reports.len(), usize::from(user == "dave"), "whoever wrote what was refused is told once: {case}");
        assert!(reports.iter().all(|report| report.contains(r#""server":"b.example""#)), "{reports:?}: {case}");
        // What was answered bad may be there after all, in its place.
        let mut kept: Vec<&str> = Vec::new();
        for line in told.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["keep", text, users, "good"] if users.split(',').any(|one| one == user) => kept.push(text),
                ["keep", text, "bad"] if mail.iter().any(|one| one == text) => kept.push(text),
                _ => {}
            }
        }
        kept.retain(|text| !text.starts_with("one#") && !text.starts_with("old#"));
        assert_eq!(mail, kept, "{user}: {case}");
        if user == "bob" {
            let together = |text: &&String| !text.starts_with("old#") && !told.contains(&format!("refused {text} good"));
            let of_unsent: Vec<&String> = unsent.iter().filter(together).filter(|text| !text.starts_with("one#")).collect();
            assert_eq!(of_unsent, mail.iter().filter(together).collect::<Vec<_>>(), "a message is kept for all or for nobody: {case}");
        }
        of_two.push(mail.into_iter().filter(|text| text.starts_with("two#")).collect::<Vec<_>>());
    }
    assert_eq!(of_two[0], of_two[1], "a letter is in all mailboxes or in none: {case}");
    !disk.failures().is_empty()
}

/// Most of the time of each is spent waiting for the disk to be tried again, so many are under way at once.
#[track_caller]
fn sweep(error: &'static str) {
    let next = AtomicU64::new(1);
    let end = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n > end.load(Ordering::Relaxed) {
                        return;
                    }
                    if !check(n, error) {
                        end.fetch_min(n, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let end = end.load(Ordering::Relaxed);
    assert!((30..1000).contains(&end), "only {end} writes and syncs");
}

#[test]
fn whichever_write_or_sync_fails_all_that_was_answered_good_is_there() {
    sweep("EIO");
}

#[test]
fn wherever_the_disk_is_full_all_that_was_answered_good_is_there() {
    sweep("ENOSPC");
}
