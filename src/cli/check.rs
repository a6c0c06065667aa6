//! `bester check`: what a configuration means on this machine, without changing anything.

use super::Failure;
use crate::config;

/// What `bester check --help` prints.
pub const HELP: &str = "\
Usage: bester check [-c FILE]

Reads the configuration as `bester serve` would, and says all that is wrong with it and with what
it names on this machine; then what would be opened and started, and every limit with its value.
It changes nothing and starts nothing.

Options:
  -c, --config FILE the configuration (bester.conf)
  -h, --help        print this

Exit codes: 0 the server would start (unless an address is in use), 64 called wrongly, 69 something
that is needed is missing, 77 not permitted, 78 bad configuration.
";

/// Carries out `bester check` with the arguments that follow it.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = super::parse("check", &super::options(), args)?;
    if matches.opt_present("help") {
        return super::print(HELP);
    }
    super::no_free_arguments("check", &matches)?;
    let config = super::config_from(&matches)?;
    super::output(|out| Ok(out.write_all(config::plan(&config).as_bytes())?))?;
    for warning in config::warnings(&config) {
        super::warn(warning);
    }
    let problems = config::problems(&config);
    let Some(code) = config::exit_code(&problems) else { return Ok(()) };
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(Failure { code, message: lines.join("\n") })
}
