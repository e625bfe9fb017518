//! A folder or a fixed answer stands where an application would, under the same routes and the same rules.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vestibule_test_support::tempfile::{TempDir, tempdir};
use vestibule_test_support::{Browser, Reply, Request, Stage, raw_request};

/// A site beside what nobody may have.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { folder: tempdir().expect("a folder") };
        fs::create_dir(site.folder.path().join("site")).unwrap();
        fs::write(site.folder.path().join("secret.txt"), "top secret").unwrap();
        for (name, text) in [
            ("index.html", "<h1>front</h1>"),
            ("docs/index.html", "<h1>docs</h1>"),
            ("docs/a b.txt", "0123456789"),
            ("empty/x/y.txt", "y"),
            ("app.js", "let x"),
            (".env", "SECRET=1"),
            (".git/config", "[core]"),
            (".well-known/security.txt", "Contact: a@example.com"),
            ("none.txt", ""),
        ] {
            site.write(name, text.as_bytes());
        }
        site
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("site").join(name)
    }

    /// An hour old, so that its tag is a strong one.
    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }

    fn toml(&self, more: &str) -> String {
        let root = self.folder.path().join("site");
        format!("[upstreams.site]\nfiles = {root:?}\n{more}\n")
    }

    /// Everything is public and comes from the folder.
    fn public(&self, more: &str) -> Stage {
        Stage::with(&format!("{}[[routes]]\nupstream = \"site\"\naccess = \"public\"\n", self.toml(more)))
    }
}

async fn get(stage: &Stage, path: &str) -> Reply {
    stage.browser().send(Request::new(Method::GET, &stage.url(path))).await
}

async fn raw(stage: &Stage, line: &str) -> String {
    let request = format!("{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", stage.host());
    String::from_utf8_lossy(&raw_request(stage.address(), request.as_bytes()).await).into_owned()
}

#[tokio::test]
async fn files_come_with_type_length_and_validators() {
    let site = Site::new();
    let stage = site.public("");
    for (path, content_type, body) in [
        ("/", "text/html; charset=utf-8", "<h1>front</h1>"),
        ("/index.html?x=1", "text/html; charset=utf-8", "<h1>front</h1>"),
        ("/docs/", "text/html; charset=utf-8", "<h1>docs</h1>"),
        ("/docs/a%20b.txt", "text/plain; charset=utf-8", "0123456789"),
        ("/app.js", "text/javascript; charset=utf-8", "let x"),
        ("/none.txt", "text/plain; charset=utf-8", ""),
        ("/.well-known/security.txt", "text/plain; charset=utf-8", "Contact: a@example.com"),
    ] {
        let reply = get(&stage, path).await;
        assert_eq!((reply.status, reply.text().as_str()), (StatusCode::OK, body), "{path}");
        assert_eq!(reply.header("content-type"), Some(content_type), "{path}");
        assert_eq!(reply.header("content-length"), Some(body.len().to_string().as_str()), "{path}");
        assert_eq!(reply.header("accept-ranges"), Some("bytes"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert!(reply.header("etag").is_some_and(|tag| tag.starts_with('"')), "{:?}", reply.headers);
        assert!(reply.header("last-modified").is_some());
        let head = stage.browser().send(Request::new(Method::HEAD, &stage.url(path))).await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
        for name in ["content-type", "content-length", "etag", "last-modified"] {
            assert_eq!(head.header(name), reply.header(name), "{path} {name}");
        }
    }
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_folder_without_its_slash_is_sent_there_and_is_never_listed() {
    let site = Site::new();
    let stage = site.public("");
    let reply = get(&stage, "/docs?a=b").await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (307, Some("/docs/?a=b")));
    for path in ["/empty", "/empty/", "/empty/x/", "/docs/index.html/"] {
        let reply = get(&stage, path).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (404, &"file_not_found".into()), "{path}");
        assert!(!reply.text().contains("y.txt"));
    }
    let prefixed = Stage::with(&format!(
        "{}[[routes]]\npath = \"/site/*\"\nstrip_prefix = \"/site\"\nupstream = \"site\"\naccess = \"public\"\n",
        site.toml("")
    ));
    assert_eq!(get(&prefixed, "/site").await.text(), "<h1>front</h1>");
    assert_eq!(get(&prefixed, "/site/docs").await.header("location"), Some("/site/docs/"));
}

#[tokio::test]
async fn nothing_hidden_and_nothing_outside_the_folder_is_served() {
    let site = Site::new();
    symlink(site.folder.path().join("secret.txt"), site.path("absolute.txt")).unwrap();
    symlink("../secret.txt", site.path("relative.txt")).unwrap();
    symlink("..", site.path("up")).unwrap();
    symlink("/", site.path("root")).unwrap();
    symlink("loop", site.path("loop")).unwrap();
    fs::create_dir(site.path("linked")).unwrap();
    symlink("../../secret.txt", site.path("linked/index.html")).unwrap();
    symlink("docs/a b.txt", site.path("within.txt")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(site.path("socket")).unwrap();
    let stage = site.public("");
    for path in [
        "/absolute.txt",
        "/relative.txt",
        "/up/secret.txt",
        "/root/etc/passwd",
        "/loop",
        "/linked/",
        "/linked",
        "/socket",
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/docs/.well-known/x",
        "/missing",
        "/app.js/x",
        "/docs//index.html",
        "//docs/index.html",
        "/docs%2findex.html",
        "/docs/a%20b.txt;v=1",
    ] {
        let answer = raw(&stage, &format!("GET {path}")).await;
        let status = answer.get(9..12).unwrap_or_default();
        assert!(status == "404" || (status == "500" && path == "/loop"), "{path}: {answer}");
        assert!(
            !answer.contains("secret") && !answer.contains("SECRET") && !answer.contains("root:"),
            "{path}: {answer}"
        );
    }
    for path in
        ["/../secret.txt", "/docs/../../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/app.js%00.html"]
    {
        let answer = raw(&stage, &format!("GET {path}")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    }
    assert_eq!(get(&stage, "/within.txt").await.text(), "0123456789");
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_file_that_is_known_already_is_not_sent_again() {
    let site = Site::new();
    let stage = site.public("");
    let first = get(&stage, "/docs/a%20b.txt").await;
    let (tag, date) = (first.header("etag").unwrap(), first.header("last-modified").unwrap());
    let ask = async |name: &str, value: &str| {
        stage.browser().send(Request::new(Method::GET, &stage.url("/docs/a%20b.txt")).header(name, value)).await
    };
    for (name, value, status) in [
        ("if-none-match", tag, 304),
        ("if-modified-since", date, 304),
        ("if-none-match", "\"other\"", 200),
        ("if-match", "\"other\"", 412),
        ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT", 412),
    ] {
        let reply = ask(name, value).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (status, if status == 200 { 10 } else { 0 }), "{name}");
        assert_eq!(reply.header("etag"), Some(tag));
    }
    site.write("docs/a b.txt", b"changed");
    assert_eq!(ask("if-none-match", tag).await.text(), "changed");
    // While it may still change within the same moment, a tag is weak, and nobody joins parts by it. A file of the future is
    // in that moment for as long as a test may take.
    let file = fs::File::options().write(true).open(site.path("docs/a b.txt")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
    assert!(ask("x-none", "").await.header("etag").unwrap().starts_with("W/\""));
}

#[tokio::test]
async fn one_range_is_a_part_and_several_are_the_whole() {
    let site = Site::new();
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    site.write("large.bin", &large);
    let stage = site.public("");
    let ask = async |path: &str, range: &str, condition: &str| {
        let request = Request::new(Method::GET, &stage.url(path)).header("range", range).header("if-range", condition);
        let request = if condition.is_empty() { request.without_header("if-range") } else { request };
        stage.browser().send(request).await
    };
    let tag = get(&stage, "/large.bin").await.header("etag").unwrap().to_owned();
    for (range, condition, part) in [
        ("bytes=0-9", "", 0..10),
        ("bytes=100000-2500000", "", 100_000..2_500_001),
        ("bytes=2999990-", "", 2_999_990..3_000_000),
        ("bytes=-70000", "", 2_930_000..3_000_000),
        ("bytes=5-5", &tag, 5..6),
    ] {
        let reply = ask("/large.bin", range, condition).await;
        assert_eq!(reply.status, StatusCode::PARTIAL_CONTENT, "{range}");
        let wanted = format!("bytes {}-{}/3000000", part.start, part.end - 1);
        assert_eq!(reply.header("content-range"), Some(wanted.as_str()));
        assert_eq!(reply.header("content-length"), Some(part.len().to_string().as_str()));
        assert!(reply.body == large[part], "{range}");
    }
    for (range, condition) in [("bytes=0-1,5-9", ""), ("bytes=9-1", ""), ("bytes=0-1", "\"other\"")] {
        let reply = ask("/large.bin", range, condition).await;
        assert_eq!((reply.status, reply.body.len()), (StatusCode::OK, large.len()), "{range}");
        assert!(reply.body == large && reply.header("content-range").is_none());
    }
    for (path, range, length) in [("/large.bin", "bytes=3000000-", "3000000"), ("/none.txt", "bytes=0-", "0")] {
        let reply = ask(path, range, "").await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (416, 0), "{path}");
        assert_eq!(reply.header("content-range"), Some(format!("bytes */{length}").as_str()));
    }
}

#[tokio::test]
async fn a_file_that_shrinks_on_its_way_ends_as_an_error() {
    let site = Site::new();
    site.write("large.bin", &vec![7; 40_000_000]);
    let stage = site.public("");
    let request = format!("GET /large.bin HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", stage.host());
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 1000];
    stream.read_exact(&mut start).await.unwrap();
    // More than any buffer between us holds is still unread.
    fs::File::options().write(true).open(site.path("large.bin")).unwrap().set_len(1000).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < 39_000_000, "{} bytes came of a file that was not there any more", rest.len());
    // The worker lives on.
    assert_eq!(get(&stage, "/app.js").await.text(), "let x");
}

#[tokio::test]
async fn only_get_and_head_reach_a_file() {
    let site = Site::new();
    let stage = site.public("");
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let reply = stage.browser().send(Request::new(method.clone(), &stage.url("/app.js")).body("x")).await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some("GET, HEAD")), "{method}");
        assert_eq!(reply.json()["code"], "method_not_allowed");
    }
}

#[tokio::test]
async fn a_guarded_file_needs_a_session_and_is_for_no_shared_cache() {
    let site = Site::new();
    let stage = Stage::with(&format!("{}[[routes]]\nupstream = \"site\"\n", site.toml("")));
    let browser = stage.browser();
    let reply = browser.fetch(&stage.url("/app.js")).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert!(!reply.text().contains("let x"));
    let reply = stage.sign_in(&browser, "/docs/a%20b.txt").await;
    assert_eq!((reply.status, reply.text().as_str()), (StatusCode::OK, "0123456789"));
    assert_eq!(reply.header("cache-control"), Some("private"));
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_download_ends_with_its_session() {
    const SIZE: usize = 40_000_000;
    let site = Site::new();
    site.write("large.bin", &vec![7; SIZE]);
    let stage = Stage::with(&format!("{}[[routes]]\nupstream = \"site\"\n", site.toml("")));
    let browser = stage.signed_in_browser().await;
    let (host, cookies) = (stage.host(), browser.cookie_line(&stage.origin()));
    let request = format!("GET /large.bin HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut piece = vec![0; 64 * 1024];
    stream.read_exact(&mut piece).await.unwrap();
    assert!(piece.starts_with(b"HTTP/1.1 200"));
    stage.clock.advance(Duration::from_secs(25 * 3600));
    let mut length = piece.len();
    // A slow reader: the rest takes longer than the proxy takes to look at its sessions.
    while let Ok(count @ 1..) = stream.read(&mut piece).await {
        length += count;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(length < SIZE, "{length} bytes of a download whose session was over");
}

#[tokio::test]
async fn a_single_page_application_gets_its_page_and_a_script_its_404() {
    let site = Site::new();
    let stage = site.public("fallback = \"index.html\"\nindex = [\"home.html\", \"index.html\"]");
    let browser = stage.browser();
    let reply = browser.get(&stage.url("/users/7?tab=2")).await;
    assert_eq!((reply.status, reply.text().as_str()), (StatusCode::OK, "<h1>front</h1>"));
    assert_eq!(reply.header("vary"), Some("accept"));
    for path in ["/users/7.js", "/users/7"] {
        assert_eq!(browser.fetch(&stage.url(path)).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(browser.get(&stage.url("/.env")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(browser.get(&stage.url("/app.js")).await.text(), "let x");
    assert_eq!(browser.get(&stage.url("/docs/")).await.text(), "<h1>docs</h1>");
}

#[tokio::test]
async fn a_new_release_of_the_folder_is_served_at_once_and_a_missing_one_is_our_fault() {
    let site = Site::new();
    let stage = site.public("");
    fs::rename(site.path(""), site.folder.path().join("old")).unwrap();
    let reply = get(&stage, "/app.js").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (500, &"file_unreadable".into()));
    site.write("app.js", b"let y");
    assert_eq!(get(&stage, "/app.js").await.text(), "let y");
}

#[tokio::test]
async fn a_fixed_answer_is_the_same_for_everybody_the_route_lets_in() {
    let stage = Stage::with(
        r#"
[upstreams.maintenance]
respond = { status = 503, body = "<h1>Back soon</h1>", content_type = "text/html; charset=utf-8", headers = { "Retry-After" = "600" } }
[upstreams.gone]
respond = { status = 410 }
[[routes]]
path = "/shop/*"
access = "public"
upstream = "maintenance"
[[routes]]
path = "/gone"
upstream = "gone"
"#,
    );
    let browser: Browser = stage.browser();
    for method in [Method::GET, Method::POST, Method::HEAD] {
        let reply = browser.send(Request::new(method.clone(), &stage.url("/shop/x")).body("ignored")).await;
        assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, Some("600")), "{method}");
        assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(reply.header("content-length"), Some("18"));
        assert_eq!(reply.text(), if method == Method::HEAD { "" } else { "<h1>Back soon</h1>" });
    }
    assert_eq!(browser.fetch(&stage.url("/gone")).await.status, StatusCode::UNAUTHORIZED);
    let browser = stage.signed_in_browser().await;
    let reply = browser.fetch(&stage.url("/gone")).await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (410, 0));
    assert_eq!(reply.header("cache-control"), Some("private"));
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn a_file_that_nobody_reads_is_closed_in_time() {
    let site = Site::new();
    fs::File::create(site.path("large")).unwrap().set_len(256 << 20).unwrap();
    let stage = site.public("[limits]\nunread_timeout = \"500ms\"\n");
    let mut stream = TcpStream::connect(stage.address()).await.unwrap();
    let request = format!("GET /large HTTP/1.1\r\nHost: {}\r\n\r\n", stage.host());
    stream.write_all(request.as_bytes()).await.unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(10);
    let metrics = async || stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
    while !metrics().await.contains("vestibule_refusals_total{reason=\"unread\"} 1") {
        assert!(std::time::Instant::now() < end, "it is held for a client that does not read");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut length = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        length += count;
    }
    assert!(length < 256 << 20, "{length}");
}
