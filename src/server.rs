//! Starts everything in order, and stops it in the opposite one. Called by `main`.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix::prelude::*;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Settings;
use crate::engine::chain::Ground;
use crate::engine::{StopAll, SupervisorActor};
use crate::gateway::{Directory, Listener};
use crate::management;
use crate::mqtt;
use crate::source::readiness::Readiness;

/// Most threads for SourceActors, BatchActors and GatewayActors.
const MAX_ARBITERS: usize = 4;

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is taken, or not ours.
    #[error("failed to listen on {address} for {service} ({key}): {error}")]
    Listen {
        /// `gateway`, `management` or `mqtt`.
        service: &'static str,
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The embedded MQTT server does not start.
    #[error("failed to start the MQTT server: {0}")]
    Mqtt(#[from] mqtt::StartError),
    /// A trigger cannot run.
    #[error("failed to {0}")]
    Chain(#[from] crate::engine::chain::ChainError),
    /// A thread or a signal handler is not to be had.
    #[error("failed to start: {0}")]
    System(#[from] std::io::Error),
}

/// Serves until SIGTERM or SIGINT, then stops in order. Returns when everything has ended.
pub fn run(settings: Settings) -> Result<(), ServeError> {
    // Every connection needs a file descriptor; the default soft limit is often 1024.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "failed to raise the limit of open files");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("mqtt-client")
        .enable_all()
        .build()?;
    let served = System::new().block_on(serve(settings, runtime.handle().clone()));
    runtime.shutdown_background();
    served
}

async fn serve(settings: Settings, runtime: tokio::runtime::Handle) -> Result<(), ServeError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let resources = &settings.resources;
    let readiness = Arc::new(Readiness::default());

    // Every port is bound before anything runs, so that a taken one ends the start at once.
    let gateway_socket = bind("gateway", "gateway.listen", settings.gateway.listen)?;
    let management_socket = bind("management", "management.listen", settings.management.listen)?;
    let mqtt_socket =
        settings.mqtt.as_ref().map(|mqtt| bind("mqtt", "mqtt.listen", mqtt.listen)).transpose()?;
    let gateway_address = gateway_socket.local_addr()?;

    let directory = Arc::new(Directory::new(&resources.gateways, settings.gateway.max_connections));
    let workers = settings.gateway.workers.unwrap_or(cores);
    let listener = Listener::start(gateway_socket, workers, Arc::clone(&directory))?;
    let management = management::start(management_socket, Arc::clone(&readiness))?;
    let mqtt = match (mqtt_socket, &settings.mqtt) {
        (Some(socket), Some(mqtt)) => {
            let limits = mqtt::Limits { max_connections: mqtt.max_connections, ..mqtt::Limits::default() };
            Some(Arc::new(mqtt::Server::start(socket, resources, limits)?))
        }
        _ => None,
    };

    let arbiters: Vec<Arbiter> = (0..cores.min(MAX_ARBITERS)).map(|_| Arbiter::new()).collect();
    let ground = Ground {
        mqtt,
        runtime,
        node: "triggercast".to_owned(),
        readiness: Arc::clone(&readiness),
        arbiters: arbiters.iter().map(Arbiter::handle).collect(),
    };
    let supervisor = SupervisorActor::new(ground, resources, directory, listener.workers())?;
    let sources = supervisor.sources();
    let supervisor = supervisor.start();

    for waiting in &settings.container_registry_triggers {
        tracing::warn!(trigger = %waiting.name, "container registry triggers are kept but not served by this version");
    }
    readiness.set_serving(true);
    tracing::info!(triggers = resources.triggers.len(), sources, "ready");
    show_the_way(&settings, gateway_address);

    wait_for_signal().await?;
    tracing::info!("stopping");
    readiness.set_serving(false);
    let stop = async {
        if supervisor.send(StopAll).await.is_err() {
            tracing::error!("the supervisor has ended before the stop");
        }
        listener.stop(settings.gateway.drain).await;
        management.stop(false).await;
        for arbiter in arbiters {
            arbiter.stop();
            // A thread that panicked has been logged.
            let _ = arbiter.join();
        }
    };
    tokio::select! {
        () = stop => tracing::info!("stopped"),
        signal = wait_for_signal() => {
            signal?;
            tracing::warn!("stopped at once by a second signal");
        }
    }
    Ok(())
}

fn bind(service: &'static str, key: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listen = |address: SocketAddr| {
        let kind = socket2::Type::STREAM;
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), kind, None)?;
        // A restart must not wait for connections of the last run to be forgotten.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from(socket))
    };
    let socket = listen(address).map_err(|error| ServeError::Listen { service, key, address, error })?;
    tracing::info!(service, address = %socket.local_addr()?, "listening");
    Ok(socket)
}

/// One line to copy that shows the server at work.
fn show_the_way(settings: &Settings, gateway: SocketAddr) {
    let path = settings.resources.gateways.iter().find_map(|g| Some((g, g.paths.first()?)));
    if let (Some((gateway_entry, path)), Some(_)) = (path, &settings.mqtt) {
        tracing::info!(
            "see it work, in two more terminals:  triggercast listen ws://{gateway}/{}{}   and   triggercast simulate",
            gateway_entry.id,
            path.path
        );
    }
}

async fn wait_for_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
