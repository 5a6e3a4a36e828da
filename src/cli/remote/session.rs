//! Calls to the server: one channel, credentials, repeats, and operations that are waited for.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::fault::Fault;
use super::request;
use super::settings::Settings;
use crate::cli::output::to_stderr;
use crate::proto::POOL;
use crate::proto::raw::RawCodec;
use crate::proto::types::google::rpc;
use crate::proto::types::yandex::cloud::operation::{Operation, operation};

/// The name of what changes answer with.
pub(super) const OPERATION: &str = "yandex.cloud.operation.Operation";
const CONNECT_TIME: Duration = Duration::from_secs(10);
const CALL_TIME: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// No call is tried again after this.
const RETRY_TIME: Duration = Duration::from_secs(120);
/// Time between two questions whether an operation is done.
const POLL: Duration = Duration::from_secs(1);
const MAX_ANSWER: usize = 64 << 20;

/// A server, and who asks it.
pub(super) struct Session {
    pub(super) settings: Settings,
    channel: Channel,
    /// The folder's id, once it is known.
    pub(super) folder: OnceCell<String>,
}

impl Session {
    /// Nothing is sent yet.
    pub(super) fn new(settings: Settings) -> Result<Self, Fault> {
        let wrong = |error: tonic::transport::Error| {
            Fault::input(format!("--endpoint: {} is no address: {error}", settings.endpoint))
        };
        let mut endpoint = Endpoint::from_shared(settings.endpoint.clone())
            .map_err(wrong)?
            .connect_timeout(CONNECT_TIME)
            .timeout(CALL_TIME)
            .user_agent(concat!("triggercast-cli/", env!("CARGO_PKG_VERSION")))
            .map_err(wrong)?;
        if let Some(ca) = &settings.ca {
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
            endpoint = endpoint.tls_config(tls).map_err(|error| {
                Fault::input(format!("the certificates to trust cannot be used: {error}"))
            })?;
        }
        Ok(Self { channel: endpoint.connect_lazy(), settings, folder: OnceCell::new() })
    }

    /// Calls a method, again if the server is not there or busy.
    pub(super) async fn call(
        &self,
        method: &MethodDescriptor,
        request: &Value,
    ) -> Result<DynamicMessage, Fault> {
        let message = Bytes::from(request::message(method.input(), request)?.encode_to_vec());
        let mut metadata = MetadataMap::new();
        if let Some(text) = &self.settings.authorization {
            let mut value: MetadataValue<Ascii> = text.parse().map_err(|_| {
                Fault::input("the token or key holds characters that cannot be sent".to_owned())
            })?;
            value.set_sensitive(true);
            metadata.insert("authorization", value);
        }
        let is_reading = ["Get", "List"].iter().any(|verb| method.name().starts_with(verb));
        if !is_reading {
            // The same for every repeat: what came through is not done twice.
            metadata.insert("idempotency-key", unique()?);
        }
        let (start, mut delay, mut repeats) = (Instant::now(), FIRST_DELAY, 0);
        loop {
            let sent = Instant::now();
            metadata.insert("x-client-request-id", unique()?);
            let status = match self.once(method, message.clone(), metadata.clone()).await {
                Ok(answer) => {
                    self.debug(method, &metadata, sent, Code::Ok);
                    return DynamicMessage::decode(method.output(), answer).map_err(|error| {
                        anyhow::anyhow!("the server's answer cannot be read: {error}").into()
                    });
                }
                Err(status) => status,
            };
            self.debug(method, &metadata, sent, status.code());
            let may_help = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
            let may_repeat = self.settings.retry < 0 || repeats < self.settings.retry;
            let wait = delay.mul_f64(rand::random_range(0.8..1.2));
            if !may_help || !may_repeat || start.elapsed() + wait > RETRY_TIME {
                return Err(status.into());
            }
            tokio::time::sleep(wait).await;
            delay = (delay * 2).min(LONGEST_DELAY);
            repeats += 1;
        }
    }

    async fn once(
        &self,
        method: &MethodDescriptor,
        message: Bytes,
        metadata: MetadataMap,
    ) -> Result<Bytes, Status> {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let path = PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))?;
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let mut request = Request::new(message);
        *request.metadata_mut() = metadata;
        Ok(grpc.unary(request, path, RawCodec).await?.into_inner())
    }

    fn debug(&self, method: &MethodDescriptor, metadata: &MetadataMap, sent: Instant, code: Code) {
        if !self.settings.debug {
            return;
        }
        let text = |name| metadata.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
        to_stderr(format_args!(
            "{} {} {code:?} in {} ms, request {}, idempotency key {}",
            self.settings.endpoint,
            method.full_name(),
            sent.elapsed().as_millis(),
            text("x-client-request-id"),
            text("idempotency-key"),
        ));
    }

    /// Waits until an operation is done; what came of it, unless that is empty.
    pub(super) async fn wait(&self, operation: DynamicMessage) -> Result<Option<DynamicMessage>, Fault> {
        let start = Instant::now();
        let mut operation = typed(&operation)?;
        let polled = !operation.done;
        while !operation.done {
            tokio::time::sleep(POLL).await;
            let request = json!({ "operation_id": operation.id });
            operation = typed(
                &self.call(&method("yandex.cloud.operation.OperationService", "Get")?, &request).await?,
            )?;
        }
        if polled && !self.settings.quiet {
            to_stderr(format_args!("done ({}s)", start.elapsed().as_secs()));
        }
        let response = match operation.result {
            Some(operation::Result::Error(rpc::Status { code: 0, .. })) | None => return Ok(None),
            Some(operation::Result::Error(error)) => return Err(error.into()),
            Some(operation::Result::Response(response)) => response,
        };
        let name = response.type_url.rsplit('/').next().unwrap_or_default();
        let Some(descriptor) = POOL.get_message_by_name(name) else { return Ok(None) };
        let message = DynamicMessage::decode(descriptor, &*response.value)
            .map_err(|error| anyhow::anyhow!("what came of the operation cannot be read: {error}"))?;
        let is_empty = message.fields().next().is_none();
        Ok((!is_empty).then_some(message))
    }
}

fn typed(operation: &DynamicMessage) -> Result<Operation, Fault> {
    let typed = operation.transcode_to();
    typed.map_err(|error| anyhow::anyhow!("the operation cannot be read: {error}").into())
}

fn unique() -> Result<MetadataValue<Ascii>, Fault> {
    let text = Uuid::now_v7().to_string();
    text.parse().map_err(|_| anyhow::anyhow!("{text} cannot be sent").into())
}

/// A method by the names of its service and its own.
pub(super) fn method(service: &str, name: &str) -> Result<MethodDescriptor, Fault> {
    let found = POOL.get_service_by_name(service);
    let method = found.and_then(|service| service.methods().find(|method| method.name() == name));
    method.ok_or_else(|| anyhow::anyhow!("this program has no {service}/{name}").into())
}
