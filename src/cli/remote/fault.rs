//! Why a call failed, in words, with what to do about it.

use std::error::Error;
use std::fmt::Write;

use prost::Message;
use tonic::{Code, Status};

use crate::cli::Failure;
use crate::proto::types::google::rpc;

/// Why a command could not be done.
#[derive(Debug)]
pub(super) enum Fault {
    /// A call was refused.
    Status(Box<Status>),
    /// Anything else.
    Failure(Failure),
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Failure(error.into())
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::Failure(error.into())
    }
}

impl From<rpc::Status> for Fault {
    fn from(error: rpc::Status) -> Self {
        let code = Code::from_i32(error.code);
        Status::with_details(code, error.message.clone(), error.encode_to_vec().into()).into()
    }
}

impl Fault {
    /// Wrong arguments.
    pub(super) fn input(message: String) -> Self {
        Self::Failure(Failure::Input(message))
    }

    /// What went wrong, one thing a line.
    pub(super) fn told(&self, endpoint: &str) -> Option<String> {
        match self {
            Self::Status(status) => Some(words(status, endpoint)),
            Self::Failure(Failure::Input(message)) => Some(message.clone()),
            Self::Failure(Failure::Other(error)) => Some(format!("ERROR: {error:#}")),
            Self::Failure(Failure::Told) => None,
        }
    }
}

fn words(status: &Status, endpoint: &str) -> String {
    let code = status.code();
    let mut text = format!("ERROR: rpc error: code = {code:?} desc = {}", status.message());
    let mut source = status.source();
    while let Some(error) = source {
        let words = error.to_string();
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        source = error.source();
    }
    let details = rpc::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
    for detail in details {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        match name {
            "google.rpc.BadRequest" => {
                let request = rpc::BadRequest::decode(&*detail.value).unwrap_or_default();
                for violation in request.field_violations {
                    let _ = write!(text, "\n  {}: {}", violation.field, violation.description);
                }
            }
            "google.rpc.RequestInfo" => {
                let info = rpc::RequestInfo::decode(&*detail.value).unwrap_or_default();
                let _ = write!(text, "\nrequest id: {}", info.request_id);
            }
            _ => {}
        }
    }
    if let Some(hint) = hint(code, endpoint) {
        let _ = write!(text, "\n{hint}");
    }
    text
}

fn hint(code: Code, endpoint: &str) -> Option<String> {
    let hint = match code {
        Code::Unavailable => {
            return Some(format!(
                "Is the server there, at {endpoint}? Start it with `triggercast serve`, or give --endpoint HOST:PORT"
            ));
        }
        Code::Unauthenticated => "Who asks was not believed: give --api-key KEY or --token TOKEN",
        Code::PermissionDenied => {
            "A role is missing: whoever may give it does so with `add-access-binding --role ROLE --subject TYPE:ID`"
        }
        Code::NotFound => "`list` shows what there is; --folder-id looks in another folder",
        Code::AlreadyExists => "Take another name, or `update` what is there",
        Code::ResourceExhausted => "The server has enough to do: try again later, or with a larger --retry",
        Code::Unimplemented => "This server does not have it: are it and this program of one version?",
        Code::DeadlineExceeded | Code::Cancelled => {
            "The server did not answer in time: try again, and look at its log"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(name: &str, message: &impl Message) -> prost_types::Any {
        prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
    }

    #[test]
    fn every_wrong_field_has_its_line() {
        let violation = |field: &str| rpc::bad_request::FieldViolation {
            field: field.into(),
            description: "Field is required".into(),
        };
        let request = rpc::BadRequest {
            field_violations: vec![violation("name"), violation("rule.iot_message.registry_id")],
        };
        let info = rpc::RequestInfo { request_id: "r-1".into(), serving_data: String::new() };
        let details = vec![
            detail("google.rpc.BadRequest", &request),
            detail("google.rpc.Unknown", &info),
            detail("google.rpc.RequestInfo", &info),
        ];
        let error = rpc::Status { code: 3, message: "Validation failed".into(), details };
        insta::assert_snapshot!(Fault::from(error).told("h:1").unwrap(), @r"
        ERROR: rpc error: code = InvalidArgument desc = Validation failed
          name: Field is required
          rule.iot_message.registry_id: Field is required
        request id: r-1
        ");
    }

    #[test]
    fn hints_say_what_to_do() {
        let told = Fault::from(Status::unavailable("tcp connect error")).told("https://h:1").unwrap();
        assert!(told.contains("`triggercast serve`, or give --endpoint"), "{told}");
        assert!(told.contains("at https://h:1"), "{told}");
    }
}
