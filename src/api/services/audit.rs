//! The log of what was changed by whom.

use prost_types::Timestamp;

use crate::api::Table;
use crate::api::access::{self, Place};
use crate::api::call::Call;
use crate::api::fault::{Fault, disk};
use crate::api::list;
use crate::model::role::{Area, Right};
use crate::proto::types::triggercast::v1::{AuditEvent, ListAuditEventsRequest, ListAuditEventsResponse};

pub(super) fn add(table: &mut Table) {
    table.add("triggercast.v1.AuditService/List", list);
}

fn list(call: &Call<'_>, request: ListAuditEventsRequest) -> Result<ListAuditEventsResponse, Fault> {
    access::check(&call.api.store.state(), &call.subject, Right::See(Area::Audit), &Place::cloud())?;
    let (size, after) = (list::size(request.page_size), list::after(&request.page_token)?);
    let before = match after.as_str() {
        "" => i64::MAX,
        number => {
            number.parse().map_err(|_| Fault::field("page_token", "The token is not one of this list"))?
        }
    };
    let lines = call.api.store.audit(&request.resource_id, before, size + 1).map_err(disk)?;
    let (lines, next_page_token) = list::page(lines.into_iter(), size, |(number, _)| number.to_string());
    let event = |(number, line): (i64, crate::store::StoredAudit)| AuditEvent {
        id: number.to_string(),
        created_at: Some(Timestamp {
            seconds: line.at.div_euclid(1_000_000),
            nanos: (line.at.rem_euclid(1_000_000) * 1000) as i32,
        }),
        subject_id: line.subject,
        method: line.method,
        resource_id: line.resource.to_string(),
        request_id: line.request,
        before: line.before,
        after: line.after,
    };
    Ok(ListAuditEventsResponse { events: lines.into_iter().map(event).collect(), next_page_token })
}
