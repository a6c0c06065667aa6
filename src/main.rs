//! The command line: picks the command, prints what went wrong, sets the exit code.

use bester::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match cli::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.message.lines() {
                cli::warn(line);
            }
            ExitCode::from(failure.code)
        }
    }
}
