//! What we hold to be believed: keys, a certificate, a key that tokens are bound to; and the calls that are made with it. RFC
//! 9449 §5 and §7 (proofs), §8 and §9 (nonces), RFC 8705 §2, §3 and §5 (certificates, and where they are shown).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use openidconnect::HttpRequest;
use serde_json::Value;
use tokio::runtime::Handle;
use url::Url;

use super::assertion;
use super::client_auth::{self, ClientAuthMethod, Proof, ProofError};
use super::client_keys::{ClientKeys, KeyFiles};
use super::discovery::{Metadata, Unsupported};
use super::dpop::nonces::{Nonces, is_nonce_challenge};
use super::dpop::{Bound, DpopKey};
use super::jose::Algorithm;
use super::jws::{Fresh, SigningError};
use super::request_object;
use super::security::DpopSource;
use super::settings::Settings;
use super::tls_client::ClientCertificate;
use super::token_endpoint::TokenError;
use super::userinfo::{self, UserinfoError};
use crate::clock::SharedClock;
use crate::provider_http::{ProviderHttp, SetupError};
use crate::secret::SecretString;

/// Shared by all calls of one provider.
#[derive(Debug)]
pub(super) struct Ourselves {
    http: ProviderHttp,
    /// The same with our certificate.
    tls: Option<(ProviderHttp, Arc<ClientCertificate>)>,
    keys: Option<Arc<KeyFiles>>,
    /// Empty where tokens are bound to none; else the best first.
    dpop: Vec<DpopKey>,
    nonces: Nonces,
    clock: SharedClock,
}

const DPOP: HeaderName = HeaderName::from_static("dpop");

impl Ourselves {
    /// Reads the files. Blocks.
    pub(super) fn new(
        settings: &Settings,
        http: ProviderHttp,
        control: &Handle,
        clock: SharedClock,
    ) -> Result<Self, SetupError> {
        let security = &settings.security;
        let unusable = |what: &str, why: &dyn std::fmt::Display| SetupError::Client(format!("{what}: {why}"));
        let keys = match &*security.key_files {
            [] => None,
            files => {
                let keys = KeyFiles::open(files.to_vec()).map_err(|why| unusable("the client's keys", &why))?;
                Some(Arc::new(keys))
            }
        };
        let tls = match &security.certificate {
            Some((chain, Some(key))) => {
                let certificate = ClientCertificate::open(chain.clone(), key.clone());
                let certificate = Arc::new(certificate.map_err(|why| unusable("the client certificate", &why))?);
                let shown = Arc::clone(&certificate);
                Some((ProviderHttp::showing(settings.http.clone(), control.clone(), shown)?, certificate))
            }
            _ => None,
        };
        let dpop = security.dpop.as_ref().map(|source| dpop_keys(source, security.profile.algorithms()));
        let dpop = dpop.transpose().map_err(|why| unusable("the key for DPoP", &why))?.unwrap_or_default();
        if security.method == Some(ClientAuthMethod::InsecureXCert) {
            tracing::warn!(
                provider = settings.id,
                "client_auth_method = \"insecure_x_cert\" proves nothing: whoever has seen the certificate can be this client"
            );
        }
        Ok(Self { http, tls, keys, dpop, nonces: Nonces::default(), clock })
    }

    /// Takes changed files into use, for as long as it is polled.
    pub(super) async fn watch(&self, every: Duration) {
        let keys = self.keys.clone();
        let certificate = self.tls.as_ref().map(|(_, certificate)| Arc::clone(certificate));
        let keys = async move {
            if let Some(keys) = keys {
                keys.watch(every).await;
            }
        };
        let certificate = async move {
            if let Some(certificate) = certificate {
                certificate.watch(every).await;
            }
        };
        tokio::join!(keys, certificate);
    }

    /// Our public keys, where there are any.
    pub(super) fn public_keys(&self) -> Option<Value> {
        self.keys.as_ref().map(|keys| keys.current().public_jwks())
    }

    /// Our private keys; none where no files are named.
    pub(super) fn private_keys(&self) -> Arc<ClientKeys> {
        self.keys.as_ref().map_or_else(Arc::default, |keys| keys.current())
    }

    /// `dpop_jkt` (RFC 9449 §10).
    pub(super) fn jkt(&self, settings: &Settings, metadata: &Metadata) -> Result<Option<&str>, Unsupported> {
        Ok(self.dpop(settings, metadata)?.map(DpopKey::jkt))
    }

    /// The key that tokens are bound to, with an algorithm that the provider takes (RFC 9449 §5.1).
    fn dpop(&self, settings: &Settings, metadata: &Metadata) -> Result<Option<&DpopKey>, Unsupported> {
        let offered = &metadata.capabilities.dpop_signing_algs;
        let Some(best) = self.dpop.first() else { return Ok(None) };
        let unsupported = || Unsupported {
            provider: settings.id.clone(),
            key: if settings.security.dpop == Some(DpopSource::Process) { "dpop" } else { "dpop_key_file" },
            value: best.algorithm().to_owned(),
            offered: offered.clone(),
        };
        self.dpop.iter().find(|key| key.is_among(offered)).map(Some).ok_or_else(unsupported)
    }

    /// Sends a form to an endpoint that wants to know who we are. Where tokens are asked for and the answer is a nonce that
    /// the proof should have had (RFC 9449 §8), it is sent once more, with everything that may be used only once made anew.
    pub(super) async fn call(
        &self,
        settings: &Settings,
        metadata: &Metadata,
        request: HttpRequest,
    ) -> Result<Response<Bytes>, TokenError> {
        let method = client_auth::choose(settings, &metadata.capabilities).map_err(TokenError::Unsupported)?;
        let asks_for_tokens = client_auth::has(&request, "grant_type");
        let shows_certificate = method.is_tls() || (asks_for_tokens && settings.security.binds_by_tls());
        let (http, endpoint) = self.way(metadata, &request.uri().to_string(), shows_certificate);
        let endpoint = endpoint.ok_or(TokenError::Response { field: "endpoint" })?;
        let keys = self.keys.as_ref().map(|keys| keys.current());
        let dpop = self.dpop(settings, metadata).map_err(TokenError::Unsupported)?;
        let mut is_second = false;
        loop {
            let proof = Proof { settings, metadata, keys: keys.as_deref(), now: self.clock.now() };
            let mut one = proof.add(method, request.clone()).await?;
            *one.uri_mut() = endpoint.as_str().try_into().map_err(ProofError::new)?;
            if asks_for_tokens {
                self.bind(&mut one, &endpoint, None, dpop)?;
            }
            let answer = http.send(one.map(Bytes::from)).await.map_err(TokenError::Http)?;
            self.nonces.learn(&endpoint, answer.headers());
            if is_second || dpop.is_none() || !asks_for_tokens || !is_nonce_challenge(&answer) {
                return Ok(answer);
            }
            is_second = true;
        }
    }

    /// Asks a resource of the provider's with an access token, in the way that the token is bound; a nonce is answered once
    /// (RFC 9449 §9).
    pub(super) async fn fetch(
        &self,
        settings: &Settings,
        metadata: &Metadata,
        endpoint: &Url,
        access_token: &SecretString,
    ) -> Result<Response<Bytes>, UserinfoError> {
        let (http, endpoint) = self.way(metadata, endpoint.as_str(), settings.security.binds_by_tls());
        let endpoint = endpoint.ok_or(UserinfoError::Malformed)?;
        let dpop = self.dpop(settings, metadata).map_err(ProofError::new)?;
        let mut is_second = false;
        loop {
            let mut request = userinfo::request(&endpoint, settings.security.token_type(), access_token)?;
            self.bind(&mut request, &endpoint, Some(access_token.expose_secret()), dpop)?;
            let answer = http.send(request).await.map_err(UserinfoError::Http)?;
            self.nonces.learn(&endpoint, answer.headers());
            if is_second || dpop.is_none() || !is_nonce_challenge(&answer) {
                return Ok(answer);
            }
            is_second = true;
        }
    }

    /// The parameters of an authorization request as one signed object (RFC 9101 §4).
    pub(super) fn request_object(
        &self,
        settings: &Settings,
        metadata: &Metadata,
        parameters: &[(String, String)],
    ) -> Result<String, ProofError> {
        let names = &metadata.capabilities.request_signing_algs;
        let keys = self.keys.as_ref().ok_or_else(|| ProofError::new(SigningError::NoKey))?.current();
        let signer = client_auth::key_signer(&keys, names, settings).map_err(ProofError::new)?;
        let jti = client_auth::unguessable()?;
        let fresh = Fresh { now: self.clock.now(), jti: &jti };
        let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let id = &settings.credentials.client_id;
        request_object::request_object(&signer, id, &settings.issuer, parameters, fresh).map_err(ProofError::new)
    }

    /// The client and the address, with or without our certificate.
    fn way(&self, metadata: &Metadata, endpoint: &str, shows_certificate: bool) -> (&ProviderHttp, Option<Url>) {
        let plain = || Url::parse(endpoint).ok();
        match &self.tls {
            Some((tls, _)) if shows_certificate => {
                (tls, metadata.capabilities.by_tls(endpoint).cloned().or_else(plain))
            }
            _ => (&self.http, plain()),
        }
    }

    fn bind<B>(
        &self,
        request: &mut Request<B>,
        endpoint: &Url,
        access_token: Option<&str>,
        key: Option<&DpopKey>,
    ) -> Result<(), ProofError> {
        let Some(key) = key else { return Ok(()) };
        let nonce = self.nonces.of(endpoint);
        let bound = Bound { method: &request.method().clone(), url: endpoint, access_token, nonce: nonce.as_deref() };
        let jti = client_auth::unguessable()?;
        let proof = key.proof(&bound, Fresh { now: self.clock.now(), jti: &jti }).map_err(ProofError::new)?;
        request.headers_mut().insert(DPOP, HeaderValue::try_from(proof).map_err(ProofError::new)?);
        Ok(())
    }
}

/// Read once: tokens stay bound to the key that they were asked for with.
fn dpop_keys(
    source: &DpopSource,
    allowed: &[Algorithm],
) -> Result<Vec<DpopKey>, Box<dyn std::error::Error + Send + Sync>> {
    match source {
        DpopSource::Process => Ok(vec![DpopKey::generate()?]),
        DpopSource::File(path) => {
            let keys = ClientKeys::read(std::slice::from_ref(path))?;
            Ok(DpopKey::all(&keys, &assertion::preferred(allowed))?)
        }
    }
}
