//! One call: who makes it, what that allows, and how a change becomes an operation.

use prost::{Message, Name};
use prost_types::{Any, Timestamp};

use super::access::{self, Place};
use super::fault::{Code, Fault, disk};
use super::json;
use super::resource::{Resource, record};
use super::{Api, Incoming};
use crate::model::id::{self, Id};
use crate::model::role::Right;
use crate::proto::types::yandex::cloud::operation::{Operation, operation};
use crate::store::{Change, ChangeError, Kind, Record, State, StoredAudit};

/// A call whose caller is known.
pub(super) struct Call<'a> {
    pub(super) api: &'a Api,
    pub(super) incoming: Incoming<'a>,
    /// The full name of the method.
    pub(super) method: &'a str,
    /// The service account that calls; empty where nobody needs to say who he is.
    pub(super) subject: Id,
}

/// What a change consists of, as a handler puts it together.
#[derive(Default)]
pub(super) struct Edit {
    change: Change,
    before: String,
    after: String,
}

impl Edit {
    /// Puts a resource of a folder in the place of what was there.
    pub(super) fn put<T: Resource>(
        &mut self,
        before: Option<&T>,
        resource: &T,
        folder: &str,
    ) -> Result<(), Fault> {
        self.put_record(before, resource, record(resource, folder))
    }

    /// The same with a record that has more than the message.
    pub(super) fn put_record<T: Resource>(
        &mut self,
        before: Option<&T>,
        resource: &T,
        record: Record,
    ) -> Result<(), Fault> {
        self.before = before.map(json::text).transpose()?.unwrap_or_default();
        self.after = json::text(resource)?;
        self.change.put.push(record);
        Ok(())
    }

    /// Puts a record that the audit log tells nothing of.
    pub(super) fn put_silent(&mut self, record: Record) {
        self.change.put.push(record);
    }

    /// What the audit log tells of a change that is no resource's.
    pub(super) fn tell<M: Message + Name>(&mut self, before: &M, after: &M) -> Result<(), Fault> {
        (self.before, self.after) = (json::text(before)?, json::text(after)?);
        Ok(())
    }

    /// What the audit log tells of something new that is no resource.
    pub(super) fn tell_after<M: Message + Name>(&mut self, after: &M) {
        self.after = json::text(after).unwrap_or_default();
    }

    /// What the audit log tells of something that goes and is no resource.
    pub(super) fn tell_before<M: Message + Name>(&mut self, before: &M) {
        self.before = json::text(before).unwrap_or_default();
    }

    /// Deletes a resource.
    pub(super) fn delete<T: Resource>(&mut self, resource: &T) -> Result<(), Fault> {
        self.before = json::text(resource)?;
        self.delete_silent(T::KIND, resource.id().into());
        Ok(())
    }

    /// Deletes what goes with a resource.
    pub(super) fn delete_silent(&mut self, kind: Kind, id: Id) {
        self.change.delete.push((kind, id));
    }

    /// Makes a token invalid.
    pub(super) fn revoke(&mut self, token: String, until: i64) {
        self.change.revoke.push((token, until));
    }
}

/// What a change has come to.
pub(super) struct Done<M, R> {
    /// What it is about.
    pub(super) resource: Id,
    pub(super) metadata: M,
    pub(super) response: R,
}

impl Call<'_> {
    /// Refuses what no role of the caller permits on a resource.
    pub(super) fn may(&self, state: &State, right: Right, record: &Record) -> Result<(), Fault> {
        access::check(state, &self.subject, right, &Place::of(record))
    }

    /// Refuses what no role of the caller permits in a folder, which must exist.
    pub(super) fn may_in_folder(&self, state: &State, right: Right, folder: &str) -> Result<(), Fault> {
        let record = state.get(Kind::Folder, folder).ok_or_else(|| Fault::not_found("folder", folder))?;
        access::check(state, &self.subject, right, &Place::folder(&record.id))
    }

    /// Makes a change and tells of it in an operation, which is done. The same call with the same idempotency key
    /// gets the same operation.
    pub(super) fn change<M: Message + Name, R: Message + Name>(
        &self,
        description: &str,
        decide: impl FnOnce(&State, &mut Edit) -> Result<Done<M, R>, Fault>,
    ) -> Result<Operation, Fault> {
        let key = self.incoming.idempotency_key.filter(|key| !key.is_empty());
        if let Some(key) = key.filter(|key| key.len() > 128) {
            let what = format!("The key has {} characters; at most 128 are allowed", key.len());
            return Err(Fault::field("idempotency-key", what));
        }
        let key = key.map(|key| [self.subject.to_string(), self.method.to_owned(), key.to_owned()]);
        self.commit(key, |state| {
            let mut edit = Edit::default();
            let done = decide(state, &mut edit)?;
            let now = now();
            let any = |any: Result<Any, _>| {
                any.map_err(|error: prost::EncodeError| Fault::new(Code::Internal, error.to_string()))
            };
            let operation = Operation {
                id: id::generate("fd8").to_string(),
                description: description.to_owned(),
                created_at: Some(now),
                created_by: self.subject.to_string(),
                modified_at: Some(now),
                done: true,
                metadata: Some(any(Any::from_msg(&done.metadata))?),
                result: Some(operation::Result::Response(any(Any::from_msg(&done.response))?)),
            };
            let body = operation.encode_to_vec();
            edit.change.operation = Some((operation.id.clone(), done.resource.clone(), body));
            Ok((edit, done.resource, operation))
        })
        .inspect(|_| self.api.plant.settle(*self.api.store.version().borrow()))
        .or_else(|error| match error {
            ChangeError::Repeated(id) => self.operation(&id),
            error => Err(error.into()),
        })
    }

    /// Makes a change that no operation tells of.
    pub(super) fn change_silently<T>(
        &self,
        decide: impl FnOnce(&State, &mut Edit) -> Result<(Id, T), Fault>,
    ) -> Result<T, Fault> {
        self.commit(None, |state| {
            let mut edit = Edit::default();
            let (resource, result) = decide(state, &mut edit)?;
            Ok((edit, resource, result))
        })
        .map_err(Into::into)
    }

    fn commit<T>(
        &self,
        key: Option<[String; 3]>,
        decide: impl FnOnce(&State) -> Result<(Edit, Id, T), Fault>,
    ) -> Result<T, ChangeError<Fault>> {
        self.api.store.change(key, |state| {
            let (edit, resource, result) = decide(state)?;
            let Edit { mut change, before, after } = edit;
            change.audit = Some(StoredAudit {
                at: jiff::Timestamp::now().as_microsecond(),
                subject: self.subject.to_string(),
                method: self.method.to_owned(),
                resource,
                request: self.incoming.request_id.to_owned(),
                before,
                after,
            });
            Ok((change, result))
        })
    }

    /// The operation with this id.
    pub(super) fn operation(&self, id: &str) -> Result<Operation, Fault> {
        let found = self.api.store.operation(id).map_err(disk)?;
        let bytes = found.ok_or_else(|| Fault::not_found("operation", id))?;
        Operation::decode(&*bytes).map_err(|error| Fault::new(Code::Internal, error.to_string()))
    }
}

/// This moment.
pub(super) fn now() -> Timestamp {
    let now = jiff::Timestamp::now();
    Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() }
}
