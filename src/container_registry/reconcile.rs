//! Asks registries what they hold, and makes up what was not told: all of it at start, every so often and on demand
//! ([`run`]), and single tags and images where a notification left a doubt ([`answer`]).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, stream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::client::{AskError, Client, Found};
use super::followed::{Followed, Question, Reconciled, Request};
use super::manifest::{self, Told};
use super::repository::{Doubt, Repository, Seen, Snapshot};
use super::store::index::{self, Applied};
use super::touched::Reading;
use super::{QUESTIONS, StoreError};
use crate::model::container::Trace;
use crate::telemetry::{self, METRICS};

/// Repositories that are read at once.
const REPOSITORIES: usize = 4;
/// Manifests of a repository that are asked for at once.
const MANIFESTS: usize = 4;
/// How long a doubt waits, so that what is being written is written.
const SOON: Duration = Duration::from_secs(2);
/// For so long no notification may have come before a registry is read, so that what a sender holds back is told first,
/// as it happened.
const QUIET: Duration = Duration::from_secs(2);
/// The longest that a reconciliation is put off for that.
const NO_LONGER: Duration = Duration::from_secs(60);
/// How often a doubt is asked about in vain before everything is asked for.
const TRIES: u32 = 6;
/// How long to wait after the first failure; the next waits are longer.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// Why something was not read.
enum Fault {
    Ask(AskError),
    Store(StoreError),
    /// A notification about it has come meanwhile.
    Unsettled,
}

impl From<AskError> for Fault {
    fn from(error: AskError) -> Self {
        Self::Ask(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Reconciles a registry until the server stops.
pub(super) async fn run(
    followed: Arc<Followed>,
    mut requests: mpsc::Receiver<Request>,
    mut stopped: watch::Receiver<bool>,
) {
    let every = followed.registry.declared.reconcile.every.filter(|_| followed.client.is_some());
    let mut next = every.map(|_| Instant::now());
    let mut log = Log::default();
    loop {
        let mut waiting: Vec<Request> = Vec::new();
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => waiting.push(request),
                None => return,
            },
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            _ = stopped.changed() => return,
        }
        // Nobody waits for it, so it can wait.
        if waiting.iter().all(Option::is_none) {
            tokio::select! {
                () = quiet(&followed) => {}
                _ = stopped.changed() => return,
            }
        }
        while let Ok(request) = requests.try_recv() {
            waiting.push(request);
        }
        let done = tokio::select! {
            done = reconcile(&followed) => done,
            _ = stopped.changed() => return,
        };
        log.note(&followed, &done);
        next = every.map(|every| {
            let wait = if done.is_ok() { every } else { log.patience().min(every) };
            // Many servers, or registries, do not ask in step.
            Instant::now() + wait.mul_f64(rand::random_range(0.9..1.1))
        });
        for waiting in waiting.into_iter().flatten() {
            // Whoever waits no more need not be told.
            let _ = waiting.send(done.clone());
        }
    }
}

/// Ready when no notification has come for a while.
async fn quiet(followed: &Followed) {
    let registry = followed.registry.clone();
    let known =
        followed.store.read(move |job| Ok(registry.has_list() || index::is_known(job.db, &registry)?));
    // The first reading tells nothing, so there is nothing that it could tell too early.
    if !known.await.unwrap_or(false) {
        return;
    }
    let began = Instant::now();
    loop {
        let until = *followed.notified.borrow() + QUIET;
        if until <= Instant::now() || began.elapsed() > NO_LONGER {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

/// What is logged of reconciliations: failures once.
#[derive(Debug, Default)]
struct Log {
    failures: u32,
    has_worked: bool,
    /// Repositories that could not be read the last time.
    unread: usize,
}

impl Log {
    fn note(&mut self, followed: &Followed, done: &Result<Reconciled, AskError>) {
        let registry = &**followed.id();
        match done {
            Ok(Reconciled { repositories, failed, tags, events, seconds }) => {
                let is_news = !self.has_worked || self.failures > 0 || *events > 0 || *failed != self.unread;
                self.unread = *failed;
                self.failures = 0;
                self.has_worked = true;
                telemetry::count(&METRICS.registry_reconciliations, "done");
                METRICS.registry_reconciliation_seconds.observe_time(Duration::from_secs_f64(*seconds));
                if is_news {
                    tracing::info!(registry, repositories, failed, tags, events, seconds, "reconciled");
                } else {
                    tracing::debug!(registry, repositories, tags, seconds, "reconciled");
                }
            }
            Err(error) => {
                self.failures += 1;
                telemetry::count(&METRICS.registry_reconciliations, "failed");
                match (self.failures, self.has_worked) {
                    (1, true) => tracing::warn!(
                        registry, %error, "failed to ask the container registry; it is tried again"
                    ),
                    // It may not have been started yet.
                    (1, false) => tracing::info!(
                        registry, %error, "the container registry is not there yet; it is asked again"
                    ),
                    _ => tracing::debug!(registry, %error, "failed to ask the container registry"),
                }
            }
        }
    }

    fn patience(&self) -> Duration {
        FIRST_RETRY.saturating_mul(1 << self.failures.saturating_sub(1).min(16))
    }
}

/// Reads all repositories and tells what was missed.
async fn reconcile(followed: &Arc<Followed>) -> Result<Reconciled, AskError> {
    let registry = &followed.registry;
    let Some(client) = &followed.client else {
        return Err(AskError::Unusable("the registry has no url, so it cannot be asked".to_owned()));
    };
    let began = Instant::now();
    let failed = |error: StoreError| AskError::Unusable(error.to_string());
    // A server that is no registry says "not found" to everything, which must not be taken for an answer.
    client.greet().await?;
    let names = match &registry.declared.repositories {
        Some(names) => names.clone(),
        None => {
            // What the catalog does not name any more is asked for, too.
            let asked = registry.clone();
            let known =
                followed.store.read(move |job| index::repositories(job, &asked)).await.map_err(failed)?;
            let named: BTreeSet<_> = client.repositories().await?.into_iter().collect();
            let gone = known.into_iter().filter(|name| !named.contains(name)).collect::<Vec<_>>();
            named.into_iter().chain(gone).collect()
        }
    };
    let (named, all) = (registry.clone(), names.clone());
    followed.store.work(move |job| index::name_all(job, &named, &all)).await.map_err(failed)?;
    let mut done = Reconciled::default();
    let mut read = stream::iter(names)
        .map(|name| async move { (repository(followed, client, &name).await, name) })
        .buffer_unordered(REPOSITORIES);
    while let Some((found, name)) = read.next().await {
        match found {
            Ok(Read { tags, failed, events }) => {
                done.repositories += 1;
                done.failed += usize::from(failed > 0);
                done.tags += tags;
                done.events += events;
            }
            Err(Fault::Ask(error @ AskError::Unreachable(_))) => return Err(error),
            Err(Fault::Store(error)) => return Err(failed(error)),
            Err(Fault::Ask(error)) => {
                tracing::debug!(registry = %followed.id(), repository = name, %error, "failed to read a repository");
                done.failed += 1;
            }
            // A whole reading does without what is not settled.
            Err(Fault::Unsettled) => {}
        }
    }
    done.seconds = began.elapsed().as_secs_f64();
    Ok(done)
}

/// What was read of a repository.
struct Read {
    tags: usize,
    /// Tags and images that could not be read; they are left as they were.
    failed: usize,
    events: usize,
}

/// Reads a repository and tells what was missed.
async fn repository(followed: &Arc<Followed>, client: &Client, name: &str) -> Result<Read, Fault> {
    let reading = followed.touched.read(name);
    let before = read(followed, name).await?;
    let listed = client.tags(name).await?;
    let known = &before;
    let mut tags = stream::iter(listed.names)
        .map(|tag| async move { (seen(followed, client, name, known, &tag).await, tag) })
        .buffer_unordered(MANIFESTS);
    let mut snapshot = Snapshot { is_complete: true, as_of: listed.as_of, ..Snapshot::default() };
    let mut failed = 0;
    // What cannot be read, alone, is left as it was.
    let mut note = |what: &str, error: AskError| match error {
        AskError::Unreachable(_) => Err(error),
        _ => {
            tracing::debug!(registry = %followed.id(), repository = name, what, %error, "failed to read a manifest");
            failed += 1;
            Ok(())
        }
    };
    while let Some((seen, tag)) = tags.next().await {
        match seen {
            Ok(seen) => drop(snapshot.tags.insert(tag, seen.map(|(seen, _)| seen))),
            Err(error) => {
                note(&tag, error)?;
                snapshot.unread.insert(tag);
            }
        }
    }
    drop(tags);
    let mut untagged = stream::iter(snapshot.untagged(&before))
        .map(|digest| async move { (client.manifest(name, &digest).await, digest) })
        .buffer_unordered(MANIFESTS);
    while let Some((found, digest)) = untagged.next().await {
        match found {
            Ok(Some(_)) => {}
            Ok(None) => {
                snapshot.gone.insert(digest);
            }
            Err(error) => note(&digest, error)?,
        }
    }
    drop(untagged);
    let tags = snapshot.tags.values().flatten().count();
    let Applied { events, .. } = apply(followed, client, reading, before, snapshot).await?;
    telemetry::count_by(&METRICS.registry_events, "reconciled", events);
    Ok(Read { tags, failed, events })
}

/// What a tag names, if it is there, and when.
async fn seen(
    followed: &Followed,
    client: &Client,
    repository: &str,
    known: &Repository,
    tag: &str,
) -> Result<Option<(Seen, i64)>, AskError> {
    let Some(Found { digest, told, as_of }) = client.manifest(repository, tag).await? else {
        return Ok(None);
    };
    let is_told = match known.images.get(&digest) {
        Some(image) => image.is_told,
        None => match is_told(followed, client, repository, Some(tag), &digest, told).await? {
            Some(is_told) => is_told,
            None => return Ok(None),
        },
    };
    Ok(Some((Seen { digest, is_told }, as_of)))
}

/// Whether a manifest is one of those that are told; `None` if it is not there. It is asked for only if need be.
pub(super) async fn is_told(
    followed: &Followed,
    client: &Client,
    repository: &str,
    tag: Option<&str>,
    digest: &str,
    told: Told,
) -> Result<Option<bool>, AskError> {
    let kind = match manifest::kind(told, tag) {
        Some(kind) => Some(kind),
        None => client.kind(repository, digest).await?,
    };
    Ok(kind.map(|kind| followed.registry.declared.manifests.contains(&kind)))
}

async fn read(followed: &Followed, name: &str) -> Result<Repository, StoreError> {
    let (registry, name) = (followed.registry.clone(), name.to_owned());
    followed.store.read(move |job| index::read(job, &registry, &name)).await
}

/// Makes the repository as it was found, and tells what has changed.
async fn apply(
    followed: &Followed,
    client: &Client,
    reading: Reading,
    before: Repository,
    mut snapshot: Snapshot,
) -> Result<Applied, Fault> {
    if snapshot.removes(&before) {
        // What says "not found" may be a proxy before a registry that starts.
        client.greet().await?;
    }
    let registry = followed.registry.clone();
    snapshot.as_of = snapshot.as_of.min(super::micros(SystemTime::now()));
    let trace = Trace::of(&uuid::Uuid::now_v7().to_string(), "reconciliation");
    let work =
        followed.store.work(move |job| index::apply(job, &registry, &reading, &before, snapshot, &trace));
    Ok(work.await?)
}

/// Asks about doubts, each some time after it came up, until the server stops.
pub(super) async fn answer(
    followed: Arc<Followed>,
    mut questions: mpsc::Receiver<Question>,
    mut stopped: watch::Receiver<bool>,
) {
    let Some(client) = &followed.client else { return };
    // When each is to be asked, and how often it was asked in vain.
    let mut due: HashMap<Question, (Instant, u32)> = HashMap::new();
    loop {
        let next = due.iter().min_by_key(|(_, (at, _))| *at).map(|(question, at)| (question.clone(), *at));
        let at = next.as_ref().map_or_else(Instant::now, |(_, (at, _))| *at);
        tokio::select! {
            question = questions.recv() => match question {
                Some(question) if due.len() < QUESTIONS => {
                    due.entry(question).or_insert((Instant::now() + SOON, 0));
                }
                Some(_) => followed.ask_for_all(),
                None => return,
            },
            () = tokio::time::sleep_until(at), if next.is_some() => {
                let Some((question, (_, failures))) = next else { continue };
                due.remove(&question);
                let asked = tokio::select! {
                    asked = ask(&followed, client, &question) => asked,
                    _ = stopped.changed() => return,
                };
                match asked {
                    Ok(()) => {}
                    Err(fault) if failures < TRIES => {
                        let error = match fault {
                            Fault::Ask(error) => error.to_string(),
                            Fault::Store(error) => error.to_string(),
                            Fault::Unsettled => "it changes".to_owned(),
                        };
                        tracing::debug!(registry = %followed.id(), ?question, error, "failed to ask about a doubt");
                        due.insert(question, (Instant::now() + FIRST_RETRY * 2u32.pow(failures), failures + 1));
                    }
                    Err(_) => followed.ask_for_all(),
                }
            }
            _ = stopped.changed() => return,
        }
    }
}

async fn ask(followed: &Arc<Followed>, client: &Client, question: &Question) -> Result<(), Fault> {
    let Question { repository, doubt } = question;
    let reading = followed.touched.read(repository);
    let before = read(followed, repository).await?;
    let mut snapshot = Snapshot { as_of: super::micros(SystemTime::now()), ..Snapshot::default() };
    match doubt {
        Doubt::Tag(tag) => {
            let seen = seen(followed, client, repository, &before, tag).await?;
            snapshot.as_of = seen.as_ref().map_or(snapshot.as_of, |(_, as_of)| *as_of);
            // Who deletes an image takes its tags along.
            if seen.is_none()
                && let Some(known) = before.tags.get(tag)
                && client.manifest(repository, &known.digest).await?.is_none()
            {
                snapshot.gone.insert(known.digest.clone());
            }
            snapshot.tags.insert(tag.clone(), seen.map(|(seen, _)| seen));
        }
        Doubt::Image(digest) => {
            if client.manifest(repository, digest).await?.is_some() {
                return Ok(());
            }
            snapshot.gone.insert(digest.clone());
        }
    }
    let Applied { events, is_settled } = apply(followed, client, reading, before, snapshot).await?;
    telemetry::count_by(&METRICS.registry_events, "checked", events);
    if is_settled { Ok(()) } else { Err(Fault::Unsettled) }
}
