//! The management API: one table of calls, the same for gRPC and REST. `management` brings calls here, as bytes.
//!
//! A call goes: [`Api::call`] finds the method, asks who calls (`authenticate`), holds the request against the rules
//! of `proto/` (`rules`), and lets one handler of `services` answer. Handlers see the store, and change it by an
//! `Edit`, which becomes an operation and a line of the audit log in the same transaction. What runs is asked and told
//! through [`Plant`]; `wanted` says what should.

mod access;
mod authenticate;
mod call;
mod fault;
mod json;
mod list;
mod mask;
pub mod of_file;
mod openapi;
mod resource;
mod rules;
mod services;
mod sight;
pub mod wanted;
pub mod watch;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use prost::Message;
use prost_reflect::{MessageDescriptor, MethodDescriptor};
use prost_types::FieldMask;
use uuid::Uuid;

pub use self::fault::{Code, Fault};
pub use self::json::json;
pub use self::rules::{Limits, limits};

use self::call::Call;
use self::watch::Watch;
use crate::identity::token::Tokens;
use crate::model::Resources;
use crate::model::connection::{Connection, Ended, Page, Reach, Selection};
use crate::model::id::Id;
use crate::model::trigger::Steps;
use crate::proto::POOL;
use crate::store::Store;
use crate::telemetry;

/// What a front knows about a call.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// The header or metadata `authorization`.
    pub authorization: Option<&'a str>,
    /// The header or metadata `idempotency-key`.
    pub idempotency_key: Option<&'a str>,
    /// The id that the answer carries.
    pub request_id: &'a str,
}

/// Why something does not run, as a trigger tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One word for programs.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Since when.
    pub since: Option<SystemTime>,
}

/// Where a message is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publisher<'a> {
    /// As this device, of this registry.
    Device(&'a str, &'a str),
    /// As this registry.
    Registry(&'a str),
    /// As this broker.
    Broker(&'a str),
}

/// What runs. Every function may block for a moment.
pub trait Plant: Watch {
    /// Waits, for a bounded time, until what the store has had since this version is made run.
    fn settle(&self, version: u64);

    /// Why a trigger cannot do its work just now.
    fn troubles(&self, trigger: &str) -> Vec<Trouble>;

    /// Publishes a message, as if it came by MQTT. Returns when its events are kept.
    fn publish(&self, publisher: Publisher<'_>, topic: &str, data: &[u8]) -> Result<(), Fault>;

    /// An open connection.
    fn connection(&self, id: &str) -> Option<Connection>;

    /// Sends a message to a connection. False: there is none.
    fn send(&self, connection: &str, data: &[u8], is_text: bool) -> Result<bool, Fault>;

    /// Closes a connection. False: there is none.
    fn disconnect(&self, connection: &str) -> bool;

    /// A page of at most so many connections, from this id on. `None`: there is no such path.
    fn connections(&self, selection: Selection, start: Uuid, size: usize) -> Result<Option<Page>, Fault>;

    /// Sends a message to all of these connections. `None`: there is no such path.
    fn broadcast(&self, selection: Selection, data: &[u8], is_text: bool) -> Result<Option<Reach>, Fault>;

    /// Closes all of these connections and says how many. `None`: there is no such path.
    fn disconnect_all(&self, selection: Selection) -> Result<Option<Ended>, Fault>;

    /// The images that are known of a container registry.
    fn images(&self, registry: &str) -> Result<Vec<KnownImage>, Fault>;

    /// Says what is wrong with a jq program.
    fn check_jq(&self, program: &str) -> Result<(), Fault>;

    /// What steps make of an event; the error says why it is not sent.
    fn try_event(&self, steps: &Steps, event: &[u8]) -> Result<Result<Bytes, String>, Fault>;
}

/// An image of a container registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownImage {
    /// The repository, as the registry names it.
    pub repository: String,
    /// `sha256:…`.
    pub digest: String,
    /// Its tags.
    pub tags: Vec<String>,
}

/// The API.
pub struct Api {
    store: Arc<Store>,
    tokens: Tokens,
    settings: ApiSettings,
    plant: Arc<dyn Plant>,
    /// Held while a password is hashed or a key is made.
    costly: Mutex<()>,
}

/// What the API tells about the server.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// `host:port` of the gRPC port, as clients reach it.
    pub address: String,
    /// What the `aud` of a JWT may be.
    pub audiences: Vec<String>,
    /// Whether an embedded MQTT server runs.
    pub has_mqtt: bool,
    /// What the configuration file declares.
    pub of_file: Arc<Resources>,
}

type Handler = Box<dyn Fn(&Call<'_>, &[u8]) -> Result<Vec<u8>, Fault> + Send + Sync>;

/// A call that can be made.
struct Method {
    input: MessageDescriptor,
    handler: Handler,
    /// Whether it needs no name.
    is_open: bool,
}

/// Puts handlers under the names of their methods.
struct Table {
    methods: HashMap<&'static str, Method>,
}

impl Table {
    /// A call for those who say who they are.
    fn add<Q, R>(&mut self, name: &'static str, handler: fn(&Call<'_>, Q) -> Result<R, Fault>)
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
    {
        self.put(name, false, handler);
    }

    /// A call for everyone.
    fn add_open<Q, R>(&mut self, name: &'static str, handler: fn(&Call<'_>, Q) -> Result<R, Fault>)
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
    {
        self.put(name, true, handler);
    }

    fn put<Q, R>(&mut self, name: &'static str, is_open: bool, handler: fn(&Call<'_>, Q) -> Result<R, Fault>)
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
    {
        let Some(descriptor) = method(name) else {
            tracing::error!(name, "a call is not in the files of messages");
            return;
        };
        let handler: Handler = Box::new(move |call, body| {
            let bad = |error| Fault::field("", format!("The message cannot be read: {error}"));
            Ok(handler(call, Q::decode(body).map_err(bad)?)?.encode_to_vec())
        });
        self.methods.insert(name, Method { input: descriptor.input(), handler, is_open });
    }
}

/// Every call that can be made, by its full name.
static METHODS: LazyLock<HashMap<&'static str, Method>> = LazyLock::new(|| {
    let mut table = Table { methods: HashMap::new() };
    services::add(&mut table);
    table.methods
});

/// Whether a call is for everyone, by its full name; `None` if it is not built in.
pub fn is_open(name: &str) -> Option<bool> {
    METHODS.get(name).map(|method| method.is_open)
}

/// The descriptor of a method, by its full name `package.Service/Method`.
pub fn method(name: &str) -> Option<MethodDescriptor> {
    let (service, method) = name.split_once('/')?;
    let service = POOL.get_service_by_name(service)?;
    service.methods().find(|candidate| candidate.name() == method)
}

impl Api {
    /// The API over a store. Its keys are in `folder`.
    pub fn new(
        store: Arc<Store>,
        folder: &Path,
        settings: ApiSettings,
        plant: Arc<dyn Plant>,
    ) -> std::io::Result<Self> {
        let tokens = Tokens::open(&folder.join("iam.key"))?;
        Ok(Self { store, tokens, settings, plant, costly: Mutex::default() })
    }

    /// Waits for one's turn to do what costs much time and memory: one at a time.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.costly.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call with this `authorization` would be heard, so that nobody else's body is read.
    pub fn knows(&self, name: &str, authorization: Option<&str>) -> Result<(), Fault> {
        match METHODS.get(name) {
            Some(method) if method.is_open => Ok(()),
            _ => self.authenticate(authorization).map(drop),
        }
    }

    /// Answers a call: the full name of the method, its request and its answer as bytes. Blocks, for a commit or a
    /// password's hash.
    pub fn call(&self, name: &str, incoming: Incoming<'_>, body: &[u8]) -> Result<Vec<u8>, Fault> {
        let Some((name, method)) = METHODS.get_key_value(name) else {
            let what = match self::method(name) {
                Some(_) => format!("{name} is not built into this server"),
                None => format!("There is no call {name}"),
            };
            return Err(Fault::new(Code::Unimplemented, what));
        };
        let subject = if method.is_open { Id::from("") } else { self.authenticate(incoming.authorization)? };
        self.check(method, body)?;
        let call = Call { api: self, incoming, method: name, subject };
        let answer = telemetry::contain("Api", || (method.handler)(&call, body));
        answer.unwrap_or_else(|| Err(Fault::new(Code::Internal, "The call failed by a fault of the server")))
    }

    /// Holds a request against the rules of its fields. In an update only what it names is required, and the first
    /// field, which says of what.
    fn check(&self, method: &Method, body: &[u8]) -> Result<(), Fault> {
        let request = json::decode(method.input.clone(), body)?;
        let Some(mask) = method.input.get_field_by_name("update_mask") else {
            return refuse(rules::faults(&request, "", true));
        };
        let mask = request.get_field(&mask);
        let mask = mask.as_message().and_then(|mask| mask.transcode_to::<FieldMask>().ok());
        let paths = mask.unwrap_or_default().paths;
        let is_named = |name: &str| paths.is_empty() || paths.iter().any(|path| path == name);
        let mut faults = rules::faults(&request, "", false);
        for field in method.input.fields().filter(|field| !request.has_field(field)) {
            if field.number() == 1 || rules::is_required(&field) && is_named(field.name()) {
                faults.push((field.name().to_owned(), "Field is required".to_owned()));
            }
        }
        refuse(faults)
    }
}

fn refuse(faults: Vec<(String, String)>) -> Result<(), Fault> {
    if faults.is_empty() { Ok(()) } else { Err(Fault::fields(faults)) }
}
