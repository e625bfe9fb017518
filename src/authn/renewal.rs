//! Renewing sessions that are due: ahead of time beside the request that shows one, or before it where the access token has
//! expired. One renewal of each session at a time, whatever number of tabs and connections ask.
//!
//! | what the provider does | the session |
//! |---|---|
//! | new tokens | goes on, with claims and roles taken anew |
//! | new tokens without claims (no ID token, or no userinfo where that was a source) | goes on with the claims that it has; once those are older than `renew_every` the next navigation goes to the provider and back |
//! | cannot be reached, is busy, answers 429, 500 or 503 | goes on as it is; tried again after 1 s, later up to 30 s |
//! | `invalid_grant` | ends |
//! | an ID token that is not of this session | ends |
//! | no answer (502 and 504 are a gateway's word for that), none of use, or that the person has to do something | goes on as it is; the token is not sent again, and once the session is stale the next navigation goes to the provider and back |

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

use super::Identity;
use super::oidc::Providers;
use super::oidc::id_token::IdTokenError;
use super::oidc::refresh::RefreshError;
use super::session::renewing::{DueSession, Renewing};
use super::session::successors::{NextStep, Outcome, Underway};
use super::session::{CreateError, NoSession, Renewal, Sessions};
use crate::clock::SharedClock;
use crate::message::Inbound;
use crate::telemetry::chain;

/// How often a person's browser is sent to the provider for one session, at most.
const SILENT_PAUSE: Duration = Duration::from_secs(60);

/// What became of a request whose session was due.
#[derive(Debug)]
pub enum Settled {
    /// It goes on, with the session as it is now.
    Session(Box<(Identity, Renewal)>),
    /// The browser can renew it by way of the provider (`prompt=none`, OpenID Connect Core §3.1.2.1), if it is one; if not,
    /// the session goes on as it is.
    Silently(Renewing, Box<(Identity, Renewal)>),
    /// There is no session any more.
    Over(NoSession),
}

/// Renews; one for all workers.
#[derive(Debug)]
pub struct Renewals {
    providers: Providers,
    sessions: Arc<Sessions>,
    clock: SharedClock,
}

impl Renewals {
    /// Puts the parts together.
    pub fn new(providers: Providers, sessions: Arc<Sessions>, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self { providers, sessions, clock })
    }

    /// Does what is to be done about a session that is due, and waits for it only where the session is stale.
    pub async fn settle(self: &Arc<Self>, inbound: &Inbound, session: (Identity, Renewal)) -> Settled {
        let mut settled = Settled::Session(Box::new(session));
        // What another replica renewed long ago may be stale, too.
        let mut last = None;
        loop {
            let Settled::Session(session) = settled else { return settled };
            let Some(due) = session.1.due() else { return Settled::Session(session) };
            if last.is_some_and(|last| due.record.generation <= last || !self.sessions.is_stale(&due)) {
                return Settled::Session(session);
            }
            last = Some(due.record.generation);
            settled = self.settle_once(inbound, *session, due).await;
        }
    }

    async fn settle_once(
        self: &Arc<Self>,
        inbound: &Inbound,
        session: (Identity, Renewal),
        due: DueSession,
    ) -> Settled {
        let (is_stale, patience) = (self.sessions.is_stale(&due), self.sessions.patience(&due));
        // `None`: there is no refresh token.
        let step = self.sessions.can_refresh(&due).then(|| self.sessions.turn(&due));
        let is_stuck = is_stale && matches!(step, None | Some(NextStep::Later | NextStep::Lost));
        // Another replica may have renewed it, or the browser by way of one.
        if is_stuck && self.sessions.is_newer_in_store(&due).await {
            return self.look_again(inbound).await;
        }
        let waiting = match step {
            None => return self.by_browser(&due, session),
            Some(NextStep::Renew(underway)) => {
                let waiting = underway.waiting();
                let (this, provider) = (Arc::clone(self), session.0.provider());
                // Ends well when the client that caused it goes away, and before we do.
                self.sessions.errands().run(async move { this.renew(provider, due, underway).await });
                waiting
            }
            Some(NextStep::Wait(waiting)) => waiting,
            // By somebody else a moment ago, or long ago and the browser shows what it was.
            Some(NextStep::Superseded) if is_stale => return self.look_again(inbound).await,
            Some(NextStep::Lost) if is_stale => return self.by_browser(&due, session),
            Some(NextStep::Later | NextStep::Lost | NextStep::Superseded) => {
                return Settled::Session(Box::new(session));
            }
        };
        if !is_stale {
            return Settled::Session(Box::new(session));
        }
        waiting.until_over(patience).await;
        self.look_again(inbound).await
    }

    async fn look_again(&self, inbound: &Inbound) -> Settled {
        let session = match self.sessions.authenticate(inbound).await {
            Ok(session) => session,
            Err(absence) => return Settled::Over(absence),
        };
        match session.1.due() {
            Some(due) if self.is_outdated(&due) => Settled::Over(NoSession::NotRenewed),
            // What came in time brought no claims.
            Some(due) if due.record.asks_for_browser(self.clock.now()) => self.by_browser(&due, session),
            _ => Settled::Session(Box::new(session)),
        }
    }

    /// Whether it is what a session was before it was renewed, and its access token has expired.
    fn is_outdated(&self, due: &DueSession) -> bool {
        self.sessions.is_stale(due) && self.sessions.is_superseded(due)
    }

    /// Without a refresh token that is good only the browser can ask the provider; not while that is away.
    fn by_browser(&self, due: &DueSession, session: (Identity, Renewal)) -> Settled {
        if self.providers.at(session.0.provider()).is_ready() {
            Settled::Silently(Renewing::of(due), Box::new(session))
        } else {
            Settled::Session(Box::new(session))
        }
    }

    /// Whether the browser may be sent to the provider now: not again and again, whatever comes of it.
    pub fn take_turn_of_browser(&self, renewing: &Renewing) -> bool {
        self.sessions.take_turn_of_browser(renewing, SILENT_PAUSE)
    }

    async fn renew(&self, provider: usize, due: DueSession, underway: Underway) {
        let provider = self.providers.at(provider);
        let id = &provider.settings().id;
        let signed_in = due.contents.sources().unwrap_or_default().claims;
        let token = due.contents.tokens().and_then(|tokens| tokens.refresh);
        let Some(token) = token else { return underway.finish(Outcome::Lost, self.clock.now()) };
        let claim = match self.sessions.claim(&due, &underway).await {
            Ok(claim) => claim,
            Err(outcome) => return underway.finish(outcome, self.clock.now()),
        };
        let limit = self.sessions.limit(&claim);
        let Ok(refreshed) = timeout(limit, provider.refresh(&token, &signed_in)).await else {
            warn!(provider = id, "the provider takes too long to renew a session; its refresh token is not sent again");
            self.sessions.lose(&due, claim).await;
            return underway.finish(Outcome::Lost, self.clock.now());
        };
        let outcome = match refreshed {
            Ok(refreshed) if self.sessions.has_ended(&due.record) => {
                // Signed out meanwhile: these tokens are nobody's.
                provider.revoke(refreshed.refresh_token, Some(refreshed.access_token));
                Outcome::Lost
            }
            Ok(refreshed) => match self.sessions.succeed(&due, &refreshed, claim).await {
                Ok(outcome) => outcome,
                Err(CreateError::Ended) => {
                    provider.revoke(refreshed.refresh_token, Some(refreshed.access_token));
                    Outcome::Lost
                }
                Err(error @ CreateError::Away(_)) => {
                    warn!(provider = id, error = chain(&error), "a renewed session could not be written down");
                    Outcome::Lost
                }
                Err(error) => {
                    warn!(provider = id, error = chain(&error), "the renewed session cannot be kept: it has ended");
                    self.sessions.end(&due.record).await;
                    Outcome::Lost
                }
            },
            Err(RefreshError::Refused) => {
                info!(provider = id, "the provider refuses the refresh token: the session has ended");
                self.sessions.end(&due.record).await;
                Outcome::Lost
            }
            Err(RefreshError::Unused(error)) => {
                warn!(
                    provider = id,
                    error = chain(&error),
                    "a session could not be renewed; it goes on as it is for now"
                );
                self.sessions.unclaim(claim).await;
                Outcome::Unused
            }
            Err(error @ RefreshError::OtherClient) => {
                info!(provider = id, error = chain(&error), "a session is not renewed by its refresh token any more");
                self.sessions.lose(&due, claim).await;
                Outcome::Lost
            }
            Err(error @ (RefreshError::Lost(_) | RefreshError::IdToken(IdTokenError::UnknownKey))) => {
                warn!(
                    provider = id,
                    error = chain(&error),
                    "the answer to a refresh token is lost; it is not sent again"
                );
                self.sessions.lose(&due, claim).await;
                Outcome::Lost
            }
            Err(error @ RefreshError::IdToken(_)) => {
                warn!(provider = id, error = chain(&error), "a renewed ID token is not this session's: it has ended");
                self.sessions.end(&due.record).await;
                Outcome::Lost
            }
        };
        underway.finish(outcome, self.clock.now());
    }
}
