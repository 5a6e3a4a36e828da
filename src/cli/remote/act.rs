//! What the rows of the table do: names become ids, requests are sent, answers are shown.

use clap::ArgMatches;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind as FieldKind, MethodDescriptor, SerializeOptions, Value,
};
use serde_json::json;
use tonic::Code;

use super::fault::Fault;
use super::request::{Plan, given, plan, set};
use super::session::{OPERATION, Session, method};
use super::table::{self, Group, How, Row, Show};
use super::{key_file, show, special, tree};
use crate::cli::Failure;
use crate::cli::output::to_stderr;

const DEFAULT_FOLDER: &str = "default";
const LARGEST_PAGE: u64 = 1000;
const FOLDERS: &str = "resource-manager folder";

/// Does what a row says.
pub(super) async fn act(
    session: &Session,
    group: &'static Group,
    row: &'static Row,
    matches: &ArgMatches,
) -> Result<(), Fault> {
    if let How::Special(special) = row.how {
        return special::act(session, special, row, matches).await;
    }
    let method = method(group.service, row.call)?;
    let mut plan = plan(row, &method.input(), matches)?;
    resolve_names(session, &mut plan).await?;
    let id_field = tree::id_field(group, &method.input());
    match row.how {
        How::New => {
            let target = key_file::Target::make(row, matches)?;
            place(session, &method, id_field, &mut plan.request).await?;
            let answer = session.call(&method, &plan.request).await?;
            let answers = finish(session, answer).await?;
            if let Some(target) = target {
                target.write(&answers)?;
            }
            show_all(session, row, &key_file::public(row, answers))
        }
        How::List | How::ListOf => {
            if row.how == How::ListOf {
                let target = Target::of(matches).into_iter().next();
                set(&mut plan.request, id_field, json!(id(session, group, target).await?));
            }
            place(session, &method, id_field, &mut plan.request).await?;
            let limit = matches.get_one(tree::LIMIT).copied().unwrap_or(LARGEST_PAGE);
            let items = items_field(&method)?;
            let found = pages(session, &method, &items, plan.request, limit).await?;
            let FieldKind::Message(kind) = items.kind() else { return Ok(()) };
            Ok(show::print(&show::list(&session.settings.format, &kind, &found)?)?)
        }
        _ => each(session, group, row, &method, &plan, matches).await,
    }
}

/// One call for each resource. A fault with one does not keep the others from it.
async fn each(
    session: &Session,
    group: &'static Group,
    row: &'static Row,
    method: &MethodDescriptor,
    plan: &Plan,
    matches: &ArgMatches,
) -> Result<(), Fault> {
    let (mut answers, mut last) = (Vec::new(), None);
    for target in Target::of(matches) {
        let done = async {
            let id = id(session, group, Some(target)).await?;
            let mut request = plan.request.clone();
            set(&mut request, tree::id_field(group, &method.input()), json!(id));
            if !matches!(row.how, How::Each | How::One) {
                change(session, group, row, &id, &mut request).await?;
            }
            finish(session, session.call(method, &request).await?).await
        };
        match done.await {
            Ok(shown) => answers.extend(shown),
            Err(fault) => {
                if let Some(earlier) = last.replace(fault) {
                    tell(session, &earlier);
                }
            }
        }
    }
    show_all(session, row, &answers)?;
    last.map_or(Ok(()), Err)
}

fn tell(session: &Session, fault: &Fault) {
    if let Some(words) = fault.told(&session.settings.endpoint) {
        to_stderr(format_args!("{words}"));
    }
}

/// Makes an update of what is given: its mask, and around it what there is.
async fn change(
    session: &Session,
    group: &'static Group,
    row: &'static Row,
    id: &str,
    request: &mut serde_json::Value,
) -> Result<(), Fault> {
    let whole = match (row.how, row.under.split_once('.')) {
        (How::Append(field) | How::Add(field) | How::Remove(field), _) => Some((field, "")),
        (_, Some((field, kind))) if request.get(field).is_some() => Some((field, kind)),
        _ => None,
    };
    if let Some((field, kind)) = whole {
        let there = current(session, group, id).await?;
        let mut value = there.get(field).cloned().unwrap_or_default();
        if !kind.is_empty() && value.get(kind).is_none() {
            let other = value.as_object().and_then(|kinds| kinds.keys().next().cloned()).unwrap_or_default();
            return Err(Fault::input(format!("{id} is about {other}, not {kind}; use the other `update`")));
        }
        let given = request[field].take();
        match row.how {
            How::Remove(_) => remove(&mut value, &given),
            _ => merge(&mut value, given),
        }
        request[field] = value;
    }
    let id_field = group.id;
    let fields = request.as_object().into_iter().flat_map(|fields| fields.keys());
    let fields: Vec<String> = fields.filter(|field| *field != id_field).cloned().collect();
    if fields.is_empty() {
        return Err(Fault::input("nothing to change is given; --help shows what can be".to_owned()));
    }
    request["update_mask"] = super::request::mask(fields.iter());
    Ok(())
}

/// The resource as JSON.
async fn current(session: &Session, group: &Group, id: &str) -> Result<serde_json::Value, Fault> {
    let mut request = json!({});
    set(&mut request, group.id, json!(id));
    let message = session.call(&method(group.service, "Get")?, &request).await?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let json = message.serialize_with_options(serde_json::value::Serializer, &options);
    json.map_err(|error| anyhow::anyhow!("the resource cannot be read: {error}").into())
}

/// Maps grow by their keys, lists by their items; anything else is replaced.
fn merge(old: &mut serde_json::Value, new: serde_json::Value) {
    use serde_json::Value::{Array, Object};
    match (old, new) {
        (Object(old), Object(new)) => {
            for (key, value) in new {
                match old.get_mut(&key) {
                    // A list inside a map is one value, such as the kinds of events.
                    Some(inner) if inner.is_object() => merge(inner, value),
                    _ => {
                        old.insert(key, value);
                    }
                }
            }
        }
        (Array(old), Array(new)) => old.extend(new),
        (old, new) => *old = new,
    }
}

fn remove(old: &mut serde_json::Value, keys: &serde_json::Value) {
    let keys = keys.as_array().into_iter().flatten().filter_map(|key| key.as_str());
    match old.as_object_mut() {
        Some(map) => keys.for_each(|key| {
            map.remove(key);
        }),
        None => *old = json!({}),
    }
}

/// Shows answers as the row says.
pub(super) fn show_all(session: &Session, row: &Row, answers: &[DynamicMessage]) -> Result<(), Fault> {
    let format = session.settings.format.as_str();
    if let (Show::Only(name), "text") = (row.show, format) {
        for answer in answers {
            let value = answer.get_field_by_name(name);
            let text = value.as_ref().and_then(|value| value.as_str()).unwrap_or_default();
            let end = if text.ends_with('\n') { "" } else { "\n" };
            show::print(&format!("{text}{end}"))?;
        }
        return Ok(());
    }
    Ok(show::print(&show::resources(format, answers)?)?)
}

/// What is shown of an answer: an operation is waited for, unless it is what was asked for.
pub(super) async fn finish(session: &Session, answer: DynamicMessage) -> Result<Vec<DynamicMessage>, Fault> {
    use prost_reflect::ReflectMessage;
    let is_operation = answer.descriptor().full_name() == OPERATION;
    if is_operation && !session.settings.is_async {
        return Ok(session.wait(answer).await?.into_iter().collect());
    }
    let is_empty = answer.fields().next().is_none();
    Ok(if is_empty { Vec::new() } else { vec![answer] })
}

/// A resource as it was named.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Either(String),
    Id(String),
    Name(String),
}

impl Target {
    /// All that were given.
    pub(super) fn of(matches: &ArgMatches) -> Vec<Self> {
        let either = given(matches, tree::TARGET).into_iter().flatten().map(Self::Either);
        let id = given(matches, "id").into_iter().flatten().map(Self::Id);
        either.chain(id).chain(given(matches, "name").into_iter().flatten().map(Self::Name)).collect()
    }
}

/// The id of a resource.
pub(super) async fn id(
    session: &Session,
    group: &'static Group,
    target: Option<Target>,
) -> Result<String, Fault> {
    match target {
        None => Err(Fault::input("say which one is meant, by name or id".to_owned())),
        Some(Target::Id(id)) => Ok(id),
        Some(Target::Either(id)) if group.parent.is_empty() => Ok(id),
        Some(Target::Name(name)) => by_name(session, group, &name).await,
        Some(Target::Either(text)) => {
            let mut request = json!({});
            set(&mut request, group.id, json!(text));
            match session.call(&method(group.service, "Get")?, &request).await {
                Ok(_) => Ok(text),
                Err(Fault::Status(status))
                    if matches!(status.code(), Code::NotFound | Code::InvalidArgument) =>
                {
                    by_name(session, group, &text).await
                }
                Err(fault) => Err(fault),
            }
        }
    }
}

/// The id of what has this name in the folder.
pub(super) async fn by_name(session: &Session, group: &'static Group, name: &str) -> Result<String, Fault> {
    let method = method(group.service, "List")?;
    let mut request = json!({});
    if method.input().get_field_by_name("filter").is_some() {
        request["filter"] = json!(format!("name=\"{name}\""));
    }
    Box::pin(place(session, &method, "", &mut request)).await?;
    let items = items_field(&method)?;
    let found = pages(session, &method, &items, request, u64::MAX).await?;
    let text = |message: &DynamicMessage, field: &str| {
        message.get_field_by_name(field).and_then(|value| value.as_str().map(ToOwned::to_owned))
    };
    // A server may not know the filter.
    let has_name = |message: &&DynamicMessage| text(message, "name").as_deref() == Some(name);
    let mut ids = found.iter().filter(has_name).filter_map(|message| text(message, "id"));
    let kind = group.paths.first().copied().unwrap_or_default();
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok(id),
        (Some(first), Some(second)) => Err(Fault::input(format!(
            "several of `{kind}` are called {name:?}: {first}, {second}; take an id"
        ))),
        _ => {
            let place = match group.parent {
                "folder_id" => format!(" of folder {}", request_folder(session).await?),
                _ => String::new(),
            };
            Err(tonic::Status::not_found(format!("none of `{kind}`{place} has the id or name {name:?}"))
                .into())
        }
    }
}

/// Fills in what was given by name.
async fn resolve_names(session: &Session, plan: &mut Plan) -> Result<(), Fault> {
    for name in std::mem::take(&mut plan.names) {
        let id = by_name(session, group(name.group)?, &name.name).await?;
        set(&mut plan.request, &name.field, json!(id));
    }
    Ok(())
}

/// The group at a path.
pub(super) fn group(path: &str) -> Result<&'static Group, Fault> {
    let found = table::groups().find(|group| group.paths.contains(&path));
    found.ok_or_else(|| anyhow::anyhow!("no commands are called {path}").into())
}

/// Says where, in requests that want to know it and do not say it yet.
async fn place(
    session: &Session,
    method: &MethodDescriptor,
    id_field: &str,
    request: &mut serde_json::Value,
) -> Result<(), Fault> {
    let wants = |name: &str| name != id_field && method.input().get_field_by_name(name).is_some();
    if wants("cloud_id") {
        request["cloud_id"] = json!(session.settings.cloud_id);
    }
    if wants("folder_id") && request.get("registry_id").is_none() {
        request["folder_id"] = json!(request_folder(session).await?);
    }
    Ok(())
}

/// The id of the folder.
pub(super) async fn request_folder(session: &Session) -> Result<String, Fault> {
    let find = || async {
        match (&session.settings.folder_id, &session.settings.folder_name) {
            (Some(id), _) => Ok(id.clone()),
            (None, Some(name)) => Box::pin(by_name(session, group(FOLDERS)?, name)).await,
            (None, None) => Ok(DEFAULT_FOLDER.to_owned()),
        }
    };
    session.folder.get_or_try_init(find).await.cloned()
}

/// The field of a list's answer that holds what is listed.
fn items_field(method: &MethodDescriptor) -> Result<FieldDescriptor, Fault> {
    let is_items = |field: &FieldDescriptor| field.is_list() && matches!(field.kind(), FieldKind::Message(_));
    let field = method.output().fields().find(is_items);
    field.ok_or_else(|| anyhow::anyhow!("{} lists nothing", method.full_name()).into())
}

async fn pages(
    session: &Session,
    method: &MethodDescriptor,
    items: &FieldDescriptor,
    mut request: serde_json::Value,
    limit: u64,
) -> Result<Vec<DynamicMessage>, Fault> {
    let mut found = Vec::new();
    loop {
        let left = limit.saturating_sub(found.len() as u64);
        if method.input().get_field_by_name("page_size").is_some() {
            request["page_size"] = json!(left.min(LARGEST_PAGE).to_string());
        }
        let mut answer = session.call(method, &request).await?;
        if let Some(Value::List(list)) = answer.take_field(items) {
            let messages = list.into_iter().filter_map(|item| match item {
                Value::Message(message) => Some(message),
                _ => None,
            });
            found.extend(messages.take(usize::try_from(left).unwrap_or(usize::MAX)));
        }
        let next = answer.take_field_by_name("next_page_token");
        let next = next.as_ref().and_then(|token| token.as_str()).unwrap_or_default();
        if next.is_empty() || found.len() as u64 >= limit {
            return Ok(found);
        }
        if request.get("page_token").and_then(|token| token.as_str()) == Some(next) {
            return Err(
                Failure::Other(anyhow::anyhow!("the server gives the same page again and again")).into()
            );
        }
        request["page_token"] = json!(next);
    }
}
