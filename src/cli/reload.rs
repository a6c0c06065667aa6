//! `bester reload`: has the running server read its configuration again.

use super::{Failure, control, no_free_arguments, output, parse, print};
use crate::config;
use serde_json::Value;

/// What `bester reload --help` prints.
pub const HELP: &str = "\
Usage: bester reload [-c FILE] [--dry-run]

Has the running server read its configuration again, and prints what was done about each key that
changed. If there is a mistake in it, all mistakes are printed and nothing is changed.

Handlers are added, removed and replaced without losing a message: the new program is started,
takes over when it has started up, and the old one ends when it has answered what it was asked.
Handlers that did not change keep running, those that were given up as broken are started again,
and nobody is disconnected. All other keys wait for the next start of the server. SIGHUP does the
same; what came of it is in the log then.

Options:
  -c, --config FILE the configuration (bester.conf)
  -n, --dry-run     only print what would be done
  -h, --help        print this

Exit codes: 0 done, 64 called wrongly, 69 no server runs, or a new handler could not be started
(the old one goes on), 77 not permitted, 78 bad configuration.
";

/// Carries out `bester reload` with the arguments that follow it.
///
/// # Errors
/// As in [`HELP`].
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = super::options();
    options.optflag("n", "dry-run", "");
    let matches = parse("reload", &options, args)?;
    if matches.opt_present("help") {
        return print(HELP);
    }
    no_free_arguments("reload", &matches)?;
    // Mistakes are told here, with their exit codes: the server would find the same ones.
    let config = super::config_from(&matches)?;
    let problems = config::problems(&config);
    if let Some(code) = config::exit_code(&problems) {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        return Err(Failure { code, message: lines.join("\n") });
    }
    let kind = if matches.opt_present("dry-run") { "reloadDryRun" } else { "reload" };
    let changes = control::ask(&config, kind, &Value::Null, control::IN_ITS_TIME).map_err(|error| error.into_failure(&config))?;
    let changes = changes.as_array().map_or(&[][..], Vec::as_slice);
    let words = |change: &Value, key: &str| change[key].as_str().unwrap_or("").to_owned();
    output(|out| {
        if changes.is_empty() {
            writeln!(out, "nothing has changed")?;
        }
        for change in changes {
            writeln!(out, "{}: {}", words(change, "key"), words(change, "done"))?;
        }
        Ok(())
    })?;
    match changes.iter().find(|change| words(change, "done").starts_with("failed")) {
        Some(failed) => Err(Failure::unavailable(format_args!("{}: {}", words(failed, "key"), words(failed, "done")))),
        None => Ok(()),
    }
}
