//! `bester handler`: for those who write handlers, and those who keep them running.
//!
//! Here is what its actions share, their words and options; each has a file of its own.

mod restart;
mod run;

use super::{Failure, print};
use crate::name::{TypeName, Username};

/// What `bester handler --help` prints.
pub const HELP: &str = "\
Usage: bester handler restart TYPE [-c FILE]
       bester handler run TYPE [-c FILE] [-u NAME] [--frames] < REQUESTS

restart has the running server replace the handler of TYPE without losing a message: a new program
is started for each instance, takes over when it has started up, and the old one ends when it has
answered what it was asked. If the new one cannot be started, the old one goes on. This is also how
a handler is started again that was given up as broken.

run starts the program that handles TYPE by hand, without a server, and shows what a server would
do with what it answers. The program is started as the configuration says: with its arguments,
environment, directory, transport, framing and form.

Each line of the input is a JSON text, the data of one message. It is sent as soon as the handler
may have another one under way (inFlight), so this works with lines that are typed as well. For
each there are the data, the answer, what a server would do with it or what it would say is wrong
with it, and how long it took:

  [1] request  {\"say\":\"hello\"}
  [1] answer   {\"header\":{\"status\":\"0\",\"command\":\"reply\"},\"payload\":{\"data\":\"hello\"}}
  [1] server   replies; after 0.32 ms

Nothing is delivered to anybody. What the handler prints to standard error goes to standard error,
behind its type. At the end of the input, or at Ctrl-C, the handler's own input is closed, as when
a server stops.

Of the informer there is a small stand-in: it knows one user, NAME, who is logged in once. It
carries out a push as little as an answer, and only says how the handler would hear of it.

Options:
  -c, --config FILE the configuration (bester.conf)
  -u, --user NAME   with run: who speaks, for a handler with envelopes, and who is logged in (you)
      --frames      with run: show the text of each frame that is sent as well
  -h, --help        print this

Characters that could move the cursor are shown as escapes.

Exit codes: 0 done, and all were answered well (a refusal is a good answer), 64 called wrongly, 65
an answer broke the rules or came too late, or a line is no JSON, 69 no server runs, it has no such
type, or the program could not be started or ended on its own, 74 input or output failed, 77 not
permitted, 78 bad configuration.
";

/// Carries out `bester handler` with the arguments that follow it.
///
/// # Errors
/// As in [`HELP`].
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = super::options();
    options.optopt("u", "user", "", "NAME").optflag("", "frames", "");
    let matches = super::parse("handler", &options, args)?;
    if matches.opt_present("help") {
        return print(HELP);
    }
    let wrong = |what: &str| Failure::usage(format_args!("{what} (see bester handler --help)"));
    match matches.free.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", kind] => {
            let user = Username::new(matches.opt_str("user").as_deref().unwrap_or("you")).map_err(Failure::usage)?;
            let config = super::config_from(&matches)?;
            run::run(&config, kind, &user, matches.opt_present("frames"))
        }
        ["restart", kind] => {
            let kind = TypeName::new(kind).map_err(Failure::usage)?;
            restart::run(&super::config_from(&matches)?, &kind)
        }
        ["restart", ..] => Err(wrong("restart takes one type")),
        ["run", ..] => Err(wrong("run takes one type")),
        [] => Err(wrong("an action is missing")),
        [other, ..] => Err(wrong(&format!("there is no action {other:?}"))),
    }
}
