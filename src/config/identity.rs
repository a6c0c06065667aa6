//! Whom a handler's program runs as.
//!
//! Names are looked up here, in `/etc/passwd` and `/etc/group`, and not with `getpwnam`: in a static program the C
//! library's loads modules of the name service from the machine, which must then fit the library that we were built with.
//! Who is known to a directory service only is given as a number.

use super::Program;
use rustix::process::{getegid, geteuid};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// More than this is no list of the users of one machine.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The numbers that the system knows users and groups by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// More about the user; none when only `group` is given, for the user is then the server's own.
    pub account: Option<Account>,
}

/// What a program is told of its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name; the number, if there is no name for it.
    pub name: String,
    /// The home directory.
    pub home: PathBuf,
}

/// Why `user` or `group` stands for nobody.
#[derive(Debug)]
pub enum NoIdentity {
    /// There is no such user.
    User(String),
    /// There is no such group.
    Group(String),
    /// A number without a name, so nothing says which group goes with it.
    NoGroup(String),
    /// The file cannot be read.
    Unreadable(&'static str, io::Error),
}

impl fmt::Display for NoIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoIdentity::User(name) => write!(f, "there is no user {name:?} in {PASSWD}"),
            NoIdentity::Group(name) => write!(f, "there is no group {name:?} in {GROUP}"),
            NoIdentity::NoGroup(number) => write!(f, "there is no user {number} in {PASSWD} who would have a group; give `group` too"),
            NoIdentity::Unreadable(file, error) => write!(f, "{file} cannot be read: {error}"),
        }
    }
}

impl std::error::Error for NoIdentity {}

impl Identity {
    /// Whom `user` and `group` of a program mean; none if neither is given.
    pub fn of(program: &Program) -> Result<Option<Identity>, NoIdentity> {
        resolve(program.user.as_deref(), program.group.as_deref(), read)
    }

    /// Its user for messages.
    pub fn name(&self) -> String {
        self.account.as_ref().map_or_else(|| self.uid.to_string(), |account| account.name.clone())
    }

    /// Whether it may do all of `bits` (4 read, 2 write, 1 run or go through) with what is there. Where permission bits
    /// are not all that counts, it is said to be allowed: whoever tries will see.
    pub fn may(&self, path: &Path, known: &Metadata, bits: u32) -> bool {
        let granted = match known {
            _ if self.uid == 0 => return true,
            known if known.uid() == self.uid => known.mode() >> 6,
            known if known.gid() == self.gid => known.mode() >> 3,
            known => known.mode(),
        };
        granted & bits == bits || has_access_list(path)
    }

    /// The first directory on the way to `path` that it cannot go through.
    pub fn barrier(&self, path: &Path) -> Option<PathBuf> {
        let parent = path.parent()?;
        // The way as it is written, and the way that symbolic links make of it.
        let real = parent.ancestors().find_map(|above| fs::canonicalize(above).ok());
        let closed = |place: &&Path| place.metadata().is_ok_and(|known| known.is_dir() && !self.may(place, &known, 1));
        let first = |way: &Path| way.ancestors().filter(closed).last().map(Path::to_owned);
        first(parent).or_else(|| first(real.as_deref()?))
    }
}

fn has_access_list(path: &Path) -> bool {
    rustix::fs::getxattr(path, "system.posix_acl_access", &mut [0; 0][..]).is_ok_and(|bytes| bytes > 0)
}

fn read(path: &'static str) -> Result<Vec<u8>, NoIdentity> {
    let read = || {
        let mut text = Vec::new();
        if File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)? as u64 > FILE_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        Ok(text)
    };
    match read() {
        // A system this small has numbers only.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|error| NoIdentity::Unreadable(path, error)),
    }
}

type Look = fn(&'static str) -> Result<Vec<u8>, NoIdentity>;

fn resolve(user: Option<&str>, group: Option<&str>, read: Look) -> Result<Option<Identity>, NoIdentity> {
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    let gid = match group {
        Some(name) => {
            let known = entry(&read(GROUP)?, name).and_then(|fields| number(fields.get(2)?));
            Some(known.or_else(|| number(name.as_bytes())).ok_or_else(|| NoIdentity::Group(name.to_owned()))?)
        }
        None => None,
    };
    let Some(user) = user else {
        let gid = gid.unwrap_or_else(|| getegid().as_raw()); // it is given, or we would not be here
        return Ok(Some(Identity { uid: geteuid().as_raw(), gid, account: None }));
    };
    let known = entry(&read(PASSWD)?, user).and_then(|fields| {
        let home = fields.get(5).filter(|home| !home.is_empty()).cloned().unwrap_or_else(|| b"/".to_vec());
        let name = String::from_utf8_lossy(&fields[0]).into_owned();
        let account = Some(Account { name, home: PathBuf::from(std::ffi::OsString::from_vec(home)) });
        Some(Identity { uid: number(fields.get(2)?)?, gid: number(fields.get(3)?)?, account })
    });
    match (known, number(user.as_bytes()), gid) {
        (Some(known), _, gid) => Ok(Some(Identity { gid: gid.unwrap_or(known.gid), ..known })),
        (None, Some(uid), Some(gid)) => {
            Ok(Some(Identity { uid, gid, account: Some(Account { name: uid.to_string(), home: PathBuf::from("/") }) }))
        }
        (None, Some(_), None) => Err(NoIdentity::NoGroup(user.to_owned())),
        (None, None, _) => Err(NoIdentity::User(user.to_owned())),
    }
}

/// The fields of the line that is named so, or else of the one with that number. (A name may look like a number.)
fn entry(text: &[u8], name: &str) -> Option<Vec<Vec<u8>>> {
    let lines = || text.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':').collect::<Vec<_>>());
    let wanted = number(name.as_bytes());
    let by_name = lines().find(|fields| fields[0] == name.as_bytes());
    let by_number = || lines().find(|fields| wanted.is_some() && fields.get(2).and_then(|field| number(field)) == wanted);
    let fields = by_name.or_else(by_number)?;
    Some(fields.into_iter().map(<[u8]>::to_vec).collect())
}

/// A number of a user or group; the largest stands for nobody.
fn number(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok().filter(|number| *number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const USERS: &[u8] = b"root:x:0:0:root:/r:/bin/sh\nanna:x:1001:1002:\xff:/srv/anna:/bin/sh\n77:x:1003:1003:::\n\
        # a remark\n+\nbroken:x\nodd:x:4294967295:1::/:\n";
    const GROUPS: &[u8] = b"root:x:0:\nstaff:x:50:anna\nbroken:\n";

    fn files(path: &'static str) -> Result<Vec<u8>, NoIdentity> {
        Ok(if path == PASSWD { USERS } else { GROUPS }.to_vec())
    }

    fn find(user: Option<&str>, group: Option<&str>) -> Result<(u32, u32, String), String> {
        let found = resolve(user, group, files).map_err(|error| error.to_string())?.expect("one is given");
        let account = found.account.expect("a user is given");
        Ok((found.uid, found.gid, format!("{} {}", account.name, account.home.display())))
    }

    #[test]
    fn names_and_numbers_stand_for_users_and_groups() {
        for (user, group, uid, gid, account) in [
            ("anna", None, 1001, 1002, "anna /srv/anna"),
            ("anna", Some("staff"), 1001, 50, "anna /srv/anna"),
            ("1001", None, 1001, 1002, "anna /srv/anna"),
            ("anna", Some("4000"), 1001, 4000, "anna /srv/anna"),
            ("77", None, 1003, 1003, "77 /"), // a name that is a number is a name
            ("4001", Some("50"), 4001, 50, "4001 /"),
        ] {
            assert_eq!(find(Some(user), group), Ok((uid, gid, account.to_owned())), "{user} {group:?}");
        }
        let group_alone = resolve(None, Some("staff"), files).expect("a group").expect("it is given");
        assert_eq!(group_alone, Identity { uid: geteuid().as_raw(), gid: 50, account: None });
        assert_eq!(resolve(None, None, files).expect("nothing to look up"), None);
    }

    #[test]
    fn who_is_not_there_is_told() {
        for (user, group, words) in [
            ("ann", None, "there is no user \"ann\" in /etc/passwd"),
            ("", None, "there is no user \"\" in /etc/passwd"),
            ("# a remark", None, "there is no user \"# a remark\" in /etc/passwd"),
            ("broken", None, "there is no user \"broken\" in /etc/passwd"),
            ("odd", None, "there is no user \"odd\" in /etc/passwd"),
            ("4294967295", Some("1"), "there is no user \"4294967295\" in /etc/passwd"),
            ("-1", Some("1"), "there is no user \"-1\" in /etc/passwd"),
            ("+1", Some("1"), "there is no user \"+1\" in /etc/passwd"),
            ("4001", None, "there is no user 4001 in /etc/passwd who would have a group; give `group` too"),
            ("anna", Some("staf"), "there is no group \"staf\" in /etc/group"),
            ("anna", Some("broken"), "there is no group \"broken\" in /etc/group"),
        ] {
            assert_eq!(find(Some(user), group), Err(words.to_owned()), "{user} {group:?}");
        }
    }

    #[test]
    fn a_closed_directory_is_found_through_links_too() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = |name: &str| directory.path().join(name);
        let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
        open(directory.path(), 0o755);
        fs::create_dir_all(place("a/b/c")).expect("directories");
        symlink(place("a/b"), place("link")).expect("a link");
        for name in ["a", "a/b", "a/b/c"] {
            open(&place(name), 0o711);
        }
        let stranger = Identity { uid: 4001, gid: 4001, account: None };
        assert_eq!(stranger.barrier(&place("a/b/c/x")), None);
        open(&place("a"), 0o710);
        open(&place("a/b"), 0o700);
        assert_eq!(stranger.barrier(&place("a/b/c/x")), Some(place("a")), "the first");
        open(&place("a"), 0o711);
        assert_eq!(stranger.barrier(&place("a/b/c/x")), Some(place("a/b")));
        assert_eq!(stranger.barrier(&place("link/c/missing/x")), Some(place("link")));
        open(&place("a/b"), 0o711);
        open(&place("a"), 0o700);
        assert_eq!(stranger.barrier(&place("link/c/x")), Some(fs::canonicalize(place("a")).expect("it is there")));
        let owner = Identity { uid: geteuid().as_raw(), gid: 4001, account: None };
        assert_eq!(owner.barrier(&place("link/c/x")), None);
        let known = place("a").metadata().expect("it is there");
        let member = Identity { uid: 4001, gid: known.gid(), account: None };
        assert!(!member.may(&place("a"), &known, 1) && !stranger.may(&place("a"), &known, 1));
        open(&place("a"), 0o710);
        let known = place("a").metadata().expect("it is there");
        assert!(member.may(&place("a"), &known, 1) && !stranger.may(&place("a"), &known, 1));
    }
}
