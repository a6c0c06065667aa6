//! `bester serve`: the server itself, in the foreground.

use super::Failure;
use crate::server::StartError;
use crate::{logging, server};

/// What `bester serve --help` prints.
pub const HELP: &str = "\
Usage: bester serve [-c FILE]

Runs the server in the foreground until it is told to stop by SIGTERM or SIGINT (Ctrl-C). The log
goes to standard error.

Told to stop, it accepts nothing new, lets what is under way finish (10 s at most), puts what is to
be kept into mailboxes, ends the handlers and exits with 0. Told a second time, it ends them at
once.

Options:
  -c, --config FILE the configuration (bester.conf)
  -h, --help        print this

Exit codes: 0 stopped when told to, 64 called wrongly, 69 an address, a program or another thing
it needs is not available, 77 not permitted, 78 bad configuration. `bester check` says what is
wrong without starting anything.
";

/// Carries out `bester serve` with the arguments that follow it.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = super::parse("serve", &super::options(), args)?;
    if matches.opt_present("help") {
        return super::print(HELP);
    }
    super::no_free_arguments("serve", &matches)?;
    let config = super::config_from(&matches)?;
    let log = logging::start(&config.log).map_err(|error| Failure::unavailable(format_args!("the log: {error}")))?;
    let served = server::serve(&config);
    log.finish();
    served.map_err(|error: StartError| Failure { code: error.exit_code(), message: error.to_string() })
}
