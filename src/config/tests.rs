//! Whole configurations: layers, derivations, and every rule across keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::authn::oidc::jose::Algorithm;
use crate::authn::roles::{ClaimPath, HeaderSource};
use crate::route::{Access, Endpoint};
use crate::upstream::{Place, Protocol};

const SECRET: &str = "k7Rw2vXq9LmTz4NcYb8HfJd3GsPa6Ue1";
const OTHER: &str = "Zt5Bn8Wq1Xc4Vm7Lk0Jh3Gf6Ds9Ap2Oy";

/// A whole configuration in which one section can be replaced or added.
fn minimal() -> Vec<(&'static str, String)> {
    vec![
        (
            "provider",
            "issuer = \"https://id.example.com\"\nclient_id = \"app\"\nclient_secret = \"s3cr3t\"\n\
             redirect_uri = \"https://app.example.com/auth/callback\"\n"
                .to_owned(),
        ),
        ("session", format!("secret = \"{SECRET}\"\n")),
        ("upstream", "url = \"http://127.0.0.1:3000\"\n".to_owned()),
    ]
}

fn with(changes: &[(&str, &str)]) -> String {
    let mut sections: Vec<(String, String)> =
        minimal().into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
    let mut top = String::new();
    for (name, lines) in changes {
        if name.is_empty() {
            top += lines;
        } else if let Some((_, text)) = sections.iter_mut().find(|(section, _)| section == name) {
            // A line replaces the one of the same key.
            for line in lines.lines() {
                let key = line.split('=').next().unwrap_or_default().trim();
                let others = text.lines().filter(|old| old.split('=').next().unwrap_or_default().trim() != key);
                *text = others.map(|line| format!("{line}\n")).collect::<String>() + line + "\n";
            }
        } else {
            sections.push(((*name).to_owned(), (*lines).to_owned()));
        }
    }
    let header = |name: &str| if name == "routes" { "[[routes]]".to_owned() } else { format!("[{name}]") };
    top + "\n" + &sections.iter().map(|(name, text)| format!("{}\n{text}\n", header(name))).collect::<String>()
}

/// Without compiling routes and templates: those have tests of their own.
fn read(sources: &Sources) -> Result<Loaded, Vec<ConfigProblem>> {
    load_with(sources, |_, _| Vec::new())
}

fn settings(changes: &[(&str, &str)]) -> Settings {
    match read(&Sources::toml(&with(changes))) {
        Ok(loaded) => loaded.settings,
        Err(problems) => panic!("{}", all(&problems)),
    }
}

fn warnings(changes: &[(&str, &str)]) -> String {
    match read(&Sources::toml(&with(changes))) {
        Ok(loaded) => all(&loaded.warnings),
        Err(problems) => panic!("{}", all(&problems)),
    }
}

fn errors(changes: &[(&str, &str)]) -> String {
    match read(&Sources::toml(&with(changes))) {
        Ok(_) => panic!("no error from {changes:?}"),
        Err(problems) => all(&problems),
    }
}

fn all(problems: &[ConfigProblem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

const ENOUGH: [(&str, &str); 6] = [
    ("OIDC_ISSUER", "https://id.example.com"),
    ("OIDC_CLIENT_ID", "12345"),
    ("OIDC_CLIENT_SECRET", "67890"),
    ("OIDC_REDIRECT_URI", "https://app.example.com/auth/callback"),
    ("SESSION_SECRET", SECRET),
    ("VESTIBULE_UPSTREAM", "http://app:3000"),
];

#[test]
fn variables_alone_are_enough() {
    let loaded = read(&Sources { env: env(&ENOUGH), ..Sources::default() }).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let settings = loaded.settings;
    assert_eq!(settings.server.listeners[0].address.to_string(), "0.0.0.0:8080");
    assert_eq!(settings.admin_listen.unwrap().to_string(), "127.0.0.1:9090");
    assert_eq!(settings.providers[0].issuer, "https://id.example.com");
    assert_eq!(settings.providers[0].credentials.client_id, "12345");
    assert_eq!(settings.providers[0].credentials.client_secret.as_ref().unwrap().expose_secret(), "67890");
    assert_eq!(settings.providers[0].scopes, ["openid", "email", "profile"]);
    assert!(settings.providers[0].userinfo && settings.providers[0].userinfo_required);
    assert_eq!(settings.session.lifetime, Duration::from_secs(24 * 3600));
    assert_eq!(settings.session.idle, Duration::from_secs(3600));
    assert_eq!(settings.message.cookie_base, "__Host-vestibule");
    assert_eq!(settings.upstreams[0].places, [Place::Host { host: "app".to_owned(), port: 3000 }]);
    assert_eq!(settings.endpoints.login_path.as_deref(), Some("/auth/login"));
    assert_eq!(settings.routes.prefix, "/auth");
    let callback = (Endpoint::Callback(0), "/auth/callback".to_owned());
    assert!(settings.routes.endpoints.contains(&callback) && settings.routes.endpoints.len() == 5);
    assert!(settings.message.trusted_proxies.is_empty());
}

#[test]
fn nothing_at_all_tells_everything_that_is_missing() {
    let text = all(&read(&Sources::default()).unwrap_err());
    for variable in ENOUGH.map(|(name, _)| name) {
        assert!(text.contains(variable), "{variable}: {text}");
    }
    assert!(text.contains("vestibule generate-secret"), "{text}");
    assert_eq!(text.matches("error: ").count(), 6, "{text}");
}

#[test]
fn each_layer_wins_over_the_one_below() {
    let file = with(&[("", "listen = \"127.0.0.1:1\"\n")]);
    let mut sources = Sources::toml(&file);
    let listen = |sources: &Sources| read(sources).unwrap().settings.server.listeners[0].address.tcp().unwrap().port();
    assert_eq!(listen(&sources), 1);
    sources.env = env(&[("VESTIBULE_LISTEN", "127.0.0.1:2")]);
    assert_eq!(listen(&sources), 2);
    sources.flags = vec![("listen".to_owned(), "127.0.0.1:3".to_owned())];
    assert_eq!(listen(&sources), 3);
    sources.env.clear();
    sources.file.as_mut().unwrap().text = with(&[]);
    sources.flags.clear();
    assert_eq!(listen(&sources), 8080);
}

#[test]
fn a_secret_of_a_higher_layer_replaces_every_form_of_a_lower_one() {
    let folder = Folder::new();
    let path = folder.file("session", &format!("{OTHER}\n"));
    let mut sources = Sources::toml(&with(&[]));
    sources.env = env(&[("SESSION_SECRET_FILE", path.to_str().unwrap())]);
    let secrets = read(&sources).unwrap().settings.session.secrets;
    assert_eq!(secrets.iter().map(|secret| secret.expose_secret()).collect::<Vec<_>>(), [OTHER]);
}

#[test]
fn both_forms_of_a_secret_in_one_layer_are_an_error() {
    let mut variables = env(&ENOUGH);
    variables.extend(env(&[("SESSION_SECRET_FILE", "/x"), ("OIDC_CLIENT_SECRET_FILE", "/y")]));
    let text = all(&read(&Sources { env: variables, ..Sources::default() }).unwrap_err());
    assert!(text.contains("variable SESSION_SECRET_FILE: error: session.secret_file gives the secret again"), "{text}");
    assert!(
        text.contains("variable OIDC_CLIENT_SECRET_FILE: error: provider.client_secret_file is given twice"),
        "{text}"
    );
}

#[test]
fn an_empty_variable_is_an_error_and_not_also_missing() {
    let mut variables = env(&ENOUGH);
    variables[0].1.clear();
    let problems = read(&Sources { env: variables, ..Sources::default() }).unwrap_err();
    assert_eq!(problems.len(), 1, "{}", all(&problems));
    assert!(problems[0].to_string().starts_with("variable OIDC_ISSUER: error: provider.issuer is empty"));
}

#[test]
fn problems_of_all_layers_come_at_once() {
    let mut sources = Sources::toml(&with(&[("", "lisen = \"x\"\n"), ("provider", "issuer = \"id.example.com\"")]));
    sources.env = env(&[("OIDC_SCOPE", "openid"), ("VESTIBULE_WORKERS", "many")]);
    sources.flags = vec![("log.fromat".to_owned(), "json".to_owned())];
    let text = all(&read(&sources).unwrap_err());
    for part in [
        "vestibule.toml:1:1: error: lisen is not a known key\n    did you mean \"listen\"?",
        "error: provider.issuer is \"id.example.com\", no absolute http or https URL",
        "variable OIDC_SCOPE: error: looks like a misspelt variable\n    did you mean OIDC_SCOPES?",
        "variable VESTIBULE_WORKERS: error: workers must be a whole number\n    for example VESTIBULE_WORKERS=2",
        "flag for log.fromat: error: log.fromat is not a known key\n    did you mean \"format\"?",
    ] {
        assert!(text.contains(part), "{part}\n---\n{text}");
    }
}

#[test]
fn several_session_secrets_are_separated_by_white_space() {
    let mut variables = env(&ENOUGH);
    let both = format!("{SECRET}\n {OTHER}\n");
    variables[4].1 = both;
    let secrets = read(&Sources { env: variables, ..Sources::default() }).unwrap().settings.session.secrets;
    assert_eq!(secrets.iter().map(|secret| secret.expose_secret()).collect::<Vec<_>>(), [SECRET, OTHER]);
}

#[test]
fn secrets_are_taken_as_written_less_one_newline() {
    let folder = Folder::new();
    let (one, two) = (folder.file("one", &format!("{SECRET} \n\n")), folder.file("two", &format!("{OTHER}\r\n")));
    let lines = format!("secrets_files = [{one:?}, {two:?}]");
    let text = with(&[("session", &lines)]).replace(&format!("secret = \"{SECRET}\"\n"), "");
    let secrets = read(&Sources::toml(&text)).unwrap().settings.session.secrets;
    assert_eq!(
        secrets.iter().map(|secret| secret.expose_secret().to_owned()).collect::<Vec<_>>(),
        [format!("{SECRET} \n"), OTHER.to_owned()]
    );
}

#[test]
fn weak_and_repeated_secrets_stop_the_start() {
    for (written, why) in [
        ("secret = \"short\"", "is too short: 5 bytes, at least 32"),
        ("secret = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", "is too weak"),
        ("secret = \"changeme-changeme-changeme-changeme!\"", "is too weak"),
    ] {
        let text = errors(&[("session", written)]);
        assert!(text.contains(why) && text.contains("vestibule generate-secret"), "{text}");
    }
    let twice = errors(&[("session", &format!("secret = \"{SECRET} {SECRET}\""))]);
    assert!(twice.contains("is given twice"), "{twice}");
    let shared = errors(&[("provider", &format!("client_secret = \"{SECRET}\""))]);
    assert!(shared.contains("is the client secret"), "{shared}");
}

#[test]
fn relative_paths_start_from_the_folder_of_the_file() {
    let folder = Folder::new();
    folder.file("session", SECRET);
    folder.file("denied.html", "<p>no</p>");
    let text = with(&[("session", "secret_file = \"session\""), ("pages", "access_denied = \"denied.html\"")])
        .replace(&format!("secret = \"{SECRET}\"\n"), "");
    let mut sources = Sources::toml(&text);
    sources.file.as_mut().unwrap().name = folder.0.join("vestibule.toml").display().to_string();
    let settings = read(&sources).unwrap().settings;
    assert_eq!(settings.session.secrets[0].expose_secret(), SECRET);
    assert_eq!(settings.pages.templates.values().next(), Some(&folder.0.join("denied.html")));
    sources.file.as_mut().unwrap().name = "/nonexistent/vestibule.toml".to_owned();
    let text = all(&read(&sources).unwrap_err());
    assert!(text.contains("names /nonexistent/session, which cannot be read"), "{text}");
    assert!(text.contains("names /nonexistent/denied.html, which cannot be read"), "{text}");
}

#[test]
fn a_client_without_a_secret_says_so() {
    let text = with(&[]).replace("client_secret = \"s3cr3t\"\n", "");
    let problems = all(&read(&Sources::toml(&text)).unwrap_err());
    assert!(problems.contains("provider.client_secret is missing") && problems.contains("public_client"), "{problems}");
    let text = with(&[]).replace("client_secret = \"s3cr3t\"\n", "public_client = true\n");
    assert!(read(&Sources::toml(&text)).unwrap().settings.providers[0].credentials.client_secret.is_none());
    assert!(errors(&[("provider", "public_client = true")]).contains("contradicts the client secret"));
}

#[test]
fn provider_urls_are_checked() {
    for (line, why) in [
        ("issuer = \"https://id.example.com/?x=1\"", "has a query or a fragment"),
        ("issuer = \"http://id.example.com\"", "works towards localhost only"),
        (
            "issuer = \"https://id.example.com/.well-known/openid-configuration\"",
            "is the address of the discovery document",
        ),
        ("redirect_uri = \"/auth/callback\"", "not an absolute http or https URL"),
        ("redirect_uri = \"https://app.example.com\"", "has no path of its own"),
        ("redirect_uri = \"https://app.example.com/cb#x\"", "has a query or a fragment"),
        ("redirect_uri = \"https://app.example.com/a%2Fb\"", "read in more than one way"),
        ("redirect_uri = \"https://app.example.com/a//b\"", "read in more than one way"),
        ("redirect_uri = \"https://app.example.com/auth/login\"", "which is that of endpoints.login too"),
        ("redirect_uri = \"http://app.example.com/auth/callback\"", "works towards localhost only"),
        ("backchannel_url = \"http://keycloak:8080\"", "works towards localhost only"),
        ("backchannel_url = \"https://keycloak/realms\"", "is more than scheme, host and port"),
        ("post_logout_redirect_uri = \"http://app.example.com/bye\"", "works towards localhost only"),
        ("client_id = \" \"", "is no client id"),
        ("scopes = [\"open\\\"id\"]", "no scope"),
        ("signing_algs = [\"none\"]", "not one of \"RS256\""),
        ("signing_algs = [\"HS256\", \"RS256\"]", "beside other algorithms"),
        ("signing_algs = [\"HS384\", \"HS512\"]", "names HS384 beside other algorithms"),
        ("signing_algs = []", "is an empty list"),
        ("authorization_params = { state = \"x\" }", "only Vestibule sets"),
        ("authorization_params = { scope = \"x\" }", "has a key of its own"),
        ("authorization_params = { prompt = \"login\" }", "has a key of its own"),
        ("authorization_params = { resource = \"https://api.example.com\" }", "has a key of its own"),
        ("acr_values = [\"gold silver\"]", "names \"gold silver\""),
        ("required_acr = [\"\"]", "names \"\""),
        ("ui_locales = [\"d e\"]", "names \"d e\""),
        ("max_age = \"1500ms\"", "whole seconds"),
        ("max_token_age = \"10ms\"", "shorter than a second"),
        ("clock_skew = \"11m\"", "more than ten minutes"),
        ("login_hint = \"a\\nb\"", "control characters"),
        ("prompt = \"login none\"", "is none"),
        ("prompt = \"login  consent\"", "one space between"),
        ("claims = \"{\"", "reads in one way"),
        ("claims = \"{}\"", "has neither"),
        ("resource = \"/api\"", "no absolute URI"),
        ("authorization_details = \"{}\"", "no JSON list"),
        ("issuer_template = \"https://id.example.com/{tenantid}\"", "is missing beside issuer_template"),
        ("allowed_tenants = [\"t\"]", "means nothing without"),
        ("issuer_template = \"https://id.example.com/x\"\nallowed_tenants = [\"t\"]", "one {tenantid} in its path"),
        (
            "issuer_template = \"https://{tenantid}.example.com/\"\nallowed_tenants = [\"t\"]",
            "one {tenantid} in its path",
        ),
        (
            "issuer_template = \"https://evil.example/{tenantid}\"\nallowed_tenants = [\"t\"]",
            "another place than issuer",
        ),
        ("issuer_template = \"https://id.example.com/{tenantid}\"\nallowed_tenants = []", "is an empty list"),
        ("issuer_template = \"https://id.example.com/{tenantid}\"\nallowed_tenants = [\"*\", \"t\"]", "no tenant"),
        ("client_keys_files = [\"/nonexistent.pem\"]", "cannot be read"),
        ("client_keys_files = [\"Cargo.toml\"]", "names Cargo.toml"),
        ("decryption_algs = [\"RSA1_5\"]", "names \"RSA1_5\""),
        ("decryption_algs = []", "is an empty list"),
        ("require_encrypted_id_token = true", "nothing here could open"),
        ("timeout = \"0s\"", "is zero"),
        ("ca_file = \"/nonexistent.pem\"", "cannot be read"),
        ("ca_file = \"Cargo.toml\"", "holds no PEM certificate"),
        ("max_response = \"1B\"", "is out of range"),
    ] {
        let text = errors(&[("provider", line)]);
        assert!(text.contains(why), "{line}: {text}");
        assert_eq!(text.matches("error: ").count(), 1, "{line}: {text}");
    }
}

#[test]
fn http_works_towards_loopback_or_when_allowed() {
    let local = "issuer = \"http://127.0.0.1:8180\"\nredirect_uri = \"http://localhost:8080/auth/callback\"";
    let text = warnings(&[("provider", local)]);
    assert!(text.contains("provider.redirect_uri is http, so our cookies are not Secure"), "{text}");
    assert_eq!(text.matches("warning: ").count(), 1, "{text}");
    assert_eq!(settings(&[("provider", local)]).message.cookie_base, "vestibule");
    let allowed = "issuer = \"http://id.internal\"\nallow_insecure_http = true";
    let text = warnings(&[("provider", allowed)]);
    assert!(text.contains("provider.issuer is http beyond loopback"), "{text}");
    assert!(settings(&[("provider", allowed)]).providers[0].http.allow_insecure_http);
}

#[test]
fn the_redirect_uri_is_told_as_it_will_be_sent() {
    let text = warnings(&[("provider", "redirect_uri = \"https://APP.example.com:443/auth/callback\"")]);
    assert!(text.contains("is sent to the provider as \"https://app.example.com/auth/callback\""), "{text}");
}

#[test]
fn scopes_always_hold_openid() {
    assert_eq!(
        settings(&[("provider", "scopes = [\"email groups\"]")]).providers[0].scopes,
        ["openid", "email", "groups"]
    );
    let algs = settings(&[("provider", "signing_algs = [\"HS256\"]")]).providers[0].signing_algs.clone();
    assert_eq!(algs, [Algorithm::HS256]);
}

#[test]
fn session_and_cookie_rules() {
    for (section, line, why) in [
        ("session", "idle = \"25h\"", "is longer than session.lifetime"),
        ("session", "idle = \"0s\"", "is zero"),
        ("session", "lifetime = \"500ms\"", "is shorter than a second"),
        ("session", "lifetime = \"500days\"", "is longer than 400 days"),
        (
            "session",
            "store = \"redis://:hunter2@db:6379\"",
            "is a redis store, but this release keeps sessions in the cookie only",
        ),
        ("session", "store = \"postgres://db\"", "is a postgres store"),
        ("session", "store = \"sqlite:x.db\"", "is a sqlite store"),
        ("session", "store = \"cokie\"", "did you mean \"cookie\"?"),
        ("cookie", "name = \"__Host-app\"", "begins with a prefix"),
        ("cookie", "name = \"a b\"", "no name for our cookies"),
        ("cookie", "name = \"a.b\"", "no name for our cookies"),
        ("cookie", "name = \"\"", "no name for our cookies"),
    ] {
        let text = errors(&[(section, line)]);
        assert!(text.contains(why), "{line}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(settings(&[("session", "lifetime = \"10m\"")]).session.idle, Duration::from_secs(600));
    assert_eq!(settings(&[("cookie", "name = \"app\"")]).message.cookie_base, "__Host-app");
}

#[test]
fn identity_headers_are_checked() {
    for (line, why) in [
        ("\"X-Forwarded-For\" = \"name\"", "does something of its own"),
        ("\"Authorization\" = \"name\"", "does something of its own"),
        ("\"content_length\" = \"name\"", "does something of its own"),
        ("\"If-Match\" = \"name\"", "does something of its own"),
        ("\"X Y\" = \"name\"", "is no header name"),
        ("\"X-Team\" = \"name\"\n\"x_team\" = \"roles\"", "is the same name as \"X-Team\""),
        (
            "\"X-Team\" = \"team\"",
            "is \"team\", not one of \"name\", \"roles\", \"groups\", \"email\", \"provider\", \"subject\", \"client_certificate_subject\", \"client_certificate_san\", or a table",
        ),
        ("\"X-Team\" = { claim = [] }", "names no claim"),
        ("\"X-Team\" = { clam = \"x\" }", "did you mean \"claim\"?"),
        ("\"X-Team\" = {}", "lacks the key \"claim\"\n    for example X-Team = { claim = \"department\" }"),
    ] {
        let text = errors(&[("identity.headers", line)]);
        assert!(text.contains(why), "{line}: {text}");
    }
}

#[test]
fn identity_comes_out_as_written() {
    let identity = settings(&[
        ("identity", "name_claim = [\"a\", \"b\"]\nroles_claims = [\"https://x/roles\", [\"r\", \"s\"]]\nlist_format = \"json\"\n"),
        ("identity.role_mapping", "\"/admins\" = \"admin\"\n\"/staff\" = [\"editor\", \"user\"]\n"),
        ("identity.headers", "\"X-Sub\" = \"subject\"\n\"X-Dept\" = { claim = [\"org\", \"dept\"] }\n"),
    ])
    .identity;
    let path = |names: &[&str]| ClaimPath(names.iter().map(|name| name.to_string()).collect());
    assert_eq!(identity.name_claim, path(&["a", "b"]));
    assert_eq!(identity.roles_claims, [path(&["https://x/roles"]), path(&["r", "s"])]);
    let mapping = identity.role_mapping.unwrap();
    assert_eq!(mapping["/admins"], ["admin"]);
    assert_eq!(mapping["/staff"], ["editor", "user"]);
    let headers: Vec<_> = identity.headers.iter().map(|(name, source)| (name.as_str(), source.clone())).collect();
    assert_eq!(
        headers,
        [("x-dept", HeaderSource::Claim(path(&["org", "dept"]))), ("x-sub", HeaderSource::Claim(path(&["sub"])))]
    );
    assert!(warnings(&[("identity", "trust_unverified_email = true")]).contains("verified or not"));
    assert!(warnings(&[("identity.role_mapping", "")]).contains("no claim gives any role"));
}

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
fn routes_are_checked() {
    for (lines, why) in [
        ("access = \"public\"\nrequire = { roles = \"a\" }", "contradicts access"),
        ("access = \"public\"\nmax_identity_age = \"1h\"", "contradicts access"),
        ("require = { roles = [] }", "is an empty list"),
        ("methods = [\"get\"]", "write \"GET\""),
        ("methods = [\"TRACE\"]", "always refused"),
        ("methods = []", "is an empty list"),
        ("methods = [\"G ET\"]", "no method"),
        ("host = \"app.example.com:8080\"", "no host"),
        ("host = \"*.example.com\"", "no host"),
        ("upgrades = [\"H2C\"]", "never let through"),
        ("upgrades = [\"a b\"]", "no protocol"),
        ("pass_headers = [\"X-Original-Url\", \"X-Orginal-Url\"]", "did you mean \"x-original-url\"?"),
        ("pass_headers = [\"X-Forwarded-User\"]", "none of the headers that are held back"),
        ("allowed_origins = [\"https://x.example/path\"]", "no origin"),
        ("allowed_origins = [\"null\"]", "no origin"),
        ("max_identity_age = \"1ms\"", "is shorter than a second"),
        ("require = { max_age = \"1ms\" }", "is shorter than a second"),
        ("require = { acr = \"a b\" }", "names \"a b\""),
        ("require = { acr = '\"' }", "quotes"),
        ("require = { acr = [] }", "is an empty list"),
        ("access = \"public\"\nrequire = { max_age = \"5m\" }", "contradicts access"),
    ] {
        let text = errors(&[("routes", lines)]);
        assert!(text.contains(why), "{lines}: {text}");
        assert!(text.contains("error: routes[0]."), "{lines}: {text}");
        assert!(text.contains("vestibule.toml:"), "{lines}: {text}");
    }
    let route = &settings(&[(
        "routes",
        "host = \"APP.example.com.\"\npath = \"/x\"\nmethods = \"GET\"\nrequire = { roles = \"a\", all_groups = [\"g\", \"h\"] }\n\
         allowed_origins = [\"https://Partner.example:443\"]\nupgrades = [\"TCP\"]\naccess = \"optional\"",
    )])
    .routes
    .routes[0];
    assert_eq!(route.host.as_deref(), Some("app.example.com"));
    assert_eq!(route.access, Access::Optional);
    assert_eq!(route.require.all_groups, ["g", "h"]);
    assert_eq!(route.allowed_origins[0].as_str(), "https://partner.example");
    assert_eq!(route.upgrades, ["tcp"]);
}

#[test]
fn hosts_must_hold_the_redirect_uris_host() {
    assert!(errors(&[("", "hosts = [\"www.example.com\"]\n")]).contains("does not list app.example.com"));
    let listed =
        [("", "hosts = [\"App.Example.com\"]\n"), ("routes", "host = \"www.example.com\"\naccess = \"public\"\n")];
    assert!(errors(&listed).contains("which hosts does not list"));
    let alias = warnings(&[("routes", "host = \"www.example.com\"\n")]);
    assert!(alias.contains("people sign in on app.example.com"), "{alias}");
}

#[test]
fn endpoints_can_be_moved_and_switched_off() {
    let settings = settings(&[("endpoints", "prefix = \"/-/id/\"\nlogout = false\nuserinfo = \"/me\"\n")]);
    assert_eq!(settings.routes.prefix, "/-/id");
    assert_eq!(settings.endpoints.login_path.as_deref(), Some("/-/id/login"));
    let paths: Vec<_> = settings.routes.endpoints.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(paths, ["/auth/callback", "/-/id/login", "/-/id/signed-out", "/me"]);
    for (line, why) in [
        ("prefix = \"/\"", "no prefix"),
        ("prefix = \"auth\"", "no prefix"),
        ("prefix = \"/a/../b\"", "no prefix"),
        ("login = \"login\"", "no path for an endpoint"),
        ("login = \"/\"", "no path for an endpoint"),
        ("login = \"/x/{id}\"", "no path for an endpoint"),
        ("login = \"/auth/logout\"", "which is that of endpoints.login too"),
        ("login = 1", "true or false, or a text"),
    ] {
        let text = errors(&[("endpoints", line)]);
        assert!(text.contains(why), "{line}: {text}");
    }
}

#[test]
fn rate_limits_are_checked() {
    for (line, why) in [
        ("rate_limit = { per = \"user\", rate = \"1/s\" }\naccess = \"public\"", "contradicts access = \"public\""),
        ("rate_limit = { per = \"client\" }", "lacks the key \"rate\""),
        ("rate_limit = { rate = \"1/s\" }", "lacks the key \"per\""),
        ("rate_limit = { per = \"session\", rate = \"1/s\" }", "session"),
        ("rate_limit = { per = \"client\", rate = \"1/day\" }", "not a number per s, min or h"),
        ("rate_limit = { per = \"client\", rate = \"1/s\", burst = 0 }", "write a number from 1"),
    ] {
        let text = errors(&[("routes", &format!("path = \"/x\"\n{line}\n"))]);
        assert!(text.contains(why), "{line}: {text}");
    }
}

#[test]
fn the_server_is_checked() {
    for (section, line, why) in [
        ("", "admin_listen = \"0.0.0.0:8080\"\n", "is the address of another listener"),
        ("", "listen = \"localhost\"\n", "is \"localhost\", not an address and port"),
        ("", "trusted_proxies = [\"10.0.0.0/40\"]\n", "not a network or an address"),
        ("", "return_origins = [\"www.example.com\"]\n", "no origin"),
        ("limits", "max_header_bytes = \"1KiB\"", "is out of range"),
        ("limits", "max_headers = 1", "write a number from 10 to 1000"),
        ("limits", "h2_max_streams = 0", "write a number from 1 to 1000"),
        ("limits", "idle_timeout = \"0s\"", "is zero"),
        ("limits", "max_uri_bytes = \"1KiB\"", "write a size from 2KiB to 60KiB"),
        ("limits", "max_body = \"much\"", "not a size with a unit, or \"off\""),
        ("limits", "min_body_rate = \"0B\"", "is zero"),
        ("limits", "min_body_rate = \"off\"\nbody_grace = \"9s\"", "has no meaning beside min_body_rate"),
        ("limits", "max_connections = 9\nmax_connections_per_client = 10", "so it bounds nothing"),
        ("limits", "max_requests_per_connection = 0", "write a number from 1"),
        ("limits", "sign_in_rate = \"10\"", "not a number per s, min or h, or \"off\""),
        ("limits", "sign_in_rate = \"off\"\nsign_in_burst = 9", "has no meaning beside sign_in_rate"),
        ("log", "level = \"inf\"", "did you mean \"info\"?"),
        ("log", "level = \"vestibule=loud\"", "no filter directive"),
    ] {
        let text = errors(&[(section, line)]);
        assert!(text.contains(why), "{line}: {text}");
    }
    for (section, line, why) in [
        ("drain", "timeout = \"25s\"", "30 s or more"),
        ("", "trusted_proxies = [\"0.0.0.0/0\"]\n", "trusts every address"),
        ("", "state_dir = \"/var/lib/vestibule\"\n", "nothing is configured that is kept on disk"),
    ] {
        let text = warnings(&[(section, line)]);
        assert!(text.contains(why), "{line}: {text}");
    }
    let settings = settings(&[
        ("", "admin_listen = \"off\"\nworkers = 3\ntrusted_proxies = [\"10.1.2.3\"]\n"),
        ("limits", "max_header_bytes = \"64KiB\""),
    ]);
    assert_eq!(settings.admin_listen, None);
    assert_eq!(settings.server.workers.get(), 3);
    assert_eq!(settings.server.max_header_bytes, 65536);
    assert_eq!(settings.message.trusted_proxies[0].to_string(), "10.1.2.3/32");
}

#[test]
fn what_other_modules_find_gets_its_place() {
    let sources = Sources::toml(&with(&[("routes", "path = \"x\"\n")]));
    let problems = load_with(&sources, |_, _| {
        vec![resolve::Finding { key: "routes[0].path".to_owned(), what: "is odd".to_owned(), fix: "", warning: false }]
    })
    .unwrap_err();
    assert!(problems[0].to_string().ends_with(":8: error: routes[0].path is odd"), "{}", problems[0]);
    let loaded = load_with(&sources, |_, _| {
        vec![resolve::Finding { key: "routes[0]".to_owned(), what: "is odd".to_owned(), fix: "", warning: true }]
    });
    assert_eq!(loaded.unwrap().warnings.len(), 1);
}

/// Needs the real `Routes` and `Pages`.
#[test]
fn loading_compiles_routes_and_templates() {
    let folder = Folder::new();
    let broken = folder.file("broken.html", "<p>{{ title </p>");
    let text = with(&[("pages", &format!("access_denied = {broken:?}"))])
        + "[[routes]]\npath = \"/a\"\n[[routes]]\npath = \"/a\"\n[[routes]]\npath = \"no-slash\"\n";
    let problems = all(&load(&Sources::toml(&text)).unwrap_err());
    for part in ["error: routes[1]", "error: routes[2]", "error: pages.access_denied cannot be used as a template"] {
        assert!(problems.contains(part), "{part}: {problems}");
    }
    assert!(problems.matches("vestibule.toml:").count() >= 3, "{problems}");
    let without_issuer = text.replace("issuer = \"https://id.example.com\"\n", "");
    let problems = all(&load(&Sources::toml(&without_issuer)).unwrap_err());
    assert!(problems.contains("provider.issuer is missing") && problems.contains("error: routes[2]"), "{problems}");
    assert!(load(&Sources::toml(&with(&[("routes", "path = \"/a\"\n")]))).is_ok());
}

/// Needs the real `Routes`: an example with a pattern that is none, or two equal routes, would fail here.
#[test]
fn every_example_has_routes_that_compile() {
    for (name, text) in examples() {
        let mut sources = Sources::toml(&text);
        sources.env = env(&ENOUGH);
        if text.contains("[providers.") {
            sources.env.retain(|(name, _)| !name.starts_with("OIDC_"));
        }
        if text.contains("[upstreams.default]") {
            sources.env.retain(|(name, _)| name != "VESTIBULE_UPSTREAM");
        }
        if let Err(problems) = load(&sources) {
            panic!("{name}: {}", all(&problems));
        }
    }
}

/// A folder with a certificate, its key, and another key.
fn tls_files() -> &'static Path {
    static FOLDER: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let mut expired = rcgen::CertificateParams::new(["app.example.com".to_owned()]).unwrap();
        expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let expired = expired.self_signed(&made.signing_key).unwrap();
        for (name, text) in [
            ("tls.crt", made.cert.pem()),
            ("tls.key", made.signing_key.serialize_pem()),
            ("www.crt", made.cert.pem()),
            ("www.key", made.signing_key.serialize_pem()),
            ("clients.crt", made.cert.pem()),
            ("expired.crt", expired.pem()),
            ("other.key", other.serialize_pem()),
            ("open.key", made.signing_key.serialize_pem()),
            ("empty", String::new()),
        ] {
            use std::os::unix::fs::PermissionsExt as _;
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let mode = if name == "open.key" { 0o644 } else { 0o600 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        folder
    });
    folder.path()
}

#[test]
fn listeners_and_their_tls_are_checked() {
    let at = |toml: &str| toml.replace("@", &format!("{}/", tls_files().display()));
    let good = at("certificate_file = \"@tls.crt\"\nkey_file = \"@tls.key\"\n");
    for (section, line, why) in [
        ("[listeners]", "address = \"localhost:80\"", "not an address and port, or unix: and a path"),
        ("[listeners]", "address = \"unix:\"", "not an address and port, or unix: and a path"),
        ("[listeners]", "mode = \"0660\"", "lacks the key \"address\""),
        ("[listeners]", "address = \"127.0.0.1:81\"\nmode = \"0660\"", "and this is none"),
        ("[listeners]", "address = \"unix:/a\"\nmode = \"rw\"", "no file permissions"),
        ("[listeners]", "address = \"unix:/a\"\nmode = \"4755\"", "no file permissions"),
        ("[listeners]", "address = \"127.0.0.1:81\"\ntls = true", "there is no [tls] section"),
        ("[listeners]", "address = \"127.0.0.1:81\"\nproxy_protocol_from = [\"x\"]", "not a network or an address"),
        (
            "[listeners]",
            "address = \"127.0.0.1:81\"\n[[listeners]]\naddress = \"127.0.0.1:81\"",
            "where another listener is",
        ),
        (
            "[listeners]",
            "address = \"127.0.0.1:81\"\n[listeners.tls]\nkey_file = \"@tls.key\"",
            "listeners[0].tls.certificate_file is missing",
        ),
        ("tls", "key_file = \"@tls.key\"", "tls.certificate_file is missing"),
        ("tls", "certificate_file = \"@none\"\nkey_file = \"@tls.key\"", "cannot be read"),
        ("tls", "certificate_file = \"@empty\"\nkey_file = \"@tls.key\"", "holds no certificate"),
        ("tls", "certificate_file = \"@tls.crt\"\nkey_file = \"@empty\"", "holds no private key"),
        ("tls", "certificate_file = \"@tls.crt\"\nkey_file = \"@other.key\"", "is not the key of"),
        ("tls", "GOODmin_version = \"1.1\"", "did you mean \"1.2\"?"),
        ("tls", "GOODclient_certificate = \"required\"", "nothing says who signs them"),
        ("tls", "GOODclient_ca_file = \"@none\"", "tls.client_ca_file names"),
        (
            "tls",
            "GOOD[[tls.certificates]]\ncertificate_file = \"@tls.crt\"\nkey_file = \"@other.key\"",
            "tls.certificates[0].key_file",
        ),
        (
            "identity.headers",
            "\"X-Subject\" = \"client_certificate_subject\"",
            "identity.headers.X-Subject is filled from client certificates, and no listener asks",
        ),
    ] {
        let text = errors(&[(section, &at(&line.replace("GOOD", &good)))]);
        assert!(text.contains(why), "{line}: {text}");
    }
    for (section, line, why) in [
        ("tls", "certificate_file = \"@expired.crt\"\nkey_file = \"@tls.key\"", "has expired"),
        ("tls", "certificate_file = \"@tls.crt\"\nkey_file = \"@open.key\"", "can be read by every user"),
        ("[listeners]", "address = \"127.0.0.1:81\"\nproxy_protocol_from = [\"::/0\"]", "trusts every address"),
        ("[listeners]", "address = \"127.0.0.1:81\"\ntls = false\n[tls]\nGOOD", "is used by no listener"),
    ] {
        let loaded = read(&Sources::toml(&with(&[(section, &at(&line.replace("GOOD", &good)))]))).unwrap();
        assert!(all(&loaded.warnings).contains(why), "{line}: {}", all(&loaded.warnings));
    }
}

fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            // What the examples mount exists only here.
            let text = std::fs::read_to_string(&path).unwrap();
            (name, text.replace("/run/secrets/tls/", &format!("{}/", tls_files().display())))
        })
        .collect()
}

#[test]
fn every_example_is_sound_and_complete() {
    let folder = Folder::new();
    let secrets = [folder.file("one", SECRET), folder.file("two", OTHER)];
    let mut seen = 0;
    let mut written = String::new();
    for (name, text) in examples() {
        assert!(text.starts_with("# "), "{name} says what it is for");
        written += &text;
        // The secrets of the examples are mounted somewhere that does not exist here.
        let mut sources = Sources::toml(&text);
        sources.env = match name.as_str() {
            "container.toml" => env(&ENOUGH),
            _ => env(&[("SESSION_SECRET_FILE", secrets[0].to_str().unwrap())]),
        };
        if text.contains("client_secret_file") && name != "container.toml" {
            sources.env.extend(env(&[("OIDC_CLIENT_SECRET_FILE", secrets[1].to_str().unwrap())]));
        }
        match read(&sources) {
            Ok(loaded) if name == "development.toml" => assert_eq!(loaded.warnings.len(), 1),
            Ok(loaded) => assert!(loaded.warnings.is_empty(), "{name}: {}", all(&loaded.warnings)),
            Err(problems) => panic!("{name}: {}", all(&problems)),
        }
        seen += 1;
    }
    assert!(seen >= 8, "{seen}");
    let shape = shape::Shape::root();
    let mut keys = Vec::new();
    leaves(&shape, &mut keys);
    // Every key stands in some example, but for secrets as plain values.
    keys.retain(|key| {
        !written.contains(&format!("{key} = ")) && !["secret", "secrets", "client_secret"].contains(&key.as_str())
    });
    assert!(keys.is_empty(), "{keys:?}");
}

fn leaves(shape: &shape::Shape, keys: &mut Vec<String>) {
    if let shape::Kind::Table { fields, rest, .. } = &shape.kind {
        for (key, below) in fields {
            match &below.kind {
                shape::Kind::Table { .. } => leaves(below, keys),
                shape::Kind::List(items) if matches!(items.kind, shape::Kind::Table { .. }) => leaves(items, keys),
                _ => keys.push(key.clone()),
            }
        }
        rest.iter().for_each(|rest| leaves(rest, keys));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Wherever a secret is written, right or wrong, no problem shows it.
    #[test]
    fn no_problem_shows_a_secret(secret in "[a-zA-Z0-9!#%&/=+ -]{6,40}", place in 0usize..9) {
        prop_assume!(secret.trim().len() >= 6 && !"vestibule".contains(secret.trim()));
        let secret = format!("{}QX", secret.trim());
        let quoted = format!("{secret:?}");
        let mut sources = Sources::toml(&match place {
            0 => with(&[("session", &format!("secret = {quoted}"))]),
            1 => with(&[("session", &format!("secrets = [{quoted}, 1]"))]),
            2 => with(&[("session", &format!("store = {quoted}"))]),
            3 => with(&[("session", &format!("secret = {quoted} x"))]),
            4 => with(&[("upstream", &format!("url = \"http://u:{}@h:x\"", secret.replace(['/', '#', '%', ' ', '='], "")))]),
            _ => with(&[]),
        });
        match place {
            5 => sources.env = env(&[("SESSION_SECRET", &secret)]),
            6 => sources.env = env(&[("SESSION_SECRE", &secret), ("VESTIBULE_SECRET", &secret)]),
            7 => sources.env = env(&[("OIDC_CLIENT_SECRET", &secret), ("OIDC_CLIENT_SECRET_FILE", "/nonexistent")]),
            8 => sources.flags = vec![("session.secret".to_owned(), secret.clone()), ("session.secret.x".to_owned(), secret.clone())],
            _ => {}
        }
        let problems = match read(&sources) {
            Ok(loaded) => loaded.warnings,
            Err(problems) => problems,
        };
        let shown = format!("{}{problems:?}", all(&problems));
        prop_assert!(!shown.contains(&secret), "{}", shown);
    }
}

/// A folder of its own for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("vestibule-config-{}", generate_secret().unwrap());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_prefix_is_plain_and_above_its_route() {
    let route = |lines: &str| settings(&[("routes", lines)]).routes.routes.remove(0).rewrite.map(|rewrite| *rewrite);
    let strip = |strip: &str, add: &str| Some(crate::route::Rewrite { strip: strip.to_owned(), add: add.to_owned() });
    assert_eq!(route("path = \"/app/*\"\n"), None);
    assert_eq!(route("path = \"/app/*\"\nstrip_prefix = \"/app/\"\n"), strip("/app", ""));
    assert_eq!(route("path = \"/app\"\nstrip_prefix = \"/app\"\nadd_prefix = \"/v2\"\n"), strip("/app", "/v2"));
    assert_eq!(route("add_prefix = \"/v2/x\"\n"), strip("", "/v2/x"));
    for (lines, wanted) in [
        ("strip_prefix = \"/app\"\n", "the route's path /* is not below it"),
        ("path = \"/apple/*\"\nstrip_prefix = \"/app\"\n", "write path = \"/app/*\""),
        ("path = \"/*\"\nadd_prefix = \"/\"\n", "routes[0].add_prefix"),
        ("path = \"/*\"\nadd_prefix = \"v2\"\n", "is \"v2\", no prefix of paths"),
        ("path = \"/*\"\nadd_prefix = \"/a/../b\"\n", "no prefix of paths"),
        ("path = \"/*\"\nadd_prefix = \"//evil.example\"\n", "no prefix of paths"),
        ("path = \"/*\"\nadd_prefix = \"/a%2Fb\"\n", "no prefix of paths"),
    ] {
        let told = errors(&[("routes", lines)]);
        assert!(told.contains(wanted), "{lines}: {told}");
    }
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

#[test]
fn redirects_and_hsts_speak_of_the_redirect_uris_origin() {
    let believed = "trusted_proxies = [\"10.0.0.0/8\"]\n";
    let all = settings(&[(
        "",
        &format!("{believed}https_redirect = true\ncanonical_host = \"App.Example.com.\"\nhsts = \"365d\"\n"),
    )]);
    let canonical = &all.routes.canonical;
    assert!(canonical.https && canonical.one_host && canonical.port.is_none());
    assert_eq!((canonical.host.as_str(), canonical.scheme), ("app.example.com", Some(crate::message::Scheme::Https)));
    assert_eq!(all.hsts.unwrap(), "max-age=31536000");
    let none = settings(&[]);
    assert!(none.hsts.is_none() && !none.routes.canonical.https && !none.routes.canonical.one_host);
    let port = settings(&[("provider", "redirect_uri = \"https://app.example.com:8443/cb\"\n")]).routes.canonical.port;
    assert_eq!(port, Some(8443));
    for (hsts, value) in [
        ("\"0s\"", "max-age=0"),
        ("{ max_age = \"1h\" }", "max-age=3600"),
        (
            "{ max_age = \"730d\", include_subdomains = true, preload = true }",
            "max-age=63072000; includeSubDomains; preload",
        ),
    ] {
        assert_eq!(settings(&[("", &format!("hsts = {hsts}\n"))]).hsts.unwrap(), value, "{hsts}");
    }
    assert!(warnings(&[("", "https_redirect = true\n")]).contains("redirected for ever"));
    assert!(!warnings(&[("", &format!("{believed}https_redirect = true\n"))]).contains("redirected"));
    let http = ("provider", "redirect_uri = \"http://localhost:8080/cb\"\n");
    for (lines, wanted) in [
        ("https_redirect = true\n", "https_redirect contradicts provider.redirect_uri, which is http"),
        ("hsts = \"1y\"\n", "hsts contradicts provider.redirect_uri, which is http"),
        ("canonical_host = \"app.example.com\"\n", "people sign in on localhost"),
    ] {
        let told = errors(&[("", lines), http]);
        assert!(told.contains(wanted), "{lines}: {told}");
    }
    for (lines, wanted) in [
        ("canonical_host = \"www.example.com\"\n", "write \"app.example.com\""),
        ("canonical_host = \"https://app.example.com\"\n", "no host"),
        ("hsts = true\n", "hsts must be"),
        ("hsts = \"soon\"\n", "hsts"),
        ("hsts = { include_subdomains = true }\n", "lacks the key \"max_age\""),
        ("hsts = { max_age = \"2y\", preload = true }\n", "hsts.preload asks for preloading"),
        (
            "hsts = { max_age = \"30d\", include_subdomains = true, preload = true }\n",
            "hsts.preload asks for preloading",
        ),
    ] {
        let told = errors(&[("", lines)]);
        assert!(told.contains(wanted), "{lines}: {told}");
    }
}
