//! Commands of the management API, as the built program, against a server that answers what each test wants.
#![expect(clippy::unwrap_used, reason = "a fault of a test's own tools should end the test")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::net::TcpListener;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tower_service::Service;
use triggercast::proto::POOL;
use triggercast::proto::raw::RawCodec;
use triggercast::proto::types::google::rpc;
use triggercast::proto::types::yandex::cloud::operation::{Operation, operation};

type Answer = Box<dyn Fn(&str, &Value, usize) -> Result<Value, Status> + Send + Sync>;

/// One call that came.
#[derive(Debug, Clone)]
struct Call {
    method: String,
    request: Value,
    metadata: BTreeMap<String, String>,
}

/// What the server knows: how it answers a method's nth call, and what came.
struct Fake {
    answer: Answer,
    calls: Mutex<Vec<Call>>,
}

impl Fake {
    fn call(&self, path: &str, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        let name = path.trim_start_matches('/').replace('/', ".");
        let (service, method) = name.rsplit_once('.').unwrap();
        let service = POOL.get_service_by_name(service).unwrap();
        let found = service.methods().find(|known| known.name() == method).unwrap();
        let metadata = texts(request.metadata());
        let message = DynamicMessage::decode(found.input(), request.into_inner()).unwrap();
        let options = SerializeOptions::new().use_proto_field_name(true);
        let request = message.serialize_with_options(serde_json::value::Serializer, &options).unwrap();
        let method = format!("{}/{method}", service.name());
        let count = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(Call { method: method.clone(), request: request.clone(), metadata });
            calls.iter().filter(|call| call.method == method).count()
        };
        let answer = (self.answer)(&method, &request, count)?;
        if answer == json!(NOTHING) {
            return Ok(Response::new(nothing().encode_to_vec().into()));
        }
        let answer = DynamicMessage::deserialize(found.output(), answer).unwrap();
        Ok(Response::new(answer.encode_to_vec().into()))
    }
}

/// Stands for an operation that came to nothing, as deletions do.
const NOTHING: &str = "nothing";

fn nothing() -> Operation {
    let response =
        prost_types::Any { type_url: "type.googleapis.com/google.protobuf.Empty".into(), value: vec![] };
    let result = Some(operation::Result::Response(response));
    Operation { id: "o1".into(), done: true, result, ..Operation::default() }
}

fn texts(metadata: &MetadataMap) -> BTreeMap<String, String> {
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap_or_default().to_owned())
    };
    metadata.clone().into_headers().iter().map(header).collect()
}

/// A service of the server: tonic wants each to have its name in its type.
#[derive(Clone)]
struct Named<const N: usize>(Arc<Fake>);

macro_rules! services {
    ($($number:literal $name:literal)*) => {
        $(impl NamedService for Named<$number> {
            const NAME: &'static str = $name;
        })*

        fn server(mut server: Server, fake: &Arc<Fake>) -> tonic::transport::server::Router {
            let router = server.add_service(Named::<0>(fake.clone()));
            $(let router = if $number == 0 { router } else { router.add_service(Named::<$number>(fake.clone())) };)*
            router
        }
    };
}

services! {
    0 "yandex.cloud.serverless.triggers.v1.TriggerService"
    1 "yandex.cloud.operation.OperationService"
    2 "yandex.cloud.serverless.apigateway.websocket.v1.ConnectionService"
    3 "yandex.cloud.iam.v1.KeyService"
    4 "yandex.cloud.iam.v1.IamTokenService"
    5 "yandex.cloud.iot.devices.v1.DeviceService"
    6 "yandex.cloud.iot.devices.v1.DeviceDataService"
    7 "yandex.cloud.resourcemanager.v1.FolderService"
    8 "yandex.cloud.serverless.apigateway.v1.ApiGatewayService"
    9 "triggercast.v1.TriggerTestService"
    10 "yandex.cloud.serverless.triggers.v2.TriggerService"
}

type Done<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<const N: usize> Service<http::Request<Body>> for Named<N> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Done<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = Method(self.0.clone(), request.uri().path().to_owned());
        Box::pin(async move { Ok(tonic::server::Grpc::new(RawCodec).unary(method, request).await) })
    }
}

struct Method(Arc<Fake>, String);

impl Service<Request<Bytes>> for Method {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        std::future::ready(self.0.call(&self.1, request))
    }
}

/// The server, and a folder for the program.
struct World {
    fake: Arc<Fake>,
    endpoint: String,
    folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    fn new(answer: impl Fn(&str, &Value, usize) -> Result<Value, Status> + Send + Sync + 'static) -> Self {
        Self::with(Server::builder(), answer)
    }

    fn with(
        server: Server,
        answer: impl Fn(&str, &Value, usize) -> Result<Value, Status> + Send + Sync + 'static,
    ) -> Self {
        let fake = Arc::new(Fake { answer: Box::new(answer), calls: Mutex::default() });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = format!("http://{}", incoming.local_addr().unwrap());
        runtime.spawn(self::server(server, &fake).serve_with_incoming(incoming));
        drop(_inside);
        Self { fake, endpoint, folder: tempfile::tempdir().unwrap(), _runtime: runtime }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_triggercast"));
        command
            .args(line.split_whitespace())
            .current_dir(self.folder.path())
            .env("TRIGGERCAST_ENDPOINT", &self.endpoint)
            .env("TRIGGERCAST_API_KEY", "secret")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Exit code, stdout, stderr.
    fn run_with(&self, line: &str, input: &str) -> (i32, String, String) {
        let mut child = self.command(line).spawn().unwrap();
        // A program that reads nothing may have closed its side.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let done = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
    }

    fn run(&self, line: &str) -> (i32, String, String) {
        self.run_with(line, "")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// What came since the last time.
    fn calls(&self) -> Vec<(String, Value)> {
        self.raw_calls().into_iter().map(|call| (call.method, call.request)).collect()
    }

    fn raw_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.fake.calls.lock().unwrap())
    }
}

fn trigger(id: &str, name: &str) -> Value {
    json!({ "id": id, "folder_id": "default", "created_at": "2022-10-24T15:19:15.353909857Z", "name": name,
        "labels": { "a": "1" }, "status": "ACTIVE",
        "rule": { "iot_message": { "registry_id": "factory", "mqtt_topic": "$devices/+/events",
            "batch_settings": { "size": "10", "cutoff": "1s" },
            "gateway_websocket_broadcast": { "gateway_id": "main", "path": "/ws", "service_account_id": "caster" } } } })
}

fn any(name: &str, mut message: Value) -> Value {
    message["@type"] = json!(format!("type.googleapis.com/{name}"));
    message
}

fn done(id: &str, response: Value) -> Value {
    json!({ "id": id, "done": true, "description": "Change", "response": response })
}

const TRIGGER: &str = "yandex.cloud.serverless.triggers.v1.Trigger";
const SHOWN: &str = r#"id: t1
folder_id: default
created_at: "2022-10-24T15:19:15.353909857Z"
name: hall
labels:
  a: "1"
rule:
  iot_message:
    registry_id: factory
    mqtt_topic: $devices/+/events
    batch_settings:
      size: "10"
      cutoff: 1s
    gateway_websocket_broadcast:
      gateway_id: main
      path: /ws
      service_account_id: caster
status: ACTIVE
"#;

/// One trigger with the id t1 and the name hall.
fn one_trigger(method: &str, request: &Value, _: usize) -> Result<Value, Status> {
    let known = request.get("trigger_id").is_none_or(|id| id == "t1");
    match method {
        _ if !known => Err(Status::not_found("Trigger not found")),
        "TriggerService/Get" => Ok(trigger("t1", "hall")),
        "TriggerService/List" => Ok(json!({ "triggers": [trigger("t1", "hall"), trigger("t2", "yard")] })),
        "TriggerService/Delete" => Ok(json!(NOTHING)),
        _ => Ok(done("o1", any(TRIGGER, trigger("t1", "hall")))),
    }
}

const CREATE: &str = "trigger create internet-of-things hall --registry-id factory --gateway-id main \
    --gateway-websocket-broadcast-path /ws --gateway-websocket-broadcast-service-account-id caster";

#[test]
fn create_prints_the_trigger() {
    let world = World::new(one_trigger);
    assert_eq!(world.run(CREATE), (0, SHOWN.to_owned(), String::new()));
    let calls = world.raw_calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(
        calls[0].request,
        json!({ "folder_id": "default", "name": "hall", "rule": { "iot_message": { "registry_id": "factory",
            "batch_settings": { "size": "1", "cutoff": "1s" },
            "gateway_websocket_broadcast": { "gateway_id": "main", "path": "/ws", "service_account_id": "caster" } } } })
    );
    let metadata = &calls[0].metadata;
    assert_eq!(metadata["authorization"], "Api-Key secret");
    for name in ["x-client-request-id", "idempotency-key"] {
        assert!(uuid::Uuid::parse_str(&metadata[name]).is_ok(), "{name}: {metadata:?}");
    }
    assert!(metadata["user-agent"].starts_with("triggercast-cli/"), "{metadata:?}");

    // Elsewhere, as someone else, in another form.
    let line = format!("{CREATE} --folder-id yard --token t1.x --format json --async");
    let (code, out, _) = world.run(&line);
    assert_eq!(code, 0);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&shown["id"], &shown["response"]["rule"]), (&json!("o1"), &trigger("t1", "hall")["rule"]));
    let calls = world.raw_calls();
    assert_eq!(calls[0].request["folder_id"], "yard");
    assert_eq!(calls[0].metadata["authorization"], "Bearer t1.x");
}

#[test]
fn names_and_ids_are_both_good() {
    let world = World::new(one_trigger);
    let get = |id: &str| ("TriggerService/Get".to_owned(), json!({ "trigger_id": id }));
    let list = |name: &str| {
        let request =
            json!({ "folder_id": "default", "filter": format!("name=\"{name}\""), "page_size": "1000" });
        ("TriggerService/List".to_owned(), request)
    };
    assert_eq!(world.run("trigger get t1"), (0, SHOWN.to_owned(), String::new()));
    assert_eq!(world.calls(), [get("t1"), get("t1")]);
    assert_eq!(world.run("trigger get hall").1, SHOWN);
    assert_eq!(world.calls(), [get("hall"), list("hall"), get("t1")]);
    assert_eq!(world.run("trigger get --name hall").1, SHOWN);
    assert_eq!(world.calls(), [list("hall"), get("t1")]);
    assert_eq!(world.run("trigger get --id t1").1, SHOWN);
    assert_eq!(world.calls(), [get("t1")]);
    // Several, and what is not there does not keep the others from being shown.
    assert_eq!(world.run("trigger get --format yaml t1 hall").1, format!("{SHOWN}---\n{SHOWN}"));
    let (code, out, err) = world.run("trigger get t1 cellar attic");
    assert_eq!((code, out.as_str()), (1, SHOWN));
    for name in ["cellar", "attic"] {
        let told = format!(
            "ERROR: rpc error: code = NotFound desc = none of `serverless trigger` of folder default has the id or \
             name \"{name}\"\n`list` shows what there is; --folder-id looks in another folder\n"
        );
        assert!(err.contains(&told), "{err}");
    }
}

#[test]
fn pause_and_delete_take_several() {
    let world = World::new(one_trigger);
    assert_eq!(world.run("trigger pause t1"), (0, SHOWN.to_owned(), String::new()));
    assert_eq!(world.calls()[1], ("TriggerService/Pause".to_owned(), json!({ "trigger_id": "t1" })));
    assert_eq!(world.run("serverless trigger delete t1 hall"), (0, String::new(), String::new()));
    let calls = world.calls();
    assert_eq!(calls.iter().filter(|(method, _)| method == "TriggerService/Delete").count(), 2);
    let (code, out, _) = world.run("trigger delete --id t1 --async --format json-rest");
    assert_eq!(code, 0);
    assert!(out.starts_with("{\n  \"id\": \"o1\",\n  \"done\": true"), "{out}");
}

#[test]
fn lists_have_pages() {
    let world = World::new(|_, request, _| {
        let page = request["page_token"].as_str().map_or(0, |token| token.parse().unwrap());
        let next = if page < 2 { (page + 1).to_string() } else { String::new() };
        Ok(json!({ "triggers": [trigger(&format!("t{page}"), "hall")], "next_page_token": next }))
    });
    let (code, out, err) = world.run("trigger list");
    let expected = "\
+----+------+-----------+
| ID | NAME | FOLDER ID |
+----+------+-----------+
| t0 | hall | default   |
| t1 | hall | default   |
| t2 | hall | default   |
+----+------+-----------+
";
    assert_eq!((code, out.as_str(), err.as_str()), (0, expected, ""));
    assert_eq!(world.calls().len(), 3);
    let (_, out, _) = world.run("trigger list --limit 2 --format json");
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown.as_array().unwrap().len(), 2);
    let calls = world.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!((&calls[0].1["page_size"], &calls[1].1["page_size"]), (&json!("2"), &json!("1")));
}

#[test]
fn a_folder_may_be_named() {
    let world = World::new(|method, _, _| {
        Ok(match method {
            "FolderService/List" => json!({ "folders": [{ "id": "f1", "name": "north" }] }),
            _ => json!({}),
        })
    });
    let (code, out, err) = world.run("trigger list --folder-name north");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("| ID | NAME | FOLDER ID |"), "{out}");
    let calls = world.calls();
    assert_eq!(calls[0].1["cloud_id"], "triggercast");
    assert_eq!(calls[1].1["folder_id"], "f1");
    let (code, _, err) = world.run("trigger list --folder-name south");
    assert_eq!(code, 1);
    assert!(err.contains("none of `resource-manager folder` has the id or name \"south\""), "{err}");
}

#[test]
fn updates_keep_what_is_not_given() {
    let world = World::new(one_trigger);
    let (code, _, err) =
        world.run("trigger update internet-of-things --id t1 --new-batch-size 5 --description d");
    assert_eq!((code, err.as_str()), (0, ""));
    let mut rule = trigger("t1", "hall")["rule"].clone();
    rule["iot_message"]["batch_settings"]["size"] = json!("5");
    let expected =
        json!({ "trigger_id": "t1", "description": "d", "rule": rule, "update_mask": "description,rule" });
    assert_eq!(world.calls()[1].1, expected);

    world.run("trigger update iot-devices --id t1 --new-name yard --on-pause drop");
    let expected =
        json!({ "trigger_id": "t1", "name": "yard", "on_pause": "DROP", "update_mask": "name,onPause" });
    assert_eq!(world.calls()[0].1, expected);

    let (code, _, err) = world.run("trigger update iot-broker --id t1 --new-mqtt-topic x");
    assert_eq!(
        (code, err.as_str()),
        (2, "t1 is about iot_message, not iot_broker_message; use the other `update`\n")
    );
    let (code, _, err) = world.run("trigger update iot-broker --id t1");
    assert_eq!((code, err.as_str()), (2, "nothing to change is given; --help shows what can be\n"));
    world.calls();

    world.run("trigger add-labels --id t1 --labels b=2");
    assert_eq!(world.calls()[1].1["labels"], json!({ "a": "1", "b": "2" }));
    world.run("trigger remove-labels --id t1 --labels a");
    assert_eq!(world.calls()[1].1, json!({ "trigger_id": "t1", "update_mask": "labels" }));
}

#[test]
fn actions_of_the_second_form_are_added() {
    let action =
        |path: &str| json!({ "gateway_websocket_broadcast": { "gateway_id": "main", "path": path } });
    let world = World::new(move |method, _, _| {
        let there = json!({ "id": "t1", "name": "hall", "action": [action("/a")] });
        let name = "yandex.cloud.serverless.triggers.v2.Trigger";
        Ok(if method.ends_with("Get") { there } else { done("o1", any(name, there)) })
    });
    world.write("action.json", &action("/b").to_string());
    let (code, _, err) = world.run("trigger v2 update add-actions --id t1 --action @action.json");
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(world.calls()[1].1["action"], json!([action("/a"), action("/b")]));
    world.run("trigger v2 update replace-actions --id t1 --action @action.json");
    assert_eq!(world.calls()[0].1["action"], json!([action("/b")]));
    let (code, _, err) = world.run("trigger v2 update add-actions --id t1 --action {\"fly\":1}");
    assert_eq!(code, 2);
    assert!(err.contains("this cannot be asked for: unrecognized field name 'fly'"), "{err}");
}

#[test]
fn operations_are_waited_for() {
    let world = World::new(|method, _, count| {
        let error = json!({ "code": 9, "message": "the path is gone" });
        Ok(match (method, count) {
            ("OperationService/Get", 1) => json!({ "id": "o1" }),
            ("OperationService/Get", 2) => done("o1", any(TRIGGER, trigger("t1", "hall"))),
            ("OperationService/Get", _) => json!({ "id": "o1", "done": true, "error": error }),
            _ => json!({ "id": "o1" }),
        })
    });
    assert_eq!(world.run("trigger pause --id t1"), (0, SHOWN.to_owned(), "done (2s)\n".to_owned()));
    let (code, out, err) = world.run("trigger resume --id t1 --no-user-output");
    let told = "ERROR: rpc error: code = FailedPrecondition desc = the path is gone\n";
    assert_eq!((code, out.as_str(), err.as_str()), (1, "", told));
    assert_eq!(world.run("operation wait o1"), (1, String::new(), told.to_owned()));
    let (code, out, _) = world.run("trigger pause --id t1 --async");
    assert_eq!((code, out.as_str()), (0, "id: o1\n"));
}

#[test]
fn refusals_name_every_field() {
    let world = World::new(|_, _, _| {
        let violation = |field: &str| rpc::bad_request::FieldViolation {
            field: field.into(),
            description: "Field is required".into(),
        };
        let request = rpc::BadRequest { field_violations: vec![violation("name"), violation("rule.timer")] };
        let detail =
            prost_types::Any { type_url: "x/google.rpc.BadRequest".into(), value: request.encode_to_vec() };
        let status = rpc::Status { code: 3, message: "Validation failed".into(), details: vec![detail] };
        Err(Status::with_details(Code::InvalidArgument, "Validation failed", status.encode_to_vec().into()))
    });
    let told = "ERROR: rpc error: code = InvalidArgument desc = Validation failed\n  name: Field is required\n  \
                rule.timer: Field is required\n";
    assert_eq!(world.run(CREATE), (1, String::new(), told.to_owned()));
}

#[test]
fn busy_servers_are_asked_again_with_the_same_key() {
    let world = World::new(|method, request, count| match count {
        1 => Err(Status::unavailable("starting")),
        2 => Err(Status::resource_exhausted("busy")),
        _ => one_trigger(method, request, count),
    });
    assert_eq!(world.run("trigger pause --id t1").0, 0);
    let calls = world.raw_calls();
    let header = |name: &str| calls.iter().map(|call| call.metadata[name].clone()).collect::<Vec<_>>();
    let keys = header("idempotency-key");
    assert!(keys.len() == 3 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let ids = header("x-client-request-id");
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");

    let world = World::new(|_, _, _| Err(Status::unavailable("starting")));
    let (code, _, err) = world.run("trigger list --retry 1 --debug");
    assert_eq!((code, world.calls().len()), (1, 2));
    assert!(err.contains("TriggerService.List Unavailable in "), "{err}");
    assert!(err.contains("code = Unavailable desc = starting\nIs the server there, at http://127."), "{err}");
    // Other refusals are final.
    let world = World::new(|_, _, _| Err(Status::internal("broken")));
    assert_eq!((world.run("trigger list").0, world.calls().len()), (1, 1));
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let world = World::new(one_trigger);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = Instant::now();
    let (code, _, err) = world.run(&format!("trigger list --retry 0 --endpoint http://{free}"));
    assert_eq!(code, 1);
    assert!(err.contains("code = Unavailable desc = "), "{err}");
    assert!(err.contains("Connection refused"), "{err}");
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn what_is_not_found_is_said_with_what_to_do() {
    let world = World::new(one_trigger);
    let run = |line: &str| {
        let mut command = world.command(line);
        let done =
            command.env_remove("TRIGGERCAST_ENDPOINT").env_remove("TRIGGERCAST_API_KEY").output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, err) = run("trigger list");
    assert_eq!(code, Some(2));
    assert!(err.starts_with("the address of the server was looked for by the configuration"), "{err}");
    assert!(err.ends_with("Give --endpoint HOST:PORT, or --config FILE\n"), "{err}");
    world.write("config.yaml", "data_dir: state\n");
    let (code, err) = run("trigger list");
    assert_eq!(code, Some(2));
    assert!(
        err.contains("the server's certificate was looked for in state/tls/ca.pem: No such file"),
        "{err}"
    );
    std::fs::create_dir_all(world.folder.path().join("state/tls")).unwrap();
    world.write("state/tls/ca.pem", "");
    let (_, err) = run("trigger list");
    assert!(err.contains("the administrator's key was looked for in state/admin.key: No such file"), "{err}");
    assert!(err.contains("start it, or give --api-key KEY or --token TOKEN"), "{err}");
    // The key of this machine's server is not shown to another.
    world.write("state/admin.key", "AQVN-admin\n");
    let (code, err) = run(&format!("trigger list --endpoint {}", world.endpoint));
    assert_eq!((code, err.as_str()), (Some(2), "--endpoint needs --api-key KEY or --token TOKEN with it\n"));
    assert!(world.raw_calls().is_empty());
}

#[test]
fn on_the_machine_of_the_server_nothing_has_to_be_said() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let identity = Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem());
    let tls = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    let world = World::with(tls, one_trigger);
    let port = world.endpoint.rsplit_once(':').unwrap().1;
    std::fs::create_dir_all(world.folder.path().join("state/tls")).unwrap();
    world.write("state/tls/ca.pem", &made.cert.pem());
    world.write("state/admin.key", "AQVN-admin\n");
    world.write(
        "config.yaml",
        &format!("data_dir: state\nmanagement: {{ grpc_listen: '127.0.0.1:{port}' }}\n"),
    );
    let run = |line: &str| {
        let mut command = world.command(line);
        let done =
            command.env_remove("TRIGGERCAST_ENDPOINT").env_remove("TRIGGERCAST_API_KEY").output().unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    assert_eq!(run("trigger get t1"), (Some(0), SHOWN.to_owned(), String::new()));
    assert_eq!(world.raw_calls()[0].metadata["authorization"], "Api-Key AQVN-admin");
    // Another server than the one that is trusted.
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    world.write("other.pem", &other.cert.pem());
    let (code, _, err) = run("trigger get t1 --ca-file other.pem --retry 0");
    assert_eq!((code, world.calls().len()), (Some(1), 0));
    assert!(err.contains("invalid peer certificate"), "{err}");
}

#[test]
fn wrong_arguments_are_code_2() {
    let world = World::new(one_trigger);
    for (line, told) in [
        ("trigger fly", "unrecognized subcommand 'fly'"),
        ("trigger get", "<NAME|ID"),
        ("trigger get t1 --format xml", "[possible values: text, yaml, json, json-rest, table]"),
        ("trigger create container-registry x --events push", "[possible values: create-image"),
        ("trigger create iot-broker x --dlq-queue-id q", "Triggercast broadcasts to WebSockets only"),
        ("trigger list --endpoint ftp://x", "is not HOST:PORT"),
        ("iam create-token", "say for whom: one of --key FILE"),
        ("iot mqtt publish --topic t --data x", "say as whom to publish"),
        ("serverless api-gateway websocket send c1", "missing: one of --data, --file and --stdin"),
    ] {
        let (code, out, err) = world.run(line);
        assert_eq!((code, out.as_str()), (2, ""), "{line}: {err}");
        assert!(err.contains(told), "{line}: {err}");
    }
    assert!(world.calls().is_empty());
}

#[test]
fn keys_go_to_a_file_and_sign_for_tokens() {
    let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
    let pem =
        rsa::pkcs8::EncodePrivateKey::to_pkcs8_pem(&key, rsa::pkcs8::LineEnding::LF).unwrap().to_string();
    let world = World::new(move |method, request, _| {
        Ok(match method {
            "KeyService/Create" if request["service_account_id"] == "nobody" => {
                return Err(Status::not_found("there is none"));
            }
            "IamTokenService/Create" => {
                json!({ "iam_token": "t1.token", "expires_at": "2027-01-01T00:00:00Z" })
            }
            _ => {
                json!({ "private_key": pem, "key": { "id": "k1", "service_account_id": "sa", "key_algorithm": "RSA_2048",
                "created_at": "2026-01-01T00:00:00Z", "public_key": "PUBLIC" } })
            }
        })
    });
    let (code, out, err) = world.run("iam key create --service-account-id sa --output key.json");
    assert_eq!((code, err.as_str()), (0, ""));
    let shown = "id: k1\nservice_account_id: sa\ncreated_at: \"2026-01-01T00:00:00Z\"\nkey_algorithm: RSA_2048\n\
                 public_key: PUBLIC\n";
    assert_eq!(out, shown);
    let path = world.folder.path().join("key.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!((&file["id"], &file["service_account_id"]), (&json!("k1"), &json!("sa")));
    assert!(file["private_key"].as_str().unwrap().contains("-----BEGIN PRIVATE KEY-----"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // It is not written over, and nothing is made that could not be kept.
    world.calls();
    let (code, _, err) = world.run("iam key create --service-account-id sa --output key.json");
    assert_eq!((code, err.as_str()), (2, "--output: key.json is there already\n"));
    let (code, _, err) = world.run("iam key create --service-account-id sa --output none/key.json");
    assert_eq!(
        (code, err.as_str()),
        (2, "--output: none/key.json: No such file or directory (os error 2)\n")
    );
    assert!(world.calls().is_empty());
    // A call that fails leaves no file.
    let (code, ..) = world.run("iam key create --service-account-id nobody --output other.json");
    assert_ne!(code, 0);
    assert!(!world.folder.path().join("other.json").exists());
    world.calls();

    assert_eq!(world.run("iam create-token --key key.json"), (0, "t1.token\n".to_owned(), String::new()));
    let (_, request) = world.calls().remove(0);
    let header = jsonwebtoken::decode_header(request["jwt"].as_str().unwrap()).unwrap();
    assert_eq!((header.alg, header.kid.as_deref()), (jsonwebtoken::Algorithm::PS256, Some("k1")));
}

#[test]
fn messages_are_sent_and_published() {
    let world = World::new(|_, _, _| Ok(json!({})));
    let (code, out, err) = world.run_with("serverless api-gateway websocket send c1 --stdin", "one\ntwo\n");
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    let sent = |data: &str, kind: &str| {
        ("ConnectionService/Send".to_owned(), json!({ "connection_id": "c1", "data": data, "type": kind }))
    };
    assert_eq!(world.calls(), [sent("b25l", "TEXT"), sent("dHdv", "TEXT")]);
    world.run_with("serverless api-gateway websocket forward c1 -t BINARY -l", "AAEC\n");
    assert_eq!(world.calls(), [sent("AAEC", "BINARY")]);
    world.run_with("serverless api-gateway websocket push c1 -f -", "one");
    assert_eq!(world.calls(), [sent("b25l", "TEXT")]);
    world.run("iot mqtt publish --device-id d --topic $devices/d/events --data one");
    let published = json!({ "device_id": "d", "topic": "$devices/d/events", "data": "b25l" });
    assert_eq!(world.calls(), [("DeviceDataService/Publish".to_owned(), published)]);
}

#[test]
fn triggers_are_tested_by_name_or_from_a_file() {
    let world = World::new(|method, request, count| match method {
        "TriggerTestService/Test" => {
            Ok(json!({ "actions": [{ "sent": true, "message": "{\"messages\":[]}" }] }))
        }
        // Found by the second form, which every trigger has.
        "TriggerService/List" => Ok(json!({ "triggers": [{ "id": "t1", "name": "hall" }] })),
        _ => one_trigger(method, request, count),
    });
    world.write("event.json", "{}");
    let shown = "actions:\n  - sent: true\n    message: '{\"messages\":[]}'\n";
    assert_eq!(world.run("trigger test hall --event event.json"), (0, shown.to_owned(), String::new()));
    assert_eq!(world.calls().pop().unwrap().1, json!({ "trigger_id": "t1", "event": "{}" }));
    // As `create` prints it, and as the configuration has it.
    world.write("printed.yaml", SHOWN);
    assert_eq!(world.run_with("trigger test printed.yaml --event -", "{}").0, 0);
    let mut expected = trigger("", "hall");
    for key in ["id", "created_at", "status"] {
        expected.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(world.calls()[0].1, json!({ "v1": expected, "event": "{}" }));
    let config = "name: pushes\nsource:\n  container_registry:\n    registry_id: images\n    event_type: [create_image]\n    \
                  batch_settings: { max_count: 10, cutoff: 1500ms }\naction:\n  - gateway_websocket_broadcast: { gateway_id: main, path: /ws }\n";
    world.write("config-form.yaml", config);
    let (code, _, err) = world.run("trigger test config-form.yaml --event event.json");
    assert_eq!((code, err.as_str()), (0, ""));
    let request = &world.calls()[0].1["v2"];
    assert_eq!(request["folder_id"], "default");
    let source = &request["source"]["container_registry"];
    assert_eq!(source["event_type"], json!(["CONTAINER_REGISTRY_EVENT_TYPE_CREATE_IMAGE"]));
    assert_eq!(source["batch_settings"], json!({ "max_count": "10", "cutoff": "1.500s" }));
    world.write("wrong.yaml", "name: x\n");
    let (code, _, err) = world.run("trigger test wrong.yaml --event event.json");
    assert_eq!(
        (code, err.as_str()),
        (2, "wrong.yaml: a trigger has either `rule`, or `source` and `action`\n")
    );
}

#[test]
fn a_specification_is_printed_as_it_is() {
    let world =
        World::new(|_, _, _| Ok(json!({ "api_gateway_id": "g", "openapi_spec": "openapi: 3.0.0\n" })));
    let done = world.run("serverless api-gateway get-spec --id g");
    assert_eq!(done, (0, "openapi: 3.0.0\n".to_owned(), String::new()));
    let (_, out, _) = world.run("serverless api-gateway get-spec --id g --format yaml");
    assert_eq!(out, "api_gateway_id: g\nopenapi_spec: |\n  openapi: 3.0.0\n");
}

#[test]
fn names_of_devices_are_found_without_a_filter() {
    let world = World::new(|method, _, _| match method {
        "DeviceService/List" => Ok(json!({ "devices": [
            { "id": "d1", "name": "press-1" }, { "id": "d2", "name": "press" }, { "id": "d3", "name": "press" } ] })),
        "DeviceService/Get" => Err(Status::not_found("Device not found")),
        _ => Ok(json!(NOTHING)),
    });
    assert_eq!(world.run("iot device delete press-1"), (0, String::new(), String::new()));
    assert_eq!(world.calls()[2].1, json!({ "device_id": "d1" }));
    let (code, _, err) = world.run("iot device delete press");
    assert_eq!(
        (code, err.as_str()),
        (2, "several of `iot device` are called \"press\": d2, d3; take an id\n")
    );
}

#[test]
fn shells_can_complete() {
    let world = World::new(one_trigger);
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = world.run(&format!("completion {shell}"));
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("internet-of-things"), "{shell}");
    }
}
