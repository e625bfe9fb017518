//! A portal shows the application in a frame, in a real browser that keeps no cookies of third parties: Chromium decides which
//! cookies come into the frame, and whether the frame is shown.

use std::future::Future;
use std::time::Duration;

use vestibule_test_support::real::{Chromium, RealProvider};
use vestibule_test_support::{CertificateFiles, Endpoint, Stage, TestCa, Value, free_port};

/// No story takes longer.
const DEADLINE: Duration = Duration::from_secs(120);
/// `house.test`, `town.test` and `woods.test` are three sites.
const APP: &str = "app.house.test";
const PORTAL: &str = "portal.town.test";
const STRANGER: &str = "www.woods.test";

/// The application, and pages of two other hosts that have it in a frame.
struct Places {
    app: Stage,
    around: Stage,
    _files: [CertificateFiles; 2],
}

impl Places {
    fn start() -> Self {
        Self::with("")
    }

    /// `provider` is the `[provider]` section, less what belongs to this host.
    fn with(provider: &str) -> Self {
        let ca = TestCa::new();
        let files = [&[APP][..], &[PORTAL, STRANGER]].map(|names| CertificateFiles::new(&ca.sign(names)));
        let (port, around) = (free_port(), free_port());
        let app = Stage::builder().port(port).toml(&format!(
            "{provider}[provider]\nredirect_uri = \"https://{APP}:{port}/auth/callback\"\n\
             post_logout_redirect_uri = \"https://{APP}:{port}/auth/signed-out\"\n\
             [cookie]\nname = \"intranet\"\npartitioned = true\nframed_by = [\"https://{PORTAL}:{around}\"]\n{}",
            files[0].toml()
        ));
        let page = format!(
            "<!doctype html><title>Around</title><h1>Around</h1><iframe src='https://{APP}:{port}/page'></iframe>"
        );
        let around = Stage::builder().port(around).toml(&format!(
            "[upstream]\nurl = unset\n\
             [upstreams.page]\nrespond = {{ status = 200, content_type = \"text/html\", body = {page:?} }}\n\
             [[routes]]\npath = \"/*\"\nupstream = \"page\"\naccess = \"public\"\n{}",
            files[1].toml()
        ));
        Self { app: app.start(), around: around.start(), _files: files }
    }

    fn page(&self, host: &str) -> String {
        format!("https://{host}:{}/", self.around.address().port())
    }

    fn app(&self, path: &str) -> String {
        format!("https://{APP}:{}{path}", self.app.address().port())
    }

    fn reached(&self, path: &str) -> bool {
        self.app.upstream.requests().iter().any(|request| request.path() == path)
    }

    /// Signs out inside the frame: by a link that nobody clicked, so that a page of ours asks.
    async fn leave(&self, chromium: &Chromium) {
        let leave = "const link = document.createElement('a'); link.href = '/auth/logout'; document.body.append(link);\
                     link.click()";
        chromium.client.execute(leave, Vec::new()).await.unwrap();
        self.until_framed(chromium, "the question", |text| text.contains("Do you want to sign out")).await;
        chromium.press("main button").await.unwrap();
        self.until_framed(chromium, "the end", |text| text.contains("You have been signed out")).await;
    }

    /// Waits until the frame shows what `is_so` of its text.
    async fn until_framed(&self, chromium: &Chromium, what: &str, is_so: impl Fn(&str) -> bool) {
        chromium
            .until(what, || async {
                // Each page of a frame may be another document of another process.
                chromium.client.enter_parent_frame().await?;
                chromium.client.enter_frame(0).await?;
                Ok(is_so(&chromium.text().await?))
            })
            .await
            .unwrap();
    }
}

fn echo(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

fn is_signed_in(text: &str) -> bool {
    echo(text).is_some_and(|echo| echo["target"] == "/page" && echo["headers"].to_string().contains("x-forwarded-user"))
}

/// What a script in the shown document gets to know.
async fn run(chromium: &Chromium, script: &str) -> Value {
    let script =
        format!("const done = arguments[0]; (async () => {{ {script} }})().then(done, (error) => done(String(error)))");
    chromium.client.execute_async(&script, Vec::new()).await.unwrap()
}

async fn refusals(stage: &Stage, reason: &str) -> bool {
    let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
    metrics.lines().any(|line| line.contains(&format!("\"{reason}\"")) && !line.ends_with(" 0"))
}

#[tokio::test]
async fn a_person_signs_in_inside_a_frame_of_a_portal_and_of_no_stranger() {
    let story = async {
        let places = Places::start();
        let chromium = Chromium::start_without_third_party_cookies().await;

        // Nobody is sent to the provider in a stranger's frame, and nothing is shown there.
        chromium.goto(&places.page(STRANGER)).await.unwrap();
        chromium.client.enter_frame(0).await.unwrap();
        assert_eq!(run(&chromium, "return location.href").await, "chrome-error://chromewebdata/");
        assert_eq!(places.app.provider.count(Endpoint::Authorize), 0);
        places.app.upstream.assert_untouched();

        chromium.client.enter_parent_frame().await.unwrap();
        chromium.goto(&places.page(PORTAL)).await.unwrap();
        places.until_framed(&chromium, "the application in the frame", is_signed_in).await;
        assert_eq!(places.app.provider.count(Endpoint::Authorize), 1);
        // What this browser makes of cookies in a frame: partitioned ones only.
        let seen = run(
            &chromium,
            "const set = (line) => fetch('/respond?header=' + encodeURIComponent('set-cookie:' + line));\
             await set('plain=1; Secure; SameSite=None');\
             await set('apart=1; Secure; SameSite=None; Partitioned');\
             return await (await fetch('/seen')).text();",
        )
        .await;
        let seen = seen.as_str().unwrap();
        assert!(seen.contains("apart=1") && !seen.contains("plain=1") && !seen.contains("intranet"), "{seen}");

        // A page of the portal has the same jar in its window, and gets nowhere with it.
        chromium.client.enter_parent_frame().await.unwrap();
        assert!(!refusals(&places.app, "foreign_origin").await);
        for (path, options) in [
            ("/read", "{ mode: 'no-cors', credentials: 'include' }"),
            ("/write", "{ mode: 'no-cors', credentials: 'include', method: 'POST', body: 'a=1' }"),
        ] {
            run(&chromium, &format!("await fetch('{}', {options}); return 'sent'", places.app(path))).await;
            assert!(!places.reached(path), "{path}");
        }
        assert!(refusals(&places.app, "foreign_origin").await, "the session came along");

        // The same frame in a stranger's page is still not shown, and has no session.
        let before = places.app.upstream.count();
        chromium.goto(&places.page(STRANGER)).await.unwrap();
        chromium.client.enter_frame(0).await.unwrap();
        assert_eq!(run(&chromium, "return location.href").await, "chrome-error://chromewebdata/");
        assert_eq!((places.app.provider.count(Endpoint::Authorize), places.app.upstream.count()), (1, before));

        chromium.client.enter_parent_frame().await.unwrap();
        chromium.goto(&places.page(PORTAL)).await.unwrap();
        places.until_framed(&chromium, "the session is still there", is_signed_in).await;
        assert_eq!(places.app.provider.count(Endpoint::Authorize), 1);

        // Signed out inside the frame: the deletions count there.
        places.leave(&chromium).await;
        assert_eq!(places.app.provider.count(Endpoint::EndSession), 1);
        chromium.client.enter_parent_frame().await.unwrap();
        chromium.goto(&places.page(PORTAL)).await.unwrap();
        places.until_framed(&chromium, "the application once more", is_signed_in).await;
        assert_eq!(places.app.provider.count(Endpoint::Authorize), 2);
    };
    within_the_deadline(story).await;
}

#[tokio::test]
async fn a_window_has_a_session_of_its_own_beside_the_frames() {
    let story = async {
        let places = Places::start();
        let chromium = Chromium::start_without_third_party_cookies().await;
        chromium.goto(&places.app("/page")).await.unwrap();
        chromium.until("the window", || async { Ok(is_signed_in(&chromium.text().await?)) }).await.unwrap();
        chromium.goto(&places.page(PORTAL)).await.unwrap();
        places.until_framed(&chromium, "the frame", is_signed_in).await;
        assert_eq!(places.app.provider.count(Endpoint::Authorize), 2);
        chromium.client.enter_parent_frame().await.unwrap();
        chromium.goto(&places.app("/auth/logout")).await.unwrap();
        chromium.goto(&places.page(PORTAL)).await.unwrap();
        places.until_framed(&chromium, "the frame goes on", is_signed_in).await;
        assert_eq!(places.app.provider.count(Endpoint::Authorize), 2);
    };
    within_the_deadline(story).await;
}

/// Its cookies are `SameSite=None`, and not partitioned: only where a browser takes cookies of third parties does it know the form
/// again that it showed in a frame.
#[tokio::test]
async fn a_person_signs_in_and_out_at_keycloak_inside_the_frame() {
    let story = async {
        let provider = RealProvider::keycloak().client("vestibule-framed");
        let places = Places::with(&provider.toml());
        let chromium = Chromium::start_with_third_party_cookies().await;
        chromium.goto(&places.page(PORTAL)).await.unwrap();
        places.until_framed(&chromium, "the form in the frame", |text| text.contains("Password")).await;
        places.app.upstream.assert_untouched();
        // The window stays where it is.
        let around = places.page(PORTAL);
        provider.sign_in(&chromium, "ada", around.trim_end_matches('/')).await.unwrap();
        places.until_framed(&chromium, "the application in the frame", is_signed_in).await;
        chromium.client.enter_parent_frame().await.unwrap();

        // Keycloak would know the person in a stranger's frame, too, if anybody asked it.
        places.app.upstream.forget();
        chromium.goto(&places.page(STRANGER)).await.unwrap();
        chromium.client.enter_frame(0).await.unwrap();
        assert_eq!(run(&chromium, "return location.href").await, "chrome-error://chromewebdata/");
        places.app.upstream.assert_untouched();
        chromium.client.enter_parent_frame().await.unwrap();

        chromium.goto(&places.page(PORTAL)).await.unwrap();
        places.until_framed(&chromium, "the session is still there", is_signed_in).await;
        places.leave(&chromium).await;
        chromium.client.enter_parent_frame().await.unwrap();
        chromium.goto(&places.page(PORTAL)).await.unwrap();
        places.until_framed(&chromium, "the form once more", |text| text.contains("Password")).await;
    };
    within_the_deadline(story).await;
}

async fn within_the_deadline(story: impl Future<Output = ()>) {
    tokio::time::timeout(DEADLINE, story).await.expect("the story took too long");
}
