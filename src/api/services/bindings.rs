//! Who has which role on folders, gateways, container registries and service accounts.

use prost::Message;

use crate::api::Table;
use crate::api::access::{self, Place, SERVICE_ACCOUNT};
use crate::api::call::{Call, Done};
use crate::api::fault::{Code, Fault};
use crate::api::list;
use crate::api::resource::find;
use crate::model::id::Id;
use crate::model::role::{Area, Right, Role};
use crate::proto::types::yandex::cloud::access::{
    AccessBinding, AccessBindingAction, AccessBindingDelta, AccessBindingsOperationResult,
    ListAccessBindingsRequest, ListAccessBindingsResponse, SetAccessBindingsMetadata,
    SetAccessBindingsRequest, UpdateAccessBindingsMetadata, UpdateAccessBindingsRequest,
};
use crate::proto::types::yandex::cloud::operation::Operation;
use crate::store::{Kind, Record, State};

/// Bindings of one resource.
const MOST: usize = 1000;

/// A service whose resources have bindings.
struct Service {
    methods: [&'static str; 3],
    kind: Kind,
    area: Area,
    /// Whether a change answers with what it changed, or with nothing.
    tells: bool,
}

macro_rules! service {
    ($name:literal, $kind:ident, $area:ident, $tells:literal) => {
        Service {
            methods: [
                concat!($name, "/ListAccessBindings"),
                concat!($name, "/SetAccessBindings"),
                concat!($name, "/UpdateAccessBindings"),
            ],
            kind: Kind::$kind,
            area: Area::$area,
            tells: $tells,
        }
    };
}

const SERVICES: [Service; 4] = [
    service!("yandex.cloud.resourcemanager.v1.FolderService", Folder, Folders, true),
    service!("yandex.cloud.iam.v1.ServiceAccountService", ServiceAccount, Accounts, true),
    service!("yandex.cloud.serverless.apigateway.v1.ApiGatewayService", Gateway, Gateways, false),
    service!("yandex.cloud.containerregistry.v1.RegistryService", ContainerRegistry, Registries, false),
];

pub(super) fn add(table: &mut Table) {
    for service in &SERVICES {
        table.add(service.methods[0], list_bindings);
        table.add(service.methods[1], set);
        table.add(service.methods[2], update);
    }
}

fn service(call: &Call<'_>) -> Result<&'static Service, Fault> {
    let found = SERVICES.iter().find(|service| service.methods.contains(&call.method));
    found.ok_or_else(|| Fault::new(Code::Internal, "The service is not in the table"))
}

fn list_bindings(
    call: &Call<'_>,
    request: ListAccessBindingsRequest,
) -> Result<ListAccessBindingsResponse, Fault> {
    let service = service(call)?;
    let state = call.api.store.state();
    let record = find(&state, service.kind, &request.resource_id)?;
    call.may(&state, Right::See(service.area), record)?;
    let given = access::bindings(&state, &access::bindings_id(service.kind, &record.id));
    let (access_bindings, next_page_token) = list::slice(given, request.page_size, &request.page_token)?;
    Ok(ListAccessBindingsResponse { access_bindings, next_page_token })
}

fn set(call: &Call<'_>, request: SetAccessBindingsRequest) -> Result<Operation, Fault> {
    let metadata = SetAccessBindingsMetadata { resource_id: request.resource_id.clone() };
    let resource = request.resource_id.clone();
    put(call, "Set access bindings", &resource, metadata, |_, state| {
        let mut wanted: Vec<AccessBinding> = Vec::new();
        for (index, binding) in request.access_bindings.into_iter().enumerate() {
            check(state, &binding, &format!("access_bindings[{index}]"))?;
            if !wanted.contains(&binding) {
                wanted.push(binding);
            }
        }
        Ok(wanted)
    })
}

fn update(call: &Call<'_>, request: UpdateAccessBindingsRequest) -> Result<Operation, Fault> {
    let metadata = UpdateAccessBindingsMetadata { resource_id: request.resource_id.clone() };
    put(call, "Update access bindings", &request.resource_id, metadata, |mut wanted, state| {
        for (index, delta) in request.access_binding_deltas.iter().enumerate() {
            let place = format!("access_binding_deltas[{index}]");
            let Some(binding) = delta.access_binding.clone() else { continue };
            match delta.action() {
                AccessBindingAction::Add => {
                    check(state, &binding, &format!("{place}.access_binding"))?;
                    if !wanted.contains(&binding) {
                        wanted.push(binding);
                    }
                }
                AccessBindingAction::Remove => wanted.retain(|given| *given != binding),
                AccessBindingAction::Unspecified => {
                    return Err(Fault::field(format!("{place}.action"), "Must be ADD or REMOVE"));
                }
            }
        }
        Ok(wanted)
    })
}

fn check(state: &State, binding: &AccessBinding, place: &str) -> Result<(), Fault> {
    if Role::find(&binding.role_id).is_none() {
        let what = format!("There is no role {:?}; see `triggercast iam role list`", binding.role_id);
        return Err(Fault::field(format!("{place}.role_id"), what));
    }
    let subject = binding.subject.clone().unwrap_or_default();
    match subject.r#type.as_str() {
        SERVICE_ACCOUNT => match state.get(Kind::ServiceAccount, &subject.id) {
            Some(_) => Ok(()),
            None => {
                let what = format!("There is no service account {:?}", subject.id);
                Err(Fault::field(format!("{place}.subject.id"), what))
            }
        },
        "system" if subject.id == "allAuthenticatedUsers" => Ok(()),
        other => {
            let what = format!(
                "{other:?} with the id {:?} is not known here; the types are serviceAccount, and system with \
                 allAuthenticatedUsers",
                subject.id
            );
            Err(Fault::field(format!("{place}.subject.type"), what))
        }
    }
}

fn put<M: Message + prost::Name>(
    call: &Call<'_>,
    description: &str,
    resource: &str,
    metadata: M,
    decide: impl FnOnce(Vec<AccessBinding>, &State) -> Result<Vec<AccessBinding>, Fault>,
) -> Result<Operation, Fault> {
    let service = service(call)?;
    let change = |state: &State, edit: &mut crate::api::call::Edit| {
        let record = find(state, service.kind, resource)?;
        call.may(state, Right::Bind(service.area), record)?;
        let id = access::bindings_id(service.kind, &record.id);
        let before = access::bindings(state, &id);
        let after = decide(before.clone(), state)?;
        if after.len() > MOST {
            let what = format!("{} bindings on one resource; at most {MOST} are allowed", after.len());
            return Err(Fault::new(Code::FailedPrecondition, what));
        }
        // To become an account of the configuration file takes a role on the cloud, so giving that away does too.
        let leads_to_it = |binding: &AccessBinding| {
            let rights = [Right::MakeToken, Right::MakeKey, Right::Bind(Area::Accounts)];
            Role::find(&binding.role_id).is_some_and(|role| rights.iter().any(|right| role.permits(*right)))
        };
        let mut added = after.iter().filter(|binding| !before.contains(binding));
        if service.kind == Kind::ServiceAccount && added.any(leads_to_it) {
            access::check(state, &call.subject, Right::Bind(service.area), &Place::to_become(record))?;
        }
        let kept = |access_bindings: Vec<AccessBinding>| SetAccessBindingsRequest {
            resource_id: record.id.to_string(),
            access_bindings,
        };
        let delta = |action: AccessBindingAction| {
            move |binding: &AccessBinding| AccessBindingDelta {
                action: action.into(),
                access_binding: Some(binding.clone()),
            }
        };
        let added = after.iter().filter(|binding| !before.contains(binding));
        let removed = before.iter().filter(|binding| !after.contains(binding));
        let effective_deltas = added
            .map(delta(AccessBindingAction::Add))
            .chain(removed.map(delta(AccessBindingAction::Remove)))
            .collect();
        let (before, after) = (kept(before), kept(after));
        edit.tell(&before, &after)?;
        let body = after.encode_to_vec();
        edit.put_silent(Record::new(Kind::AccessBindings, id, record.folder.clone(), String::new(), body));
        Ok::<_, Fault>((Id::from(resource), AccessBindingsOperationResult { effective_deltas }))
    };
    if service.tells {
        call.change(description, |state, edit| {
            let (resource, response) = change(state, edit)?;
            Ok(Done { resource, metadata, response })
        })
    } else {
        call.change(description, |state, edit| {
            let (resource, _) = change(state, edit)?;
            Ok(Done { resource, metadata, response: () })
        })
    }
}
