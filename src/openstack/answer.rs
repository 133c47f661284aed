//! What a service said: takes a status and the bytes of an answer, gives one line for people and
//! an error of the right kind; holds at most [`MOST_ERROR_BYTES`] of a refusal.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use secrecy::SecretString;
use serde_json::Value;

use crate::error::{Error, Kind, Result, Stage};

/// How much of an error's body is read: Glance's are about 200 bytes, a proxy's page some KiB.
pub(super) const MOST_ERROR_BYTES: usize = 16 << 10;
/// How much JSON is accepted: a page of images with all their properties.
pub(super) const MOST_JSON_BYTES: usize = 4 << 20;
/// How much of a service's text goes into a message, in characters.
const MOST_MESSAGE_CHARS: usize = 400;
/// So many bytes of a secret's beginning are nobody's business.
const LEAST_TELLING_BYTES: usize = 6;

/// An answer whose body was read as far as it was wanted.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The stream, where a successful body was to be left alone.
    pub(super) stream: Option<Response>,
    /// The body otherwise; of an error at most [`MOST_ERROR_BYTES`].
    pub(super) body: Vec<u8>,
    /// `Retry-After`, if it was a number of seconds.
    pub(super) retry_after: Option<Duration>,
    /// `X-Subject-Token`, by which Keystone hands over a token.
    pub(super) subject_token: Option<SecretString>,
    /// `Location`, in which Nova names what it makes.
    pub(super) location: Option<String>,
}

impl Answer {
    /// The answer as an error, of which `what` says what was attempted.
    pub(super) fn error(&self, stage: Stage, what: &str, secrets: &[&str]) -> Error {
        let text = message(&self.body, secrets);
        refusal(stage, self.status, &text, what)
    }

    /// The body as JSON.
    pub(super) fn json(&self, stage: Stage, what: &str) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Error::new(stage, Kind::Network, format!("{what}: the answer is not JSON"))
                .because(error)
                .advise("check that the image endpoint is Glance's")
        })
    }
}

/// Takes a secret out of a text that somebody else wrote, and its beginning at a place where the text was cut.
fn redact(text: &str, secret: &str) -> String {
    if secret.is_empty() {
        return text.to_owned();
    }
    let text = text.replace(secret, "***");
    let cut = (LEAST_TELLING_BYTES..secret.len())
        .rev()
        .find_map(|len| text.strip_suffix(secret.get(..len)?).map(|rest| format!("{rest}***")));
    cut.unwrap_or(text)
}

/// The kind of a failure that the image at hand is the reason for.
pub(super) fn kind_of(stage: Stage) -> Kind {
    match stage {
        Stage::Sink | Stage::Place => Kind::Target,
        _ => Kind::Source,
    }
}

/// Whether the same request may have another answer a little later. 501 and 505 are for ever.
pub(super) fn may_pass(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
        || (status.is_server_error()
            && status != StatusCode::NOT_IMPLEMENTED
            && status != StatusCode::HTTP_VERSION_NOT_SUPPORTED)
}

/// The error for a status that is not wanted; `text` is the service's own, already redacted.
fn refusal(stage: Stage, status: StatusCode, text: &str, what: &str) -> Error {
    let (kind, advice) = match status.as_u16() {
        401 => (Kind::Login, Some("log in again: the token has expired or was revoked")),
        403 => (Kind::Login, Some("ask for the right to do this in the project, or use another cloud")),
        404 | 410 => (kind_of(stage), Some("check the name with `snapcow list`")),
        409 => (kind_of(stage), Some("look at its status with `openstack image show`")),
        413 => (kind_of(stage), Some("make room in the image quota, or ask for a larger one")),
        415 => (kind_of(stage), Some("ask the operator which disk formats this Glance takes")),
        _ if may_pass(status) => (Kind::Network, Some("try again later")),
        _ if status.is_redirection() => (
            Kind::Network,
            Some("correct the image endpoint: it redirects, and a token is not carried along"),
        ),
        _ => (kind_of(stage), None),
    };
    let reason = status.canonical_reason().unwrap_or("unknown status");
    let text = if text.is_empty() || text == reason { String::new() } else { format!(": {text}") };
    let mut error = Error::new(stage, kind, format!("{what}: {} {reason}{text}", status.as_u16()));
    if let Some(advice) = advice {
        error = error.advise(advice);
    }
    if may_pass(status) { error.retry() } else { error }
}

/// The sentence inside an error's body, on one line, without markup: Glance answers
/// `<html>…<h1>403 Forbidden</h1>TEXT<br/>…`, Keystone `{"error": {"message": TEXT}}`.
///
/// The secrets are taken out before anything is cut: half a token is one half too much.
pub(super) fn message(body: &[u8], secrets: &[&str]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = secrets.iter().fold(text.into_owned(), |text, secret| redact(&text, secret));
    let text = text.trim();
    let found = if text.starts_with('{') {
        serde_json::from_str::<Value>(text)
            .ok()
            .and_then(|json| json_message(&json))
            .unwrap_or_else(|| text.to_owned())
    } else if text.starts_with('<') {
        html_message(text)
    } else {
        text.to_owned()
    };
    // Once more, for what stood in there as `\u0041` or `&#x41;`.
    let found = secrets.iter().fold(found, |text, secret| redact(&text, secret));
    one_line(&found)
}

fn json_message(json: &Value) -> Option<String> {
    ["/error/message", "/message", "/error", "/faultstring", "/detail"]
        .iter()
        .find_map(|path| json.pointer(path).and_then(Value::as_str))
        .or_else(|| novas_message(json))
        .map(str::to_owned)
}

/// Nova names the kind of the fault outside: `{"conflictingRequest": {"code": 409, "message": TEXT}}`.
fn novas_message(json: &Value) -> Option<&str> {
    json.as_object()?.values().find_map(|fault| fault.get("message")?.as_str())
}

fn html_message(text: &str) -> String {
    let after_heading = text.find("</h1>").map(|at| &text[at + "</h1>".len()..]);
    let inner = after_heading.unwrap_or(text);
    let inner = inner.find("</body>").map_or(inner, |end| &inner[..end]);
    let found = unescape(&without_tags(inner));
    if found.trim().is_empty() { unescape(&without_tags(text)) } else { found }
}

fn without_tags(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => inside = true,
            '>' if inside => {
                inside = false;
                out.push(' ');
            }
            _ if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

fn unescape(text: &str) -> String {
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Collapses white space, drops characters that a terminal would obey (control characters, and those that turn the
/// writing around: Unicode, UAX 9) and bounds the length.
pub(super) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words.join(" ").chars().filter(|&c| !commands(c)).collect();
    match line.char_indices().nth(MOST_MESSAGE_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn commands(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sentence_of_an_error_page_is_shown() {
        let page = b"<html>\n <head>\n  <title>403 Forbidden</title>\n </head>\n <body>\n  <h1>403 Forbidden</h1>\n  \
            Attribute &#x27;os_glance_x&#x27; is reserved.<br /><br />\n\n\n </body>\n</html>";
        assert_eq!(message(page, &[]), "Attribute 'os_glance_x' is reserved.");
        assert_eq!(
            message(br#"{"error": {"code": 401, "message": "The request\nyou have made"}}"#, &[]),
            "The request you have made"
        );
        assert_eq!(
            message(br#"{"conflictingRequest": {"code": 409, "message": "Cannot 'stop' it"}}"#, &[]),
            "Cannot 'stop' it"
        );
        assert_eq!(
            message(b"<html><head><title>502 Bad Gateway</title></head></html>", &[]),
            "502 Bad Gateway"
        );
        assert_eq!(message(b"  plain\r\n\x1b[31mtext ", &[]), "plain [31mtext");
        assert_eq!(message("a\u{202e}b\u{2066}".as_bytes(), &[]), "ab");
        assert_eq!(message(b"", &[]), "");
        assert_eq!(message(b"<", &[]), "");
        assert_eq!(message(b"\xff\xfe{", &[]), "\u{fffd}\u{fffd}{");
        assert!(message("ö".repeat(5000).as_bytes(), &[]).chars().count() <= MOST_MESSAGE_CHARS + 1);
    }

    #[test]
    fn statuses_have_the_kind_of_their_stage() {
        let kind = |stage, code: u16| refusal(stage, StatusCode::from_u16(code).unwrap(), "", "x").kind();
        assert_eq!(kind(Stage::Source, 404), Kind::Source);
        assert_eq!(kind(Stage::Sink, 413), Kind::Target);
        assert_eq!(kind(Stage::Sink, 403), Kind::Login);
        assert_eq!(kind(Stage::Source, 503), Kind::Network);
        assert_eq!(kind(Stage::Source, 301), Kind::Network);
        assert!(!may_pass(StatusCode::NOT_IMPLEMENTED));
    }

    #[test]
    fn a_token_in_a_services_text_is_not_repeated() {
        let answer = Answer {
            status: StatusCode::FORBIDDEN,
            stream: None,
            body: b"token gAAAAsecret is bad".to_vec(),
            retry_after: None,
            subject_token: None,
            location: None,
        };
        let text = answer.error(Stage::Sink, "create", &["gAAAAsecret"]).to_string();
        assert!(text.contains("token *** is bad") && !text.contains("gAAAAsecret"), "{text}");
    }

    /// Wherever it stands: across the end of the message, of what was read, or in another spelling.
    #[test]
    fn not_even_a_part_of_a_secret_is_repeated() {
        const SECRET: &str = "gAAAAABsecret-Of_Somebody";
        for before in 0..450 {
            for body in [
                format!("{}{SECRET} x", "a".repeat(before)),
                format!("<html><h1>403</h1>{}{SECRET}</html>", "a ".repeat(before / 2)),
                format!("{{\"message\": \"{}{SECRET}\"}}", "a".repeat(before)),
                format!("{{\"message\": \"{}\\u0067{}\"}}", "a".repeat(before), &SECRET[1..]),
            ] {
                let text = message(body.as_bytes(), &["other", SECRET]);
                assert!(!text.contains(&SECRET[..LEAST_TELLING_BYTES]), "{before}: {text}");
            }
        }
        for end in LEAST_TELLING_BYTES..SECRET.len() {
            let text = message(format!("cut {}", &SECRET[..end]).as_bytes(), &[SECRET]);
            assert_eq!(text, "cut ***");
        }
    }
}
