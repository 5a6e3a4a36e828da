//! Starts everything in order, and stops it in the opposite one. Called by `main`.
//!
//! What runs is what the configuration file declares and what calls of the API have made: `follow` tells the engine
//! when that changes, and `plant` tells the API what runs.

mod follow;
mod monitor;
mod plant;
mod room;
mod secure;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, OnceLock};

use actix::prelude::*;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use self::monitor::Told;
use self::plant::Running;
use self::room::Room;
use self::secure::secure;
use crate::api::{Api, ApiSettings, Plant, of_file, wanted};
use crate::config::{ManagementSettings, Settings, Tls};
use crate::console::{Console, GatewayPort};
use crate::container_registry::webhook::Webhooks;
use crate::container_registry::{self, Registries};
use crate::engine::chain::Ground;
use crate::engine::{StopAll, SupervisorActor};
use crate::gateway::{Connections, Directory, Door, Listener, Outbound, Port, PublicLimits};
use crate::journal::disk::Disk;
use crate::journal::{self, Journals};
use crate::jq;
use crate::management::{self, grpc};
use crate::model::id::Id;
use crate::model::trigger::Action;
use crate::mqtt;
use crate::source::readiness::Readiness;
use crate::store::Store;
use crate::telemetry;

/// Most threads for SourceActors, BatchActors and GatewayActors.
const MAX_ARBITERS: usize = 4;

/// How long a stop waits for gRPC calls that run.
const GRPC_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// A limit of open files below this is worth a word.
const FEW_FILES: u64 = 4096;

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is taken, or not ours.
    #[error("failed to listen on {address} for {service} ({key}): {error}")]
    Listen {
        /// `gateway`, `management`, `grpc` or `mqtt`.
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
    /// What calls have made cannot be read, or keys cannot be made.
    #[error("failed to open what calls have made, in data_dir: {0}")]
    Store(String),
    /// A port has no certificate, or one that cannot be used.
    #[error("failed to load the certificate of {key}: {error}")]
    Tls {
        /// The key of the configuration.
        key: &'static str,
        /// What is wrong.
        error: String,
    },
    /// A program of the configuration file does not compile.
    #[error("the trigger '{trigger}', action[{action}].{field}.jq: {error}")]
    Program {
        /// The trigger.
        trigger: Id,
        /// Which of its actions, from 0.
        action: usize,
        /// `filter` or `transformer`.
        field: &'static str,
        /// What is wrong, and where.
        error: String,
    },
    /// A trigger cannot run.
    #[error("failed to {0}")]
    Chain(#[from] crate::engine::chain::ChainError),
    /// A server has ended by itself, as for want of file descriptors.
    #[error("the server of the {service} port ended by itself; the log says why")]
    Ended {
        /// `gateway`, `management` or `grpc`.
        service: &'static str,
    },
    /// The collector of traces cannot be told.
    #[error("failed to export traces: {0}")]
    Export(#[from] telemetry::ExportError),
    /// A thread or a signal handler is not to be had.
    #[error("failed to start: {0}")]
    System(#[from] std::io::Error),
}

/// Serves until SIGTERM or SIGINT, then stops in order. Returns when everything has ended.
pub fn run(settings: Settings) -> Result<(), ServeError> {
    // Every connection needs a file descriptor; the default soft limit is often 1024.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::debug!(%error, "failed to raise the limit of open files");
        rlimit::Resource::NOFILE.get_soft().unwrap_or(FEW_FILES)
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("client")
        .enable_all()
        .build()?;
    if let Some(collector) = settings.log.trace.as_ref().and_then(|trace| trace.otlp.as_ref()) {
        telemetry::start_export(collector, &settings.node, runtime.handle())?;
    }
    let served = System::new().block_on(serve(settings, files, runtime.handle().clone()));
    runtime.block_on(telemetry::finish_export());
    runtime.shutdown_background();
    served
}

async fn serve(settings: Settings, files: u64, runtime: tokio::runtime::Handle) -> Result<(), ServeError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let readiness = Arc::new(Readiness::default());

    // Every port is bound before anything runs, so that a taken one ends the start at once.
    let gateway_socket = bind("gateway", "gateway.listen", settings.gateway.listen)?;
    let management_socket = bind("management", "management.listen", settings.management.listen)?;
    let grpc_socket = bind("grpc", "management.grpc_listen", settings.management.grpc_listen)?;
    let mqtt_socket =
        settings.mqtt.as_ref().map(|mqtt| bind("mqtt", "mqtt.listen", mqtt.listen)).transpose()?;
    let gateway_address = gateway_socket.local_addr()?;
    let grpc_address = grpc_socket.local_addr()?;
    let mqtt_tls_socket = settings.mqtt.as_ref().and_then(|mqtt| mqtt.tls.as_ref());
    let mqtt_tls_socket =
        mqtt_tls_socket.map(|(listen, _)| bind("mqtts", "mqtt.tls_listen", *listen)).transpose()?;

    Disk::make_room(&settings.data_dir).map_err(|error| ServeError::Journal(error.to_string()))?;
    let lost = |error: &dyn std::fmt::Display| ServeError::Store(error.to_string());
    let of_file = of_file::records(&settings).map_err(|error| lost(&error))?;
    let store = Arc::new(Store::open(&settings.data_dir, of_file).map_err(|error| lost(&error))?);
    let has_mqtt = settings.mqtt.is_some();
    let version = store.version();
    let wanted = Arc::new(wanted::wanted(&settings.resources, &store.state(), has_mqtt));
    let resources = &wanted.resources;

    let paths = journal::paths(&resources.gateways);
    let disk = Disk::open(&settings.data_dir, &paths);
    let disk = Some(Arc::new(disk.map_err(|error| ServeError::Journal(error.to_string()))?));
    let names = names(&settings.management, grpc_address);
    let secured = secure(&settings, &names)?;
    runtime.spawn(secured.watcher.watch());
    let journals = Arc::new(Journals::new(&paths, disk.clone()));
    if let Some(disk) = &disk {
        readiness.watch_journal(disk.health());
    }
    let workers = settings.gateway.workers.unwrap_or(cores);
    let room = Room::of(files, workers, settings.gateway.max_connections);
    if files < FEW_FILES {
        let connections = room.clients;
        tracing::warn!(
            files,
            connections,
            "few files may be open at once, so few connections; see 'ulimit -n'"
        );
    }
    let public = PublicLimits {
        connections: room.clients,
        handshakes_per_second: settings.gateway.handshakes_per_second,
        handshake_timeout: settings.gateway.handshake_timeout,
        trusted_proxies: settings.gateway.trusted_proxies.clone(),
    };
    let outbound = Outbound::new(&settings.gateway.allowed_local_targets, runtime.clone());
    let directory = Arc::new(Directory::new(&resources.gateways, public, &journals, outbound));
    let registries = Registries::start(&settings.data_dir, resources, &runtime).await?.map(Arc::new);
    let webhooks = Webhooks::new(registries.clone());
    let mqtt = match (mqtt_socket, &settings.mqtt) {
        (Some(socket), Some(mqtt)) => {
            let limits = mqtt::Limits { max_connections: mqtt.max_connections, ..mqtt::Limits::default() };
            let server = mqtt::Server::prepare(socket, resources, limits)?;
            if let (Some(socket), Some(acceptor)) = (mqtt_tls_socket, secured.mqtt) {
                server.also_listen(socket, acceptor)?;
            }
            Some(Arc::new(server))
        }
        _ => None,
    };
    let gateway_tls = secured.gateway.is_some();
    let console = Console::new(GatewayPort { address: gateway_address, tls: gateway_tls });
    let port = Port {
        tls: secured.gateway,
        mqtt: door(mqtt.as_ref(), &settings),
        most_of_worker: Some(room.of_worker),
    };
    let listener = Listener::start_as(port, gateway_socket, workers, Arc::clone(&directory))?;

    let running = Arc::new(Running {
        runtime: runtime.clone(),
        mqtt: mqtt.clone(),
        registries: registries.clone(),
        readiness: Arc::clone(&readiness),
        connections: Connections::new(Arc::clone(&directory), listener.workers()),
        journals: Arc::clone(&journals),
        told: Told::new(gateway_address.to_string(), gateway_tls),
        jq: jq::Pool::new(
            std::env::current_exe()?,
            vec![jq::worker::COMMAND.into()],
            jq::Limits::default(),
            runtime.clone(),
        ),
        troubles: OnceLock::new(),
        applied: watch::Sender::new(0),
        wanted: Mutex::new(Arc::clone(&wanted)),
    });
    runtime.spawn(monitor::sample(Arc::downgrade(&running)));
    check_programs(&running.jq, &settings).await?;
    let declared = Arc::new(settings.resources.clone());
    let api_settings = ApiSettings {
        address: names.address.clone(),
        audiences: names.audiences.clone(),
        has_mqtt,
        of_file: Arc::clone(&declared),
    };
    let plant: Arc<dyn Plant> = Arc::clone(&running) as _;
    let api = Api::new(Arc::clone(&store), &settings.data_dir, api_settings, plant);
    let api = Arc::new(api.map_err(|error| lost(&error))?);
    let (management, management_task) = management::start(
        management_socket,
        secured.rest,
        Arc::clone(&readiness),
        webhooks,
        Arc::clone(&api),
        console,
    )?;
    let (stop_grpc, grpc_stops) = tokio::sync::oneshot::channel::<()>();
    let grpc_socket = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(grpc_socket)?
    };
    let mut grpc_task = runtime.spawn(grpc::serve(api, grpc_socket, secured.grpc, async move {
        let _ = grpc_stops.await;
    }));

    let arbiters: Vec<Arbiter> = (0..cores.min(MAX_ARBITERS)).map(|_| Arbiter::new()).collect();
    let ground = Ground {
        mqtt: mqtt.clone(),
        registries: registries.clone(),
        runtime: runtime.clone(),
        journals,
        node: settings.node.to_string(),
        jq: Some(running.jq.clone()),
        readiness: Arc::clone(&readiness),
        arbiters: arbiters.iter().map(Arbiter::handle).collect(),
    };
    let supervisor = SupervisorActor::new(ground, resources, directory, listener.workers())?;
    let sources = supervisor.sources();
    let _ = running.troubles.set(supervisor.troubles());
    if let Some(disk) = &disk {
        disk.retire_others().map_err(crate::engine::chain::ChainError::from)?;
    }
    // Only now that every source has its link, or what devices repeat after a restart would be lost.
    if let Some(mqtt) = &mqtt {
        mqtt.recall(disk.iter().flat_map(|disk| disk.take_all_repeats()));
        mqtt.open();
    }
    let supervisor = supervisor.start();
    let follower = actix_rt::spawn(follow::follow(follow::Follower {
        of_file: declared,
        has_mqtt,
        store,
        version,
        running: Arc::clone(&running),
        supervisor: supervisor.clone(),
    }));

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
        ended = &mut grpc_task => {
            tracing::error!(?ended, "the gRPC server ended");
            Some("grpc")
        }
    };
    tracing::info!("stopping");
    readiness.set_serving(false);
    follower.abort();
    // Calls that run are answered, within a bound.
    let _ = stop_grpc.send(());
    if fault != Some("grpc") {
        let _ = tokio::time::timeout(GRPC_PATIENCE, grpc_task).await;
    }
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

/// Where MQTT clients come in on the public port.
fn door(mqtt: Option<&Arc<mqtt::Server>>, settings: &Settings) -> Option<Door> {
    let (mqtt, settings) = (mqtt?, settings.mqtt.as_ref()?);
    // The server's end is the end of its clients: the public port does not keep it.
    let (asked, taking) = (Arc::downgrade(mqtt), Arc::downgrade(mqtt));
    settings.websocket.then(|| Door {
        allowed_origins: settings.websocket_origins.clone().into(),
        is_open: Arc::new(move || asked.upgrade().is_some_and(|mqtt| mqtt.is_open())),
        adopt: Arc::new(move |socket, answer, early| {
            if let Some(mqtt) = taking.upgrade() {
                mqtt.adopt(socket, answer, early);
            }
        }),
    })
}

/// Compiles the programs of the configuration file's triggers.
async fn check_programs(jq: &jq::Pool, settings: &Settings) -> Result<(), ServeError> {
    for trigger in &settings.resources.triggers {
        for (action, Action::GatewayWebsocketBroadcast { steps, .. }) in trigger.actions.iter().enumerate() {
            for (field, program) in [("filter", &steps.filter), ("transformer", &steps.transformer)] {
                let Some(program) = program else { continue };
                jq.check(program).await.map_err(|error| ServeError::Program {
                    trigger: trigger.name.clone(),
                    action,
                    field,
                    error: error.to_string(),
                })?;
            }
        }
    }
    Ok(())
}

/// How the gRPC port is reached.
struct Names {
    hosts: Vec<String>,
    addresses: Vec<IpAddr>,
    /// `host:port`, as clients are told.
    address: String,
    audiences: Vec<String>,
}

fn names(management: &ManagementSettings, listens: SocketAddr) -> Names {
    /// What the model system's clients that do not know us write.
    const PUBLIC: &str = "https://iam.api.cloud.yandex.net/iam/v1/tokens";
    let mut hosts = vec!["localhost".to_owned()];
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    if !listens.ip().is_unspecified() && !addresses.contains(&listens.ip()) {
        addresses.push(listens.ip());
    }
    let port = listens.port();
    let host = match &management.host {
        Some(host) => host.clone(),
        None if listens.ip().is_loopback() => "localhost".to_owned(),
        None => std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned()),
    };
    match host.parse() {
        Ok(address) if !addresses.contains(&address) => addresses.push(address),
        Ok(_) => {}
        Err(_) if hosts.contains(&host) => {}
        Err(_) => hosts.push(host.clone()),
    }
    let reached = addresses.iter().map(|ip| SocketAddr::new(*ip, port).to_string());
    let reached = reached.chain(hosts.iter().map(|host| format!("{host}:{port}")));
    let audience = |address: String| format!("https://iam.{address}/iam/v1/tokens");
    let mut audiences: Vec<String> = reached.map(audience).chain([PUBLIC.to_owned()]).collect();
    audiences.extend(management.token_audiences.iter().cloned());
    Names { address: format!("{host}:{port}"), hosts, addresses, audiences }
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
    // Under TLS the listener finds in the configuration whom to trust.
    let (scheme, trust) = match settings.gateway.tls {
        Tls::Off => ("ws", ""),
        _ => ("wss", config.as_str()),
    };
    tracing::info!(
        "see it work, in two more terminals:  {program} listen{trust} {scheme}://{host}{target}   and   \
         {program} simulate{config}"
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
