//! Who may connect to a path: authorizers, as an OpenAPI document names them.

use std::time::Duration;

use super::hook::Place;

/// Asked before a client is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorizer {
    /// A signed token that the client brings.
    Jwt(JwtRules),
    /// Another server.
    Http(HttpAuthorizer),
}

/// What a token must be (RFC 7519). Signatures are RS256, RS384, RS512, ES256 or ES384.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtRules {
    /// Where the keys are (RFC 7517).
    pub jwks_uri: String,
    /// How long fetched keys are used; zero: they are fetched for each token.
    pub jwks_ttl: Duration,
    /// Where the token stands.
    pub source: IdentitySource,
    /// What its `iss` may be; empty: anything.
    pub issuers: Vec<String>,
    /// What its `aud` may be; empty: anything.
    pub audiences: Vec<String>,
    /// Claims that it must have.
    pub required_claims: Vec<String>,
    /// Words that its `scope` must have.
    pub scopes: Vec<String>,
}

/// Where a token stands in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySource {
    /// Where to look first.
    pub place: TokenPlace,
    /// The name of the header, the parameter or the cookie.
    pub name: String,
    /// What stands before the token, such as `Bearer `.
    pub prefix: String,
}

/// Where a token may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPlace {
    /// A place of any request.
    Request(Place),
    /// The entry of `Sec-WebSocket-Protocol` behind the one that is named, for browsers, which cannot set headers.
    Subprotocol,
}

/// Another server decides: it gets the request's data as JSON, and answers `{"isAuthorized": true, "context": {}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAuthorizer {
    /// Where it is asked: `http` or `https`, by POST.
    pub url: String,
    /// Time for its answer.
    pub timeout: Duration,
    /// How long an answer is used again for the same token on the same path; zero: never.
    pub cache_ttl: Duration,
    /// Whether that holds only for the same query as well.
    pub cache_by_uri: bool,
    /// The token, without which nobody is asked; none: everybody is asked about.
    pub source: Option<IdentitySource>,
}
