//! The real parts: providers and the WebDriver that `tests/run` has started once for the whole run, and how a person uses
//! them in a browser.

use std::future::Future;
use std::time::{Duration, Instant};

use fantoccini::error::CmdError;
use fantoccini::wd::WindowHandle;
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};

use crate::browser::{Browser, Reply};
use crate::runtime;

/// How long any one step in a browser may take.
const STEP: Duration = Duration::from_secs(20);

/// A real provider.
#[derive(Debug, Clone)]
pub struct RealProvider {
    /// Its issuer.
    pub issuer: String,
    client_secret: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Keycloak,
    OidcProvider,
}

impl RealProvider {
    /// Keycloak with the realm of `tests/real/keycloak/realm.json`.
    ///
    /// # Panics
    /// When the runner has not started it.
    pub fn keycloak() -> Self {
        Self {
            issuer: format!("{}/realms/vestibule", address("TESTS_KEYCLOAK")),
            client_secret: "keycloak-client-secret-of-the-tests",
            kind: Kind::Keycloak,
        }
    }

    /// node oidc-provider as `tests/real/oidc-provider/server.mjs` sets it up.
    ///
    /// # Panics
    /// When the runner has not started it.
    pub fn oidc_provider() -> Self {
        Self {
            issuer: address("TESTS_OIDC_PROVIDER"),
            client_secret: "oidc-provider-client-secret-of-the-tests",
            kind: Kind::OidcProvider,
        }
    }

    /// The client id registered there.
    pub fn client_id(&self) -> &'static str {
        "vestibule"
    }

    /// The client secret registered there.
    pub fn client_secret(&self) -> &'static str {
        self.client_secret
    }

    /// The `[provider]` section for a stage.
    pub fn toml(&self) -> String {
        format!(
            "[provider]\nissuer = \"{}\"\nclient_id = \"{}\"\nclient_secret = \"{}\"\n\
             post_logout_redirect_uri = \"http://localhost:{{port}}/auth/signed-out\"\n",
            self.issuer,
            self.client_id(),
            self.client_secret,
        )
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
            Kind::OidcProvider => "input[name=login]",
        };
        client.find(Locator::Css(name_field)).await?.send_keys(name).await?;
        client.find(Locator::Css(self.password_field())).await?.send_keys(&format!("{name}-password")).await?;
        let button = match self.kind {
            Kind::Keycloak => "#kc-login",
            Kind::OidcProvider => "button[type=submit]",
        };
        client.find(Locator::Css(button)).await?.click().await?;
        if self.kind == Kind::OidcProvider {
            self.consent(chromium, origin).await?;
        }
        chromium.wait_for_origin(origin).await
    }

    async fn consent(&self, chromium: &Chromium, origin: &str) -> Result<(), CmdError> {
        let consent = "input[name=prompt][value=consent]";
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

    /// Fills in and sends the form on `page`, without a browser: only for Keycloak, whose form is one.
    ///
    /// # Panics
    /// When the page is not Keycloak's login form.
    pub async fn submit_form(&self, browser: &Browser, page: &Reply, name: &str) -> Reply {
        let html = page.text();
        let form = html.split_once("id=\"kc-form-login\"").map(|(_, form)| form);
        let action = form.and_then(|form| form.split_once("action=\"")).and_then(|(_, form)| form.split_once('"'));
        let Some((action, _)) = action else { panic!("{} {} is no login form: {html}", page.url, page.status) };
        let password = format!("{name}-password");
        let fields = [("username", name), ("password", password.as_str()), ("credentialId", "")];
        browser.submit(page.url.as_str(), &action.replace("&amp;", "&"), &fields).await
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
            Kind::OidcProvider => "input[name=password]",
        }
    }
}

/// A headless Chromium of its own, with an empty profile; closed when dropped.
#[derive(Debug)]
pub struct Chromium {
    /// The WebDriver client.
    pub client: Client,
}

impl Chromium {
    /// Opens a window.
    ///
    /// # Panics
    /// When the runner has not started the WebDriver, or it can't start a browser.
    pub async fn start() -> Self {
        let driver = address("TESTS_WEBDRIVER");
        let capabilities = json!({
            "goog:chromeOptions": {
                "args": [
                    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
                    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                    "--no-proxy-server", "--window-size=1000,800",
                ],
            },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("written as an object above") };
        // On the support runtime, so that the session can still be closed while a failing test unwinds.
        let connecting = runtime().spawn(async move {
            let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
            builder.capabilities(capabilities);
            builder.connect(&driver).await
        });
        let client = connecting.await.expect("a task that ends").expect("a browser session");
        Self { client }
    }

    /// Goes to `url` and returns once the page, or what it redirects to, has loaded.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn goto(&self, url: &str) -> Result<(), CmdError> {
        self.client.goto(url).await
    }

    /// What the application says about the request that the shown page came from.
    ///
    /// # Panics
    /// When the page is not one of the echo upstream.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn echo(&self) -> Result<Value, CmdError> {
        let text = self.text().await?;
        let url = self.client.current_url().await?;
        Ok(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url} shows no echo ({error}): {text}")))
    }

    /// The text of the page.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn text(&self) -> Result<String, CmdError> {
        let script = "return (document.querySelector('pre') || document.body).textContent";
        Ok(self.client.execute(script, Vec::new()).await?.as_str().unwrap_or_default().to_owned())
    }

    /// Whether the shown page belongs to `origin`.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn is_at(&self, origin: &str) -> Result<bool, CmdError> {
        Ok(self.client.current_url().await?.origin().ascii_serialization() == origin)
    }

    /// Waits until the shown page belongs to `origin` and has loaded.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn wait_for_origin(&self, origin: &str) -> Result<(), CmdError> {
        self.until(origin, || async {
            let loaded = self.client.execute("return document.readyState", Vec::new()).await? == "complete";
            Ok(loaded && self.is_at(origin).await?)
        })
        .await
    }

    /// Waits for the one element that `css` picks, and clicks it.
    ///
    /// # Errors
    /// When it does not appear, or the browser does not answer.
    pub async fn press(&self, css: &str) -> Result<(), CmdError> {
        self.client.wait().at_most(STEP).for_element(Locator::Css(css)).await?.click().await
    }

    /// Opens a tab and shows it.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn new_tab(&self) -> Result<WindowHandle, CmdError> {
        let tab = self.client.new_window(true).await?.handle;
        self.show(&tab).await?;
        Ok(tab)
    }

    /// Shows a tab.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn show(&self, tab: &WindowHandle) -> Result<(), CmdError> {
        self.client.switch_to_window(tab.clone()).await
    }

    /// Polls until `is_so`. A page that is being replaced while it is asked counts as "not yet".
    ///
    /// # Panics
    /// When it takes longer than 20 s.
    ///
    /// # Errors
    /// When the browser does not answer at all.
    pub async fn until<F, T>(&self, what: &str, is_so: F) -> Result<(), CmdError>
    where
        F: Fn() -> T,
        T: Future<Output = Result<bool, CmdError>>,
    {
        let end = Instant::now() + STEP;
        loop {
            let outcome = is_so().await;
            if matches!(outcome, Ok(true)) {
                return Ok(());
            }
            if Instant::now() > end {
                outcome?;
                let url = self.client.current_url().await?;
                panic!("waited for {what}; the browser shows {url}: {}", self.text().await?);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let client = self.client.clone();
        // A thread of its own: a test's runtime must not wait inside itself.
        let closing = std::thread::spawn(move || {
            runtime().block_on(async {
                let _ = tokio::time::timeout(STEP, client.close()).await;
            });
        });
        let _ = closing.join();
    }
}

fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: ./tests/run starts the real parts, ./tests/run fast leaves these tests out")
    })
}
