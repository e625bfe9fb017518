//! The sessions, for operators: which there are, and their end. On the admin listener alone, and only for who shows
//! `admin_token` (RFC 6750 §2.1); an application, a page and a stranger have no way there.
//!
//! No browser is answered, whatever it shows: what carries a page's marks, or came to this machine's own address under
//! another name than its own (DNS rebinding), is refused before its token is looked at.

mod fault;
mod selection;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, COOKIE, HOST, HeaderValue, ORIGIN, REFERER, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use self::fault::Fault;
use self::selection::Selection;
use super::health::respond;
use crate::authn::session::administered::{Ended, Entry, ListError, Which};
use crate::authn::session::{SessionId, Sessions};
use crate::rate::{Per, Rate, RateLimit};
use crate::secret::SecretString;
use crate::telemetry::chain;

/// Where it is.
const PATH: &str = "/sessions";
/// What only browsers send.
const OF_BROWSERS: [&str; 4] = ["sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "sec-ch-ua"];
/// Wrong tokens of one address. A token has 32 bytes at least, so this is for the log more than for its safety.
const GUESSES: Rate = Rate { interval: Duration::from_secs(1), burst: 10 };

/// Answers for the sessions.
#[derive(Debug)]
pub struct AdminApi {
    token: Digest,
    sessions: Arc<Sessions>,
    guesses: RateLimit,
}

/// What is said to whoever may ask.
struct Answer(StatusCode, Value);

impl AdminApi {
    /// For whoever shows `token`.
    pub fn new(token: &SecretString, sessions: Arc<Sessions>) -> Self {
        let token = digest(&SHA256, token.expose_secret().as_bytes());
        Self { token, sessions, guesses: RateLimit::new(Per::Client, GUESSES) }
    }

    /// Whether a path is one of these.
    pub(super) fn has(path: &str) -> bool {
        path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Answers a request of `peer`. Its body is not read.
    pub(super) async fn answer<B>(&self, request: &Request<B>, peer: IpAddr) -> Response<Full<Bytes>> {
        let outcome = match self.admit(request.headers(), peer) {
            Ok(()) => self.serve(request, peer).await,
            Err(fault) => Err(fault),
        };
        match outcome {
            Ok(Answer(status, value)) => respond(status, "application/json", format!("{value}\n")),
            Err(fault) => refuse(&fault, peer),
        }
    }

    fn admit(&self, headers: &HeaderMap, peer: IpAddr) -> Result<(), Fault> {
        let is_page = [ORIGIN, REFERER, COOKIE].iter().any(|name| headers.contains_key(name))
            || OF_BROWSERS.iter().any(|name| headers.contains_key(*name));
        if is_page {
            return Err(Fault::Browser);
        }
        let hosts: Vec<_> = headers.get_all(HOST).iter().collect();
        let [host] = hosts.as_slice() else { return Err(Fault::Host) };
        // Beyond this machine a service may have any name.
        if peer.to_canonical().is_loopback() && !host.to_str().is_ok_and(is_of_this_machine) {
            return Err(Fault::Host);
        }
        // Asked first, so that beyond these guesses the right one is refused as well.
        self.guesses.has_turn(peer).map_err(|too_many| Fault::TooMany(too_many.retry_after))?;
        let shown: Vec<_> = headers.get_all(AUTHORIZATION).iter().collect();
        let fault = match shown.as_slice() {
            [] => Fault::TokenMissing,
            [shown] if bearer(shown).is_some_and(|token| self.is_token(token)) => return Ok(()),
            _ => Fault::TokenWrong,
        };
        // Whatever it says, this was the guess.
        let _ = self.guesses.client(peer);
        Err(fault)
    }

    /// Of the same length, whatever is shown, and compared in the same time.
    fn is_token(&self, shown: &[u8]) -> bool {
        verify_slices_are_equal(digest(&SHA256, shown).as_ref(), self.token.as_ref()).is_ok()
    }

    async fn serve<B>(&self, request: &Request<B>, peer: IpAddr) -> Result<Answer, Fault> {
        let rest = request.uri().path().strip_prefix(PATH).unwrap_or_default();
        let one = rest.strip_prefix('/').map(|id| SessionId::parse(id).ok_or(Fault::NoSession)).transpose()?;
        let query = request.uri().query().unwrap_or_default();
        match (request.method(), one) {
            (&Method::GET, None) => self.list(Selection::to_list(query)?).await,
            (&Method::GET, Some(id)) => {
                selection::none(query)?;
                self.show(id).await
            }
            (&Method::DELETE, one) => {
                let (what, which) = match one {
                    Some(id) => {
                        selection::none(query)?;
                        ("session", Which::One(id))
                    }
                    None => {
                        let selection = Selection::to_end(query)?;
                        (selection.name(), self.which(&selection)?)
                    }
                };
                Ok(self.end(what, which, peer).await)
            }
            _ => Err(Fault::Method),
        }
    }

    fn which(&self, selection: &Selection) -> Result<Which, Fault> {
        let provider = selection.provider.as_deref();
        Ok(match (&selection.user, provider) {
            (Some(user), _) => self.sessions.of_person(provider, selection.issuer.as_deref(), user)?,
            (None, Some(provider)) => self.sessions.of_provider(provider)?,
            (None, None) => Which::All,
        })
    }

    async fn list(&self, selection: Selection) -> Result<Answer, Fault> {
        let which = self.which(&selection)?;
        let (entries, next) = self.sessions.list(which, selection.from).await.map_err(unlisted)?;
        let sessions: Vec<_> = entries.iter().map(shown).collect();
        Ok(Answer(StatusCode::OK, json!({ "sessions": sessions, "next": next.as_ref().map(|next| next.as_str()) })))
    }

    async fn show(&self, id: SessionId) -> Result<Answer, Fault> {
        let (entries, _) = self.sessions.list(Which::One(id), None).await.map_err(unlisted)?;
        entries.first().map(|entry| Answer(StatusCode::OK, shown(entry))).ok_or(Fault::NoSession)
    }

    async fn end(&self, what: &'static str, which: Which, peer: IpAddr) -> Answer {
        let ended = self.sessions.end_by_operator(which).await;
        info!(what, %peer, "ended by an operator");
        match ended {
            Ended::InCookies => Answer(StatusCode::OK, json!({ "ended": what })),
            Ended::Deleted(count) => Answer(StatusCode::OK, json!({ "ended": what, "deleted": count })),
            Ended::Deleting => {
                let pending = "the store still lets go of them";
                Answer(StatusCode::ACCEPTED, json!({ "ended": what, "pending": pending }))
            }
            Ended::Kept(error) => {
                let error = chain(&error);
                warn!(error, "ended sessions stay in the store until they expire");
                let pending = format!("{error}: told to other replicas when it is back");
                Answer(StatusCode::ACCEPTED, json!({ "ended": what, "pending": pending }))
            }
        }
    }
}

fn unlisted(error: ListError) -> Fault {
    match error {
        ListError::InCookies => Fault::InCookies,
        ListError::Store(error) => Fault::Store(error),
    }
}

fn shown(entry: &Entry) -> Value {
    let time = |millis: u64| {
        let moment = UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH);
        humantime::format_rfc3339_seconds(moment).to_string()
    };
    json!({
        "id": entry.id.hex(),
        "provider": entry.provider,
        "subject": format!("{:032x}", u128::from_be_bytes(entry.subject)),
        "created": time(entry.created),
        "changed": time(entry.changed),
        "expires": time(entry.expires),
    })
}

/// RFC 9110 §11.1: the scheme in any case, one space.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// An address, or the one name that nobody else can give to this machine.
fn is_of_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let host = authority.host();
    let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    !authority.as_str().contains('@') && (is_address || host.eq_ignore_ascii_case("localhost"))
}

fn refuse(fault: &Fault, peer: IpAddr) -> Response<Full<Bytes>> {
    let (status, reason) = (fault.status(), fault.code());
    let cause = fault.to_string();
    match fault {
        // The guesses before it are in the log; this could fill it.
        Fault::TooMany(_) => debug!(reason, %peer, cause, "the admin API refused a request"),
        Fault::TokenMissing | Fault::TokenWrong | Fault::Browser | Fault::Host => {
            warn!(reason, %peer, cause, "the admin API refused a request");
        }
        Fault::Store(error) => warn!(reason, %peer, cause = chain(error), "the admin API refused a request"),
        _ => info!(reason, %peer, cause, "the admin API refused a request"),
    }
    let problem = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": cause,
        "code": reason,
    });
    let mut response = respond(status, "application/problem+json", format!("{problem}\n"));
    let headers = response.headers_mut();
    match fault {
        Fault::TokenMissing => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Fault::TokenWrong => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
        }
        Fault::TooMany(span) => {
            headers.insert(RETRY_AFTER, HeaderValue::from(span.as_secs().saturating_add(1)));
        }
        Fault::Method => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, DELETE"));
        }
        _ => {}
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        for own in ["127.0.0.1:9090", "127.0.0.1", "[::1]:9090", "localhost:9090", "LOCALHOST", "10.0.0.1:80"] {
            assert!(is_of_this_machine(own), "{own}");
        }
        for other in ["evil.example:9090", "localhost.evil.example", "127.0.0.1.nip.io", "a@127.0.0.1", "", " ", "::1"]
        {
            assert!(!is_of_this_machine(other), "{other}");
        }
    }

    #[test]
    fn a_token_stands_behind_its_scheme() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bEARER abc", Some("abc")),
            ("Bearer  abc", Some(" abc")),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic abc", None),
            ("abc", None),
        ] {
            assert_eq!(bearer(&HeaderValue::from_static(value)), token.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn a_path_is_one_of_these_or_none() {
        for (path, is_one) in
            [("/sessions", true), ("/sessions/", true), ("/sessions/ab", true), ("/sessionsx", false), ("/", false)]
        {
            assert_eq!(AdminApi::has(path), is_one, "{path}");
        }
    }
}
