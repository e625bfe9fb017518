//! Every refusal, split by blame, and the two texts it has: the public one and the operator's.

use std::borrow::Cow;

use http::StatusCode;
use tracing::{info, warn};

use super::pages::{Choice, Page};
use crate::admission::Refused;
use crate::authn::bearer::BearerError;
use crate::authn::oidc::access_token::AccessTokenError;
use crate::authn::oidc::authorization::AuthorizationError;
use crate::authn::oidc::id_token::IdTokenError;
use crate::authn::oidc::login::StrayCause;
use crate::authn::oidc::par::PushError;
use crate::authn::oidc::response::ResponseError;
use crate::authn::oidc::token_endpoint::TokenError;
use crate::authn::oidc::userinfo::UserinfoError;
use crate::authn::password::PasswordError;
use crate::authn::proof::ProofDemand;
use crate::authn::session::stored::Away;
use crate::authn::session::{CreateError, NoSession};
use crate::message::Malformed;
use crate::message::return_to::ReturnToError;
use crate::policy::Denial;
use crate::rate::TooMany;
use crate::route::RouteError;
use crate::telemetry::chain;
use crate::upstream::{FileError, UpstreamError};

/// Any refusal as an error, by who erred.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// Nothing lies at this path under our prefix.
    #[error("there is no endpoint at this path")]
    NoEndpoint,
    /// Whoever asked.
    #[error(transparent)]
    Client(#[from] ClientFault),
    /// The provider.
    #[error(transparent)]
    Provider(#[from] ProviderFault),
    /// The application behind us.
    #[error(transparent)]
    Upstream(UpstreamError),
    /// The configuration, or its fit with the provider's claims.
    #[error(transparent)]
    Ourselves(#[from] CreateError),
    /// The session store.
    #[error(transparent)]
    Store(#[from] Away),
}

/// What whoever asked did.
#[derive(Debug, thiserror::Error)]
pub enum ClientFault {
    /// The request can't be read one way.
    #[error(transparent)]
    Malformed(Malformed),
    /// No route.
    #[error(transparent)]
    Route(RouteError),
    /// Another method than the endpoint's.
    #[error("the endpoint does not take this method")]
    Method {
        /// For `Allow`.
        allow: &'static str,
    },
    /// A parameter is missing or repeated.
    #[error("the parameters are unusable: {0}")]
    Parameters(&'static str),
    /// What came to the callback is no answer of the provider.
    #[error("what came to the callback is no answer")]
    Response(#[source] ResponseError),
    /// A logout request of the provider's page is unusable.
    #[error("the logout request's parameters are unusable: {0}")]
    Logout(&'static str),
    /// There is no request object (any more) at the address.
    #[error("the address of a request object is unreadable or too old")]
    RequestObjectGone,
    /// A form that was kept is not sent.
    #[error(transparent)]
    KeptPost(#[from] KeptPostFault),
    /// `rd` leads elsewhere.
    #[error("the return address is refused")]
    ReturnTo(#[source] ReturnToError),
    /// Our endpoint was called by another site.
    #[error("the request came from another site")]
    CrossSite,
    /// Its body is larger than the route takes.
    #[error("the request body is too large")]
    BodyTooLarge,
    /// Its body came too slowly.
    #[error("the request body came too slowly")]
    BodyTooSlow,
    /// Its body stood still.
    #[error("nothing more of the request body came for the upstream's idle_timeout")]
    BodyIdle,
    /// It came too often.
    #[error("no turn is left")]
    TooMany {
        /// The reason code.
        reason: &'static str,
        /// Until the next turn.
        retry_after: std::time::Duration,
    },
    /// The session ended while the request was on its way.
    #[error("the session ended in the meantime")]
    SessionEnded,
    /// The person, or the provider on their behalf, said no.
    #[error("the provider says that access was denied")]
    AccessDenied,
    /// The access token, or the header that should hold one.
    #[error("the access token is refused")]
    Bearer(#[source] BearerError),
    /// The name and the password, or the header that should hold them.
    #[error("the password is refused")]
    Password(#[source] PasswordError),
    /// A chain of sign-ins came to nothing.
    #[error("sign-ins in a row came to nothing, at last because of {}", .0.code())]
    Chain(StrayCause),
}

/// Why a form that was kept over a sign-in is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeptPostFault {
    /// Sent already, kept too long, kept by a process that is gone, or another browser's.
    #[error("no such form is kept for this browser")]
    Gone,
    /// Somebody else is signed in now.
    #[error("the form is another person's")]
    OtherPerson,
    /// The page that it was for is no page any more for which people sign in, or it came to another one.
    #[error("the form is for another page")]
    OtherPage,
}

impl KeptPostFault {
    /// The constant reason code for the log.
    pub fn code(self) -> &'static str {
        match self {
            Self::Gone => "kept_post_gone",
            Self::OtherPerson => "kept_post_other_person",
            Self::OtherPage => "kept_post_other_page",
        }
    }

    fn notice(self) -> Notice<'static> {
        let (status, message, advice) = match self {
            Self::Gone => (
                StatusCode::GONE,
                "This form was sent already, or it was kept for too long.",
                "If you don't see what came of it, please fill it in once more.",
            ),
            Self::OtherPerson => (
                StatusCode::FORBIDDEN,
                "This form was filled in by somebody else than the person who is signed in now. It was not sent, and is not kept \
                 any longer.",
                "",
            ),
            Self::OtherPage => (
                StatusCode::CONFLICT,
                "The page that this form was for has changed in the meantime, so it was not sent.",
                "Please fill it in once more.",
            ),
        };
        Notice::new(status, self.code(), Page::Error, "Not sent", message)
            .advice(advice)
            .action("/", "Go to the front page")
    }
}

/// What the provider did.
#[derive(Debug, thiserror::Error)]
pub enum ProviderFault {
    /// No sign-in can start.
    #[error("the sign-in can't start")]
    Start(#[source] AuthorizationError),
    /// An error answer to the authorization request (RFC 6749 §4.1.2.1).
    #[error("the provider refused the authorization request with {error:?}: {description:?}")]
    Authorization {
        /// The code.
        error: String,
        /// For the log only.
        description: Option<String>,
    },
    /// The callback's `iss` is missing or another (RFC 9207 §2.4).
    #[error("the callback's issuer is missing or another")]
    CallbackIssuer,
    /// The code was not redeemed.
    #[error("the code could not be redeemed")]
    Token(#[source] TokenError),
    /// The ID token is refused.
    #[error("the ID token is refused")]
    IdToken(#[source] IdTokenError),
    /// Userinfo is needed and not to be had.
    #[error("userinfo is not to be had")]
    Userinfo(#[source] UserinfoError),
}

impl From<KeptPostFault> for Rejection {
    fn from(fault: KeptPostFault) -> Self {
        ClientFault::KeptPost(fault).into()
    }
}

impl From<UpstreamError> for Rejection {
    /// What went wrong on the way to the application need not be its fault.
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::SessionEnded => ClientFault::SessionEnded.into(),
            UpstreamError::BodyTooLarge => ClientFault::BodyTooLarge.into(),
            UpstreamError::BodyTooSlow => ClientFault::BodyTooSlow.into(),
            UpstreamError::BodyIdle => ClientFault::BodyIdle.into(),
            error => Self::Upstream(error),
        }
    }
}

impl From<Refused> for Rejection {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Token(BearerError::Map(error)) | Refused::Password(PasswordError::Map(error)) => {
                Self::Ourselves(CreateError::Map(error))
            }
            Refused::Token(error) => ClientFault::Bearer(error).into(),
            Refused::Password(PasswordError::TooMany(TooMany { retry_after })) => {
                ClientFault::TooMany { reason: "too_many_passwords", retry_after }.into()
            }
            Refused::Password(PasswordError::IdToken(error)) => ProviderFault::IdToken(error).into(),
            Refused::Password(error) => ClientFault::Password(error).into(),
        }
    }
}

impl From<TooMany> for Rejection {
    fn from(TooMany { retry_after }: TooMany) -> Self {
        ClientFault::TooMany { reason: "too_many_requests", retry_after }.into()
    }
}

impl From<Malformed> for Rejection {
    fn from(malformed: Malformed) -> Self {
        ClientFault::Malformed(malformed).into()
    }
}

impl From<RouteError> for Rejection {
    fn from(error: RouteError) -> Self {
        ClientFault::Route(error).into()
    }
}

/// What is said to whoever asked. No internals.
#[derive(Debug, Clone)]
pub struct Notice<'a> {
    /// The status.
    pub status: StatusCode,
    /// The constant reason code.
    pub code: &'static str,
    /// The page for a person.
    pub page: Page,
    /// A short heading.
    pub title: &'static str,
    /// What happened.
    pub message: Cow<'a, str>,
    /// What to do.
    pub advice: &'static str,
    /// The main button: where it leads and what it says.
    pub action: Option<(Way, &'static str)>,
    /// A second way on, less prominent.
    pub other: Option<(String, &'static str)>,
    /// Whether the button is a form that POSTs.
    pub post: bool,
    /// That form's hidden field.
    pub field: Option<(&'static str, String)>,
    /// Several ways on, one to be chosen.
    pub choices: Vec<Choice>,
    /// Where an e-mail address can be sent to choose among them, and the page to return to.
    pub email_form: Option<(String, String)>,
    /// Where a program can send the person to sign in.
    pub sign_in_url: Option<String>,
    /// How and when the person has to prove who they are first (RFC 9470).
    pub step_up: Option<Box<ProofDemand>>,
    /// Seconds.
    pub retry_after: Option<u32>,
    /// For `Allow`.
    pub allow: Option<&'static str>,
    /// Access tokens are taken here: the `error` of their challenge (RFC 6750 §3), empty where none came.
    pub bearer: Option<&'static str>,
}

/// Where a button leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// To this address.
    To(String),
    /// To the address that was asked for; to the front page where asking again would be another request (not a GET).
    SameAddress,
}

const AGAIN: &str = "Please try again. If it keeps failing, tell the people who run this site the request id below.";
const TELL: &str = "Please tell the people who run this site the request id below.";

impl<'a> Notice<'a> {
    /// A notice without a button.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        page: Page,
        title: &'static str,
        message: impl Into<Cow<'a, str>>,
    ) -> Self {
        Self {
            status,
            code,
            page,
            title,
            message: message.into(),
            advice: "",
            action: None,
            other: None,
            post: false,
            field: None,
            choices: Vec::new(),
            email_form: None,
            sign_in_url: None,
            step_up: None,
            retry_after: None,
            allow: None,
            bearer: None,
        }
    }

    /// With what to do.
    pub fn advice(self, advice: &'static str) -> Self {
        Self { advice, ..self }
    }

    /// With a button.
    pub fn action(self, url: impl Into<String>, label: &'static str) -> Self {
        Self { action: Some((Way::To(url.into()), label)), ..self }
    }

    /// With a second link.
    pub fn other(self, url: impl Into<String>, label: &'static str) -> Self {
        Self { other: Some((url.into(), label)), ..self }
    }

    /// With a button that asks for the same address once more.
    pub fn retry(self) -> Self {
        Self { action: Some((Way::SameAddress, "Try again")), ..self }
    }

    /// 403.
    pub fn denial(denial: Denial) -> Self {
        let message = match denial {
            Denial::MissingRole | Denial::MissingGroup => "You are signed in, but your account may not open this page.",
            Denial::ForeignOrigin => "This request came from another site, so it was not passed on.",
            Denial::Preflight => "Requests from other sites are not let through here.",
        };
        Self::new(StatusCode::FORBIDDEN, denial.code(), Page::AccessDenied, "Access denied", message)
            .advice("If you think you should have access, ask the people who run this site.")
            .action("/", "Go to the front page")
    }
}

impl Rejection {
    /// What is said to whoever asked.
    pub fn notice(&self) -> Notice<'static> {
        match self {
            Self::NoEndpoint => Notice::new(
                StatusCode::NOT_FOUND,
                "no_endpoint",
                Page::Error,
                "Not found",
                "There is nothing at this address.",
            )
            .action("/", "Go to the front page"),
            Self::Client(fault) => fault.notice(),
            Self::Provider(fault) => fault.notice(),
            Self::Upstream(error) => upstream_notice(error),
            Self::Ourselves(error) => create_notice(error),
            Self::Store(Away) => away_notice("Who you are cannot be looked up at the moment. You are still signed in."),
        }
    }
}

impl ClientFault {
    fn notice(&self) -> Notice<'static> {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        let bad = |code, message| Notice::new(BAD, code, Page::Error, "Bad request", message);
        match self {
            Self::Malformed(malformed) => Notice { status: malformed.status(), ..bad(malformed.code(), UNREADABLE) },
            Self::Route(RouteError::AmbiguousPath) => bad("ambiguous_path", UNREADABLE),
            Self::Route(RouteError::UnlistedHost) => {
                let message = "This site is not served under the address you used.";
                Notice::new(StatusCode::MISDIRECTED_REQUEST, "unlisted_host", Page::Error, "Wrong address", message)
            }
            Self::Method { allow } => {
                let message = "This address does not take that kind of request.";
                let notice = bad("method_not_allowed", message);
                Notice { status: StatusCode::METHOD_NOT_ALLOWED, title: "Not allowed", allow: Some(allow), ..notice }
            }
            Self::Parameters(code) => unusable_answer(code),
            Self::Response(error) => unusable_answer(error.code()),
            Self::Logout(code) => {
                bad(code, "The sign-out was asked for in a way that we can't use, so nothing was done.")
            }
            Self::RequestObjectGone => {
                let message = "There is nothing at this address, or not any more.";
                Notice::new(StatusCode::NOT_FOUND, "request_object_gone", Page::Error, "Not found", message)
            }
            Self::KeptPost(fault) => fault.notice(),
            Self::ReturnTo(_) => bad("return_to", "The page to return to is not on this site."),
            Self::CrossSite => {
                let message = "This request came from another site, so nothing was done.";
                Notice::new(StatusCode::FORBIDDEN, "cross_site", Page::AccessDenied, "Access denied", message)
            }
            Self::BodyTooLarge => {
                let message = "What you sent is larger than this site takes.";
                Notice::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", Page::Error, "Too large", message)
            }
            Self::BodyTooSlow => {
                let message = "What you sent came too slowly, so it was not waited for any longer.";
                Notice::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", Page::Error, "Too slow", message)
            }
            Self::BodyIdle => {
                let message = "Nothing more came of what you were sending, so it was not waited for any longer.";
                Notice::new(StatusCode::REQUEST_TIMEOUT, "body_idle", Page::Error, "Too slow", message)
            }
            Self::TooMany { reason, retry_after } => {
                let message = "You have asked for this too often in a short time.";
                let notice =
                    Notice::new(StatusCode::TOO_MANY_REQUESTS, reason, Page::Error, "Too many requests", message);
                // Whole seconds (RFC 9110 §10.2.3), rounded up: sooner would be refused again.
                let seconds = u32::try_from(retry_after.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
                Notice { retry_after: Some(seconds), ..notice.advice("Please wait a moment and try again.").retry() }
            }
            Self::SessionEnded => {
                let message = "Your session has ended.";
                let notice =
                    Notice::new(StatusCode::UNAUTHORIZED, "session_ended", Page::Error, "Please sign in", message);
                // Asked for once more, it begins a sign-in.
                Notice { action: Some((Way::SameAddress, "Sign in")), ..notice }
            }
            Self::AccessDenied => {
                let message = "The sign-in was cancelled, or your account may not use this site.";
                Notice::new(StatusCode::FORBIDDEN, "access_denied", Page::SignInFailed, "Not signed in", message)
                    .action("/", "Try again")
            }
            Self::Bearer(error) => bearer_notice(error),
            Self::Password(error) => password_notice(error),
            Self::Chain(cause) => {
                let (message, advice) = chain_text(*cause);
                Notice::new(BAD, cause.code(), Page::SignInFailed, "Sign-in failed", message)
                    .advice(advice)
                    .action("/", "Try again")
            }
        }
    }
}

/// RFC 6750 §3.1.
fn bearer_notice(error: &BearerError) -> Notice<'static> {
    let (status, title, message) = match error {
        BearerError::Repeated | BearerError::Malformed | BearerError::TooLarge => {
            (StatusCode::BAD_REQUEST, "Bad request", "The Authorization header does not hold one access token.")
        }
        BearerError::Refused(AccessTokenError::Unavailable(_)) => {
            (StatusCode::SERVICE_UNAVAILABLE, "Unavailable", "The access token can't be verified at the moment.")
        }
        BearerError::Refused(AccessTokenError::Answer(_)) => {
            (StatusCode::BAD_GATEWAY, "Unavailable", "The access token can't be verified.")
        }
        BearerError::Scheme => {
            (StatusCode::UNAUTHORIZED, "Not signed in", "Access tokens come as Authorization: Bearer.")
        }
        BearerError::Refused(_) | BearerError::Map(_) | BearerError::Route(_) => {
            (StatusCode::UNAUTHORIZED, "Not signed in", "The access token is not accepted here.")
        }
        BearerError::Insufficient(_) => {
            (StatusCode::UNAUTHORIZED, "Not signed in", "This needs a token of a stronger or more recent sign-in.")
        }
    };
    let notice = Notice::new(status, error.code(), Page::Error, title, message);
    let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(5);
    let step_up = match error {
        BearerError::Insufficient(demand) => Some(demand.clone()),
        _ => None,
    };
    Notice { bearer: error.challenge(), retry_after, step_up, ..notice }
}

/// Its 401 has the challenge of every other: no browser shall open a password box.
fn password_notice(error: &PasswordError) -> Notice<'static> {
    let (status, title, message) = match error {
        PasswordError::Malformed | PasswordError::BesideSession => (
            StatusCode::BAD_REQUEST,
            "Bad request",
            "The Authorization header does not hold one name and one password.",
        ),
        PasswordError::Browser => (StatusCode::FORBIDDEN, "Access denied", "Passwords are not taken from browsers."),
        PasswordError::TooMany(_) | PasswordError::Unavailable(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "Unavailable", "The password can't be verified at the moment.")
        }
        PasswordError::Answer(_) | PasswordError::IdToken(_) => {
            (StatusCode::BAD_GATEWAY, "Unavailable", "The password can't be verified.")
        }
        PasswordError::Refused | PasswordError::Map(_) | PasswordError::Route(_) => {
            (StatusCode::UNAUTHORIZED, "Not signed in", "The name and the password are not accepted here.")
        }
        PasswordError::Insufficient(_) => {
            (StatusCode::UNAUTHORIZED, "Not signed in", "This needs a stronger or more recent sign-in than a password.")
        }
    };
    let notice = Notice::new(status, error.code(), Page::Error, title, message);
    let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(5);
    let step_up = match error {
        PasswordError::Insufficient(demand) => Some(demand.clone()),
        _ => None,
    };
    Notice { retry_after, step_up, ..notice }
}

fn unusable_answer(code: &'static str) -> Notice<'static> {
    let message = "The answer that came back from the sign-in page is not one we can use.";
    Notice::new(StatusCode::BAD_REQUEST, code, Page::SignInFailed, "Sign-in failed", message)
        .advice(AGAIN)
        .action("/", "Try again")
}

const UNREADABLE: &str = "The request can't be read in one clear way, so it was not passed on.";

/// The cause of a chain of sign-ins that came to nothing.
fn chain_text(cause: StrayCause) -> (&'static str, &'static str) {
    match cause {
        StrayCause::NoCookie => (
            "Your browser did not send back the cookie that this site had set, so the sign-in could not be finished.",
            "Cookies may be switched off or blocked for this site. Allow them and try again.",
        ),
        StrayCause::OtherBrowser => (
            "The sign-in was started in another browser or another profile of this one.",
            "Finish the sign-in in the browser where you started it, or start anew here.",
        ),
        StrayCause::Stale => ("The sign-in took too long.", "Please try again and finish within ten minutes."),
        StrayCause::Unreadable => {
            ("The answer that came back from the sign-in page does not belong to this site.", TELL)
        }
        StrayCause::Repeated | StrayCause::CodeSpent => {
            ("The sign-in had been used already, and signing in again did not help.", AGAIN)
        }
        StrayCause::SessionLost => (
            "You signed in, but your browser did not send back the session that this site had set.",
            "Cookies may be limited for this site, or its settings changed in between. Allow cookies and try again.",
        ),
        StrayCause::NotSufficient => (
            "You signed in, but not in the way, or not as recently, as this page asks for.",
            "Please try again, or tell the people who run this site the request id below.",
        ),
        StrayCause::ProviderRestart => ("The sign-in page gave up several times in a row.", AGAIN),
    }
}

impl ProviderFault {
    fn notice(&self) -> Notice<'static> {
        let failed = |status, code, message| {
            Notice::new(status, code, Page::SignInFailed, "Sign-in failed", message)
                .advice(AGAIN)
                .action("/", "Try again")
        };
        let away = |code| {
            let message = "The sign-in service can't be reached at the moment.";
            let notice =
                Notice::new(StatusCode::SERVICE_UNAVAILABLE, code, Page::Unavailable, "Sign-in unavailable", message);
            Notice { retry_after: Some(5), ..notice.advice("Please try again in a moment.").retry() }
        };
        match self {
            Self::Start(AuthorizationError::ProviderUnknown(_)) => away("provider_unavailable"),
            Self::Start(
                AuthorizationError::Unsupported(_)
                | AuthorizationError::Push(PushError::Unsent(TokenError::Unsupported(_))),
            )
            | Self::Token(TokenError::Unsupported(_)) => failed(
                StatusCode::BAD_GATEWAY,
                "provider_unsupported",
                "The sign-in service does not offer the way of signing in that this site is set up for.",
            ),
            Self::Start(AuthorizationError::Push(error)) => match error {
                PushError::Http(_) => away("pushed_request_unreachable"),
                PushError::Unsent(TokenError::Proof(_)) => {
                    failed(StatusCode::INTERNAL_SERVER_ERROR, "client_proof", UNPROVEN)
                }
                PushError::Unsent(_) => away("token_calls_busy"),
                PushError::Refused { .. } => failed(
                    StatusCode::BAD_GATEWAY,
                    "pushed_request_refused",
                    "The sign-in service refused the sign-in.",
                ),
                PushError::MediaType(_) => failed(StatusCode::BAD_GATEWAY, "provider_media_type", UNBELIEVED),
                PushError::Status(_) | PushError::Response { .. } => {
                    failed(StatusCode::BAD_GATEWAY, "pushed_request_answer", UNBELIEVED)
                }
            },
            Self::Start(AuthorizationError::Unsigned(_)) | Self::Token(TokenError::Proof(_)) => {
                failed(StatusCode::INTERNAL_SERVER_ERROR, "client_proof", UNPROVEN)
            }
            Self::Authorization { .. } => {
                failed(StatusCode::BAD_GATEWAY, "authorization_refused", "The sign-in service refused the sign-in.")
            }
            Self::CallbackIssuer => failed(StatusCode::BAD_REQUEST, "callback_issuer", UNBELIEVED),
            Self::Token(TokenError::ProviderUnknown) => away("provider_unavailable"),
            Self::Token(TokenError::Busy) => away("token_calls_busy"),
            Self::Token(TokenError::Http(_)) => away("token_endpoint_unreachable"),
            Self::Token(TokenError::Status(_)) => failed(StatusCode::BAD_GATEWAY, "token_endpoint_status", UNBELIEVED),
            // A spent code never ends here: the callback helps the person on.
            Self::Token(TokenError::InvalidGrant | TokenError::Refused { .. }) => {
                failed(StatusCode::BAD_GATEWAY, "token_refused", UNBELIEVED)
            }
            Self::Token(TokenError::MediaType(_)) | Self::Userinfo(UserinfoError::MediaType(_)) => {
                failed(StatusCode::BAD_GATEWAY, "provider_media_type", UNBELIEVED)
            }
            Self::Token(TokenError::Response { .. }) => failed(StatusCode::BAD_GATEWAY, "token_response", UNBELIEVED),
            Self::IdToken(error @ (IdTokenError::Acr | IdTokenError::AuthTime)) => failed(
                StatusCode::BAD_GATEWAY,
                error.code(),
                "The sign-in service did not make sure of who you are in the way that this page asks for.",
            ),
            Self::IdToken(error) => failed(StatusCode::BAD_GATEWAY, error.code(), UNBELIEVED),
            Self::Userinfo(_) => {
                failed(StatusCode::BAD_GATEWAY, "userinfo", "The sign-in service did not say who you are.")
            }
        }
    }
}

const UNPROVEN: &str = "This site can't show the sign-in service who it is.";
const UNBELIEVED: &str = "The answer of the sign-in service can't be accepted, so you are not signed in.";

fn upstream_notice(error: &UpstreamError) -> Notice<'static> {
    let message = match error {
        UpstreamError::Connect(_)
        | UpstreamError::Closed(_)
        | UpstreamError::Invalid
        | UpstreamError::Certificate(_)
        | UpstreamError::Tls(_) => "The application behind this page is not answering properly.",
        UpstreamError::ConnectTimeout | UpstreamError::ResponseTimeout | UpstreamError::TotalTimeout => {
            "The application behind this page is taking too long to answer."
        }
        UpstreamError::IdleTimeout => "The application behind this page has stopped taking what you sent.",
        UpstreamError::OwnToken(_) => "The application behind this page can't be asked at the moment.",
        UpstreamError::SessionEnded => return ClientFault::SessionEnded.notice(),
        UpstreamError::TunnelRefused => {
            let message = "What was asked for is not to be had at this address.";
            return Notice::new(error.status(), error.code(), Page::Error, "Not implemented", message);
        }
        UpstreamError::BodyTooLarge => return ClientFault::BodyTooLarge.notice(),
        UpstreamError::BodyTooSlow => return ClientFault::BodyTooSlow.notice(),
        UpstreamError::BodyIdle => return ClientFault::BodyIdle.notice(),
        UpstreamError::RequestBody => {
            let message = "The request broke off before it was complete.";
            return Notice::new(error.status(), error.code(), Page::Error, "Bad request", message);
        }
        UpstreamError::File(FileError::NotFound(_)) => {
            let message = "There is nothing at this address.";
            return Notice::new(error.status(), error.code(), Page::Error, "Not found", message)
                .action("/", "Go to the front page");
        }
        UpstreamError::File(FileError::Unreadable(_)) => "This page cannot be shown at the moment.",
        UpstreamError::Method { allow } => return ClientFault::Method { allow }.notice(),
        UpstreamError::Rewrite(_) => {
            return Notice::new(error.status(), error.code(), Page::Error, "Bad request", UNREADABLE);
        }
    };
    let retry_after = (error.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(5);
    let notice = Notice::new(error.status(), error.code(), Page::Unavailable, "Application unavailable", message)
        .advice(
            "Please try again in a moment. If it keeps failing, tell the people who run this site the request id below.",
        )
        .retry();
    Notice { retry_after, ..notice }
}

/// The session store is away.
fn away_notice(message: &'static str) -> Notice<'static> {
    let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, NoSession::from(Away).code());
    let notice = Notice::new(status, code, Page::Error, "Not available right now", message);
    Notice { retry_after: Some(5), ..notice.advice(AGAIN).retry() }
}

fn create_notice(error: &CreateError) -> Notice<'static> {
    let (code, message) = match error {
        CreateError::Away(Away) => return away_notice("You cannot be signed in at the moment."),
        CreateError::Ended => return ClientFault::SessionEnded.notice(),
        CreateError::Map(error) => {
            (error.code(), Cow::from("Your account lacks something that this site needs to know who you are."))
        }
        // The name of a claim is no secret, and it is what the person's administrator has to look for.
        CreateError::TooLarge(error) => (
            "session_too_large",
            Cow::from(format!(
                "Your account has more data than fits into a session; the largest part is \u{201c}{}\u{201d}.",
                error.claim
            )),
        ),
    };
    Notice::new(StatusCode::INTERNAL_SERVER_ERROR, code, Page::SignInFailed, "Sign-in failed", message).advice(TELL)
}

/// The operator's line: reason code, full chain of causes, request id.
pub fn log(rejection: &Rejection, notice: &Notice<'_>, request: &str) {
    let cause = chain(rejection);
    let reason = notice.code;
    match rejection {
        // That the store is away was said once; each request of everybody would say it again.
        Rejection::NoEndpoint | Rejection::Client(_) | Rejection::Store(_) => {
            info!(reason, request, cause, "request refused")
        }
        // Whoever asked can cause these at will.
        Rejection::Upstream(error) if error.status().is_client_error() => {
            info!(reason, request, cause, "request refused");
        }
        Rejection::Upstream(error) => warn!(reason, request, cause, remedy = error.remedy(), "request failed"),
        Rejection::Provider(_) | Rejection::Ourselves(_) => {
            warn!(reason, request, cause, "request failed");
        }
    }
}
