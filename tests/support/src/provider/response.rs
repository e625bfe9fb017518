//! How the fake provider answers authorization requests: in the query, by a form that posts itself, or signed.

use http::StatusCode;
use serde_json::{Map, Value, json};
use url::Url;

use super::endpoints::{found, respond};
use super::faults::ResponseFault;
use super::{Grant, State, stray_key};
use crate::forge;
use crate::listener::Answer;
use crate::trace;

impl State {
    /// Sends the user agent back to `redirect_uri` with `answer`, in the response mode that was asked for.
    pub(super) fn deliver(&self, mut redirect_uri: Url, answer: Vec<(String, String)>, mode: Option<&str>) -> Answer {
        let fault = self.faults.response;
        let mode = if fault == Some(ResponseFault::OtherMode) { None } else { mode };
        let answer = match mode {
            Some("query.jwt" | "form_post.jwt") => {
                let beside = match fault {
                    Some(ResponseFault::JwtBesideOtherIssuer) => Some("https://other.example.com".to_owned()),
                    Some(ResponseFault::JwtBesideIssuer) => Some(self.issuer.clone()),
                    _ => None,
                };
                let beside = beside.map(|issuer| ("iss".to_owned(), issuer));
                [("response".to_owned(), self.signed_answer(&answer))].into_iter().chain(beside).collect()
            }
            _ => answer,
        };
        if mode.is_some_and(|mode| mode.starts_with("form_post")) {
            return respond(StatusCode::OK, "text/html; charset=utf-8", posting_page(&redirect_uri, &answer));
        }
        redirect_uri.query_pairs_mut().extend_pairs(answer);
        found(redirect_uri.as_str())
    }

    /// JARM §2.1.
    fn signed_answer(&self, answer: &[(String, String)]) -> String {
        let key = &self.keys[0];
        let mut claims: Map<String, Value> =
            answer.iter().map(|(name, value)| (name.clone(), Value::from(value.clone()))).collect();
        claims.insert("iss".to_owned(), json!(self.issuer));
        claims.insert("aud".to_owned(), json!(self.client_id));
        claims.insert("exp".to_owned(), json!(self.clock.unix() + 600));
        let mut set = |name: &str, value: Value| drop(claims.insert(name.to_owned(), value));
        match self.faults.response {
            Some(ResponseFault::JwtIssuer) => set("iss", json!("https://other.example.com")),
            Some(ResponseFault::JwtAudience) => set("aud", json!("another-client")),
            Some(ResponseFault::JwtAudiences) => set("aud", json!([self.client_id, "another-client"])),
            Some(ResponseFault::JwtExpired) => set("exp", json!(self.clock.unix() - 300)),
            Some(ResponseFault::JwtNoIssuer) => set("iss", Value::Null),
            Some(ResponseFault::JwtNoAudience) => set("aud", Value::Null),
            Some(ResponseFault::JwtNoExpiry) => set("exp", Value::Null),
            _ => {}
        }
        claims.retain(|_, value| !value.is_null());
        let claims = Value::Object(claims);
        match self.faults.response {
            Some(ResponseFault::JwtUnsigned) => forge::unsigned(&claims),
            Some(ResponseFault::JwtWrongKey) => {
                stray_key(key.alg()).token_with_header(&json!({ "alg": key.alg().name(), "kid": key.kid() }), &claims)
            }
            _ => key.token(&claims),
        }
    }

    /// The ID token of the hybrid flow (Core §3.3.2.11).
    pub(super) fn front_channel_id_token(&mut self, grant: &Grant, code: &str) -> Option<String> {
        let key = self.keys[0].clone();
        let mut claims = self.claims(grant, "", &key);
        let members = claims.as_object_mut()?;
        members.remove("at_hash");
        members.insert("c_hash".to_owned(), json!(key.alg().access_token_hash(code)));
        match self.faults.response {
            Some(ResponseFault::MissingIdToken) => return None,
            Some(ResponseFault::MissingCodeHash) => drop(members.remove("c_hash")),
            Some(ResponseFault::WrongCodeHash) => {
                members.insert("c_hash".to_owned(), json!(key.alg().access_token_hash("another code")));
            }
            Some(ResponseFault::OtherSubjectInFront) => {
                members.insert("sub".to_owned(), json!("somebody-else"));
            }
            Some(ResponseFault::WrongNonceInFront) => {
                members.insert("nonce".to_owned(), json!("bm90LXRoZS1ub25jZQ"));
            }
            _ => {}
        }
        if let Some(members) = claims.as_object_mut() {
            members.extend(self.faults.front_claims.clone());
            members.retain(|_, value| !value.is_null());
        }
        let token = self.encrypted(key.token(&claims), &claims);
        trace::secret("ID token", &token);
        Some(token)
    }
}

/// OAuth 2.0 Form Post Response Mode, appendix A.
fn posting_page(action: &Url, fields: &[(String, String)]) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    let inputs: String = fields
        .iter()
        .map(|(name, value)| format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\"/>", escape(value)))
        .collect();
    format!(
        "<html><head><title>Submit This Form</title></head><body onload=\"javascript:document.forms[0].submit()\">\
         <form method=\"post\" action=\"{}\">{inputs}</form></body></html>",
        escape(action.as_str())
    )
}
