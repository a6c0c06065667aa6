//! `bester handler restart TYPE`: another start of a handler takes the place of the one that runs.

use crate::cli::{Failure, control};
use crate::config::Config;
use crate::name::TypeName;
use serde_json::json;

/// Has the running server replace all instances of a type; returns when the last one is up.
///
/// # Errors
/// 69: no server runs, there is no such type, or the new program could not be started; 77: not permitted.
pub(super) fn run(config: &Config, kind: &TypeName) -> Result<(), Failure> {
    // The server says so if it has no such type; it may run with another file by now.
    control::ask(config, "restartHandler", &json!(kind.as_str()), control::IN_ITS_TIME).map_err(|error| error.into_failure(config))?;
    Ok(())
}
