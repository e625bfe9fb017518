//! Where requests go.

use super::*;

#[test]
fn upstreams_are_checked() {
    for (url, why) in [
        ("localhost:3000", "write \"http://localhost:3000\""),
        ("ftp://app:3000", "has the scheme \"ftp\""),
        ("unix:run/app.sock", "write the whole path"),
        ("unix://run/app.sock", "write the whole path"),
        ("https://app:3000/base", "is more than host and port"),
        ("http://app:3000/base", "is more than host and port"),
        ("http://app:3000?x", "is more than host and port"),
        ("http://user:hunter2@app:3000", "carries credentials"),
        ("http://127.0.0.1:8080", "is this proxy itself"),
        ("http://localhost:0", "without host or port"),
        ("http://", "no URL"),
    ] {
        let text = errors(&[("upstream", &format!("url = \"{url}\""))]);
        assert!(text.contains(why), "{url}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    let v6 =
        settings(&[("upstream", "url = \"http://[::1]:3000\"\nhost = \"app.internal:80\"\naccess_token = \"bearer\"")]);
    assert_eq!(v6.upstreams[0].places, [Place::Host { host: "::1".to_owned(), port: 3000 }]);
    assert_eq!(v6.upstreams[0].places[0].url(true), "https://[::1]:3000");
    assert_eq!(v6.upstreams[0].host_header.as_deref(), Some("app.internal:80"));
    assert!(v6.upstreams[0].access_token);
    assert!(errors(&[("upstream", "host = \"a b\"")]).contains("no host"));
    for url in ["unix:/run/app.sock", "unix:///run/app.sock"] {
        let unix = settings(&[("upstream", &format!("url = \"{url}\"\ntotal_timeout = \"0s\"\n"))]);
        assert_eq!(unix.upstreams[0].places, [Place::Unix("/run/app.sock".into())]);
        assert_eq!(unix.upstreams[0].total_timeout, None);
        assert_eq!(unix.upstreams[0].places[0].url(false), "unix:/run/app.sock");
    }
    let missing = with(&[]).replace("url = \"http://127.0.0.1:3000\"\n", "");
    assert!(all(&read(&Sources::toml(&missing)).unwrap_err()).contains("upstream.url is missing"));
}

#[test]
fn the_protocol_and_tls_of_an_upstream_are_checked() {
    let upstream = |url: &str, rest: &str| errors(&[("upstream", &format!("url = \"{url}\"\n{rest}\n"))]);
    for (url, rest, why) in [
        ("http://app:1", "protocol = \"auto\"", "write \"h2\" if the application speaks HTTP/2"),
        ("unix:/run/app.sock", "protocol = \"auto\"", "the url is not https"),
        ("http://app:1", "protocol = \"h3\"", "http1"),
        ("http://app:1", "tls = {}", "write the url with https://"),
        ("https://app:1", "tls = { ca_file = \"/nonexistent.pem\" }", "upstream.tls.ca_file names /nonexistent.pem"),
        ("https://app:1", "tls = { ca_file = \"Cargo.toml\" }", "holds no PEM certificate"),
        ("https://app:1", "tls = { server_name = \"a b\" }", "no name that a certificate can have"),
        (
            "https://app:1",
            "tls = { client_key_file = \"Cargo.toml\" }",
            "upstream.tls.client_certificate_file is missing",
        ),
        (
            "https://app:1",
            "tls = { client_certificate_file = \"Cargo.toml\" }",
            "upstream.tls.client_key_file is missing",
        ),
        ("https://app:1", "tls = { insecure_skip_verify = true }", "is not a known key"),
    ] {
        let text = upstream(url, rest);
        assert!(text.contains(why), "{url} {rest}: {text}");
    }
    let h2c = settings(&[("upstream", "url = \"http://app:1\"\nprotocol = \"h2\"\ntotal_timeout = \"10m\"\n")]);
    assert_eq!(h2c.upstreams[0].protocol, Protocol::H2);
    assert_eq!(h2c.upstreams[0].total_timeout, Some(Duration::from_secs(600)));
}

#[test]
fn several_instances_and_their_checks_are_checked() {
    let some = "urls = [\"http://10.0.0.1:3000\", \"http://app:3000\"]\neject_after = 0";
    let health = ("upstream.health", "path = \"/healthz?full\"\nexpect = \"200\"\ninterval = \"3s\"");
    let text = with(&[("upstream", some), health]).replace("url = \"http://127.0.0.1:3000\"\n", "");
    let read = read(&Sources::toml(&text)).unwrap_or_else(|problems| panic!("{}", all(&problems))).settings;
    let upstream = &read.upstreams[0];
    assert_eq!(upstream.places.len(), 2);
    assert_eq!((upstream.eject_after, upstream.resolve_interval), (0, Duration::from_secs(5)));
    let checks = upstream.health.as_ref().unwrap();
    assert_eq!((checks.path.as_str(), checks.expect.clone()), ("/healthz?full", 200..=200));
    assert_eq!((checks.interval, checks.timeout), (Duration::from_secs(3), Duration::from_secs(2)));
    for (urls, why) in [
        ("urls = []", "upstream.urls is empty"),
        ("urls = [\"http://a:1\"]", "upstream.urls stands beside url"),
        ("urls = [\"http://a:1\", \"http://a:1\"]", "upstream.urls[1] is there twice"),
        ("urls = [\"http://a:1\", \"http://a:1/x\"]", "upstream.urls[1] is more than host and port"),
        ("urls = [\"https://a:1\", \"http://a:2\"]", "upstream.urls[1] has another scheme than the first"),
        ("urls = [\"https://a:1\", \"https://b:1\"]", "write server_name in [upstream.tls]"),
        ("resolve_interval = \"0s\"", "upstream.resolve_interval is zero"),
        ("eject_after = 1001", "upstream.eject_after"),
    ] {
        let text = errors(&[("upstream", urls)]);
        assert!(text.contains(why), "{urls}: {text}");
    }
    for (line, why) in [
        ("interval = \"3s\"", "upstream.health.path is missing"),
        ("path = \"healthz\"", "is \"healthz\", no path"),
        ("path = \"/a b\"", "no path"),
        ("path = \"/x\"\ntimeout = \"11s\"", "upstream.health.timeout leaves a question unanswered"),
        ("path = \"/x\"\nexpect = \"2xx\"", "a status or a range of them"),
        ("path = \"/x\"\nhealthy_after = 0", "upstream.health.healthy_after"),
    ] {
        let text = errors(&[("upstream.health", line)]);
        assert!(text.contains(why), "{line}: {text}");
    }
    let literal = warnings(&[("upstream", "resolve_interval = \"9s\"")]);
    assert!(literal.contains("resolve_interval does nothing"), "{literal}");
}

#[test]
fn the_default_upstream_comes_first() {
    let api = ("upstreams.api", "url = \"http://api:1\"\n");
    let named = settings(&[api, ("routes", "path = \"/api/*\"\nupstream = \"api\"\n")]);
    assert_eq!(named.upstreams.iter().map(|upstream| upstream.name.as_str()).collect::<Vec<_>>(), ["default", "api"]);
    assert_eq!(named.routes.routes[0].upstream, 1);
    assert_eq!(named.routes.routes[0].name, "/api/*");
    assert!(warnings(&[api]).contains("upstreams.api is used by no route"));
    let text = errors(&[api, ("routes", "upstream = \"apo\"\n")]);
    assert!(text.contains("routes[0].upstream is \"apo\"") && text.contains("did you mean \"api\"?"), "{text}");
    let two = with(&[api, ("upstreams.web", "url = \"http://web:1\"\n")])
        .replace("[upstream]\nurl = \"http://127.0.0.1:3000\"\n", "");
    assert!(all(&read(&Sources::toml(&two)).unwrap_err()).contains("do not say which one"));
    let caught = format!(
        "{two}\n[[routes]]\npath = \"/*\"\nupstream = \"web\"\n[[routes]]\npath = \"/a\"\nupstream = \"api\"\n"
    );
    assert!(read(&Sources::toml(&caught)).unwrap().warnings.is_empty());
    assert!(errors(&[("upstreams.default", "url = \"http://a:1\"\n")]).contains("is [upstream] once more"));
}

#[test]
fn header_fields_that_are_ours_or_the_connections_cannot_be_set() {
    let edits = settings(&[(
        "upstream",
        "request_headers = { set = { \"X-A\" = \"1\", Authorization = \"Basic eA==\" }, remove = [\"Cookie\", \"X-B\"] }\n\
         response_headers = { remove = [\"Set-Cookie\", \"Server\"] }\n",
    )]);
    assert!(edits.upstreams[0].edits.is_some());
    assert!(settings(&[]).upstreams[0].edits.is_none() && settings(&[("routes", "")]).routes.routes[0].edits.is_none());
    for (lines, wanted) in [
        ("request_headers = { set = { Host = \"x\" } }", "names host, which has a key of its own"),
        ("request_headers = { set = { \"X_Forwarded_User\" = \"x\" } }", "which only an identity may fill"),
        ("request_headers = { set = { \"X-Department\" = \"x\" } }", "which only an identity may fill"),
        ("request_headers = { remove = [\"X-Forwarded-For\"] }", "request_headers.remove[0] names x-forwarded-for"),
        ("request_headers = { set = { \"Transfer-Encoding\" = \"gzip\" } }", "written anew for each connection"),
        ("request_headers = { set = { Cookie = \"a=b\" } }", "cookies belong to one person"),
        ("response_headers = { set = { \"Set-Cookie\" = \"a=b\" } }", "cookies belong to one person"),
        ("response_headers = { remove = [\"Content-Length\"] }", "written anew for each connection"),
        ("request_headers = { set = { \"X-HTTP-Method-Override\" = \"PUT\" } }", "after it was judged"),
        ("request_headers = { set = { \"X-A\" = \"s3cret\\r\\nX-B: 1\" } }", "no header can carry"),
        ("request_headers = { set = { \"X-A\" = \" s3cret\" } }", "no header can carry"),
        ("request_headers = { set = { \"X A\" = \"1\" } }", "no header"),
        ("request_headers = { set = { \"X-A\" = \"1\", \"X_A\" = \"2\" } }", "in another spelling too"),
        ("request_headers = { set = { \"X-A\" = \"1\" }, remove = [\"x-a\"] }", "which is set too"),
        ("request_headers = { add = { \"X-A\" = \"1\" } }", "not a known key"),
    ] {
        for section in ["upstream", "routes"] {
            let told = errors(&[(section, lines), ("identity.headers", "\"X-Department\" = { claim = \"d\" }\n")]);
            assert!(told.contains(wanted) && !told.contains("s3cret"), "{lines}: {told}");
        }
    }
    let authorization = "request_headers = { set = { Authorization = \"Basic eA==\" } }\n";
    let told = errors(&[("upstream", &format!("{authorization}access_token = \"bearer\"\n"))]);
    assert!(told.contains("upstream.request_headers.set sets Authorization"), "{told}");
    let told = errors(&[("routes", authorization), ("upstream", "access_token = \"bearer\"\n")]);
    assert!(told.contains("routes[0].request_headers.set sets Authorization"), "{told}");
    let told = errors(&[("routes", &format!("{authorization}pass_authorization = true\n"))]);
    assert!(told.contains("so does pass_authorization"), "{told}");
}

#[test]
fn a_demand_of_an_upstream_that_leads_nowhere_is_told() {
    let told = |upstream, endpoints| warnings(&[("upstream", upstream), ("endpoints", endpoints)]);
    let nowhere = told("step_up = true\n", "login = false\n");
    assert!(nowhere.contains("upstream.step_up does nothing: endpoints.login = false"), "{nowhere}");
    for (upstream, endpoints) in
        [("", "login = false\n"), ("step_up = false\n", "login = false\n"), ("step_up = true\n", "")]
    {
        let told = told(upstream, endpoints);
        assert!(!told.contains("step_up"), "{told}");
    }
}

#[test]
fn an_upstream_without_an_address_answers_itself() {
    let folder = Folder::new();
    folder.file("index.html", "front");
    let files = format!("files = {:?}\nfallback = \"app.html\"\n", folder.0);
    let upstreams = settings(&[("upstreams.site", &files), ("routes", "upstream = \"site\"\n")]).upstreams;
    let own = upstreams.iter().find_map(|upstream| upstream.own.as_ref());
    let Some(crate::upstream::Own::Files(site)) = own else { panic!("{own:?}") };
    assert_eq!((site.index.as_slice(), site.fallback.as_deref()), (&["index.html".to_owned()][..], Some("app.html")));
    let told = warnings(&[("upstreams.site", &files), ("routes", "upstream = \"site\"\n")]);
    assert!(told.contains("upstreams.site.fallback is app.html, which is not there now"), "{told}");
    let file = folder.file("plain.txt", "");
    for (lines, wanted) in [
        ("respond = { status = 99 }".to_owned(), "respond.status"),
        ("respond = { status = 204, body = \"x\" }".to_owned(), "contradicts status = 204"),
        ("respond = { content_type = \"a\\nb\" }".to_owned(), "is no content type"),
        ("respond = { headers = { \"Set-Cookie\" = \"a=b\" } }".to_owned(), "cookies belong to one person"),
        (
            "respond = { headers = { \"Content-Type\" = \"a/b\" }, content_type = \"a/b\" }".to_owned(),
            "is in headers too",
        ),
        ("respond = {}\nurl = \"http://127.0.0.1:1\"".to_owned(), "upstreams.site.url means nothing beside respond"),
        ("respond = {}\nfiles = \"/\"".to_owned(), "upstreams.site.files means nothing beside respond"),
        (format!("{files}host = \"x\""), "upstreams.site.host means nothing beside files"),
        (format!("{files}request_headers = {{ remove = [\"X-A\"] }}"), "request_headers means nothing beside files"),
        ("files = \"/nothing/here\"".to_owned(), "which cannot be read"),
        (format!("files = {file:?}"), "which cannot be read"),
        (format!("files = {:?}\nfallback = \"../x\"", folder.0), "no file of the folder"),
        (format!("files = {:?}\nfallback = \"/etc/passwd\"", folder.0), "no file of the folder"),
        (format!("files = {:?}\nindex = [\"a/b\"]", folder.0), "no name of a file"),
        (format!("files = {:?}\nindex = [\".env\"]", folder.0), "no name of a file"),
        ("url = \"http://127.0.0.1:1\"\nfallback = \"x\"".to_owned(), "means nothing without files"),
    ] {
        let told = errors(&[("upstreams.site", &lines), ("routes", "upstream = \"site\"\n")]);
        assert!(told.contains(wanted), "{lines}: {told}");
    }
}
