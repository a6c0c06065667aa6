//! Echo: whoever sends a message gets its data back, byte for byte.

use bester::handler::{Answer, serve};

fn main() -> std::io::Result<()> {
    serve(|message| Answer::reply(message.raw()))
}
