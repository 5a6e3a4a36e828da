//! Where a client wants to begin, as its request says it: `Last-Event-ID`, `?last_event_id=`, `?since=`, `?last=`.
//! Pure.

use std::time::SystemTime;

use actix_http::RequestHead;
use uuid::Uuid;

use super::refusal::Refusal;
use super::request;
use crate::journal::{Found, Start};

/// The answer's header that says whether the client gets everything it asked for.
pub(super) const STATUS_HEADER: &str = "X-Resume-Status";

/// Most events that `?last=` may ask for.
const MAX_LAST: u64 = 1_000_000;

/// Reads a request. `None`: it wants what comes from now on. The first of these that is there and not empty counts:
/// the header `Last-Event-ID` (HTML standard, section 9.2.4), `last_event_id`, `since`, `last`.
pub(super) fn start(head: &RequestHead, now: SystemTime) -> Result<Option<Start>, Refusal> {
    if let Some(id) = head.headers.get("last-event-id").filter(|id| !id.is_empty()) {
        return after("Last-Event-ID", &String::from_utf8_lossy(id.as_bytes())).map(Some);
    }
    let value = |name: &str| {
        request::query(head).find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
    };
    if let Some(id) = value("last_event_id") {
        return after("last_event_id", &id).map(Some);
    }
    if let Some(since) = value("since") {
        return self::since(&since, now).map(Some);
    }
    value("last").map(|last| self::last(&last)).transpose()
}

fn after(name: &str, text: &str) -> Result<Start, Refusal> {
    let id = Uuid::try_parse(text.trim());
    id.map(Start::After).map_err(|_| refuse(name, text, "the event_id of an event, a UUID"))
}

fn since(text: &str, now: SystemTime) -> Result<Start, Refusal> {
    // A plus that was not escaped has become a space.
    Start::since(&text.replace(' ', "+"), now).ok_or_else(|| refuse("since", text, Start::SINCE))
}

fn last(text: &str) -> Result<Start, Refusal> {
    let count = text.parse().ok().filter(|count| (1..=MAX_LAST).contains(count));
    let expected = format!("a number of events, 1 to {MAX_LAST}");
    count.map(Start::Last).ok_or_else(|| refuse("last", text, &expected))
}

fn refuse(name: &str, value: &str, expected: &str) -> Refusal {
    Refusal::Start(Refusal::not(name, value, expected))
}

/// The value of [`STATUS_HEADER`].
pub(super) fn status(found: &Found) -> String {
    found.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use actix_http::header::{HeaderName, HeaderValue};

    use super::*;

    const ID: &str = "01a1fcaf-0c7b-77d1-bf79-51ee316940a3";

    fn read(header: Option<&'static str>, query: &str) -> Result<Option<Start>, Refusal> {
        let mut head = RequestHead::default();
        head.uri = format!("/main/ws?{query}").parse().unwrap();
        if let Some(value) = header {
            let name = HeaderName::from_static("last-event-id");
            head.headers.insert(name, HeaderValue::from_static(value));
        }
        start(&head, UNIX_EPOCH + Duration::from_secs(1000))
    }

    #[test]
    fn says_where_to_begin() {
        let after = Start::After(ID.parse().unwrap());
        let since = |seconds| Some(Start::Since(UNIX_EPOCH + Duration::from_secs(seconds)));
        for (query, expected) in [
            ("", None),
            ("last_event_id=", None),
            ("room=1", None),
            (&format!("last_event_id={ID}")[..], Some(after)),
            (&format!("last=5&last_event_id={ID}"), Some(after)),
            ("since=5m&last=7", since(700)),
            ("since=1970-01-01T00:10:00Z", since(600)),
            ("since=1970-01-01T03%3A10%3A00%2B03:00", since(600)),
            ("since=1970-01-01T03:10:00+03:00", since(600)),
            ("since=9999h", since(0)),
            ("last=3", Some(Start::Last(3))),
        ] {
            assert_eq!(read(None, query), Ok(expected), "{query}");
        }
        assert_eq!(read(Some(ID), "last=3"), Ok(Some(after)));
        assert_eq!(read(Some(""), "last=3"), Ok(Some(Start::Last(3))));
    }

    #[test]
    fn bad_values_are_named_with_what_is_allowed() {
        for (query, words) in [
            ("last_event_id=17", "last_event_id: \"17\" is not the event_id of an event, a UUID"),
            ("since=yesterday", "since: \"yesterday\" is not a time such as"),
            ("last=0", "last: \"0\" is not a number of events, 1 to 1000000"),
            ("last=-1", "last: \"-1\" is not"),
        ] {
            let Err(Refusal::Start(fault)) = read(None, query) else { panic!("{query}") };
            assert!(fault.starts_with(words), "{fault}");
        }
        assert!(
            matches!(read(Some("x"), ""), Err(Refusal::Start(fault)) if fault.starts_with("Last-Event-ID: \"x\""))
        );
    }

    #[test]
    fn a_gap_names_the_oldest_event() {
        let found = |gap, oldest| Found { position: 0, gap, oldest };
        assert_eq!(status(&found(false, Some(Uuid::nil()))), "complete");
        let oldest = ID.parse().unwrap();
        assert_eq!(status(&found(true, Some(oldest))), format!("gap; oldest={ID}"));
        assert_eq!(status(&found(true, None)), "gap");
    }
}
