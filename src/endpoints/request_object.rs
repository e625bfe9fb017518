//! Where a provider fetches our authorization requests (RFC 9101 §5.2.3).

use http::{Response, StatusCode};

use super::{Endpoints, turn_of};
use crate::authn::oidc::login::ReferenceError;
use crate::message::{Body, Inbound};
use crate::rate::TooMany;
use crate::reply::{ClientFault, ProviderFault, Rejection, text_answer};

/// RFC 9101 §9.4.1.
const TYPE: &str = "application/oauth-authz-req+jwt";

impl Endpoints {
    pub(super) fn request_object(&self, inbound: &Inbound) -> Result<Response<Body>, Rejection> {
        let turn = turn_of(&self.request_objects, inbound.client().address);
        turn.map_err(|TooMany { retry_after }| ClientFault::TooMany {
            reason: "too_many_request_objects",
            retry_after,
        })?;
        let path = inbound.path_and_query();
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let sealed = path.rsplit_once('/').map_or("", |(_, sealed)| sealed);
        let object = self.logins.request_object(&self.providers, sealed).map_err(|error| match error {
            ReferenceError::Gone => Rejection::from(ClientFault::RequestObjectGone),
            ReferenceError::Unmade(error) => ProviderFault::Start(error).into(),
        })?;
        Ok(text_answer(StatusCode::OK, TYPE, object))
    }
}
