//! The bounded HTTP client towards providers: own TLS roots, a deadline, a size cap, no redirects, `HTTPS_PROXY`/`NO_PROXY`.
//!
//! Every call is a task of its own on the thread that asks for it, over connections of that thread: a client that goes away does
//! not cut a token call in two, and no answer wakes a second thread.

use std::error::Error;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thread_local::ThreadLocal;
use tokio::net::TcpStream;
use tower_service::Service;

#[cfg(test)]
pub(crate) mod test_server;

/// How providers are reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Extra roots in PEM (`OIDC_CA_FILE`), beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The deadline of one call, connection included. Default 15 s: some providers take ten for a token.
    pub timeout: Duration,
    /// The largest answer, in bytes. Default 1 MiB.
    pub max_response: usize,
    /// http beyond loopback (`allow_insecure_http`).
    pub allow_insecure_http: bool,
    /// Of TLS 1.2 only the suites that BCP 195 recommends (RFC 9325 §4.2).
    pub recommended_suites: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ca_file: None,
            timeout: Duration::from_secs(15),
            max_response: 1 << 20,
            allow_insecure_http: false,
            recommended_suites: false,
        }
    }
}

/// The client. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct ProviderHttp {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Made by the first call, on the control runtime: reading the system's roots takes longer than all else that a start does.
    tls: OnceLock<Tls>,
    clients: ThreadLocal<HttpClient>,
    means: Means,
    settings: Settings,
    control: tokio::runtime::Handle,
}

type HttpClient = Client<HttpsConnector<Outward>, Full<Bytes>>;

/// What the client is made of.
#[derive(Debug)]
struct Means {
    /// Those of `ca_file`.
    roots: rustls::RootCertStore,
    proxy: Arc<Matcher>,
    certificate: Option<Arc<dyn ResolvesClientCert>>,
}

/// How a server is spoken to. Clones share what they resume.
#[derive(Debug, Clone)]
struct Tls {
    to_provider: Arc<rustls::ClientConfig>,
    to_proxy: Arc<rustls::ClientConfig>,
}

impl Means {
    fn tls(&self, settings: &Settings) -> Tls {
        let plain = Arc::new(tls_config(self.roots.clone(), settings));
        let to_provider = match &self.certificate {
            Some(certificate) => {
                let mut showing = (*plain).clone();
                showing.client_auth_cert_resolver = Arc::clone(certificate);
                // What was resumed would be ours under the certificate of then.
                showing.resumption = Resumption::disabled();
                Arc::new(showing)
            }
            None => Arc::clone(&plain),
        };
        Tls { to_provider, to_proxy: plain }
    }

    fn client(&self, settings: &Settings, tls: Tls) -> HttpClient {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared out between the addresses of a name, so that one dead address does not use up the whole deadline.
        tcp.set_connect_timeout(Some(settings.timeout));
        let to_proxy = HttpsConnector::from((tcp.clone(), tls.to_proxy));
        let outward = Outward { tcp, to_proxy, proxy: Arc::clone(&self.proxy) };
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            // Below the 5 s after which common servers close: a token call that crosses their close cannot be sent again.
            .pool_idle_timeout(Duration::from_secs(4))
            .pool_max_idle_per_host(16)
            .build(HttpsConnector::from((outward, tls.to_provider)))
    }
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProviderHttpError {
    /// No connection, or it broke.
    #[error("the provider could not be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The certificate that we show, or that we show none (an alert of RFC 8446 §6.2).
    #[error("the provider refuses the certificate that we show to it, or wants one")]
    ClientCertificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing, or too little, within the deadline.
    #[error("the provider did not answer in time")]
    Timeout,
    /// More bytes than allowed.
    #[error("the provider's answer is larger than allowed")]
    TooLarge,
    /// A 3xx; never followed.
    #[error("the provider answered with a redirect")]
    Redirect,
    /// http beyond loopback.
    #[error("the provider's address is not https")]
    Insecure,
}

/// An answer that is no JSON by its `Content-Type`: a page of another server, as a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the provider's answer is not JSON: its content type is {found:?}")]
pub struct WrongMediaType {
    /// As it came, cut to 128 characters; empty where there is none, or more than one.
    pub found: String,
}

/// Whether an answer says that it is JSON: `application/json`, as every specification here asks for, or a type built on it such
/// as `application/jwk-set+json` (RFC 6839 §3.1, RFC 7517 §8.5.2).
///
/// # Errors
/// [`WrongMediaType`].
pub fn check_json(answer: &Response<Bytes>) -> Result<(), WrongMediaType> {
    match media_type(answer) {
        Some(kind) if kind == "application/json" => Ok(()),
        Some(kind) if kind.starts_with("application/") && kind.ends_with("+json") => Ok(()),
        found => Err(WrongMediaType { found: found.unwrap_or_default().chars().take(128).collect() }),
    }
}

/// What an answer says that it is, in lower case and without parameters; `None` where it does not say, or says two things.
pub fn media_type(answer: &Response<Bytes>) -> Option<String> {
    let mut fields = answer.headers().get_all(header::CONTENT_TYPE).iter();
    let (first, second) = (fields.next()?, fields.next());
    let text = first.to_str().ok().filter(|_| second.is_none())?;
    Some(text.split(';').next()?.trim().to_ascii_lowercase())
}

impl ProviderHttpError {
    /// Whether the provider may have read the request: not where no connection came about.
    pub fn may_have_been_read(&self) -> bool {
        match self {
            Self::Unreachable(source) | Self::ClientCertificate(source) => {
                let error = source.downcast_ref::<hyper_util::client::legacy::Error>();
                !error.is_some_and(hyper_util::client::legacy::Error::is_connect)
            }
            Self::Timeout | Self::TooLarge | Self::Redirect => true,
            // Refused by the address alone.
            Self::Insecure => false,
        }
    }
}

/// Why the client could not be built.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file of extra roots cannot be read or holds no certificate.
    #[error("the CA file {path} cannot be used: {reason}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that says who we are cannot be used.
    #[error("{0}")]
    Client(String),
}

impl ProviderHttp {
    /// Builds the client; calls will run on `control`. System roots are best-effort, and read by the first call (an empty store is logged).
    ///
    /// # Errors
    /// [`SetupError`] when `ca_file` cannot be used.
    pub fn new(settings: Settings, control: tokio::runtime::Handle) -> Result<Self, SetupError> {
        Self::with_proxy(settings, control, Matcher::from_env(), None)
    }

    /// The same, showing a certificate to every server that asks for one.
    ///
    /// # Errors
    /// [`SetupError`] as [`ProviderHttp::new`].
    pub fn showing(
        settings: Settings,
        control: tokio::runtime::Handle,
        certificate: Arc<dyn ResolvesClientCert>,
    ) -> Result<Self, SetupError> {
        Self::with_proxy(settings, control, Matcher::from_env(), Some(certificate))
    }

    /// One call: whole answer or error. The status is the caller's to judge, except 3xx, which is an error.
    ///
    /// The call goes on when the returned future is dropped, up to its deadline or the end of its thread's runtime; what must
    /// outlive a worker is called on [`ProviderHttp::control`].
    ///
    /// # Errors
    /// [`ProviderHttpError`].
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ProviderHttpError> {
        let inner = Arc::clone(&self.inner);
        let call = tokio::spawn(async move {
            tokio::time::timeout(inner.settings.timeout, Arc::clone(&inner).call(request))
                .await
                .unwrap_or(Err(ProviderHttpError::Timeout))
        });
        // Only a runtime that is shutting down loses its tasks.
        call.await.unwrap_or_else(|lost| Err(ProviderHttpError::Unreachable(Box::new(lost))))
    }

    /// The control runtime, for work around calls that must outlive a client that goes away.
    pub fn control(&self) -> &tokio::runtime::Handle {
        &self.inner.control
    }

    fn with_proxy(
        settings: Settings,
        control: tokio::runtime::Handle,
        proxy: Matcher,
        certificate: Option<Arc<dyn ResolvesClientCert>>,
    ) -> Result<Self, SetupError> {
        let mut roots = rustls::RootCertStore::empty();
        if let Some(path) = &settings.ca_file {
            add_ca_file(&mut roots, path)
                .map_err(|reason| SetupError::CaFile { path: path.to_owned(), reason: reason.to_string() })?;
        }
        let means = Means { roots, proxy: Arc::new(proxy), certificate };
        Ok(Self {
            inner: Arc::new(Inner { tls: OnceLock::new(), clients: ThreadLocal::new(), means, settings, control }),
        })
    }
}

impl Inner {
    /// The client of this thread. To clone it shares its connections.
    async fn client(self: &Arc<Self>) -> Result<HttpClient, ProviderHttpError> {
        if let Some(client) = self.clients.get() {
            return Ok(client.clone());
        }
        let tls = match self.tls.get() {
            Some(tls) => tls.clone(),
            None => {
                let this = Arc::clone(self);
                let made =
                    self.control.spawn(async move { this.tls.get_or_init(|| this.means.tls(&this.settings)).clone() });
                made.await.map_err(|lost| ProviderHttpError::Unreachable(Box::new(lost)))?
            }
        };
        Ok(self.clients.get_or(|| self.means.client(&self.settings, tls)).clone())
    }

    async fn call(self: Arc<Self>, mut request: Request<Bytes>) -> Result<Response<Bytes>, ProviderHttpError> {
        let uri = request.uri();
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default().to_owned());
        if !may_be_called(scheme, &host, self.settings.allow_insecure_http) {
            return Err(ProviderHttpError::Insecure);
        }
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        // The legacy client sends a request again only if no byte of it was written to a pooled connection that had
        // closed, which is right for the token endpoint too.
        let response = self
            .client()
            .await?
            .request(request.map(Full::new))
            .await
            .map_err(|error| match refuses_certificate(&error) {
                true => {
                    tracing::warn!(reason = "client_certificate_refused", %host, "the provider refuses our certificate, or wants one");
                    ProviderHttpError::ClientCertificate(Box::new(error))
                }
                false => ProviderHttpError::Unreachable(Box::new(error)),
            })?;
        if response.status().is_redirection() {
            return Err(ProviderHttpError::Redirect);
        }
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, self.collect(body).await?))
    }

    async fn collect(&self, mut body: Incoming) -> Result<Bytes, ProviderHttpError> {
        use http_body::Body as _;

        let limit = self.settings.max_response;
        if body.size_hint().lower() > limit as u64 {
            return Err(ProviderHttpError::TooLarge);
        }
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ProviderHttpError::Unreachable(Box::new(error)))?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > limit {
                return Err(ProviderHttpError::TooLarge);
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }
}

/// Whether the other side said, by an alert, that our certificate is what it will not have: with TLS 1.3 it says so only after a
/// handshake that looked well from here.
fn refuses_certificate(error: &(dyn Error + 'static)) -> bool {
    use rustls::AlertDescription as Alert;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::AlertReceived(alert)) = error.downcast_ref() {
            return matches!(
                alert,
                Alert::NoCertificate
                    | Alert::BadCertificate
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::CertificateExpired
                    | Alert::CertificateUnknown
                    | Alert::UnknownCA
                    | Alert::AccessDenied
                    | Alert::CertificateRequired
            );
        }
        // An io::Error gives the source of what it wraps, and not that itself.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// Whether an address is good enough for secrets; `allow_insecure_http` lets http pass.
fn may_be_called(scheme: &str, host: &str, allow_insecure_http: bool) -> bool {
    is_protected(scheme, host) || (allow_insecure_http && scheme == "http")
}

/// Whether nobody on the way can read along: https, or http that does not leave this machine.
pub(crate) fn is_protected(scheme: &str, host: &str) -> bool {
    match scheme {
        "https" => true,
        "http" => is_loopback(host),
        _ => false,
    }
}

/// 127.0.0.0/8, `::1` and `localhost` (RFC 6761 §6.3).
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    }
}

/// RFC 9325 §4.2; every suite of TLS 1.3 is.
fn is_recommended(suite: &rustls::SupportedCipherSuite) -> bool {
    use rustls::CipherSuite;
    suite.tls13().is_some()
        || matches!(
            suite.suite(),
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        )
}

/// Trusts `roots` and, best-effort, those of the system.
fn tls_config(mut roots: rustls::RootCertStore, settings: &Settings) -> rustls::ClientConfig {
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        tracing::warn!("no TLS roots were found on this system; install ca-certificates or set OIDC_CA_FILE");
    }
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if settings.recommended_suites {
        provider.cipher_suites.retain(is_recommended);
    }
    rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        // Fails only for a provider without suites for TLS 1.2 and 1.3; this one's set is fixed when we are built.
        .expect("aws-lc-rs has suites for the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Whether a file of extra roots can be used, for whoever asks before anything is built.
///
/// # Errors
/// [`SetupError`], as [`ProviderHttp::new`] would.
pub fn check_ca_file(path: &Path) -> Result<(), SetupError> {
    add_ca_file(&mut rustls::RootCertStore::empty(), path)
        .map_err(|reason| SetupError::CaFile { path: path.to_owned(), reason: reason.to_string() })
}

fn add_ca_file(roots: &mut rustls::RootCertStore, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut found = 0;
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
        found += 1;
    }
    if found == 0 {
        return Err("it holds no PEM certificate".into());
    }
    Ok(())
}

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("vestibule/", env!("CARGO_PKG_VERSION")));

type BoxError = Box<dyn Error + Send + Sync>;

/// The way out of this machine: straight, or for https through the proxy that the environment names.
#[derive(Debug, Clone)]
struct Outward {
    tcp: HttpConnector,
    to_proxy: HttpsConnector<HttpConnector>,
    proxy: Arc<Matcher>,
}

impl Outward {
    fn proxy_for(&self, target: &Uri) -> Option<Intercept> {
        if target.scheme_str() != Some("https") || is_loopback(target.host()?) {
            return None;
        }
        self.proxy.intercept(target)
    }
}

impl Service<Uri> for Outward {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let Some(proxy) = self.proxy_for(&target) else {
            let connecting = self.tcp.call(target);
            return Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        let connecting = tunnel.call(target);
        Box::pin(async move { Ok(connecting.await?) })
    }
}

#[cfg(test)]
mod tests;
