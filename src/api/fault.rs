//! Why a call fails, as both fronts tell it: a code, words, and the fields that are wrong.

use prost::Message;
use prost_types::Any;

use crate::proto::types::google::rpc::bad_request::FieldViolation;
use crate::proto::types::google::rpc::{BadRequest, RequestInfo, Status};
use crate::store::ChangeError;

/// The codes of gRPC that calls end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A field holds what it may not.
    InvalidArgument = 3,
    /// No such resource.
    NotFound = 5,
    /// The name is taken.
    AlreadyExists = 6,
    /// The caller has no role that permits it.
    PermissionDenied = 7,
    /// Something is used up.
    ResourceExhausted = 8,
    /// Not as things stand.
    FailedPrecondition = 9,
    /// Not here.
    Unimplemented = 12,
    /// A fault of the server.
    Internal = 13,
    /// Not now.
    Unavailable = 14,
    /// Nobody knows who calls.
    Unauthenticated = 16,
}

impl Code {
    /// The HTTP status that stands for it.
    pub fn http(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => 400,
            Self::NotFound => 404,
            Self::AlreadyExists => 409,
            Self::PermissionDenied => 403,
            Self::ResourceExhausted => 429,
            Self::Unimplemented => 501,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Unauthenticated => 401,
        }
    }
}

/// Fields that one answer names: details travel in a header, which clients take up to 8 KiB of.
const MOST_FIELDS: usize = 10;

/// The beginning of a text.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Why a call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind of failure.
    pub code: Code,
    /// For people.
    pub message: String,
    /// The fields that are wrong, as `rule.iot_message.registry_id`, and what is wrong with each.
    pub fields: Vec<(String, String)>,
}

impl Fault {
    /// A failure without fields.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fields: Vec::new() }
    }

    /// Fields hold what they may not; at least one is named.
    pub fn fields(mut fields: Vec<(String, String)>) -> Self {
        let all = fields.len();
        fields.truncate(MOST_FIELDS);
        for (field, what) in &mut fields {
            (*field, *what) = (cut(field, 120), cut(what, 300));
        }
        let (field, what) = fields.first().map_or(("", ""), |(field, what)| (field, what));
        let more = if all > 1 { format!(" (and {} more)", all - 1) } else { String::new() };
        let message = match field {
            "" => format!("Validation failed: {what}{more}"),
            field => format!("Validation failed: {field}: {what}{more}"),
        };
        Self { code: Code::InvalidArgument, message, fields }
    }

    /// One field holds what it may not.
    pub fn field(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self::fields(vec![(field.into(), what.into())])
    }

    /// There is no such resource.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(Code::NotFound, format!("The {what} '{}' is not found", cut(id, 100)))
    }

    /// The form that clients know, with details.
    pub fn status(&self, request_id: &str) -> Status {
        let violation = |(field, description): &(String, String)| FieldViolation {
            field: field.clone(),
            description: description.clone(),
        };
        let mut details = Vec::new();
        if !self.fields.is_empty() {
            let bad = BadRequest { field_violations: self.fields.iter().map(violation).collect() };
            details.extend(Any::from_msg(&bad));
        }
        let info = RequestInfo { request_id: request_id.to_owned(), serving_data: String::new() };
        details.extend(Any::from_msg(&info));
        Status { code: self.code as i32, message: self.message.clone(), details }
    }

    /// The same, encoded for `grpc-status-details-bin`.
    pub fn details(&self, request_id: &str) -> Vec<u8> {
        self.status(request_id).encode_to_vec()
    }
}

impl From<ChangeError<Self>> for Fault {
    fn from(error: ChangeError<Self>) -> Self {
        match error {
            ChangeError::Refused(fault) => fault,
            ChangeError::Repeated(operation) => {
                Self::new(Code::AlreadyExists, format!("The operation '{operation}' has done this already"))
            }
            ChangeError::Disk(error) => disk(error),
        }
    }
}

/// The store does not answer.
pub(super) fn disk(error: String) -> Fault {
    tracing::error!(error, "the store of resources does not work");
    Fault::new(Code::Unavailable, format!("The store of resources does not work just now: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_fields_names_the_first_and_lists_all() {
        let fault = Fault::fields(vec![("a.b".into(), "Field is required".into()), ("c".into(), "x".into())]);
        assert_eq!(fault.message, "Validation failed: a.b: Field is required (and 1 more)");
        let status = fault.status("r-1");
        assert_eq!(status.code, 3);
        let urls: Vec<_> = status.details.iter().map(|any| any.type_url.as_str()).collect();
        assert_eq!(
            urls,
            ["type.googleapis.com/google.rpc.BadRequest", "type.googleapis.com/google.rpc.RequestInfo"]
        );
        let bad: BadRequest = status.details[0].to_msg().unwrap();
        assert_eq!(bad.field_violations.len(), 2);
    }
}
