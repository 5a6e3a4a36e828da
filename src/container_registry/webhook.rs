//! The webhook that registries notify, and the call that has a registry read again: routes of the management port.
//!
//! `POST /container-registry/v1/registries/{registry_id}/notifications` is answered 200 when everything that follows from the
//! notification is on disk. 4xx says what is wrong with it; 503 that it cannot be kept just now, and is to be sent again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use actix_web::http::StatusCode;
use actix_web::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::time::Instant;

use super::access::{self, Proof};
use super::followed::{Followed, Question};
use super::manifest::{self, Told};
use super::notification::{self, Happened, Headers, Malformed, Notice, Notification};
use super::reconcile;
use super::store::index::{self, Observation, Observed, What};
use super::{AskError, Registries, StoreError, micros};
use crate::model::container::ContainerRegistryKind;
use crate::telemetry::{self, METRICS};

/// Longest body, in bytes.
pub const MAX_BODY: usize = 4 * 1024 * 1024;
/// How long the body of a sender may take who has shown the token.
const BODY_TIME: Duration = Duration::from_secs(30);
/// The same of others.
const UNPROVED_BODY_TIME: Duration = Duration::from_secs(5);
/// How long a notification may wait until the registry has said what its manifests are.
const LOOK: Duration = Duration::from_secs(2);
/// What happened longer ago than this may have been overtaken.
const LATE: Duration = Duration::from_secs(10);

/// What all requests share.
#[derive(Clone)]
pub struct Webhooks(Option<Arc<Registries>>);

impl Webhooks {
    /// The webhooks of these registries.
    pub fn new(registries: Option<Arc<Registries>>) -> Self {
        Self(registries)
    }

    /// Adds the routes.
    pub fn routes(self) -> impl FnOnce(&mut web::ServiceConfig) {
        move |config| {
            config
                .app_data(web::Data::new(self))
                .route(
                    "/container-registry/v1/registries/{registry_id}/notifications",
                    web::post().to(notify),
                )
                .route(
                    "/container-registry/v1/registries/{registry_id:[^/:]+}:reconcile",
                    web::post().to(reconcile),
                );
        }
    }

    fn find(&self, id: &str) -> Result<(&Registries, &Arc<Followed>), Refusal> {
        let registries = self.0.as_deref();
        let found = registries.and_then(|all| Some((all, all.by_id.get(id)?)));
        found.ok_or_else(|| {
            Refusal(StatusCode::NOT_FOUND, "unknown", format!("there is no container registry {id:?}"))
        })
    }
}

/// A request that is not done: the status, the reason in the metrics, and words for the sender.
struct Refusal(StatusCode, &'static str, String);

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self(StatusCode::BAD_REQUEST, "malformed", malformed.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string())
    }
}

impl From<Refusal> for HttpResponse {
    fn from(Refusal(status, reason, message): Refusal) -> Self {
        telemetry::count(&METRICS.registry_notifications, reason);
        let mut answer = HttpResponse::build(status);
        match status {
            StatusCode::UNAUTHORIZED => drop(answer.insert_header((WWW_AUTHENTICATE, "Bearer"))),
            StatusCode::SERVICE_UNAVAILABLE => drop(answer.insert_header((RETRY_AFTER, "1"))),
            _ => {}
        }
        answer.json(json!({ "code": status.as_u16(), "message": message }))
    }
}

struct RequestHeaders<'a>(&'a HttpRequest);

impl Headers for RequestHeaders<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }
}

async fn notify(
    request: HttpRequest,
    id: web::Path<String>,
    webhooks: web::Data<Webhooks>,
    body: web::Payload,
) -> HttpResponse {
    let (registries, followed) = match webhooks.find(&id) {
        Ok(found) => found,
        Err(refusal) => return refusal.into(),
    };
    let registry = &**followed.id();
    match take(&request, registries, followed, body).await {
        Ok((observed, ignored)) => {
            telemetry::count(&METRICS.registry_notifications, "taken");
            if followed.refuses.swap(false, Ordering::Relaxed) {
                tracing::info!(registry, "notifications of the container registry are taken again");
            }
            HttpResponse::Ok().json(json!({
                "events": observed.events,
                "duplicates": observed.duplicates,
                "ignored": ignored,
            }))
        }
        Err(refusal) => {
            // Senders repeat themselves; who set them up looks here.
            if !followed.refuses.swap(true, Ordering::Relaxed) {
                let Refusal(status, _, message) = &refusal;
                tracing::warn!(registry, %status, message, "a notification of the container registry is refused");
            }
            refusal.into()
        }
    }
}

async fn take(
    request: &HttpRequest,
    registries: &Registries,
    followed: &Arc<Followed>,
    body: web::Payload,
) -> Result<(Observed, usize), Refusal> {
    let token = &followed.registry.declared.webhook_token;
    let headers = RequestHeaders(request);
    let unproved = || {
        let ways = "Authorization: Bearer TOKEN, or X-Hub-Signature-256: sha256=HMAC";
        Refusal(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            format!("the token of the registry is needed: {ways}"),
        )
    };
    let proof = access::of_headers(&headers, token);
    let (readers, time) = match proof {
        Proof::None => return Err(unproved()),
        Proof::Given => (&followed.reading, BODY_TIME),
        Proof::Signed(_) => (&followed.reading_unproved, UNPROVED_BODY_TIME),
    };
    if *registries.stop.borrow() {
        return Err(StoreError::Ended.into());
    }
    let _reading = readers.try_acquire().map_err(|_| Refusal::from(StoreError::Busy))?;
    let body = match tokio::time::timeout(time, read(body)).await {
        Ok(body) => body?,
        Err(_) => {
            let seconds = time.as_secs();
            let message = format!("the body did not come within {seconds} s");
            return Err(Refusal(StatusCode::REQUEST_TIMEOUT, "malformed", message));
        }
    };
    if let Proof::Signed(signature) = proof
        && !access::is_signed(token, &body, &signature)
    {
        return Err(unproved());
    }
    let mut notification = notification::read(&followed.registry.declared, &headers, &body)?;
    if let Some(followed) = &followed.registry.declared.repositories {
        let notices = notification.notices.len();
        notification.notices.retain(|notice| followed.contains(&notice.repository));
        notification.ignored += notices - notification.notices.len();
    }
    let ignored = notification.ignored;
    METRICS.registry_ignored.inc_by(ignored as u64);
    // To its end, even if the sender leaves meanwhile.
    let observed = actix_web::rt::spawn(observe(Arc::clone(followed), notification)).await;
    Ok((observed.unwrap_or(Err(StoreError::Ended))?, ignored))
}

async fn read(mut body: web::Payload) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| Malformed(format!("the body cannot be read: {error}")))?;
        if bytes.len() + chunk.len() > MAX_BODY {
            let message = format!("the body is longer than {MAX_BODY} bytes");
            return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Takes what a notification says. When this is done, all that follows from it is on disk.
pub(super) async fn observe(
    followed: Arc<Followed>,
    notification: Notification,
) -> Result<Observed, StoreError> {
    followed.notified.send_replace(Instant::now());
    let Notification { notices, instance, .. } = notification;
    if followed.has_restarted(instance) {
        followed.ask_for_all();
    }
    if notices.is_empty() {
        return Ok(Observed::default());
    }
    let deadline = Instant::now() + LOOK;
    let mut observations = Vec::with_capacity(notices.len());
    for notice in notices {
        observations.push(observation(&followed, notice, deadline).await?);
    }
    for Observation { repository, what, .. } in &observations {
        followed.touched.note(repository, what.names());
    }
    let registry = followed.registry.clone();
    let observed = followed.store.try_work(move |job| index::observe(job, &registry, &observations)).await?;
    telemetry::count_by(&METRICS.registry_events, "notified", observed.events);
    for (repository, doubt) in &observed.doubts {
        followed.ask(Question { repository: repository.clone(), doubt: doubt.clone() });
    }
    Ok(observed)
}

async fn observation(
    followed: &Followed,
    notice: Notice,
    deadline: Instant,
) -> Result<Observation, StoreError> {
    let declared = &followed.registry.declared;
    let Notice { repository, happened, at, id, trace } = notice;
    let what = match happened {
        Happened::Push { digest, tag, kind, is_whole } => {
            let tells_untagged = is_whole || declared.tells_untagged;
            // What gives no event need not be asked for.
            let is_told = tag.is_none() && !tells_untagged
                || is_told(followed, &repository, tag.as_deref(), &digest, kind, deadline).await?;
            What::Push { digest, tag, is_told, tells_untagged }
        }
        Happened::DeleteImage { digest } => What::DeleteImage { digest },
        Happened::DeleteTag { tag, digest } => What::DeleteTag { tag, digest },
        Happened::DeleteRepository => What::DeleteRepository,
    };
    let now = SystemTime::now();
    let happened_at = at.unwrap_or(now);
    let is_late = now.duration_since(happened_at).is_ok_and(|ago| ago > LATE);
    let (at, is_unsure) = match declared.kind {
        // Its events need not come from one clock, and there may be nobody to ask: they count as they come.
        ContainerRegistryKind::Generic => (now, false),
        ContainerRegistryKind::Zot => (happened_at, true),
        ContainerRegistryKind::Distribution | ContainerRegistryKind::Harbor => (happened_at, is_late),
    };
    // A time that is still to come would keep what comes after it from being believed.
    let at = micros(at.min(now));
    Ok(Observation { repository, what, at, created_at: happened_at, is_unsure, id, trace })
}

/// Whether a manifest is one of those that are told. If nobody says what it is, it is: better told than not.
async fn is_told(
    followed: &Followed,
    repository: &str,
    tag: Option<&str>,
    digest: &str,
    told: Told,
    deadline: Instant,
) -> Result<bool, StoreError> {
    if let Some(kind) = manifest::kind(told, tag) {
        return Ok(followed.registry.declared.manifests.contains(&kind));
    }
    let (registry, name, image) = (followed.registry.clone(), repository.to_owned(), digest.to_owned());
    let known = followed.store.read(move |job| index::knows(job, &registry, &name, &image));
    if let Some(is_told) = known.await? {
        return Ok(is_told);
    }
    let Some(client) = followed.client.as_ref().filter(|_| Instant::now() < deadline) else {
        return Ok(true);
    };
    let looked = reconcile::is_told(followed, client, repository, tag, digest, told);
    let error = match tokio::time::timeout_at(deadline, looked).await {
        Ok(Ok(found)) => return Ok(found.unwrap_or(true)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it takes too long".to_owned(),
    };
    tracing::debug!(registry = %followed.id(), repository, digest, error, "failed to look at a manifest; it is told");
    Ok(true)
}

async fn reconcile(
    request: HttpRequest,
    id: web::Path<String>,
    webhooks: web::Data<Webhooks>,
) -> HttpResponse {
    let (_, followed) = match webhooks.find(&id) {
        Ok(found) => found,
        Err(refusal) => return refusal.into(),
    };
    let token = &followed.registry.declared.webhook_token;
    if access::of_headers(&RequestHeaders(&request), token) != Proof::Given {
        let message = "the token of the registry is needed: Authorization: Bearer TOKEN".to_owned();
        return Refusal(StatusCode::UNAUTHORIZED, "unauthorized", message).into();
    }
    match followed.reconcile().await {
        Ok(done) => HttpResponse::Ok().json(done),
        Err(error) => {
            let unusable = matches!(error, AskError::Unusable(_));
            let status = if unusable { StatusCode::CONFLICT } else { StatusCode::BAD_GATEWAY };
            let message = format!("failed to ask the container registry: {error}");
            HttpResponse::build(status).json(json!({ "code": status.as_u16(), "message": message }))
        }
    }
}
