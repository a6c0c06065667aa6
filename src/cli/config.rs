//! `bester config`: the configuration's manual.

use super::Failure;
use crate::config::EXAMPLE;
use getopts::Options;

/// What `bester config --help` prints.
pub const HELP: &str = "\
Usage: bester config default

Prints a complete configuration in which every key is explained, with its default.

Options:
  -h, --help        print this
";

/// Carries out `bester config` with the arguments that follow it.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options.optflag("h", "help", "");
    let matches = super::parse("config", &options, args)?;
    if matches.opt_present("help") {
        return super::print(HELP);
    }
    match &matches.free[..] {
        [what] if what == "default" => super::print(EXAMPLE),
        _ => Err(Failure::usage("say what to print: bester config default")),
    }
}
