//! IAM tokens: got for a JWT that an authorized key signed, or for an account by who may, and revoked.

use prost_types::Timestamp;

use crate::api::Table;
use crate::api::access::{self, Place};
use crate::api::authenticate::check_active;
use crate::api::call::Call;
use crate::api::fault::{Code, Fault};
use crate::api::resource::{find, message};
use crate::identity::key;
use crate::model::role::{Area, Right};
use crate::proto::types::yandex::cloud::iam::v1::create_iam_token_request::Identity;
use crate::proto::types::yandex::cloud::iam::v1::{
    CreateIamTokenForServiceAccountRequest, CreateIamTokenRequest, CreateIamTokenResponse, Key,
    RevokeIamTokenRequest, RevokeIamTokenResponse,
};
use crate::store::Kind;

pub(super) fn add(table: &mut Table) {
    table.add_open("yandex.cloud.iam.v1.IamTokenService/Create", create);
    table.add("yandex.cloud.iam.v1.IamTokenService/CreateForServiceAccount", create_for);
    table.add("yandex.cloud.iam.v1.IamTokenService/Revoke", revoke);
}

fn token(call: &Call<'_>, account: &str) -> CreateIamTokenResponse {
    let (iam_token, end) = call.api.tokens.make(account, jiff::Timestamp::now().as_second());
    CreateIamTokenResponse { iam_token, expires_at: Some(Timestamp { seconds: end, nanos: 0 }) }
}

fn create(call: &Call<'_>, request: CreateIamTokenRequest) -> Result<CreateIamTokenResponse, Fault> {
    let refuse = |what: String| Fault::new(Code::Unauthenticated, what);
    let jwt = match request.identity {
        Some(Identity::Jwt(jwt)) => jwt,
        Some(Identity::YandexPassportOauthToken(_)) => {
            let what = "There is no OAuth here; sign a JWT with an authorized key of a service account";
            return Err(Fault::field("yandex_passport_oauth_token", what));
        }
        None => return Err(Fault::field("jwt", "Field is required")),
    };
    let id = key::key_id(&jwt).map_err(|error| refuse(error.to_string()))?;
    let state = call.api.store.state();
    let record =
        state.get(Kind::Key, &id).ok_or_else(|| refuse(format!("The key '{id}' of the JWT is not known")))?;
    let key: Key = message(record)?;
    key::check(&jwt, &key.public_key, &record.parent, &call.api.settings.audiences)
        .map_err(|error| refuse(error.to_string()))?;
    check_active(&state, &record.parent)?;
    Ok(token(call, &record.parent))
}

fn create_for(
    call: &Call<'_>,
    request: CreateIamTokenForServiceAccountRequest,
) -> Result<CreateIamTokenResponse, Fault> {
    let state = call.api.store.state();
    let record = find(&state, Kind::ServiceAccount, &request.service_account_id)?;
    access::check(&state, &call.subject, Right::MakeToken, &Place::to_become(record))?;
    check_active(&state, &record.id)?;
    Ok(token(call, &record.id))
}

/// Revokes a token of the caller's own, or of an account that he may change.
fn revoke(call: &Call<'_>, request: RevokeIamTokenRequest) -> Result<RevokeIamTokenResponse, Fault> {
    let claims = call.api.tokens.check(&request.iam_token, jiff::Timestamp::now().as_second());
    let claims =
        claims.ok_or_else(|| Fault::field("iam_token", "It is not a token of this server, or has ended"))?;
    call.change_silently(|state, edit| {
        if *claims.sub != *call.subject {
            let record = find(state, Kind::ServiceAccount, &claims.sub)?;
            call.may(state, Right::Change(Area::Accounts), record)?;
        }
        edit.revoke(claims.jti, claims.exp);
        Ok((claims.sub.as_str().into(), RevokeIamTokenResponse { subject_id: claims.sub }))
    })
}
