//! The real parts: providers and the WebDriver that `tests/run` has started once for the whole run, and how a person uses
//! them, with Chromium or without.

mod chromium;
mod forms;
mod pages;
mod registration;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fantoccini::Locator;
use fantoccini::error::CmdError;

pub use chromium::Chromium;

use crate::TlsClient;
use crate::browser::Browser;

/// How long any one step in a browser may take.
const STEP: Duration = Duration::from_secs(20);

/// A real provider, and which of its clients the proxy is.
#[derive(Debug, Clone)]
pub struct RealProvider {
    /// Its issuer.
    pub issuer: String,
    client_id: String,
    client_secret: String,
    /// The lines of `[provider]` that stand in the place of the secret.
    options: Option<String>,
    /// Another way there for the proxy.
    backchannel: Option<SocketAddr>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Keycloak,
    OidcProvider,
    Dex,
}

impl RealProvider {
    /// Keycloak with the realm of `tests/real/keycloak/realm.json`.
    ///
    /// # Panics
    /// When the runner has not started it.
    pub fn keycloak() -> Self {
        let issuer = format!("{}/realms/vestibule", address("TESTS_KEYCLOAK"));
        Self::new(issuer, "keycloak-client-secret-of-the-tests", Kind::Keycloak)
    }

    /// The same by https, where it takes client certificates. The authority is [`RealProvider::ca_file`]; a [`Browser`] gets
    /// there by [`RealProvider::let_in`].
    ///
    /// # Panics
    /// When the runner has not started it.
    pub fn keycloak_by_https() -> Self {
        let issuer = format!("{}/realms/vestibule", address("TESTS_KEYCLOAK_HTTPS"));
        Self::new(issuer, "keycloak-client-secret-of-the-tests", Kind::Keycloak)
    }

    /// node oidc-provider as `tests/real/oidc-provider` sets it up. Its endpoints for client certificates are by https, with
    /// the authority of [`RealProvider::ca_file`].
    ///
    /// # Panics
    /// When the runner has not started it.
    pub fn oidc_provider() -> Self {
        Self::new(address("TESTS_OIDC_PROVIDER"), "oidc-provider-client-secret-of-the-tests", Kind::OidcProvider)
    }

    /// Dex as `tests/real/dex/config.yaml` sets it up: no sign-out, no session of its own, groups by the scope `groups`.
    ///
    /// # Panics
    /// When the runner has not started it.
    pub fn dex() -> Self {
        Self::new(address("TESTS_DEX"), "dex-client-secret-of-the-tests", Kind::Dex)
    }

    fn new(issuer: String, client_secret: &str, kind: Kind) -> Self {
        crate::trace::secret("client secret", client_secret);
        let (client_id, client_secret) = ("vestibule".to_owned(), client_secret.to_owned());
        Self { issuer, client_id, client_secret, options: None, backchannel: None, kind }
    }

    /// Where it listens.
    ///
    /// # Panics
    /// Of a provider by https.
    pub fn address(&self) -> SocketAddr {
        let place = self.issuer.strip_prefix("http://").expect("a provider by http");
        place.split('/').next().unwrap_or(place).parse().expect("an address and a port")
    }

    /// Reached by way of `wire`, which leads to its [`RealProvider::address`].
    ///
    /// # Panics
    /// With Dex.
    pub fn behind(mut self, wire: SocketAddr) -> Self {
        match self.kind {
            // It takes the name by which it is asked for its own.
            Kind::Keycloak => self.issuer = format!("http://{wire}/realms/vestibule"),
            Kind::OidcProvider => self.backchannel = Some(wire),
            Kind::Dex => panic!("Dex has one name for everything"),
        }
        self
    }

    /// Whether it is Keycloak.
    pub fn is_keycloak(&self) -> bool {
        self.kind == Kind::Keycloak
    }

    /// Another of its clients that has the same secret: each is named for what it shows.
    pub fn client(mut self, name: &str) -> Self {
        name.clone_into(&mut self.client_id);
        self
    }

    /// Another of its clients, with lines of `[provider]` in the place of the secret.
    pub fn client_with(mut self, name: &str, options: &str) -> Self {
        self.options = Some(options.to_owned());
        self.client(name)
    }

    /// The client id registered there.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The client secret registered there.
    pub fn client_secret(&self) -> &str {
        &self.client_secret
    }

    /// The authority of every certificate that the providers show, PEM.
    ///
    /// # Panics
    /// When the runner has not made it.
    pub fn ca_file() -> String {
        address("TESTS_CA")
    }

    /// The certificate that clients may show, and its key, PEM.
    ///
    /// # Panics
    /// When the runner has not made them.
    pub fn client_certificate() -> (String, String) {
        (address("TESTS_CLIENT_CERT"), address("TESTS_CLIENT_KEY"))
    }

    /// A private key that clients have registered, by its name below `tests/real/keys`: `ps256` for `test-ps256.pem`.
    pub fn key_file(name: &str) -> String {
        format!("{}/../real/keys/test-{name}.pem", env!("CARGO_MANIFEST_DIR"))
    }

    /// The `[provider]` section for a stage.
    pub fn toml(&self) -> String {
        // The stage has a secret of its own, which must go where this client has none.
        let unset = if self.options.is_some() { "client_secret = unset\n" } else { "" };
        format!("[provider]\n{unset}{}", self.lines())
    }

    /// The `[providers.NAME]` section for a stage that has several.
    pub fn toml_as(&self, name: &str) -> String {
        format!("[providers.{name}]\n{}", self.lines())
    }

    fn lines(&self) -> String {
        let secret = format!("client_secret = \"{}\"", self.client_secret);
        let options = self.options.as_ref().unwrap_or(&secret);
        let signed_out = match self.kind {
            Kind::Keycloak | Kind::OidcProvider => {
                "post_logout_redirect_uri = \"http://localhost:{port}/auth/signed-out\"\n"
            }
            Kind::Dex => "",
        };
        let way = self.backchannel.map(|wire| format!("backchannel_url = \"http://{wire}\"\n")).unwrap_or_default();
        format!("issuer = \"{}\"\nclient_id = \"{}\"\n{signed_out}{way}{options}\n", self.issuer, self.client_id)
    }

    /// Lets a user agent reach this provider by https.
    ///
    /// # Panics
    /// When the authority can't be read.
    pub fn let_in(&self, browser: Browser) -> Browser {
        let Some(place) = self.issuer.strip_prefix("https://") else { return browser };
        let place = place.split('/').next().unwrap_or(place);
        browser.connect(&format!("https://{place}"), place.parse().expect("an address and a port"));
        let ca = std::fs::read_to_string(Self::ca_file()).expect("the authority's certificate");
        browser.with_tls(TlsClient::trusting_pem(&ca))
    }

    /// Whether the page shows a login form that asks for a password.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn asks_for_password(&self, chromium: &Chromium) -> Result<bool, CmdError> {
        Ok(!chromium.client.find_all(Locator::Css(self.password_field())).await?.is_empty())
    }

    /// Fills the login form in, sends it, and consents where that is asked for; returns once the browser is back at
    /// `origin`.
    ///
    /// # Errors
    /// When the browser does not answer, or a step takes too long.
    pub async fn sign_in(&self, chromium: &Chromium, name: &str, origin: &str) -> Result<(), CmdError> {
        let client = &chromium.client;
        client.wait().at_most(STEP).for_element(Locator::Css(self.password_field())).await?;
        let name_field = match self.kind {
            Kind::Keycloak => "#username",
            Kind::OidcProvider | Kind::Dex => "input[name=login]",
        };
        client.find(Locator::Css(name_field)).await?.send_keys(&self.login_name(name)).await?;
        client.find(Locator::Css(self.password_field())).await?.send_keys(&format!("{name}-password")).await?;
        let button = match self.kind {
            Kind::Keycloak => "#kc-login",
            Kind::OidcProvider | Kind::Dex => "button[type=submit]",
        };
        client.find(Locator::Css(button)).await?.click().await?;
        match self.kind {
            Kind::Keycloak => {}
            Kind::OidcProvider => self.consent(chromium, origin, "input[name=prompt][value=consent]").await?,
            Kind::Dex => self.consent(chromium, origin, "input[name=approval][value=approve]").await?,
        }
        chromium.wait_for_origin(origin).await
    }

    async fn consent(&self, chromium: &Chromium, origin: &str, consent: &str) -> Result<(), CmdError> {
        chromium
            .until("the consent page or the application", || async {
                let there = !chromium.client.find_all(Locator::Css(consent)).await?.is_empty();
                Ok(there || chromium.is_at(origin).await?)
            })
            .await?;
        if !chromium.is_at(origin).await? {
            chromium.client.find(Locator::Css("button[type=submit]")).await?.click().await?;
        }
        Ok(())
    }

    /// Ends a sign-in that was begun in this tab before the person signed in by another: some providers go on by
    /// themselves, others still show their form.
    ///
    /// # Errors
    /// When the browser does not answer, or a step takes too long.
    pub async fn finish_in_another_tab(&self, chromium: &Chromium, name: &str, origin: &str) -> Result<(), CmdError> {
        let patience = Instant::now() + Duration::from_secs(3);
        while Instant::now() < patience {
            if chromium.is_at(origin).await? {
                return chromium.wait_for_origin(origin).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.sign_in(chromium, name, origin).await
    }

    /// Confirms the sign-out where the provider asks; returns once the browser is back at `origin`.
    ///
    /// # Errors
    /// When the browser does not answer, or a step takes too long.
    pub async fn confirm_sign_out(&self, chromium: &Chromium, origin: &str) -> Result<(), CmdError> {
        if self.kind == Kind::OidcProvider {
            let yes = Locator::Css("button[name=logout][value=yes]");
            chromium.client.wait().at_most(STEP).for_element(yes).await?.click().await?;
        }
        chromium.wait_for_origin(origin).await
    }

    fn password_field(&self) -> &'static str {
        match self.kind {
            Kind::Keycloak => "#password",
            Kind::OidcProvider | Kind::Dex => "input[name=password]",
        }
    }

    /// What a person of this name types in.
    fn login_name(&self, name: &str) -> String {
        match self.kind {
            Kind::Keycloak | Kind::OidcProvider => name.to_owned(),
            Kind::Dex => format!("{name}@example.com"),
        }
    }
}

fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: ./tests/run starts the real parts, ./tests/run fast leaves these tests out")
    })
}
