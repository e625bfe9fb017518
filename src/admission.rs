//! Who asks, and may they: authenticate, then authorize. The answer is a value, so that a gateway's auth request can be
//! answered from the very same one.

use std::sync::Arc;

use http::{Method, header};

use crate::authn::Identity;
use crate::authn::bearer::{self, Bearer, BearerError};
use crate::authn::password::{self, PasswordError, Passwords};
use crate::authn::renewal::{Renewals, Settled};
use crate::authn::session::renewing::Renewing;
use crate::authn::session::stored::Away;
use crate::authn::session::{NoSession, Renewal, Sessions};
use crate::clock::{SharedClock, UnixTime};
use crate::message::{Inbound, Initiator, Origin, is_for_another_site};
use crate::policy::{self, Denial, Permit, SignInReason, Verdict};
use crate::rate::TooMany;
use crate::route::{Access, GuardedRoute, Route};

/// What becomes of a request on a guarded route.
#[derive(Debug)]
pub enum Decision<'r> {
    /// Nobody is signed in (any more): ask.
    Challenge(Challenge<'r>),
    /// Not allowed.
    Deny(Denial, Renewal),
    /// Allowed, but not that often.
    Hold(TooMany, Renewal),
    /// The access token or the password that came with it does not hold.
    Refuse(Refused),
    /// Who asks cannot be told now.
    Unknown(Away),
    /// Forward it.
    Admit(Permit<'r>, Renewal),
}

/// What came in `Authorization` and is ours to look at.
#[derive(Debug)]
pub enum Presented {
    /// An access token.
    Token(Result<bearer::Presented, BearerError>),
    /// A name and a password.
    Password(Result<password::Presented, PasswordError>),
}

/// Why it does not let anybody in.
#[derive(Debug)]
pub enum Refused {
    /// An access token.
    Token(BearerError),
    /// A name and a password.
    Password(PasswordError),
}

/// A request to sign in, with its cause for the log.
#[derive(Debug, Clone, Copy)]
pub struct Challenge<'r> {
    /// The constant reason code.
    pub reason: &'static str,
    /// Whether a session did come: it only does not do for the route, so signing in again is no circle.
    pub has_session: bool,
    /// The session is not strong or not recent enough for the route: signing in again could become a circle after all.
    pub is_step_up: bool,
    /// The provider where the session was made, as an index, if all that is wrong with it is mended there.
    pub renews_at: Option<usize>,
    /// The session that is to be renewed, where that is all.
    pub silently: Option<Renewing>,
    /// What it is asked for.
    pub route: &'r Route,
}

/// Why nothing can be decided at once: see [`Admission::decide_later`].
#[derive(Debug)]
pub enum Later {
    /// The session has to be renewed.
    Due(Box<Session>),
    /// The store has to be asked for it.
    InStore,
}

/// Whom a session stands for, and what has to be renewed on the answer.
type Session = (Identity, Renewal);

/// Decides; one for all workers.
#[derive(Debug)]
pub struct Admission {
    sessions: Arc<Sessions>,
    renewals: Arc<Renewals>,
    bearer: Option<Bearer>,
    passwords: Option<Passwords>,
    own_origin: Origin,
    clock: SharedClock,
}

impl Admission {
    /// Puts the parts together; without `bearer` no access token is looked at, without `passwords` no password.
    pub fn new(
        (sessions, renewals): (Arc<Sessions>, Arc<Renewals>),
        bearer: Option<Bearer>,
        passwords: Option<Passwords>,
        own_origin: Origin,
        clock: SharedClock,
    ) -> Self {
        Self { sessions, renewals, bearer, passwords, own_origin, clock }
    }

    /// The access token or the password of a request, which then decides, whatever session comes with it.
    pub fn presented(&self, inbound: &Inbound, route: GuardedRoute<'_>) -> Option<Presented> {
        let (headers, passed_on) = (inbound.headers(), route.route().pass_authorization);
        if let Some(passwords) = &self.passwords {
            let is_session = || self.sessions.is_shown(inbound.cookies());
            if let Some(password) = passwords.presented(headers, passed_on, is_session) {
                return Some(Presented::Password(password));
            }
        }
        self.bearer.as_ref()?.presented(headers, passed_on).map(Presented::Token)
    }

    /// Decides about a request by that. No browser adds an access token by itself, and passwords are not taken from browsers, so no
    /// other site can make either come.
    pub async fn decide_by_credentials<'r>(
        &self,
        presented: Presented,
        inbound: &Inbound,
        route: GuardedRoute<'r>,
    ) -> Decision<'r> {
        let is_password = matches!(presented, Presented::Password(_));
        let identity = match self.identify(presented, inbound).await {
            Ok(identity) => identity,
            Err(refused) => return Decision::Refuse(refused),
        };
        match policy::authorize(route, Some(identity), self.clock.now()) {
            Verdict::Permit(permit) => take_turn(permit, Renewal::none(), inbound, route),
            Verdict::Deny(denial) => Decision::Deny(denial, Renewal::none()),
            // A sign-in would not change the token; another sign-in gets another token.
            Verdict::SignIn(SignInReason::InsufficientProof) => {
                let demand = Box::new(route.route().require.proof.clone());
                Decision::Refuse(match is_password {
                    true => Refused::Password(PasswordError::Insufficient(demand)),
                    false => Refused::Token(BearerError::Insufficient(demand)),
                })
            }
            Verdict::SignIn(reason) => {
                let reason = reason.code().unwrap_or("no_session");
                Decision::Refuse(match is_password {
                    true => Refused::Password(PasswordError::Route(reason)),
                    false => Refused::Token(BearerError::Route(reason)),
                })
            }
        }
    }

    async fn identify(&self, presented: Presented, inbound: &Inbound) -> Result<Identity, Refused> {
        match (presented, &self.bearer, &self.passwords) {
            (Presented::Token(Ok(token)), Some(bearer), _) => bearer.authenticate(token).await.map_err(Refused::Token),
            (Presented::Password(Ok(password)), _, Some(passwords)) => {
                passwords.authenticate(password, inbound.client().address).await.map_err(Refused::Password)
            }
            (Presented::Token(Err(error)), ..) => Err(Refused::Token(error)),
            (Presented::Password(Err(error)), ..) => Err(Refused::Password(error)),
            // None is presented where none is looked at.
            (Presented::Token(Ok(_)), None, _) => Err(Refused::Token(BearerError::Scheme)),
            (Presented::Password(Ok(_)), _, None) => Err(Refused::Password(PasswordError::Malformed)),
        }
    }

    /// Decides about one request. A bad cookie is anonymous where the route is optional and a challenge where it is not.
    ///
    /// # Errors
    /// [`Later`].
    pub fn decide<'r>(&self, inbound: &Inbound, route: GuardedRoute<'r>) -> Result<Decision<'r>, Later> {
        if is_preflight(inbound) {
            return Ok(match policy::preflight(route) {
                Ok(permit) => match route.route().take_turn_of_user(None, inbound.client().address) {
                    Ok(()) => Decision::Admit(permit, Renewal::none()),
                    Err(too_many) => Decision::Hold(too_many, Renewal::none()),
                },
                Err(denial) => Decision::Deny(denial, Renewal::none()),
            });
        }
        let now = self.clock.now();
        match self.sessions.authenticate_at_hand(inbound, now) {
            Some(Ok(session)) if session.1.is_due() => Err(Later::Due(Box::new(session))),
            Some(session) => Ok(self.judge(session, inbound, route, now)),
            None => Err(Later::InStore),
        }
    }

    /// Decides about a request once the store was asked, and once as much of a renewal is over as it has to wait for.
    pub async fn decide_later<'r>(&self, later: Later, inbound: &Inbound, route: GuardedRoute<'r>) -> Decision<'r> {
        let session = match later {
            Later::Due(due) => *due,
            Later::InStore => match self.sessions.authenticate(inbound).await {
                Ok(session) if session.1.is_due() => session,
                session => return self.judge(session, inbound, route, self.clock.now()),
            },
        };
        let session = match self.renewals.settle(inbound, session).await {
            Settled::Session(session) => Ok(*session),
            Settled::Silently(renewing, _)
                if inbound.is_navigation() && self.renewals.take_turn_of_browser(&renewing) =>
            {
                return Decision::Challenge(Challenge {
                    reason: "session_due",
                    has_session: true,
                    is_step_up: false,
                    renews_at: None,
                    silently: Some(renewing),
                    route: route.route(),
                });
            }
            Settled::Silently(_, session) => Ok(*session),
            Settled::Over(absence) => Err(absence),
        };
        self.judge(session, inbound, route, self.clock.now())
    }

    /// What a foreign page asks for: an unsafe method or an upgrade, as SameSite=Lax does not stop sibling domains; and where
    /// the session's cookies are `SameSite=None`, whatever the page fetches for itself.
    fn is_cross_site(&self, inbound: &Inbound, route: &Route) -> bool {
        let is_partitioned = self.sessions.jar().is_partitioned();
        if is_read(inbound) && !(is_partitioned && is_for_another_site(inbound.headers())) {
            return false;
        }
        match Initiator::of(inbound.headers(), &self.own_origin, &route.allowed_origins) {
            Initiator::Own => false,
            Initiator::Foreign => true,
            // Browsers that know Partitioned say who asks; others bring that cookie along with anything.
            Initiator::Unknown => is_partitioned,
        }
    }

    fn judge<'r>(
        &self,
        session: Result<Session, NoSession>,
        inbound: &Inbound,
        route: GuardedRoute<'r>,
        now: UnixTime,
    ) -> Decision<'r> {
        let (mut identity, mut renewal, absence) = match session {
            Ok((identity, renewal)) => (Some(identity), renewal, NoSession::Absent),
            // Neither a stranger nor known: to sign in again would help nobody.
            Err(NoSession::Away(away)) => return Decision::Unknown(away),
            Err(absence) => (None, Renewal::none(), absence),
        };
        if identity.is_some() && self.is_cross_site(inbound, route.route()) {
            // Lax cookies would not have come along with what only reads: where strangers may read, it is a stranger's.
            if !is_read(inbound) || route.route().access != Access::Optional {
                return Decision::Deny(Denial::ForeignOrigin, Renewal::none());
            }
            (identity, renewal) = (None, Renewal::none());
        }
        let signed_in_at = identity.as_ref().map(Identity::provider);
        match policy::authorize(route, identity, now) {
            Verdict::Permit(permit) => take_turn(permit, renewal, inbound, route),
            Verdict::Deny(denial) => Decision::Deny(denial, renewal),
            Verdict::SignIn(reason) => Decision::Challenge(Challenge {
                reason: reason.code().unwrap_or(absence.code()),
                has_session: reason != SignInReason::NoSession,
                is_step_up: reason == SignInReason::InsufficientProof,
                renews_at: signed_in_at.filter(|_| reason != SignInReason::OtherProvider),
                silently: None,
                route: route.route(),
            }),
        }
    }
}

fn take_turn<'r>(permit: Permit<'r>, renewal: Renewal, inbound: &Inbound, route: GuardedRoute<'r>) -> Decision<'r> {
    let user = permit.identity().map(Identity::subject);
    match route.route().take_turn_of_user(user, inbound.client().address) {
        Ok(()) => Decision::Admit(permit, renewal),
        Err(too_many) => Decision::Hold(too_many, renewal),
    }
}

/// A CORS preflight (Fetch standard): `OPTIONS` with `Origin` and `Access-Control-Request-Method`. It carries no cookie.
fn is_preflight(inbound: &Inbound) -> bool {
    inbound.method() == Method::OPTIONS
        && inbound.headers().contains_key(header::ORIGIN)
        && inbound.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// A safe method, and no upgrade.
fn is_read(inbound: &Inbound) -> bool {
    matches!(*inbound.method(), Method::GET | Method::HEAD | Method::OPTIONS) && inbound.upgrade().is_none()
}
