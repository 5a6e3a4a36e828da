//! What calls have come to.

use prost::Message;

use crate::api::Table;
use crate::api::access::{self, Place};
use crate::api::call::Call;
use crate::api::fault::{Code, Fault, disk};
use crate::api::list;
use crate::api::resource::Resource;
use crate::model::role::{Area, Right};
use crate::proto::types::yandex::cloud::operation::{CancelOperationRequest, GetOperationRequest, Operation};

pub(super) fn add(table: &mut Table) {
    table.add("yandex.cloud.operation.OperationService/Get", get);
    table.add("yandex.cloud.operation.OperationService/Cancel", cancel);
}

fn get(call: &Call<'_>, request: GetOperationRequest) -> Result<Operation, Fault> {
    see(call, &request.operation_id)
}

/// An operation that the caller has made, or who may see what others do.
fn see(call: &Call<'_>, id: &str) -> Result<Operation, Fault> {
    let operation = call.operation(id)?;
    if *operation.created_by != *call.subject {
        let state = call.api.store.state();
        access::check(&state, &call.subject, Right::See(Area::Audit), &Place::cloud())?;
    }
    Ok(operation)
}

/// Every operation is done when it is told of, so there is nothing to cancel.
fn cancel(call: &Call<'_>, request: CancelOperationRequest) -> Result<Operation, Fault> {
    let operation = see(call, &request.operation_id)?;
    let what = format!("The operation '{}' is done already", operation.id);
    Err(Fault::new(Code::FailedPrecondition, what))
}

impl Call<'_> {
    /// Operations about a resource that the caller may see, the newest first, and the token of the next page.
    pub(super) fn operations_of<T: Resource>(
        &self,
        id: &str,
        size: i64,
        token: &str,
    ) -> Result<(Vec<Operation>, String), Fault> {
        self.see_record::<T>(&self.api.store.state(), id)?;
        self.all_operations_of(id, size, token)
    }

    /// The same without asking whether there is such a resource, or who may see it.
    pub(super) fn all_operations_of(
        &self,
        resource: &str,
        size: i64,
        token: &str,
    ) -> Result<(Vec<Operation>, String), Fault> {
        let (before, size) = (list::after(token)?, list::size(size));
        let found = self.api.store.operations(resource, &before, size + 1).map_err(disk)?;
        let read = |bytes: Vec<u8>| {
            Operation::decode(&*bytes).map_err(|error| Fault::new(Code::Internal, error.to_string()))
        };
        let operations = found.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(list::page(operations.into_iter(), size, |operation| operation.id.clone()))
    }
}
