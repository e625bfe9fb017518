//! The program as a process: whatever the world does to it it keeps running and says why something failed, it counts what it
//! does, and it stops as it is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vestibule::config::{self, Sources};
use vestibule_test_support::{
    DiscoveryFault, Endpoint, FakeProvider, IdTokenFault, Launch, Site, TestClock, free_port, raw_request,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");

/// Configuration with a public part beside the guarded rest.
fn launch(site: &Site) -> Launch {
    let public = "[[routes]]\npath = \"/public/*\"\naccess = \"public\"\n[[routes]]\npath = \"/sse\"\naccess = \"public\"\n\
                  [[routes]]\npath = \"/slow\"\naccess = \"public\"\n[[routes]]\npath = \"/die-mid-body\"\naccess = \"public\"\n";
    site.launch().env("VESTIBULE_CONFIG", site.file("vestibule.toml", public)).env("VESTIBULE_LOG_FORMAT", "json")
}

#[tokio::test]
async fn a_provider_that_cannot_be_used_at_the_start_is_told_and_waited_for() {
    // What is wrong, what the log says is wrong, and what it says to do.
    for (fault, cause, fix) in [
        (None, "Connection refused", "look at the issuer's host name"),
        (Some(DiscoveryFault::OtherIssuer), "https://other.example.com", "write the issuer exactly"),
        (Some(DiscoveryFault::IssuerWithSlash), "names the issuer", "to the last slash"),
        (Some(DiscoveryFault::Html), "is not JSON", "in a browser"),
        (Some(DiscoveryFault::FiveMegabytes), "larger than allowed", "something other than a discovery document"),
        (Some(DiscoveryFault::NotFound), "404", "realm or tenant included"),
    ] {
        let site = Site::without_provider(PROGRAM);
        if fault.is_some() {
            site.provider.faults(|faults| faults.discovery = fault);
            site.provider.bring_back();
        }
        let mut program = site.start_alone(launch(&site));
        let line = program.wait_for_line(&["\"WARN\"", "the provider is not available; nobody can sign in"]);
        assert!(line.contains(cause) && line.contains(fix), "{fault:?}: {line}");
        assert_public_but_no_sign_in(&site, &format!("{fault:?}")).await;
        site.provider.bring_back();
        site.provider.heal();
        assert_signs_in_soon(&site).await;
        program.wait_for_line(&["the provider is available"]);
    }
}

#[tokio::test]
async fn a_provider_that_is_slow_delays_nothing_else_and_is_told() {
    let site = Site::of(PROGRAM);
    site.provider.slow_down(Endpoint::Discovery, Duration::from_secs(120));
    let mut program = site.start_alone(launch(&site).env("VESTIBULE__PROVIDER__TIMEOUT", "300ms"));
    let line = program.wait_for_line(&["\"WARN\"", "the provider is not available"]);
    assert!(line.contains("did not answer in time") && line.contains("the provider is slow"), "{line}");
    assert_public_but_no_sign_in(&site, "slow").await;
    site.provider.heal();
    assert_signs_in_soon(&site).await;
}

async fn assert_public_but_no_sign_in(site: &Site, why: &str) {
    let browser = site.browser();
    let ready = site.admin("/readyz").await;
    assert_eq!((ready.status, &ready.json()["provider"]), (StatusCode::OK, &"unavailable".into()), "{why}");
    assert_eq!(browser.get(&site.url("/public/page")).await.status, StatusCode::OK, "{why}");
    site.upstream.forget();
    let page = browser.get(&site.url("/guarded")).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{why}: {}", page.text());
    assert!(page.header("retry-after").is_some(), "{why}");
    site.upstream.assert_untouched();
}

async fn assert_signs_in_soon(site: &Site) {
    site.wait_for_readiness("the provider", |reply| reply.text().contains("\"available\"")).await;
    let page = site.browser().follow(&site.url("/guarded"), 10).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
}

/// What a proxy of the network is asked first by a program whose provider is `https://id.invalid`; `None` when it is not asked
/// by the time the provider is known to be unavailable.
async fn asked_of_a_proxy(no_proxy: &str) -> Option<String> {
    let site = Site::of(PROGRAM);
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let launch = launch(&site)
        .env("OIDC_ISSUER", "https://id.invalid")
        .env("HTTPS_PROXY", format!("http://{}", proxy.local_addr().unwrap()))
        .env("NO_PROXY", no_proxy);
    let mut program = site.start_alone(launch);
    let asked = async {
        let (mut stream, _) = proxy.accept().await.unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(line).unwrap()
    };
    let unavailable = tokio::task::spawn_blocking(move || {
        program.wait_for_line(&["the provider is not available"]);
        program
    });
    tokio::select! {
        biased;
        line = asked => Some(line),
        _ = unavailable => None,
    }
}

#[tokio::test]
async fn the_networks_proxy_is_asked_for_the_provider_unless_no_proxy_names_it() {
    for elsewhere in ["", "other.invalid,localhost"] {
        assert_eq!(asked_of_a_proxy(elsewhere).await.as_deref(), Some("CONNECT id.invalid:443 HTTP/1.1\r\n"));
    }
    for direct in ["id.invalid", "other.invalid, .invalid", "*"] {
        assert_eq!(asked_of_a_proxy(direct).await, None, "{direct}");
    }
}

#[tokio::test]
async fn what_an_operator_should_know_is_told_by_a_line() {
    let site = Site::of(PROGRAM);
    let mut program = site.start(launch(&site)).await;
    assert_eq!(program.line(&["trust_unverified_email"]), None);
    drop(program);

    let config = "[identity]\ntrust_unverified_email = true\n[[routes]]\npath = \"/*\"\naccess = \"public\"\n";
    let config = site.file("trusting.toml", config);
    program = site.start(launch(&site).env("VESTIBULE_CONFIG", config)).await;
    let line = program.wait_for_line(&["\"WARN\"", "identity.trust_unverified_email"]);
    assert!(line.contains("verified or not") && line.contains("only for providers where"), "{line}");

    for (name, passes) in [("vestibule", false), ("theme", true)] {
        let reply =
            site.browser().get(&site.url(&format!("/set-cookie?name={name}&value=set-by-the-application"))).await;
        assert_eq!((reply.status, reply.set_cookies().len()), (StatusCode::OK, usize::from(passes)), "{name}");
    }
    let line = program.wait_for_line(&["\"WARN\"", "the upstream tried to set a cookie of ours"]);
    assert!(line.contains("\"dropped\":1") && line.contains("\"upstream\":\"default\""), "{line}");
    let told = program.text().lines().filter(|line| line.contains("cookie of ours")).count();
    assert_eq!((told, program.line(&["set-by-the-application"])), (1, None), "once, and without the value");
}

#[tokio::test]
async fn a_token_endpoint_that_is_gone_is_told_with_its_cause() {
    let site = Site::of(PROGRAM);
    let mut program = site.start(launch(&site)).await;
    let browser = site.browser();
    let challenge = browser.get(&site.url("/guarded")).await;
    let at_provider = browser.step(&challenge).await;
    site.provider.take_down();
    let page = browser.step(&at_provider).await;
    assert!(page.status.is_server_error(), "{}", page.status);
    let line = program.wait_for_line(&["request failed", "token_endpoint_unreachable"]);
    assert!(line.contains("Connection refused"), "{line}");
    assert!(!page.text().contains("refused"), "the person is told no internals");
}

#[tokio::test]
async fn an_upstream_that_is_down_or_breaks_off_is_told_by_a_page_and_a_line() {
    let site = Site::of(PROGRAM);
    let gone = free_port();
    let mut program = site.start(launch(&site).env("VESTIBULE_UPSTREAM", format!("http://127.0.0.1:{gone}"))).await;
    let page = site.browser().get(&site.url("/public/page")).await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert!(page.header("content-type").is_some_and(|value| value.starts_with("text/html")));
    let line = program.wait_for_line(&["request failed", "upstream_connect"]);
    assert!(line.contains("Connection refused"), "{line}");
    drop(program);

    let mut program = site.start(launch(&site)).await;
    let head = format!("GET /die-mid-body HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", site.port);
    let answer = String::from_utf8(raw_request(site.address(), head.as_bytes()).await).unwrap();
    // The length that was promised is kept, so that the client sees that something is missing.
    assert!(answer.starts_with("HTTP/1.1 200") && answer.to_lowercase().contains("content-length: 1000"), "{answer}");
    let line = program.wait_for_line(&["\"WARN\"", "upstream_broke_off"]);
    assert!(line.contains("look into the application's own log"), "{line}");
    assert_eq!(site.browser().get(&site.url("/public/page")).await.status, StatusCode::OK, "the next one is served");
    drop(program);

    let mut program = site.start(launch(&site).env("VESTIBULE__UPSTREAM__IDLE_TIMEOUT", "300ms")).await;
    let head = format!("GET /sse?every_ms=3600000 HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", site.port);
    let answer = String::from_utf8(raw_request(site.address(), head.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("tick 0"), "{answer}");
    let line = program.wait_for_line(&["\"WARN\"", "upstream_idle"]);
    assert!(line.contains("nothing more of it came for idle_timeout"), "{line}");
}

#[tokio::test]
async fn heads_that_cannot_be_read_are_answered_logged_and_counted() {
    let site = Site::of(PROGRAM);
    let mut program = site.start(launch(&site).env("VESTIBULE__LIMITS__HEADER_TIMEOUT", "500ms")).await;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(64 * 1024));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "x: y\r\n".repeat(200));
    for (head, status, reason) in [
        (long.as_str(), "431", "head_too_large"),
        (many.as_str(), "431", "head_too_large"),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", "400", "malformed_head"),
        ("nonsense\r\n\r\n", "400", "malformed_head"),
    ] {
        let answer = String::from_utf8(raw_request(site.address(), head.as_bytes()).await).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {answer}");
        program.wait_for_line(&["refused before it was read", reason]);
    }
    let mut slow = TcpStream::connect(site.address()).await.unwrap();
    slow.write_all(b"GET / HT").await.unwrap();
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer).await;
    program.wait_for_line(&["connection closed", "head_timeout"]);
    site.upstream.assert_untouched();
    let metrics = Metrics::of(&site).await;
    assert_eq!(metrics.value("vestibule_refusals_total{reason=\"head_too_large\"}"), 2.0, "{}", metrics.0);
    assert_eq!(metrics.value("vestibule_refusals_total{reason=\"malformed_head\"}"), 2.0);
    assert_eq!(metrics.value("vestibule_refusals_total{reason=\"head_timeout\"}"), 1.0);
    assert_eq!(metrics.value("vestibule_requests_total{status=\"4xx\"}"), 5.0);
}

#[tokio::test]
async fn cookie_garbage_is_as_good_as_no_cookie() {
    let site = Site::of(PROGRAM);
    let program = site.start(launch(&site)).await;
    let long = format!("vestibule={}", "A".repeat(8 * 1024));
    for cookie in
        ["vestibule=x", "vestibule=", "vestibule", ";;;=;= ,", "vestibule=x; vestibule=y", "\u{fe}\u{ff}=x", &long]
    {
        let head = format!(
            "GET /guarded HTTP/1.1\r\nHost: localhost:{}\r\nAccept: text/html\r\nCookie: {cookie}\r\n\r\n",
            site.port
        );
        let answer = String::from_utf8_lossy(&raw_request(site.address(), head.as_bytes()).await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 302 "), "{cookie:.40}: {answer}");
    }
    site.upstream.assert_untouched();
    assert!(!program.text().contains("panicked"), "{}", program.text());
}

/// The exposition, parsed no further than a sample at a time.
struct Metrics(String);

impl Metrics {
    async fn of(site: &Site) -> Self {
        let reply = site.admin("/metrics").await;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(reply.header("content-type").is_some_and(|value| value.starts_with("application/openmetrics-text")));
        Self(reply.text())
    }

    #[track_caller]
    fn value(&self, sample: &str) -> f64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {sample} in\n{}", self.0)).parse().expect("a number")
    }
}

#[tokio::test]
async fn metrics_tell_what_happened_on_a_listener_of_their_own() {
    let site = Site::of(PROGRAM);
    let _program = site.start(launch(&site).env("VESTIBULE_WORKERS", "2")).await;
    let browser = site.browser();
    assert_eq!(browser.follow(&site.url("/page"), 10).await.status, StatusCode::OK);
    for _ in 0..10 {
        assert_eq!(browser.get(&site.url("/page")).await.status, StatusCode::OK);
    }
    browser.get(&site.url("/auth/nowhere")).await;
    site.provider.faults(|faults| faults.id_token = Some(IdTokenFault::WrongNonce));
    site.browser().follow(&site.url("/page"), 10).await;

    let metrics = Metrics::of(&site).await;
    assert_eq!(metrics.value("vestibule_requests_total{status=\"2xx\"}"), 11.0, "{}", metrics.0);
    assert_eq!(metrics.value("vestibule_refusals_total{reason=\"no_endpoint\"}"), 1.0);
    assert_eq!(metrics.value("vestibule_sign_ins_total{outcome=\"ok\"}"), 1.0);
    let failed: Vec<&str> =
        metrics.0.lines().filter(|line| line.contains("outcome=") && line.contains("nonce")).collect();
    assert!(failed.len() == 1 && failed[0].ends_with(" 1"), "{}", metrics.0);
    for line in metrics.0.lines() {
        let is_sample =
            line.rsplit_once(' ').is_some_and(|(name, value)| !name.is_empty() && value.parse::<f64>().is_ok());
        assert!(line.starts_with("# ") || is_sample, "{line}");
    }
    assert!(metrics.0.ends_with("# EOF\n"));

    // Each listener knows nothing of the other's pages.
    assert_eq!(site.admin("/auth/login").await.status, StatusCode::NOT_FOUND);
    site.upstream.forget();
    browser.get(&site.url("/metrics")).await;
    assert_eq!(site.upstream.last().path(), "/metrics", "on the main listener it is a page of the application");
}

#[tokio::test]
async fn a_stop_says_so_first_serves_meanwhile_finishes_and_ends_well() {
    let site = Site::of(PROGRAM);
    let drain = launch(&site).env("VESTIBULE__DRAIN__GRACE", "1500ms").env("VESTIBULE__DRAIN__TIMEOUT", "20s");
    let program = site.start(drain).await;
    let browser = site.browser();
    let slow = tokio::spawn({
        let (browser, url) = (browser.tab(), site.url("/slow?ms=2500"));
        async move { browser.fetch(&url).await.status }
    });
    while site.upstream.count() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    program.signal("TERM");
    site.wait_for_readiness("the drain", |reply| reply.status == 503).await;
    assert_eq!(browser.fetch(&site.url("/public/new")).await.status, StatusCode::OK);
    assert_eq!(slow.await.unwrap(), StatusCode::OK);
    let ended = program.ended();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.contains("SIGTERM") && ended.stdout.contains("\"stopped\""), "{}", ended.stdout);
    assert!(ended.stdout.contains("/public/new"), "the last access lines are written: {}", ended.stdout);
    assert!(TcpStream::connect(site.address()).await.is_err());
}

#[tokio::test]
async fn a_stop_ends_within_its_bound_whatever_streams_are_open() {
    let site = Site::of(PROGRAM);
    let program = site.start(launch(&site).env("VESTIBULE__DRAIN__TIMEOUT", "1s")).await;
    let _stream = endless_stream(&site).await;
    let started = Instant::now();
    program.signal("INT");
    let ended = program.ended();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_everything_at_once() {
    let site = Site::of(PROGRAM);
    let bounds = launch(&site).env("VESTIBULE__DRAIN__GRACE", "60s").env("VESTIBULE__DRAIN__TIMEOUT", "60s");
    let mut program = site.start(bounds).await;
    let _stream = endless_stream(&site).await;
    program.signal("TERM");
    program.wait_for_line(&["stopping"]);
    let started = Instant::now();
    program.signal("TERM");
    let ended = program.ended();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("stopped at once by a second signal"), "{}", ended.stdout);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

async fn endless_stream(site: &Site) -> TcpStream {
    let mut stream = TcpStream::connect(site.address()).await.unwrap();
    let head = format!("GET /sse?every_ms=50 HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", site.port);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 50]).await.unwrap();
    stream
}

#[tokio::test]
async fn without_descriptors_the_program_ends_or_says_so_and_never_sits_there_silent() {
    let site = Site::of(PROGRAM);
    let mut ends = 0;
    for limit in (8..40).step_by(2) {
        let script = format!("ulimit -n {limit}; exec \"$0\"");
        let mut program = Launch::of("/bin/sh")
            .envs(site.variables())
            .env("VESTIBULE_ADMIN_LISTEN", "off")
            .env("VESTIBULE_WORKERS", "2")
            .env("VESTIBULE__DRAIN__GRACE", "0s")
            .args(["-c", &script, PROGRAM])
            .start();
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = program.status() {
                let ended = program.ended();
                assert!(!status.success() && !ended.stderr.is_empty(), "{limit}: {ended:?}");
                ends += 1;
                break;
            }
            let is_ready = program.line(&["ready to take requests"]).is_some();
            if is_ready && (is_answered(&site).await || program.line(&["no connection can be accepted"]).is_some()) {
                break;
            }
            assert!(Instant::now() < end, "{limit}: neither an end nor an answer\n{}", program.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!((1..16).contains(&ends), "the limits meet both cases: {ends} of 16 ended");
}

async fn is_answered(site: &Site) -> bool {
    let Ok(mut stream) = TcpStream::connect(site.address()).await else { return false };
    let head = format!("GET /auth/nowhere HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", site.port);
    let mut answer = [0; 12];
    let exchange = async {
        stream.write_all(head.as_bytes()).await?;
        stream.read_exact(&mut answer).await
    };
    matches!(tokio::time::timeout(Duration::from_millis(500), exchange).await, Ok(Ok(_)))
        && answer.starts_with(b"HTTP/1.1 404")
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing_running_and_can_be_tried_again() {
    let clock = TestClock::new();
    let provider = FakeProvider::start(clock.clone());
    let (port, admin) = (free_port(), free_port());
    let text = format!(
        "listen = \"127.0.0.1:{port}\"\nadmin_listen = \"127.0.0.1:{admin}\"\nworkers = 2\n[provider]\nissuer = \"{}\"\n\
         client_id = \"{}\"\nclient_secret = \"{}\"\nredirect_uri = \"http://localhost:{port}/auth/callback\"\n\
         [session]\nsecret = \"{}\"\n[upstream]\nurl = \"http://127.0.0.1:1\"\n",
        provider.issuer(),
        provider.client_id(),
        provider.client_secret(),
        vestibule_test_support::SESSION_SECRET,
    );
    let settings = config::load(&Sources::toml(&text)).expect("a sound configuration").settings;
    for taken in [port, admin] {
        let listener = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
        // Inside a runtime, where ending another one must not wait.
        let error = vestibule::app::start(settings.clone(), Arc::new(clock.clone())).expect_err("an address in use");
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
        drop(listener);
        for free in [port, admin] {
            assert!(TcpStream::connect(("127.0.0.1", free)).await.is_err(), "{free} is still served");
        }
    }
    assert_eq!(provider.count(Endpoint::Discovery), 0, "nothing was asked by a proxy that did not start");
    let mut settings = settings;
    settings.server.drain.grace = Duration::ZERO;
    let running = vestibule::app::start(settings, Arc::new(clock)).expect("the addresses are free again");
    let ended = running.ended();
    running.stop();
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the end is told");
    tokio::task::spawn_blocking(move || running.wait()).await.unwrap();
}
