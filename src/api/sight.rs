//! What a call sees of the store: single resources, those that it may change, and pages of lists.

use super::call::{Call, Edit};
use super::fault::Fault;
use super::list::{self, Filter};
use super::resource::{Resource, check_own, find, message};
use crate::model::role::Right;
use crate::store::{Record, State};

impl Call<'_> {
    /// The record of a resource that the caller may see.
    pub(super) fn see_record<'a, T: Resource>(
        &self,
        state: &'a State,
        id: &str,
    ) -> Result<&'a Record, Fault> {
        let record = find(state, T::KIND, id)?;
        self.may(state, Right::See(T::AREA), record)?;
        Ok(record)
    }

    /// A resource that the caller may see.
    pub(super) fn see<T: Resource>(&self, id: &str) -> Result<T, Fault> {
        message(self.see_record::<T>(&self.api.store.state(), id)?)
    }

    /// The record of a resource that the caller, and calls at all, may change.
    pub(super) fn own_record<'a, T: Resource>(
        &self,
        state: &'a State,
        id: &str,
    ) -> Result<&'a Record, Fault> {
        let record = find(state, T::KIND, id)?;
        self.may(state, Right::Change(T::AREA), record)?;
        check_own(record)?;
        Ok(record)
    }

    /// A resource that the caller, and calls at all, may change.
    pub(super) fn own<T: Resource>(&self, state: &State, id: &str) -> Result<T, Fault> {
        message(self.own_record::<T>(state, id)?)
    }

    /// Changes a resource in its folder, as pausing does.
    pub(super) fn alter<T: Resource>(
        &self,
        state: &State,
        edit: &mut Edit,
        id: &str,
        change: impl FnOnce(&mut T),
    ) -> Result<T, Fault> {
        let record = self.own_record::<T>(state, id)?;
        let before: T = message(record)?;
        let mut resource = before.clone();
        change(&mut resource);
        edit.put(Some(&before), &resource, &record.folder)?;
        Ok(resource)
    }

    /// A page of the resources with this owner that the filter takes, by id, and the token of the next page.
    pub(super) fn page<T: Resource>(
        &self,
        owner: impl Fn(&Record) -> bool,
        size: i64,
        token: &str,
        filter: &str,
    ) -> Result<(Vec<T>, String), Fault> {
        self.page_seen(|_, record| owner(record), size, token, filter)
    }

    /// The same of the resources for which this is so, which the state is told for.
    pub(super) fn page_seen<T: Resource>(
        &self,
        is_seen: impl Fn(&State, &Record) -> bool,
        size: i64,
        token: &str,
        filter: &str,
    ) -> Result<(Vec<T>, String), Fault> {
        let filter = Filter::parse(filter)?;
        let after = list::after(token)?;
        let state = self.api.store.state();
        let records = state
            .after(T::KIND, &after)
            .filter(|record| filter.takes(&record.name) && is_seen(&state, record));
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
