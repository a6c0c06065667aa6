//! What became of a message, as an exit code and in words for people.

use super::Failure;
use crate::client::{ClientError, Incoming, LoginError};
use crate::tls::TlsError;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::io::ErrorKind;

/// Something failed at the server, for good: `EX_SOFTWARE`.
const SOFTWARE: u8 = 70;
/// More of a handler's explanation is not printed.
const EXPLANATION_CHARS_MAX: usize = 500;

/// The failure that a bad report tells of.
pub(super) fn of_report(report: &Incoming) -> Failure {
    let reason = report.reason.as_deref().unwrap_or_default();
    let words = report.words().map(|words| printable(&words));
    let mut message = words.unwrap_or_else(|| match reason {
        "" => "the server reports a failure and gives no reason".to_owned(),
        reason => format!("the server reports: {}", printable(reason)),
    });
    if reason == "handlerRefused" {
        message.push_str(&explanation(&report.data));
    }
    if report.temporary {
        message.push_str(" (trying again later may help)");
    }
    Failure { code: exit_code(reason, report.temporary), message }
}

fn exit_code(reason: &str, temporary: bool) -> u8 {
    match reason {
        "authentication" | "notAuthenticated" | "forbidden" => Failure::not_permitted("").code,
        "malformed" | "tooLarge" | "tooDeep" | "unknownType" | "unknownCommand" => Failure::data("").code,
        _ if temporary => Failure::temporary("").code,
        "undelivered" | "peerUnknown" => Failure::no_user("").code,
        _ => SOFTWARE,
    }
}

/// What a handler said when it refused a message.
#[derive(Deserialize)]
struct Refusal {
    status: Option<Box<RawValue>>,
    data: Option<Box<RawValue>>,
}

fn explanation(data: &RawValue) -> String {
    let Ok(refusal) = serde_json::from_str::<Refusal>(data.get()) else { return String::new() };
    let status = refusal.status.map(|status| format!(" ({})", text_of(&status)));
    let words = refusal.data.map(|words| format!(": {}", text_of(&words)));
    status.into_iter().chain(words).collect()
}

/// A string without its quotes; anything else as it is.
fn text_of(value: &RawValue) -> String {
    let text = serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned());
    let mut short: String = printable(&text).chars().take(EXPLANATION_CHARS_MAX + 1).collect();
    if short.chars().count() > EXPLANATION_CHARS_MAX {
        short.pop();
        short.push_str("...");
    }
    short
}

/// Words that came from elsewhere, without what would move the cursor or colour the screen.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::TimedOut => Failure::temporary(error),
            ClientError::Connect { source, .. } if source.kind() == ErrorKind::TimedOut => Failure::temporary(error),
            ClientError::Connect { source, .. } if source.kind() == ErrorKind::PermissionDenied => Failure::not_permitted(error),
            ClientError::Tls { source, .. } => match source {
                TlsError::TimedOut => Failure::temporary(error),
                // It may be somebody else: nothing was said to him.
                TlsError::WrongPin(_) | TlsError::Certificate(_) | TlsError::NoRoots(_) => Failure::not_permitted(error),
                _ => Failure::unavailable(error),
            },
            // A write that was not taken in time.
            ClientError::Io(source) if matches!(source.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Failure::temporary(error),
            ClientError::Connect { .. } | ClientError::Io(_) | ClientError::Closed => Failure::unavailable(error),
            ClientError::TooLarge(_) | ClientError::BadFrame(_) => Failure::unavailable(format_args!("not a server of ours? {error}")),
        }
    }
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Refused(report) => of_report(&report),
            LoginError::Unexpected(_) => Failure::unavailable(format_args!("not a server of ours? {error}")),
            LoginError::Client(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake;
    use crate::frame::{Frame, TooLarge};

    fn failure(reason: &str, temporary: bool, data: &str) -> Failure {
        let text = fake::bad(reason, temporary, data, "");
        of_report(&Incoming::parse(&Frame::from(text.as_bytes())).expect("a report"))
    }

    #[test]
    fn every_reason_has_its_exit_code() {
        let table: [(u8, bool, &[&str]); 8] = [
            (77, false, &["authentication", "notAuthenticated", "forbidden"]),
            (65, false, &["malformed", "tooLarge", "tooDeep", "unknownType", "unknownCommand"]),
            (67, false, &["undelivered", "peerUnknown"]),
            (70, false, &["handlerRefused", "handlerProtocol", "loop", "peerRefused", "expired", "engine", "internal", "new", ""]),
            (
                75,
                true,
                &["busy", "rate", "handlerUnavailable", "handlerTimeout", "handlerCrashed", "storage", "draining", "undelivered", "new"],
            ),
            (77, true, &["authentication", "forbidden"]),
            (65, true, &["malformed"]),
            (75, true, &["peerUnknown", "internal"]),
        ];
        for (code, temporary, reasons) in table {
            for reason in reasons {
                assert_eq!(failure(reason, temporary, "null").code, code, "{reason}, temporary: {temporary}");
            }
        }
    }

    #[test]
    fn words_are_plain() {
        let words = |reason: &str, temporary, data: &str| failure(reason, temporary, data).message;
        assert_eq!(words("unknownType", false, r#"{"message":"no \u001b[31m handler"}"#), r"no \u{1b}[31m handler");
        assert_eq!(words("busy", true, r#"{"message":"full"}"#), "full (trying again later may help)");
        assert_eq!(words("internal", false, "[]"), "the server reports: internal");
        assert_eq!(words("", false, "null"), "the server reports a failure and gives no reason");
    }

    #[test]
    fn a_handlers_own_explanation_is_told() {
        let words = |rest: &str| failure("handlerRefused", false, &format!(r#"{{"message":"no"{rest}}}"#)).message;
        assert_eq!(words(r#","status":"notMember","data":"you are\nout""#), r"no (notMember): you are\nout");
        assert_eq!(words(r#","status":3,"data":{"a": 1.0}"#), r#"no (3): {"a": 1.0}"#);
        assert_eq!(words(r#","status":"1","data":null"#), "no (1)");
        assert_eq!(words(""), "no");
        let long = words(&format!(r#","data":"{}""#, "x".repeat(501)));
        assert_eq!(long, format!("no: {}...", "x".repeat(500)));
    }

    #[test]
    fn troubles_of_the_connection_have_their_exit_codes() {
        let connect = |kind: ErrorKind| ClientError::Connect { address: crate::client::Address::Unix("x".into()), source: kind.into() };
        for (code, error) in [
            (69, connect(ErrorKind::ConnectionRefused)),
            (69, connect(ErrorKind::NotFound)),
            (75, connect(ErrorKind::TimedOut)),
            (77, connect(ErrorKind::PermissionDenied)),
            (75, ClientError::TimedOut),
            (75, ClientError::Io(ErrorKind::WouldBlock.into())),
            (69, ClientError::Io(ErrorKind::ConnectionReset.into())),
            (69, ClientError::Closed),
            (69, ClientError::TooLarge(TooLarge { frame_bytes: 2, frame_bytes_max: 1 })),
        ] {
            let words = error.to_string();
            assert_eq!(Failure::from(error).code, code, "{words}");
        }
    }
}
