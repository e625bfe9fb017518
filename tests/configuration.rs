//! Where the program's settings come from: a few variables are enough, files hold secrets, and of what is written twice the
//! nearest to the command counts.

use std::path::Path;
use std::time::{Duration, Instant};

use http::StatusCode;
use vestibule_test_support::{Endpoint, Launch, SESSION_SECRET, Site, free_port};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");

#[tokio::test]
async fn nothing_but_the_documented_variables_is_needed() {
    let site = Site::of(PROGRAM);
    let launch = || site.bare().envs(site.variables()).env("OIDC_SCOPES", "openid email");
    // The one test with the default address of the admin listener, which somebody else may have for a while or for good.
    let end = Instant::now() + Duration::from_secs(20);
    let _program = loop {
        let mut program = launch().start();
        while program.line(&["ready to take requests"]).is_none() && program.status().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if program.status().is_none() {
            break program;
        }
        let ended = program.ended();
        assert!(ended.stderr.contains("127.0.0.1:9090: Address already in use"), "{ended:?}");
        if Instant::now() > end {
            break site.start_alone(launch().env("VESTIBULE_ADMIN_LISTEN", "off"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let page = signed_in_page(&site).await;
    assert_eq!(page.echoed("x-forwarded-email").as_deref(), Some("ada@example.com"));
    assert_eq!(asked(&site, "scope"), "openid email");
}

/// Signs in as soon as the provider is known, without asking the admin listener.
async fn signed_in_page(site: &Site) -> vestibule_test_support::Reply {
    let end = Instant::now() + Duration::from_secs(30);
    let browser = site.browser();
    loop {
        let page = browser.follow(&site.url("/asked?for=this"), 10).await;
        if page.status != StatusCode::SERVICE_UNAVAILABLE || Instant::now() > end {
            assert_eq!(page.status, StatusCode::OK, "{}", page.text());
            assert_eq!(page.url.as_str(), site.url("/asked?for=this"));
            return page;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn asked(site: &Site, parameter: &str) -> String {
    let requests = site.provider.requests_of(Endpoint::Authorize);
    requests
        .last()
        .and_then(|request| request.query_value(parameter))
        .expect("a parameter of the authorization request")
}

#[tokio::test]
async fn secrets_are_read_from_files_less_the_newline_that_editors_add() {
    let site = Site::of(PROGRAM);
    let client = site.file("client", &format!("{}\n", site.provider.client_secret()));
    let session = site.file("session", &format!("{SESSION_SECRET}\n"));
    let launch = site.launch().without("OIDC_CLIENT_SECRET").without("SESSION_SECRET");
    let launch = launch.env("OIDC_CLIENT_SECRET_FILE", client).env("SESSION_SECRET_FILE", session);
    let _program = site.start(launch).await;
    signed_in_page(&site).await;
    assert_eq!(asked(&site, "scope"), "openid email profile", "the default");
    assert_eq!(asked(&site, "redirect_uri"), site.url("/auth/callback"));
}

#[tokio::test]
async fn a_client_id_of_digits_is_a_text_like_any_other() {
    let site = Site::of(PROGRAM);
    for id in ["12345", "0012", "true", "[1]", "1e3", "{x}"] {
        let _program = site.start(site.launch().env("OIDC_CLIENT_ID", id)).await;
        let location = site.browser().get(&site.url("/")).await.location();
        let asked = location.query_pairs().find(|(name, _)| name == "client_id");
        assert_eq!(asked.map(|(_, value)| value.into_owned()).as_deref(), Some(id));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn there_are_as_many_workers_as_asked_for() {
    let site = Site::of(PROGRAM);
    let program = site.start(site.launch().env("VESTIBULE_WORKERS", "2")).await;
    let tasks = std::fs::read_dir(format!("/proc/{}/task", program.id())).expect("the program's threads");
    let names =
        tasks.map(|task| std::fs::read_to_string(task.expect("a thread").path().join("comm")).unwrap_or_default());
    let mut workers: Vec<String> = names.filter(|name| name.starts_with("worker-")).collect();
    workers.sort();
    assert_eq!(workers, ["worker-0\n", "worker-1\n"]);
    for _ in 0..8 {
        signed_in_page(&site).await;
    }
}

#[tokio::test]
async fn flags_win_over_variables_and_variables_over_the_file() {
    let site = Site::of(PROGRAM);
    let (in_file, in_variable) = (free_port(), free_port());
    let text = format!(
        r#"listen = "127.0.0.1:{in_file}"
admin_listen = "127.0.0.1:{admin}"
workers = 1
[provider]
issuer = "{issuer}"
client_id = "in-the-file"
client_secret_file = "client"
redirect_uri = "{redirect}"
[session]
secret = "of no use, since a variable names another one"
[upstream]
url = "{upstream}"
[log]
format = "json"
[drain]
grace = "0s"
"#,
        admin = site.admin_port,
        issuer = site.provider.issuer(),
        redirect = site.url("/auth/callback"),
        upstream = site.upstream.url(),
    );
    site.file("client", site.provider.client_secret());
    let path = site.file("vestibule.toml", &text);
    let launch = || {
        Launch::of(PROGRAM)
            .env("VESTIBULE_LISTEN", format!("127.0.0.1:{in_variable}"))
            .env("OIDC_CLIENT_ID", site.provider.client_id())
            .env("SESSION_SECRET", SESSION_SECRET)
            .args([Path::new("--config"), &path])
    };
    let checked = launch().args(["check"]).run();
    assert!(checked.stdout.contains(&format!("127.0.0.1:{in_variable} ")), "{checked:?}");
    let named = launch().env("VESTIBULE_CONFIG", "/nonexistent.toml").args(["check"]).run();
    assert_eq!(named.code, Some(0), "the flag names the file: {named:?}");

    let launch = launch().args(["--listen".to_owned(), format!("127.0.0.1:{}", site.port)]);
    let mut program = site.start(launch).await;
    let line = program.wait_for_line(&["ready to take requests"]);
    assert!(line.starts_with('{') && line.contains(&format!("127.0.0.1:{}", site.port)), "{line}");
    signed_in_page(&site).await;
    assert_eq!(asked(&site, "client_id"), site.provider.client_id());
}

#[tokio::test]
async fn the_callback_is_wherever_the_redirect_uri_says() {
    let site = Site::of(PROGRAM);
    let _program = site.start(site.launch().env("OIDC_REDIRECT_URI", site.url("/signin-oidc"))).await;
    signed_in_page(&site).await;
    assert_eq!(asked(&site, "redirect_uri"), site.url("/signin-oidc"));
    let old = site.browser().get(&site.url("/auth/callback")).await;
    assert_eq!(old.status, StatusCode::NOT_FOUND, "nothing else is the callback");
}
