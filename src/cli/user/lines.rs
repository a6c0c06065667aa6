//! Accounts as JSON lines: `{"name":"alice","password":"$argon2id$…"}`, with `"disabled":true` where it is so.

use crate::name::Username;
use crate::password::Hash;
use crate::store::{Account, Imported};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, BufRead, Read, Write};

/// The most bytes of a line, its end included. A name and a hash have less than 600.
const LINE_BYTES_MAX: usize = 4 << 10;
/// The most accounts that are read; they are all kept until the last line was right.
const ACCOUNTS_MAX: usize = 1_000_000;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    name: std::borrow::Cow<'a, str>,
    password: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disabled: Option<bool>,
}

/// Writes one account as a line.
pub(super) fn write(account: &Account, out: &mut dyn Write) -> io::Result<()> {
    let line =
        Line { name: account.name.as_str().into(), password: account.password.as_str().into(), disabled: account.disabled.then_some(true) };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

/// Reads lines to their end; gives the number of each bad one and what is wrong to `complain`. Empty lines are passed
/// over.
pub(super) fn read(input: &mut dyn BufRead, complain: &mut dyn FnMut(usize, String)) -> io::Result<Vec<Imported>> {
    let mut accounts = Vec::new();
    let mut seen: HashMap<Username, usize> = HashMap::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let bounded = &mut (&mut *input).take(LINE_BYTES_MAX as u64);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() == LINE_BYTES_MAX && !line.ends_with(b"\n") {
            input.skip_until(b'\n')?;
            complain(number, format!("has more than {LINE_BYTES_MAX} bytes"));
            continue;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if accounts.len() == ACCOUNTS_MAX {
            complain(number, format!("there are more than {ACCOUNTS_MAX} accounts"));
            break;
        }
        match parse(&line) {
            Ok(account) => match seen.entry(account.name.clone()) {
                Entry::Vacant(place) => {
                    place.insert(number);
                    accounts.push(account);
                }
                Entry::Occupied(first) => {
                    let name = first.key();
                    complain(number, format!("{name} is in line {} already", first.get()));
                }
            },
            Err(what) => complain(number, what),
        }
    }
    Ok(accounts)
}

fn parse(line: &[u8]) -> Result<Imported, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|e| describe(&e))?;
    let name = Username::new(&line.name).map_err(|e| e.to_string())?;
    let password = Hash::parse(&line.password).map_err(|e| e.to_string())?;
    Ok(Imported { name, password, disabled: line.disabled })
}

/// What serde_json says, without its "line 1": the caller knows the line better.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split_once(" at line ").map_or(&*text, |(what, _)| what);
    format!("{what} (column {})", error.column())
}
