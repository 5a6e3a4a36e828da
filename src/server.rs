//! Starts everything in order, and stops it in the opposite one. Called by `main`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use actix::prelude::*;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Settings;
use crate::container_registry::webhook::Webhooks;
use crate::container_registry::{self, Registries};
use crate::engine::chain::Ground;
use crate::engine::{StopAll, SupervisorActor};
use crate::gateway::{Directory, Listener};
use crate::journal::disk::Disk;
use crate::journal::{self, Journals};
use crate::management;
use crate::model::gateway::Durability;
use crate::model::trigger::Action;
use crate::mqtt;
use crate::source::readiness::Readiness;

/// Most threads for SourceActors, BatchActors and GatewayActors.
const MAX_ARBITERS: usize = 4;

/// A limit of open files below this is worth a word.
const FEW_FILES: u64 = 4096;

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
    /// The index of container registries cannot be opened.
    #[error("failed to follow the container registries: {0}")]
    Registries(#[from] container_registry::StartError),
    /// The journal cannot be opened.
    #[error("failed to open the journal in data_dir: {0}")]
    Journal(String),
    /// A trigger cannot run.
    #[error("failed to {0}")]
    Chain(#[from] crate::engine::chain::ChainError),
    /// A server has ended by itself, as for want of file descriptors.
    #[error("the server of the {service} port ended by itself; the log says why")]
    Ended {
        /// `gateway` or `management`.
        service: &'static str,
    },
    /// A thread or a signal handler is not to be had.
    #[error("failed to start: {0}")]
    System(#[from] std::io::Error),
}

/// Serves until SIGTERM or SIGINT, then stops in order. Returns when everything has ended.
pub fn run(settings: Settings) -> Result<(), ServeError> {
    // Every connection needs a file descriptor; the default soft limit is often 1024.
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < FEW_FILES => {
            tracing::warn!(limit, "few files may be open at once, so few connections; see 'ulimit -n'");
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "failed to raise the limit of open files"),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("client")
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

    let paths = journal::paths(&resources.gateways);
    let needs_disk = paths.values().any(|(durability, _)| *durability == Durability::Disk);
    let open =
        || Disk::open(&settings.data_dir, &paths).map_err(|error| ServeError::Journal(error.to_string()));
    let disk = needs_disk.then(open).transpose()?.map(Arc::new);
    let journals = Arc::new(Journals::new(&paths, disk.clone()));
    if let Some(disk) = &disk {
        readiness.watch_journal(disk.health());
    }
    let max_connections = settings.gateway.max_connections;
    let directory = Arc::new(Directory::new(&resources.gateways, max_connections, &journals));
    let workers = settings.gateway.workers.unwrap_or(cores);
    let listener = Listener::start(gateway_socket, workers, Arc::clone(&directory))?;
    let registries = Registries::start(&settings.data_dir, resources, &runtime).await?.map(Arc::new);
    let webhooks = Webhooks::new(registries.clone());
    let (management, management_task) =
        management::start(management_socket, Arc::clone(&readiness), webhooks)?;
    let mqtt = match (mqtt_socket, &settings.mqtt) {
        (Some(socket), Some(mqtt)) => {
            let limits = mqtt::Limits { max_connections: mqtt.max_connections, ..mqtt::Limits::default() };
            Some(Arc::new(mqtt::Server::prepare(socket, resources, limits)?))
        }
        _ => None,
    };

    let arbiters: Vec<Arbiter> = (0..cores.min(MAX_ARBITERS)).map(|_| Arbiter::new()).collect();
    let ground = Ground {
        mqtt: mqtt.clone(),
        registries: registries.clone(),
        runtime,
        journals,
        node: settings.node.to_string(),
        readiness: Arc::clone(&readiness),
        arbiters: arbiters.iter().map(Arbiter::handle).collect(),
    };
    let supervisor = SupervisorActor::new(ground, resources, directory, listener.workers())?;
    let sources = supervisor.sources();
    if let Some(disk) = &disk {
        disk.retire_others().map_err(crate::engine::chain::ChainError::from)?;
    }
    // Only now that every source has its link, or what devices repeat after a restart would be lost.
    if let Some(mqtt) = &mqtt {
        mqtt.recall(disk.iter().flat_map(|disk| disk.take_all_repeats()));
        mqtt.open();
    }
    let supervisor = supervisor.start();

    // Before anyone is told that it is ready: a stop from then on is one in order.
    let mut signals = Signals::listen()?;
    readiness.set_serving(true);
    tracing::info!(triggers = resources.triggers.len(), sources, "ready");
    show_the_way(&settings, gateway_address);

    // A port that has died must end the process, or nobody starts it again.
    let fault = tokio::select! {
        () = signals.next() => None,
        () = listener.ended() => Some("gateway"),
        _ = management_task => Some("management"),
    };
    tracing::info!("stopping");
    readiness.set_serving(false);
    let stop = async {
        if let Some(registries) = &registries {
            registries.stop();
        }
        if supervisor.send(StopAll).await.is_err() {
            tracing::error!("the supervisor has ended before the stop");
        }
        listener.stop(settings.gateway.drain).await;
        management.stop(false).await;
        if let Some(registries) = registries {
            let _ = actix_rt::task::spawn_blocking(move || registries.close()).await;
        }
        if let Some(disk) = disk {
            let _ = actix_rt::task::spawn_blocking(move || disk.close()).await;
        }
        for arbiter in arbiters {
            arbiter.stop();
            // Off this thread, which listens for the second signal. A thread that panicked has been logged.
            let _ = actix_rt::task::spawn_blocking(move || arbiter.join()).await;
        }
    };
    tokio::select! {
        () = stop => tracing::info!("stopped"),
        () = signals.next() => tracing::warn!("stopped at once by a second signal"),
    }
    fault.map_or(Ok(()), |service| Err(ServeError::Ended { service }))
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

/// One line to copy that shows the server at work: how it was started, the path of the first trigger.
fn show_the_way(settings: &Settings, gateway: SocketAddr) {
    let Some(trigger) = settings.resources.triggers.first() else { return };
    let Some(Action::GatewayWebsocketBroadcast { target, .. }) = trigger.actions.first() else { return };
    let host = match gateway.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), gateway.port()),
        _ => gateway,
    };
    let mut words = std::env::args();
    let program = words.next().unwrap_or_else(|| "triggercast".to_owned());
    let config = words.skip_while(|word| word != "--config").nth(1);
    let config = config.map(|file| format!(" --config {file}")).unwrap_or_default();
    tracing::info!(
        "see it work, in two more terminals:  {program} listen ws://{host}{target}   and   {program} simulate{config}"
    );
}

/// The signals that stop the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Closing the terminal ends the server as Ctrl-C does.
    hangup: Signal,
}

impl Signals {
    /// From now on they are waited for, and do not end the process by themselves.
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.hangup.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
