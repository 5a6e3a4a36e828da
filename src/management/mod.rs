//! The management ports: `/healthz`, `/readyz`, `/metrics`, the webhooks of container registries, and the API's two
//! fronts: REST beside them (`rest`), and gRPC on a port of its own (`grpc`); the console's pages. The server starts them.

mod description;
pub mod grpc;
mod incoming;
mod rest;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Protocol};
use actix_rt::task::JoinHandle;
use actix_server::{Server, ServerHandle};
use actix_service::{ServiceFactoryExt as _, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::{App, HttpResponse, web};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::api::Api;
use crate::console::{self, Console};
use crate::container_registry::webhook::Webhooks;
use crate::journal::disk::Health;
use crate::source::Condition;
use crate::source::readiness::Readiness;
use crate::telemetry::METRICS;
use crate::tls::Acceptor;

/// Time that a client has for the headers of a request, and for the next one on the same connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a client has to take the end of an answer before its connection is cut.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts the port on an already bound socket, inside an actix system. The task ends when the server does.
pub fn start(
    socket: TcpListener,
    tls: Option<Acceptor>,
    readiness: Arc<Readiness>,
    webhooks: Webhooks,
    api: Arc<Api>,
    console: Console,
) -> io::Result<(ServerHandle, JoinHandle<()>)> {
    let readiness = web::Data::from(readiness);
    let api = web::Data::from(api);
    let console = web::Data::new(console);
    let server = move || {
        let app = App::new()
            .app_data(readiness.clone())
            .app_data(api.clone())
            .route("/healthz", web::get().to(healthz))
            .route("/healthz", web::head().to(healthz))
            .route("/readyz", web::get().to(readyz))
            .route("/readyz", web::head().to(readyz))
            .route("/metrics", web::get().to(metrics))
            .route("/openapi.json", web::get().to(description::get))
            .configure(webhooks.clone().routes())
            .configure(console::routes(console.clone()))
            .default_service(web::to(rest::call));
        let http = HttpService::build()
            .keep_alive(KeepAlive::Timeout(REQUEST_TIMEOUT))
            .client_request_timeout(REQUEST_TIMEOUT)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .finish(map_config(app, |()| AppConfig::default()));
        let tls = tls.clone();
        fn_service(move |tcp: TcpStream| {
            let tls = tls.clone();
            async move {
                let peer = tcp.peer_addr().ok();
                let io = Acceptor::accept_by(tls.as_ref(), tcp).await?;
                Ok::<_, DispatchError>((io, Protocol::Http1, peer))
            }
        })
        .and_then(http)
    };
    let server = Server::build().workers(1).disable_signals().listen("management", socket, server)?.run();
    let handle = server.handle();
    let task = actix_rt::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the management server ended");
        }
    });
    Ok((handle, task))
}

/// The process lives.
async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// Events can arrive from every source and be kept: 200, else 503. The body says what fails, and why.
async fn readyz(readiness: web::Data<Readiness>) -> HttpResponse {
    let sources = readiness.sources();
    let journal = readiness.journal();
    let ready = is_ready(&readiness, journal.as_ref(), &sources);
    let body = json!({
        "status": if ready { "ready" } else { "not ready" },
        "journal": journal.as_ref().map(journal_json),
        "sources": sources.iter().map(|(name, condition)| source_json(name, condition)).collect::<Vec<_>>(),
    });
    if ready { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}

fn is_ready(readiness: &Readiness, journal: Option<&Health>, sources: &[(String, Condition)]) -> bool {
    readiness.is_serving()
        && !matches!(journal, Some(Health::Failing { .. }))
        && sources.iter().all(|(_, condition)| *condition == Condition::Running)
}

fn journal_json(health: &Health) -> Value {
    match health {
        Health::Writing => json!({ "state": "writing" }),
        Health::Failing { error, since } => {
            json!({ "state": "failing", "error": error, "since": rfc3339(*since) })
        }
    }
}

fn source_json(name: &str, condition: &Condition) -> Value {
    match condition {
        Condition::Starting => json!({ "source": name, "state": "starting" }),
        Condition::Running => json!({ "source": name, "state": "running" }),
        Condition::Failing { error, since } => {
            json!({ "source": name, "state": "failing", "error": error, "since": rfc3339(*since) })
        }
    }
}

fn rfc3339(time: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(time).ok().map(|time| time.to_string())
}

/// All counters, and what `/readyz` says.
async fn metrics(readiness: web::Data<Readiness>) -> HttpResponse {
    let sources = readiness.sources();
    let works = sources.iter().filter(|(_, condition)| *condition == Condition::Running).count();
    METRICS.ready.set(is_ready(&readiness, readiness.journal().as_ref(), &sources).into());
    METRICS.sources.set(sources.len() as i64);
    METRICS.sources_ready.set(works as i64);
    HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(METRICS.text())
}

/// A new id for a request, which its answer carries.
fn request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
