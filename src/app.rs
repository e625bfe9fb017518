//! The composition root: the only place that knows every concrete type.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::admission::Admission;
use crate::authn::api_clients::ApiClients;
use crate::authn::bearer::Bearer;
use crate::authn::oidc::client_credentials::{self, OwnToken};
use crate::authn::oidc::login::Logins;
use crate::authn::oidc::{Provider, Providers};
use crate::authn::password::Passwords;
use crate::authn::renewal::Renewals;
use crate::authn::roles::Mapper;
use crate::authn::session::ended::{EndedSessions, JournalError};
use crate::authn::session::kept::KeptPosts;
use crate::authn::session::seal::{KeyRing, Purpose};
use crate::authn::session::{Binding, Sessions};
use crate::clock::SharedClock;
use crate::config::{SecretFiles, Settings};
use crate::endpoints::Endpoints;
use crate::endpoints::admin::AdminApi;
use crate::endpoints::health::{AdminState, serve_admin};
use crate::errands::Errands;
use crate::gateway::{Gateway, Parts};
use crate::message::Origin;
use crate::message::return_to::ReturnRules;
#[cfg(feature = "acme")]
use crate::provider_http::ProviderHttp;
use crate::provider_http::SetupError;
use crate::rate::{Per, RateLimit};
use crate::reply::pages::{Pages, TemplateProblem};
use crate::reply::{Framing, Replies};
use crate::route::{Endpoint, RouteProblem, Routes};
use crate::secret::SecretString;
use crate::server::drain::Drain;
use crate::server::{self, Address, BindError};
use crate::store::{Location, Store, StoreError};
use crate::telemetry;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Fleet, Tunnels, Upstreams};

/// Why the program does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The proxy's own listener.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// The admin listener.
    #[error("cannot listen for health and metrics on {address}")]
    AdminListen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The redirect URI has no origin.
    #[error("the redirect URI is not an http or https URL")]
    RedirectUri,
    /// Routes that `config` should have refused.
    #[error("the routes cannot be used: {0:?}")]
    Routes(Vec<(usize, RouteProblem)>),
    /// Templates that can't be used.
    #[error("the page templates cannot be used: {0:?}")]
    Pages(Vec<TemplateProblem>),
    /// The client towards the provider.
    #[error(transparent)]
    ProviderHttp(#[from] SetupError),
    /// The folder of the certificate from an authority.
    #[cfg(feature = "acme")]
    #[error(transparent)]
    Acme(#[from] crate::acme::AcmeError),
    /// The session store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of ended sessions.
    #[error(transparent)]
    Ended(#[from] JournalError),
    /// No thread or runtime to be had.
    #[error("the runtime cannot be started")]
    Runtime(#[from] io::Error),
}

/// A running proxy.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<Address>,
    admin_address: Option<SocketAddr>,
    stop: CancellationToken,
    admin_stop: CancellationToken,
    ended: CancellationToken,
    server: JoinHandle<()>,
    /// What is to be finished before the end, or before all else is cut; how long that is at most.
    errands: (Errands, CancellationToken, Duration),
    control: Control,
}

/// The control runtime. Dropping a runtime waits for its threads, which panics inside another one; this never waits.
#[derive(Debug)]
struct Control(Option<Runtime>);

impl Control {
    fn start() -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Ok(Self(Some(builder.worker_threads(1).thread_name("control").enable_all().build()?)))
    }

    fn handle(&self) -> &Handle {
        // Only `end` and `drop` take the runtime, and both are the last to see it.
        self.0.as_ref().expect("the runtime is there until the end").handle()
    }

    fn end(mut self, within: Duration) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(within);
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Running {
    /// Where requests are taken, with real ports, in the order of the settings.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The first of them that has an address and port.
    pub fn address(&self) -> Option<SocketAddr> {
        self.addresses.iter().find_map(Address::tcp)
    }

    /// Where health and metrics are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Begins the drain.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Resolves when every worker is gone: after a drain, or because none of them could start or go on.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.ended.clone().cancelled_owned()
    }

    /// Returns when the drain has ended.
    pub fn wait(self) {
        if self.server.join().is_err() {
            warn!("the server thread panicked");
        }
        let (errands, cut, within) = self.errands;
        errands.finish(cut, within);
        self.admin_stop.cancel();
        self.control.end(Duration::from_secs(1));
        telemetry::flush();
    }
}

/// Starts everything and returns at once; the provider may be away. What can fail comes first and the listeners last, so
/// that a failure leaves nothing running and no client ever reached a proxy that did not start.
///
/// # Errors
/// [`StartError`].
pub fn start(settings: Settings, clock: SharedClock) -> Result<Running, StartError> {
    telemetry::install(&settings.telemetry);
    let redirect_uri = settings.providers.first().ok_or(StartError::RedirectUri)?.redirect_uri.clone();
    let origin = Origin::of(&redirect_uri).ok_or(StartError::RedirectUri)?;
    let rules = return_rules(&settings, &origin);
    let pages = Arc::new(Pages::new(&settings.pages).map_err(StartError::Pages)?);
    let routes = Arc::new(Routes::new(settings.routes).map_err(StartError::Routes)?);

    // Everything slow (provider calls, health, the drain's clock) runs beside the workers.
    let control = Control::start()?;
    let errands = Errands::on(control.handle().clone());
    let start = |settings| Provider::new(settings, control.handle().clone(), Arc::clone(&clock));
    let providers = settings.providers.into_iter().map(start).collect::<Result<_, _>>()?;
    let providers = Providers::new(providers).ok_or(StartError::RedirectUri)?;

    let ended = match &settings.session.state_dir {
        Some(folder) => EndedSessions::kept_in(folder, Arc::clone(&clock))?,
        None => Arc::new(EndedSessions::new(Arc::clone(&clock))),
    };
    let open = |location: &Option<Location>| {
        location.as_ref().map(|location| Store::new(location, control.handle().clone())).transpose()
    };
    let store = open(&settings.session.store)?;
    let shared = if store.is_some() { store.clone() } else { open(&settings.session.share)? };
    if let Some(shared) = shared.clone() {
        ended.share(shared, settings.session.remembered_for(), control.handle());
    }
    let ended_unwritten = {
        let ended = Arc::clone(&ended);
        move || ended.unwritten()
    };
    let for_posts = store.clone();
    let ring = KeyRing::new(&settings.session.secrets);
    let for_secrets = ring.clone();
    let foreign = providers.iter().filter_map(|provider| provider.settings().credentials.client_secret.clone());
    let secrets = (settings.session.secrets.clone(), foreign.chain(settings.admin.token.clone()).collect());
    let binding = Binding {
        ring: &ring,
        origin: &origin,
        secure: redirect_uri.scheme() == "https",
        providers: providers.iter().map(|provider| provider.settings().signatory()).collect(),
        passes_access_token: settings.upstreams.iter().any(|upstream| upstream.access_token),
        ended,
        store,
        shared,
        errands: errands.clone(),
    };
    let logout_state = ring.sealer(Purpose::Logout, "logout", &origin);
    let demands = ring.sealer(Purpose::Demand, "demand", &origin);
    let kept_posts = settings.session.keep_posts;
    let kept_posts =
        kept_posts.map(|keep| KeptPosts::new(keep, ring.clone(), origin.clone(), for_posts, Arc::clone(&clock)));
    let mapper = Mapper::new(settings.identity);
    let bearer = settings.bearer.map(|bearer| {
        let mapper = mapper.clone();
        Bearer::new(bearer, providers.clone(), mapper, binding.passes_access_token, Arc::clone(&clock))
    });
    let password = providers.iter().enumerate().find(|(_, provider)| provider.settings().insecure_password_grant);
    let passwords = password.map(|(index, provider)| {
        let whom = (index, Arc::clone(provider));
        Passwords::new(whom, mapper.clone(), binding.passes_access_token, Arc::clone(&clock))
    });
    let passwords = passwords.transpose()?;
    let framing = Framing::by(&settings.session.cookie.framed_by);
    let sessions = Arc::new(Sessions::new(settings.session, mapper, binding, Arc::clone(&clock)));
    let api_clients = Some(settings.endpoints.api_clients)
        .filter(|on| on.device_code)
        .map(|on| ApiClients::new(on, providers.clone(), &ring, &origin, Arc::clone(&clock)));
    let logins = Logins::new(ring, &origin, sessions.jar().clone(), Arc::clone(&clock));
    let endpoints = Arc::new(Endpoints {
        sign_ins: settings.endpoints.sign_in_rate.map(|rate| RateLimit::new(Per::Client, rate)),
        backchannel_logouts: RateLimit::new(Per::Client, Endpoints::BACKCHANNEL_LOGOUTS),
        frontchannel_logouts: Arc::new(RateLimit::new(Per::Client, Endpoints::FRONTCHANNEL_LOGOUTS)),
        request_objects: RateLimit::new(Per::Client, Endpoints::REQUEST_OBJECTS),
        settings: settings.endpoints,
        providers: providers.clone(),
        sessions: Arc::clone(&sessions),
        logins,
        api_clients,
        logout_state,
        demands,
        kept_posts,
        routes: Arc::clone(&routes),
        rules,
    });
    let own_token = |wanted: &client_credentials::Settings| {
        OwnToken::new(Arc::clone(providers.at(wanted.provider)), wanted.clone())
    };
    let own_tokens: Vec<_> =
        settings.upstreams.iter().map(|upstream| upstream.own_token.as_ref().map(own_token)).collect();
    let lifetimes = sessions.lifetimes();
    let for_metrics = Arc::clone(&sessions);
    let api = settings.admin.token.as_ref().map(|token| Arc::new(AdminApi::new(token, Arc::clone(&sessions))));
    let renewals = Renewals::new(providers.clone(), Arc::clone(&sessions), Arc::clone(&clock));
    #[cfg(feature = "acme")]
    let for_acme = Arc::clone(&clock);
    let admission = Arc::new(Admission::new((sessions, renewals), bearer, passwords, origin, clock));

    let metrics = Metrics::new();
    let drain = Drain::default();
    let admin_stop = CancellationToken::new();
    let trust = Arc::new(settings.message);
    let make_gateway = {
        let drain_metrics = Arc::clone(&metrics);
        let fleet = Fleet::start(&settings.upstreams, control.handle());
        fleet.show(&metrics);
        let log = settings.telemetry.access_log;
        let tunnels = Tunnels { running: drain.tunnels.clone(), closing: drain.closing.clone() };
        move |_worker| {
            let counters = drain_metrics.worker();
            Gateway::new(Parts {
                trust: Arc::clone(&trust),
                routes: Arc::clone(&routes),
                admission: Arc::clone(&admission),
                endpoints: Arc::clone(&endpoints),
                replies: Replies::new(Arc::clone(&pages), counters.clone(), log, settings.hsts.clone())
                    .with_framing(framing.clone()),
                upstreams: Upstreams::new(&fleet, Arc::clone(&trust), lifetimes.clone(), counters, tunnels.clone())
                    .with_own_tokens(&own_tokens),
            })
        }
    };
    #[cfg(feature = "acme")]
    let make_gateway = {
        let challenges = match settings.acme {
            Some(acme) => start_acme(acme, &control, for_acme)?,
            None => None,
        };
        move |worker| crate::acme::WithChallenges::new(challenges.clone(), make_gateway(worker))
    };
    let stop = CancellationToken::new();
    let ended = CancellationToken::new();
    let admin = {
        let _entered = control.handle().enter();
        settings.admin.listen.map(admin_listener).transpose()?
    };
    let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
    let bound = server::bind(settings.server.clone())?;
    let addresses = bound.addresses().to_vec();
    if let Some(expiry) = bound.certificate_expiry() {
        let help = "When the first of the TLS certificates in use ends, since the Unix epoch.";
        metrics.gauge("tls_certificate_expiry_timestamp_seconds", help, expiry);
    }
    let help = "Sessions that ended without being written to the state folder in time.";
    metrics.counter("ended_sessions_unwritten", help, ended_unwritten);
    if for_metrics.store_is_up().is_some() {
        let help = "Whether the session store answers (1) or not (0).";
        metrics.gauge("session_store_up", help, move || u64::from(for_metrics.store_is_up() == Some(true)));
    }
    metrics.gauge("connections", "Open connections of clients, tunnels included.", bound.open_connections());
    control.handle().spawn(bound.reload());
    let serve = {
        let drain = drain.clone();
        // Told however the thread ends.
        let ended = ended.clone().drop_guard();
        move || {
            let _ended = ended;
            bound.serve(make_gateway, drain);
        }
    };
    let server = std::thread::Builder::new().name("server".to_owned()).spawn(serve)?;
    let background = control.handle();
    if let Some(listener) = admin {
        let state = admin_state(&metrics, &drain, &providers, api);
        background.spawn(serve_admin(listener, state, admin_stop.clone()));
    }
    let errands = (errands, drain.cut.clone(), settings.server.drain.timeout);
    background.spawn(drain.run(stop.clone().cancelled_owned(), settings.server.drain));
    for provider in providers.iter() {
        background.spawn(Arc::clone(provider).run());
        background.spawn(Arc::clone(provider).watch_files(settings.server.reload_interval));
    }
    if let Some(files) = settings.secret_files {
        background.spawn(watch_secrets(files, secrets, for_secrets, settings.server.reload_interval));
    }
    Ok(Running { addresses, admin_address, stop, admin_stop, ended, server, errands, control })
}

/// Before the listener, which reads the certificate that is made here at the first start.
#[cfg(feature = "acme")]
fn start_acme(
    settings: crate::acme::Settings,
    control: &Control,
    clock: SharedClock,
) -> Result<Option<crate::acme::Challenges>, StartError> {
    let http = crate::provider_http::Settings { ca_file: settings.ca_file.clone(), ..Default::default() };
    let http = ProviderHttp::new(http, control.handle().clone())?;
    let manager = crate::acme::Manager::new(settings, http, clock)?;
    let challenges = manager.challenges();
    control.handle().spawn(manager.run());
    Ok(challenges)
}

/// Looks at the files of the session's secrets every so often, and goes on with what they hold. What cannot be used leaves
/// those in use, and is told once; so is a secret that somebody else has, `foreign` to sessions. Never ends.
async fn watch_secrets(
    files: SecretFiles,
    (mut known, foreign): (Vec<SecretString>, Vec<SecretString>),
    ring: KeyRing,
    every: Duration,
) {
    let is_same = |one: &SecretString, other: &SecretString| one.expose_secret() == other.expose_secret();
    let mut told = None;
    loop {
        tokio::time::sleep(every).await;
        let asked = files.clone();
        // A panic in there ends the watch; the secrets in use stay.
        let Ok(read) = tokio::task::spawn_blocking(move || asked.read()).await else { return };
        let problem = match read {
            Ok(secrets) if secrets.iter().any(|secret| foreign.iter().any(|other| is_same(secret, other))) => {
                "one of them is a secret that is used for something else too".to_owned()
            }
            Ok(secrets) => {
                if secrets.len() != known.len() || !secrets.iter().zip(&known).all(|(one, other)| is_same(one, other)) {
                    ring.replace(&secrets);
                    let count = secrets.len();
                    tracing::info!(secrets = count, "session secrets reloaded: the first seals from now on, all open");
                    known = secrets;
                }
                told = None;
                continue;
            }
            Err(error) => telemetry::chain(&error),
        };
        if told.as_ref() != Some(&problem) {
            tracing::error!(
                reason = "session_secrets_unusable",
                problem,
                "session secrets not reloaded, those in use stay"
            );
            told = Some(problem);
        }
    }
}

/// Nobody is sent back into our own endpoints: that would loop.
fn return_rules(settings: &Settings, own: &Origin) -> ReturnRules {
    let callbacks = settings.routes.endpoints.iter().filter(|(endpoint, _)| matches!(endpoint, Endpoint::Callback(_)));
    let mut own_paths = vec![settings.routes.prefix.clone()];
    own_paths.extend(callbacks.map(|(_, path)| path.clone()));
    let kept_post = settings.endpoints.kept_post_path.clone();
    ReturnRules { own: own.clone(), allowed: settings.endpoints.return_origins.clone(), own_paths, kept_post }
}

/// Must be called inside the runtime that will serve it.
fn admin_listener(address: SocketAddr) -> Result<tokio::net::TcpListener, StartError> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    bind().map_err(|source| StartError::AdminListen { address, source })
}

fn admin_state(metrics: &Arc<Metrics>, drain: &Drain, providers: &Providers, api: Option<Arc<AdminApi>>) -> AdminState {
    let providers = providers.clone();
    AdminState {
        api,
        metrics: Arc::clone(metrics),
        draining: drain.draining.clone(),
        provider_status: Arc::new(move || {
            let away = providers.iter().filter_map(|provider| {
                let why = match (provider.metadata(), provider.last_error()) {
                    (Some(_), _) => return None,
                    (None, Some(error)) => telemetry::chain(&*error),
                    (None, None) => "the provider has not been asked yet".to_owned(),
                };
                Some(if providers.iter().len() > 1 { format!("{}: {why}", provider.settings().id) } else { why })
            });
            let away = away.collect::<Vec<_>>().join("; ");
            if away.is_empty() { Ok(()) } else { Err(away) }
        }),
    }
}
