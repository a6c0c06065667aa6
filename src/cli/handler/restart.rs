//! `bester handler restart TYPE`: another start of a handler takes the place of the one that runs.

use crate::cli::{Failure, control};
use crate::config::Config;
use crate::name::TypeName;
use serde_json::json;
use std::time::Duration;

/// Beside the time that an instance may take to become reachable, it may have to wait for its turn.
const SLACK: Duration = Duration::from_secs(20);

/// Has the running server replace all instances of a type; returns when the last one is up.
///
/// # Errors
/// 69: no server runs, there is no such type, or the new program could not be started; 77: not permitted.
pub(super) fn run(config: &Config, kind: &TypeName) -> Result<(), Failure> {
    // The server says so if it has no such type; it may run with another file by now.
    let each = config.handlers.get(kind).map_or((1, Duration::ZERO), |handler| (handler.instances as u32, handler.timeout));
    let patience = (each.1 + SLACK) * each.0;
    control::ask(config, "restartHandler", &json!(kind.as_str()), patience).map_err(|error| error.into_failure(config))?;
    Ok(())
}
