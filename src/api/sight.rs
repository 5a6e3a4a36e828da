//! What a call sees of the store: single resources, those that it may change, and pages of lists.

use super::call::Call;
use super::fault::Fault;
use super::list::{self, Filter};
use super::resource::{Resource, check_own, find, message};
use crate::model::role::{Area, Right};
use crate::store::{Kind, Record, State};

impl Call<'_> {
    /// A resource that the caller may see.
    pub(super) fn see<T: Resource>(&self, id: &str) -> Result<T, Fault> {
        let state = self.api.store.state();
        let record = find(&state, T::KIND, id)?;
        self.may(&state, Right::See(T::AREA), record)?;
        message(record)
    }

    /// The record of a resource that must exist, and that the caller and calls at all may change.
    pub(super) fn own<'a>(
        &self,
        state: &'a State,
        kind: Kind,
        area: Area,
        id: &str,
    ) -> Result<&'a Record, Fault> {
        let record = find(state, kind, id)?;
        self.may(state, Right::Change(area), record)?;
        check_own(record)?;
        Ok(record)
    }

    /// A page of the resources with this owner that the filter takes, by id, and the token of the next page.
    pub(super) fn page<T: Resource>(
        &self,
        owner: impl Fn(&Record) -> bool,
        size: i64,
        token: &str,
        filter: &str,
    ) -> Result<(Vec<T>, String), Fault> {
        let filter = Filter::parse(filter)?;
        let after = list::after(token)?;
        let state = self.api.store.state();
        let records =
            state.after(T::KIND, &after).filter(|record| owner(record) && filter.takes(&record.name));
        let (records, next) = list::page(records, list::size(size), |record| record.id.to_string());
        Ok((records.into_iter().map(message).collect::<Result<_, _>>()?, next))
    }

    /// The same for a folder, which must exist and in which the caller may see such resources.
    pub(super) fn page_of_folder<T: Resource>(
        &self,
        folder: &str,
        size: i64,
        token: &str,
        filter: &str,
    ) -> Result<(Vec<T>, String), Fault> {
        self.may_in_folder(&self.api.store.state(), Right::See(T::AREA), folder)?;
        self.page(|record| *record.folder == *folder, size, token, filter)
    }
}
