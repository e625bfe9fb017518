//! Session secrets are added and retired while the proxy runs, and nobody is signed out by what is added.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use vestibule_test_support::script::head;
use vestibule_test_support::{Browser, Ended, Launch, Stage, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");
const OLD: &str = "Xq7-mVt2_Kd9zLr4wNc8YbHs1PfJg6Ue3Ra5TiOo0";

struct Rotating {
    folder: tempfile::TempDir,
    stage: Stage,
}

impl Rotating {
    fn with(toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, format!("{OLD}\n")).unwrap();
        let toml = toml.replace("{folder}", &folder.path().display().to_string());
        let stage = Stage::with(&format!("[session]\nsecret = unset\nsecret_file = \"{}\"\n{toml}", path.display()));
        Self { folder, stage }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    fn rotate(&self, arguments: &[&str]) {
        let ended = rotate(&self.path(), arguments);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    }

    /// Somebody who signed in once another secret seals than the one that sealed `before`.
    async fn sealed_anew(&self, before: &Browser) -> Browser {
        let before = self.cookie(before);
        let mut browser = self.stage.signed_in_browser().await;
        until("another secret seals", async || {
            browser = self.stage.signed_in_browser().await;
            key(&self.cookie(&browser)) != key(&before)
        })
        .await;
        browser
    }

    async fn asks_to_sign_in(&self, browser: &Browser) -> bool {
        self.stage.asks_to_sign_in(&browser.stolen_copy().get(&self.stage.url("/")).await)
    }

    fn cookie(&self, browser: &Browser) -> String {
        browser.cookie(&self.stage.origin(), "vestibule").expect("a session").value
    }

    async fn assert_signed_out(&self, browser: &Browser) {
        self.stage.upstream.forget();
        let reply = browser.get(&self.stage.url("/")).await;
        assert!(self.stage.asks_to_sign_in(&reply), "{} {}", reply.status, reply.text());
        self.stage.upstream.assert_untouched();
        let again = self.stage.sign_in(browser, "/").await;
        assert_eq!(again.status, StatusCode::OK, "a clean new sign-in");
    }
}

fn rotate(path: &Path, arguments: &[&str]) -> Ended {
    let ended = Launch::of(PROGRAM).args(["rotate-secret"]).args([path]).args(arguments).run();
    let text = std::fs::read_to_string(path).unwrap_or_default();
    for secret in text.split_whitespace().chain([OLD]) {
        assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "a secret is shown: {ended:?}");
    }
    ended
}

/// Version and key id stand in clear before everything else.
fn key(cookie: &str) -> &str {
    cookie.trim_start_matches('.').get(..6).expect("a sealed text")
}

/// One connection that is kept.
struct Connection(TcpStream, String);

impl Connection {
    async fn of(stage: &Stage, browser: &Browser) -> Self {
        let cookies = browser.cookie_line(&stage.origin());
        let request = format!("HEAD / HTTP/1.1\r\nHost: {}\r\nCookie: {cookies}\r\n\r\n", stage.host());
        Self(TcpStream::connect(stage.address()).await.unwrap(), request)
    }

    async fn status(&mut self) -> String {
        self.0.write_all(self.1.as_bytes()).await.unwrap();
        head(&mut self.0).await.get(9..12).unwrap_or_default().to_owned()
    }
}

#[tokio::test]
async fn a_secret_is_added_and_retired_without_a_restart_and_only_what_it_sealed_ends() {
    for store in ["", "store = \"sqlite:{folder}/sessions.db\""] {
        if !store.is_empty() && !cfg!(feature = "sql") {
            continue;
        }
        let rotating = Rotating::with(store);
        let stage = &rotating.stage;
        let old = stage.signed_in_browser().await;
        let mut kept = Connection::of(stage, &old).await;
        assert_eq!([kept.status().await, kept.status().await], ["200", "200"]);
        // Somebody is in the middle of a sign-in.
        let midway = stage.browser();
        let sent = midway.get(&stage.url("/page")).await;
        assert!(stage.asks_to_sign_in(&sent));

        rotating.rotate(&[]);
        let new = rotating.sealed_anew(&old).await;
        assert_eq!(kept.status().await, "200");
        stage.assert_signed_in(&old).await;
        let landed = midway.follow_reply(sent, 10).await;
        assert_eq!((landed.status, landed.url.path()), (StatusCode::OK, "/page"), "{}", landed.text());

        rotating.rotate(&["--retire", "--keep", "1"]);
        until("it is retired", async || rotating.asks_to_sign_in(&old).await).await;
        assert_eq!(kept.status().await, "401", "what a connection remembers ends with the secret");
        rotating.assert_signed_out(&old).await;
        stage.assert_signed_in(&new).await;
    }
}

#[tokio::test]
async fn with_several_replicas_a_secret_is_known_to_all_before_one_seals_with_it() {
    let rotating = Rotating::with("");
    let stage = &rotating.stage;
    let before = stage.signed_in_browser().await;
    rotating.rotate(&["--second"]);
    // Nothing shows that it was read, so this is time enough for it; too little would only show less.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let between = stage.signed_in_browser().await;
    assert_eq!(key(&rotating.cookie(&between)), key(&rotating.cookie(&before)), "the first goes on sealing");
    rotating.rotate(&["--promote"]);
    let after = rotating.sealed_anew(&before).await;
    for browser in [&before, &between, &after] {
        stage.assert_signed_in(browser).await;
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing() {
    let rotating = Rotating::with("");
    let stage = &rotating.stage;
    let browser = stage.signed_in_browser().await;
    let client_secret = stage.provider.client_secret();
    for text in ["", "short", "changeme-changeme-changeme-changeme", client_secret] {
        std::fs::write(rotating.path(), text).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.assert_signed_in(&browser).await;
    }
    std::fs::remove_file(rotating.path()).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stage.assert_signed_in(&browser).await;
    // Another one altogether ends what the one before sealed.
    std::fs::write(rotating.path(), "k7Rw2vXq9LmTz4NcYb8HfJd3GsPa6Ue1\n").unwrap();
    until("it is taken in", async || rotating.asks_to_sign_in(&browser).await).await;
}

#[test]
fn a_file_that_holds_no_good_secrets_is_not_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    for (text, why) in
        [("", "holds no secret"), ("SENTINEL", "too short"), ("listen = \"0.0.0.0:8080\"\n", "too short")]
    {
        std::fs::write(&path, text).unwrap();
        let ended = rotate(&path, &[]);
        assert_eq!(ended.code, Some(78), "{ended:?}");
        assert!(ended.stderr.contains(why) && !ended.stderr.contains("SENTINEL"), "{ended:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    assert_eq!(rotate(&folder.path().join("none"), &[]).code, Some(1));
    assert_eq!(rotate(folder.path(), &[]).code, Some(1));
    std::fs::write(&path, OLD).unwrap();
    for wrong in [
        ["--second", "--promote"].as_slice(),
        &["--retire", "--second"],
        &["--keep", "2"],
        &["--retire", "--keep", "0"],
    ] {
        assert_eq!(rotate(&path, wrong).code, Some(64), "{wrong:?}");
    }
    assert_eq!(rotate(&path, &["--promote"]).code, Some(78));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), OLD);
}
