//! The console: the pages under `/console` of the management port, kept in the binary. They are files and nothing else: all that they
//! show and do goes through the REST API, with the caller's own key. The management port adds the routes.

mod files;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, EntityTag, Header as _, IfNoneMatch};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, guard, web};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::model::reference;

/// Where browsers find the gateways, as the pages are told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayPort {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
}

impl GatewayPort {
    fn scheme(self) -> &'static str {
        if self.tls { "wss" } else { "ws" }
    }
}

/// `HOST:PORT`, or `:PORT` where a page's own host is the gateway's as well.
impl fmt::Display for GatewayPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = self.address.ip();
        if ip.is_unspecified() || ip.is_loopback() {
            write!(f, ":{}", self.address.port())
        } else {
            write!(f, "{}", self.address)
        }
    }
}

/// A file as it is sent.
struct File {
    content_type: &'static str,
    body: Bytes,
    tag: EntityTag,
}

/// All files by name, and the policy that goes with each.
pub struct Console {
    files: HashMap<&'static str, File>,
    policy: String,
}

impl Console {
    /// The pages of a server whose gateways are there.
    pub fn new(gateway: GatewayPort) -> Self {
        let file = |(name, bytes): &(&'static str, &'static [u8])| {
            let content_type = content_type(name);
            let body = match std::str::from_utf8(bytes) {
                Ok(page) if name.ends_with(".html") => Bytes::from(filled(page, gateway)),
                _ => Bytes::from_static(bytes),
            };
            let digest = reference::hex(&Sha256::digest(&body)[..16]);
            (*name, File { content_type, body, tag: EntityTag::new_strong(digest) })
        };
        Self { files: files::FILES.iter().map(file).collect(), policy: policy(gateway) }
    }

    /// The file with this name under `/console/`; pages may be asked for without their ending.
    fn find(&self, name: &str) -> Option<&File> {
        let name = if name.is_empty() { "index.html" } else { name };
        self.files.get(name).or_else(|| self.files.get(format!("{name}.html").as_str()))
    }
}

/// Adds the routes. `/` leads browsers to the console.
pub fn routes(console: web::Data<Console>) -> impl FnOnce(&mut web::ServiceConfig) {
    let get_or_head = || guard::Any(guard::Get()).or(guard::Head());
    let for_browsers = guard::fn_guard(|context| {
        let accept = context.head().headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
        accept.is_some_and(|accept| accept.contains("text/html"))
    });
    move |config| {
        config
            .app_data(console)
            .route("/", web::route().guard(get_or_head()).guard(for_browsers).to(to_console))
            .route("/console", web::route().guard(get_or_head()).to(to_console))
            .route("/console/{name:.*}", web::route().guard(get_or_head()).to(get));
    }
}

async fn to_console(console: web::Data<Console>) -> HttpResponse {
    answer(StatusCode::PERMANENT_REDIRECT, &console).insert_header((header::LOCATION, "/console/")).finish()
}

async fn get(request: HttpRequest, name: web::Path<String>, console: web::Data<Console>) -> HttpResponse {
    let Some(file) = console.find(&name) else {
        return answer(StatusCode::NOT_FOUND, &console).content_type(TEXT).body("There is no such page.\n");
    };
    let has_it = match IfNoneMatch::parse(&request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|tag| tag.weak_eq(&file.tag)),
        Err(_) => false,
    };
    let mut response = answer(if has_it { StatusCode::NOT_MODIFIED } else { StatusCode::OK }, &console);
    response.insert_header(header::ETag(file.tag.clone()));
    if has_it { response.finish() } else { response.content_type(file.content_type).body(file.body.clone()) }
}

/// An answer with what all of them say. It is asked anew each time whether a file has changed, so that pages and scripts are of one version.
fn answer(status: StatusCode, console: &Console) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    response
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::CONTENT_SECURITY_POLICY, console.policy.as_str()))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header(("cross-origin-opener-policy", "same-origin"))
        .insert_header(("cross-origin-resource-policy", "same-origin"));
    response
}

const TEXT: &str = "text/plain; charset=utf-8";

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => TEXT,
    }
}

/// A page with what it has to know of this server.
fn filled(page: &str, gateway: GatewayPort) -> String {
    page.replace("{gateway}", &format!("{}://{gateway}", gateway.scheme()))
}

/// What pages may do: run our scripts, call us, open WebSockets on the gateways' port, and nothing else. No text becomes HTML.
fn policy(gateway: GatewayPort) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' {}://*:{}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        gateway.scheme(),
        gateway.address.port()
    )
}

#[cfg(test)]
mod tests;
