//! Claims for the front end: an allow-list, never a token, same-origin only.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::Endpoints;
use crate::authn::session::{CreateError, NoSession};
use crate::message::{Body, Inbound, Initiator};
use crate::reply::{ClientFault, Exchange, Rejection, Replies, json_answer};

impl Endpoints {
    pub(super) async fn userinfo(
        &self,
        inbound: &Inbound,
        replies: &Replies,
        exchange: &mut Exchange<'_>,
    ) -> Result<Response<Body>, Rejection> {
        if Initiator::of(inbound.headers(), &self.rules.own, &[]) == Initiator::Foreign {
            return Err(ClientFault::CrossSite.into());
        }
        let (record, contents) = match self.sessions.read(inbound.cookies()).await {
            Ok(session) => session,
            Err(NoSession::Away(away)) => return Err(away.into()),
            Err(absence) => {
                exchange.refused(absence.code());
                return Ok(replies.notify(&self.unauthorized(absence.code(), inbound), exchange));
            }
        };
        let mapper = self.sessions.mapper();
        let claims = contents.claims().unwrap_or_default();
        let mapped = self.sessions.map(&record, &claims).map_err(CreateError::Map)?;
        let mut view = mapper.userinfo_view(&claims, &mapped);
        view.insert("session_expires_at".to_owned(), json!(record.expires_at.0));
        Ok(json_answer(StatusCode::OK, "application/json", &Value::Object(view)))
    }
}
