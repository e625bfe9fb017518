//! Behind nginx: one as Debian installs it, with nothing but `proxy_pass`, and one that caches whatever it may.

use http::{Method, StatusCode};
use vestibule_test_support::real::RealProvider;
use vestibule_test_support::{Browser, Nginx, Reply, Request, Stage, StageBuilder, free_port, json};

use super::cookie_size::{self, sign_in_by_form};

const ROUTES: &str = r#"
[[routes]]
path = "/public/*"
access = "public"
[[routes]]
path = "/optional/*"
access = "optional"
[[routes]]
path = "/admins/*"
require = { roles = ["admins"] }
"#;

struct Behind {
    nginx: Nginx,
    stage: Stage,
}

impl Behind {
    fn start(stage: StageBuilder, nginx: fn(u16, std::net::SocketAddr) -> Nginx) -> Self {
        let port = free_port();
        let stage = stage.public_port(port).start();
        let nginx = nginx(port, stage.address());
        Self { nginx, stage }
    }

    /// A user agent that meets nginx at the stage's origin.
    fn browser(&self) -> Browser {
        let browser = self.stage.browser();
        browser.connect(&self.stage.origin(), self.nginx.address());
        browser
    }

    async fn signed_in(&self, name: &str) -> Browser {
        self.stage.provider.set_user(json!({ "sub": name, "groups": [name] }));
        let browser = self.browser();
        let page = self.stage.sign_in(&browser, &format!("/auth/login?rd=/signed-in/{name}")).await;
        assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some(name));
        browser
    }
}

#[tokio::test]
async fn a_keycloak_sign_in_with_ten_groups_passes_a_stock_nginx() {
    let behind = Behind::start(Stage::builder().toml(&RealProvider::keycloak().toml()), Nginx::stock);
    let browser = behind.browser();
    let path = cookie_size::long_path();

    let callback = sign_in_by_form(&behind.stage, &browser, &path).await;
    assert_eq!(callback.status, StatusCode::SEE_OTHER, "{}\n{}", callback.text(), behind.nginx.error_log());
    assert!(callback.header("server").is_some_and(|server| server.starts_with("nginx")), "{callback:?}");
    assert_eq!(callback.location().as_str(), behind.stage.url(&path));
    cookie_size::assert_small(&callback);

    let page = browser.step(&callback).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    assert_eq!(page.echoed("x-forwarded-groups").unwrap_or_default().split(',').count(), 10);
}

#[tokio::test]
async fn nobody_gets_anybody_elses_page_from_a_caching_nginx() {
    let behind = Behind::start(Stage::builder().toml(ROUTES), Nginx::caching);
    let (ada, grace, nobody) = (behind.signed_in("ada").await, behind.signed_in("grace").await, behind.browser());
    let pages = [
        "/page",
        "/respond?header=Last-Modified:Mon,%2001%20Jan%202024%2000:00:00%20GMT",
        "/respond?header=Expires:Fri,%2001%20Jan%202100%2000:00:00%20GMT",
        "/respond?header=ETag:%22one%22",
        "/respond?status=404",
        "/optional/page",
    ];
    for page in pages {
        for _ in 0..2 {
            for (browser, name) in [(&ada, "ada"), (&grace, "grace")] {
                let reply = browser.get(&behind.stage.url(page)).await;
                assert_eq!(reply.echoed("x-forwarded-user").as_deref(), Some(name), "{page} {:?}", cache(&reply));
            }
        }
        let reply = nobody.get(&behind.stage.url(page)).await;
        match page {
            "/optional/page" => assert_eq!(reply.echoed("x-forwarded-user"), None, "{:?}", cache(&reply)),
            _ => assert_eq!(reply.status, StatusCode::FOUND, "{page} {:?}", cache(&reply)),
        }
    }
}

#[tokio::test]
async fn what_the_application_lets_a_cache_keep_is_kept_for_each_person_alone() {
    for access in ["required", "optional"] {
        let routes = format!("[[routes]]\npath = \"/respond\"\naccess = \"{access}\"\n");
        let behind = Behind::start(Stage::builder().toml(&routes), Nginx::caching);
        let (ada, grace, nobody) = (behind.signed_in("ada").await, behind.signed_in("grace").await, behind.browser());
        for cache_control in ["max-age%3D600", "public,max-age%3D600"] {
            let url = behind.stage.url(&format!("/respond?header=Cache-Control:{cache_control}"));
            for expected in ["MISS", "HIT"] {
                for (browser, name) in [(&ada, "ada"), (&grace, "grace")] {
                    let reply = browser.get(&url).await;
                    assert_eq!(reply.echoed("x-forwarded-user").as_deref(), Some(name), "{access} {cache_control}");
                    assert_eq!(cache(&reply), Some(expected), "{access} {cache_control} {name}");
                }
            }
            let reply = nobody.get(&url).await;
            match access {
                "required" => assert_eq!(reply.status, StatusCode::FOUND, "{cache_control} {:?}", cache(&reply)),
                _ => assert_eq!(reply.echoed("x-forwarded-user"), None, "{cache_control} {:?}", cache(&reply)),
            }
        }
    }
}

#[tokio::test]
async fn challenges_and_refusals_are_never_cached() {
    let behind = Behind::start(Stage::builder().toml(ROUTES), Nginx::caching);
    let grace = behind.signed_in("grace").await;
    let nobody = behind.browser();
    for page in ["/page", "/auth/login?rd=/page", "/auth/userinfo", "/auth/logout", "/auth/signed-out", "/admins/page"]
    {
        let url = behind.stage.url(page);
        for browser in [&nobody, &grace] {
            for request in [Request::navigation(Method::GET, &url), Request::fetch(Method::GET, &url)] {
                for _ in 0..2 {
                    let reply = browser.send(request.clone().header("sec-fetch-site", "cross-site")).await;
                    assert_ne!(cache(&reply), Some("HIT"), "{page} {}", reply.status);
                }
            }
        }
    }
    // Whoever was refused and signs in sees the page, and whoever signs out does not any more.
    let browser = behind.browser();
    assert_eq!(browser.get(&behind.stage.url("/page")).await.status, StatusCode::FOUND);
    behind.stage.provider.set_user(json!({ "sub": "ada" }));
    let page = behind.stage.sign_in(&browser, "/page").await;
    assert_eq!(page.echoed("x-forwarded-user").as_deref(), Some("ada"));
    browser.get(&behind.stage.url("/auth/logout")).await;
    assert_eq!(browser.get(&behind.stage.url("/page")).await.status, StatusCode::FOUND);
    // What is public and says so is what a cache is for.
    for expected in ["MISS", "HIT"] {
        assert_eq!(cache(&nobody.get(&behind.stage.url("/public/page")).await), Some(expected));
    }
}

fn cache(reply: &Reply) -> Option<&str> {
    reply.header("x-cache")
}
