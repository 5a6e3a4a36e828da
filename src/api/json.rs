//! Messages as JSON and as bytes, by the names of their types.

use bytes::Bytes;
use prost::{Message, Name};
use prost_reflect::{DescriptorError, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use super::fault::{Code, Fault};
use crate::proto::POOL;

/// The descriptor of a message type.
pub(super) fn descriptor(full_name: &str) -> Result<MessageDescriptor, Fault> {
    let missing = || Fault::new(Code::Internal, format!("The message {full_name} is not known"));
    POOL.get_message_by_name(full_name).ok_or_else(missing)
}

/// A message with its fields to be walked.
pub(super) fn dynamic<M: Message + Name>(message: &M) -> Result<DynamicMessage, Fault> {
    decode(descriptor(&M::full_name())?, &message.encode_to_vec())
}

/// Bytes as a message of this type.
pub(super) fn decode(descriptor: MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, Fault> {
    let bad = |error| Fault::field("", format!("The message cannot be read: {error}"));
    DynamicMessage::decode(descriptor, Bytes::copy_from_slice(bytes)).map_err(bad)
}

/// The JSON of a message, as clients of REST see it: camelCase, fields with their defaults left out.
pub fn json(message: &DynamicMessage) -> Result<Value, Fault> {
    let options = SerializeOptions::new().skip_default_fields(true);
    let wrong = |error: serde_json::Error| Fault::new(Code::Internal, error.to_string());
    message.serialize_with_options(serde_json::value::Serializer, &options).map_err(wrong)
}

/// The JSON of a typed message as text, for the audit log.
pub(super) fn text<M: Message + Name>(message: &M) -> Result<String, Fault> {
    Ok(json(&dynamic(message)?)?.to_string())
}

impl From<DescriptorError> for Fault {
    fn from(error: DescriptorError) -> Self {
        Self::new(Code::Internal, error.to_string())
    }
}
