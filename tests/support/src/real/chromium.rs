//! Chromium, as a person sees it.

use std::future::Future;
use std::time::{Duration, Instant};

use fantoccini::error::CmdError;
use fantoccini::wd::WindowHandle;
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};

use super::{STEP, address};
use crate::runtime;

const AT_TEST_HOSTS: [&str; 2] = ["--host-resolver-rules=MAP *.test 127.0.0.1", "--ignore-certificate-errors"];

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
        Self::start_with(json!({})).await
    }

    /// The same with each host below `.test` on this machine, the certificates of tests taken for good, and cookies of third
    /// parties.
    ///
    /// # Panics
    /// As [`Chromium::start`].
    pub async fn start_with_third_party_cookies() -> Self {
        let on = json!({ "profile.cookie_controls_mode": 0, "profile.block_third_party_cookies": false });
        Self::start_with(json!({ "args": AT_TEST_HOSTS, "prefs": on })).await
    }

    /// The same again without cookies of third parties.
    ///
    /// # Panics
    /// As [`Chromium::start`].
    pub async fn start_without_third_party_cookies() -> Self {
        // Everywhere, and not only in windows that leave no traces.
        let off = json!({ "profile.cookie_controls_mode": 1, "profile.block_third_party_cookies": true });
        Self::start_with(json!({ "args": AT_TEST_HOSTS, "prefs": off })).await
    }

    async fn start_with(mut options: Value) -> Self {
        let driver = address("TESTS_WEBDRIVER");
        let mut args = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-proxy-server",
            "--window-size=1000,800",
        ]);
        let more = options["args"].as_array().cloned().unwrap_or_default();
        args.as_array_mut().expect("written as a list above").extend(more);
        options["args"] = args;
        let Value::Object(capabilities) = json!({ "goog:chromeOptions": options }) else {
            unreachable!("written as an object")
        };
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
