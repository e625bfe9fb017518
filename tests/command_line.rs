//! The commands as an operator meets them: what they print, what they find, and how they end.

use std::path::Path;

use vestibule_test_support::{Ended, Launch, Site, Value};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");

/// Stands in every secret of these tests and must be in no output.
const SENTINEL: &str = "SENTINEL";

/// A configuration that is sound, as variables.
const SOUND: [(&str, &str); 6] = [
    ("OIDC_ISSUER", "https://id.example.com"),
    ("OIDC_CLIENT_ID", "app"),
    ("OIDC_CLIENT_SECRET", "SENTINEL-client"),
    ("OIDC_REDIRECT_URI", "https://app.example.com/auth/callback"),
    ("SESSION_SECRET", "SENTINEL-Xq7mVt2Kd9zLr4wNc8YbHs1PfJg6Ue3"),
    ("VESTIBULE_UPSTREAM", "http://127.0.0.1:3000"),
];

fn sound() -> Launch {
    Launch::of(PROGRAM).envs(SOUND.map(|(name, value)| (name, value.to_owned())))
}

/// `check`, with the sentinel looked for in everything it prints.
#[track_caller]
fn check(launch: Launch) -> Ended {
    let ended = launch.args(["check"]).run();
    assert!(!ended.stdout.contains(SENTINEL) && !ended.stderr.contains(SENTINEL), "a secret is shown: {ended:?}");
    ended
}

/// The line of the problem that begins with `place` and names `what`, with the advice below it.
#[track_caller]
fn problem(ended: &Ended, place: &str, what: &str) -> String {
    let lines: Vec<&str> = ended.stderr.lines().collect();
    let found = lines.iter().position(|line| line.starts_with(place) && line.contains(what));
    let at = found.unwrap_or_else(|| panic!("no problem at {place} about {what} in\n{}", ended.stderr));
    let advice = lines[at + 1..].iter().take_while(|line| line.starts_with("    "));
    std::iter::once(&lines[at]).chain(advice).copied().collect::<Vec<_>>().join("\n")
}

#[test]
fn check_tells_every_problem_at_once_with_its_place_and_what_to_write() {
    let site = Site::of(PROGRAM);
    let text = r#"listen = "nonsense"
colour = "red"
[provider]
isuer = "https://id.example.com"
issuer = "not a url"
client_id = 7
client_secret = ["SENTINEL-client"]
redirect_uri = "ftp://app.example.com/cb"
ca_file = "empty.pem"
scopes = 5
[session]
secret = "SENTINEL"
lifetime = "soon"
store = "redis:user:SENTINEL-store@host"
[upstream]
url = "127.0.0.1:3000"
[identity.headers]
"Content-Type" = "name"
"X-Auth-Name" = "name"
"X_Auth.Name" = "email"
[log]
format = "xml"
level = "inof"
[[routes]]
path = "admin"
access = "open"
"#;
    let path = site.file("bad.toml", text);
    site.file("empty.pem", "");
    let launch = Launch::of(PROGRAM)
        .env("OIDC_ISUER", "https://SENTINEL.example.com")
        .env("VESTIBULE_UPSTREM", "http://user:SENTINEL@host")
        .env("VESTIBULE_WORKERS", "many")
        // What Kubernetes and desktops set is none of our business.
        .env("VESTIBULE_SERVICE_HOST", "10.0.0.1")
        .env("VESTIBULE_SERVICE_PORT_HTTP", "80")
        .env("VESTIBULE_PORT", "tcp://10.0.0.1:80")
        .env("VESTIBULE_PORT_80_TCP_ADDR", "10.0.0.1")
        .env("SESSION_MANAGER", "local/host")
        .env("OIDC_PROVIDER_NAME", "somebody's")
        .args([Path::new("--config"), &path]);
    let ended = check(launch);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    for (written, what, advice) in [
        ("listen =", "listen is \"nonsense\"", "0.0.0.0:8080"),
        ("colour =", "colour is not a known key", "known here: "),
        ("isuer =", "provider.isuer is not a known key", "did you mean \"issuer\"?"),
        ("issuer =", "provider.issuer is \"not a url\"", "https://"),
        ("client_id =", "provider.client_id must be a text", "client_id = \"app\""),
        ("client_secret =", "provider.client_secret must be a text", ""),
        ("redirect_uri =", "provider.redirect_uri", "https://app.example.com/auth/callback"),
        ("ca_file =", "holds no PEM certificate", "PEM"),
        ("scopes =", "provider.scopes must be a list", "[\"openid\", "),
        ("secret =", "session.secret is too short", "generate-secret"),
        ("lifetime =", "session.lifetime is \"soon\"", "1h 30m"),
        ("store =", "session.store lacks the // after the scheme", "redis://host:6379"),
        ("url =", "upstream.url is \"127.0.0.1:3000\"", "http://127.0.0.1:3000"),
        ("\"Content-Type\"", "no identity can stand in it", "choose another name"),
        ("\"X_Auth.Name\"", "the same name as \"X-Auth-Name\"", "choose another name"),
        ("format =", "log.format is \"xml\"", "\"text\", \"json\""),
        ("level =", "log.level is \"inof\"", "did you mean \"info\"?"),
        ("path =", "a path pattern starts with `/`", ""),
        ("access =", "is \"open\"", "\"public\", \"optional\", \"required\""),
    ] {
        let line = 1 + text.lines().position(|line| line.starts_with(written)).expect("a line of the file");
        let told = problem(&ended, &format!("{}:{line}:", path.display()), what);
        assert!(told.contains("error: ") && told.contains(advice), "{written}: {told}");
    }
    for (variable, advice) in [
        ("OIDC_ISUER", "did you mean OIDC_ISSUER?"),
        ("VESTIBULE_UPSTREM", "did you mean VESTIBULE_UPSTREAM?"),
        ("VESTIBULE_WORKERS", "VESTIBULE_WORKERS=2"),
    ] {
        let told = problem(&ended, &format!("variable {variable}:"), "");
        assert!(told.contains(advice), "{told}");
    }
    for innocent in ["SERVICE", "VESTIBULE_PORT", "SESSION_MANAGER", "OIDC_PROVIDER_NAME"] {
        assert!(!ended.stderr.contains(innocent), "{innocent}: {}", ended.stderr);
    }
    assert!(ended.stderr.ends_with("vestibule: 22 errors, 0 warnings\n"), "{}", ended.stderr);
}

#[test]
fn a_file_that_is_not_toml_is_told_by_line_and_never_quoted() {
    let site = Site::of(PROGRAM);
    for (text, line) in [
        ("listen = \n[provider]\n", 1),
        ("[provider]\nclient_secret = \"SENTINEL\n", 2),
        ("[session]\nsecret = \"SENTINEL\"\nsecret = \"SENTINEL\"\n", 3),
        ("[provider\nclient_secret = \"SENTINEL\"\n", 1),
        ("SENTINEL", 1),
    ] {
        let path = site.file("broken.toml", text);
        let ended = check(Launch::of(PROGRAM).args([Path::new("--config"), &path]));
        assert_eq!(ended.code, Some(78), "{text}: {ended:?}");
        problem(&ended, &format!("{}:{line}:", path.display()), "is not TOML");
    }
}

#[test]
fn check_says_that_nothing_is_configured_by_naming_what_is_needed() {
    let ended = check(Launch::of(PROGRAM));
    assert_eq!(ended.code, Some(78));
    for variable in [
        "OIDC_ISSUER",
        "OIDC_CLIENT_ID",
        "OIDC_CLIENT_SECRET",
        "OIDC_REDIRECT_URI",
        "SESSION_SECRET",
        "VESTIBULE_UPSTREAM",
    ] {
        assert!(ended.stderr.contains(variable), "{variable} is not named in\n{}", ended.stderr);
    }
}

#[test]
fn what_could_never_work_is_found_before_the_start() {
    for (variable, value, what) in [
        ("VESTIBULE_COOKIE_NAME", "__Host-own", "a prefix that Vestibule puts there itself"),
        ("VESTIBULE_COOKIE_NAME", "a b", "no name for our cookies"),
        ("OIDC_REDIRECT_URI", "https://app.example.com/auth/login", "which is that of endpoints.login too"),
        ("VESTIBULE_HOSTS", "other.example.com", "no sign-in could ever end"),
        ("VESTIBULE_UPSTREAM", "http://127.0.0.1:8080", "this proxy itself"),
        ("VESTIBULE_ADMIN_LISTEN", "0.0.0.0:8080", "the address of another listener"),
        ("SESSION_SECRET", "SENTINEL-client", "too short"),
        ("SESSION_SECRET", "SENTINELSENTINELSENTINELSENTINEL", "too weak"),
        ("SESSION_SECRET", "", "empty"),
        ("OIDC_ISSUER", "http://id.example.com", "http"),
    ] {
        let ended = check(sound().env(variable, value));
        assert_eq!(ended.code, Some(78), "{variable}={value}: {ended:?}");
        problem(&ended, &format!("variable {variable}: error:"), what);
    }
}

#[test]
fn a_sound_configuration_is_summed_up_without_secrets() {
    let ended = check(sound().env("OIDC_REDIRECT_URI", "https://app.example.com/some/other/path"));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for part in [
        "configuration is fine (0 errors, 0 warnings)",
        "0.0.0.0:8080",
        "https://id.example.com as client \"app\"",
        "https://app.example.com/some/other/path",
        "http://127.0.0.1:3000",
    ] {
        assert!(ended.stdout.contains(part), "{part} is not in\n{}", ended.stdout);
    }
}

#[test]
fn check_says_what_becomes_of_the_cookies() {
    let set = |keys: &[&str]| {
        let launch = sound().env("OIDC_REDIRECT_URI", "https://app.example.com/auth/callback");
        let sets = keys.iter().flat_map(|key| ["--set", key]);
        launch.args(["check"].into_iter().chain(sets)).run()
    };
    for (keys, told) in [
        (&[][..], "cookie __Host-vestibule\n"),
        (&["cookie.same_site=strict"], "cookie __Host-vestibule, SameSite=Strict\n"),
        (&["cookie.name=wiki", "cookie.domain=example.com"], "cookie __Secure-wiki for example.com and all below\n"),
        (&["cookie.path=/auth"], "cookie __Secure-vestibule below /auth\n"),
        (
            &["cookie.name=wiki", "cookie.partitioned=true", "cookie.framed_by=[\"https://portal.example\"]"],
            "cookie __Host-wiki, Partitioned, in frames of https://portal.example\n",
        ),
    ] {
        let ended = set(keys);
        assert!(ended.code == Some(0) && ended.stdout.contains(told), "{keys:?}: {ended:?}");
    }
    let ended =
        set(&["cookie.domain=.example.org", "cookie.path=/app", "cookie.same_site=none", "cookie.partitioned=true"]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    for what in ["the dot in front", "does not cover /auth/callback", "cookie.framed_by names nobody", "one host's"] {
        assert!(ended.stderr.contains(what), "{what}: {ended:?}");
    }
}

#[test]
fn wrong_use_wrong_configuration_and_trouble_have_codes_of_their_own() {
    for (arguments, code) in [
        (vec!["frobnicate"], 64),
        (vec!["--frobnicate"], 64),
        (vec!["check", "--set", "log.format"], 64),
        (vec!["healthcheck", "--url", "https://127.0.0.1:1/readyz"], 64),
        (vec!["demo", "--set", "log.format=json"], 64),
        (vec!["demo", "--config", "vestibule.toml"], 64),
        (vec!["--set", "colour=red"], 78),
        (vec!["--config", "/nonexistent/vestibule.toml"], 78),
        (vec!["check", "--config", "/nonexistent/vestibule.toml"], 78),
        (vec!["--listen", "nowhere"], 78),
        (vec!["--help"], 0),
        (vec!["--version"], 0),
        (vec!["check", "--set", "log.format=json"], 0),
    ] {
        let ended = sound().args(&arguments).run();
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stderr.is_empty(), code == 0, "{arguments:?}: {ended:?}");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let site = Site::of(PROGRAM);
    let taken = std::net::TcpListener::bind(("127.0.0.1", site.port)).unwrap();
    let ended = site.launch().run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&format!("cannot listen on 127.0.0.1:{}", site.port)), "{ended:?}");
    assert!(ended.stderr.contains("in use"), "{ended:?}");
    drop(taken);

    let taken = std::net::TcpListener::bind(("127.0.0.1", site.admin_port)).unwrap();
    let ended = site.launch().run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = format!("cannot listen for health and metrics on 127.0.0.1:{}", site.admin_port);
    assert!(ended.stderr.contains(&said), "{ended:?}");
    drop(taken);
}

#[test]
fn a_generated_secret_is_a_good_one_and_never_the_same() {
    let generate = || Launch::of(PROGRAM).args(["generate-secret"]).run();
    let (one, other) = (generate(), generate());
    assert_eq!((one.code, one.stderr.as_str(), one.stdout.lines().count()), (Some(0), "", 1));
    assert_ne!(one.stdout, other.stdout);
    let ended = check(sound().env("SESSION_SECRET", one.stdout.trim_end()));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stdout.contains(one.stdout.trim_end()));
    // A rotation: the new one seals, both open.
    let ended = check(sound().env("SESSION_SECRET", format!("{} {}", one.stdout.trim_end(), other.stdout.trim_end())));
    assert!(ended.stdout.contains("2 secrets"), "{ended:?}");
}

#[test]
fn the_schema_allows_every_example() {
    let ended = Launch::of(PROGRAM).args(["schema"]).run();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let schema: Value = serde_json::from_str(&ended.stdout).expect("the schema is JSON");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the examples") {
        let path = entry.expect("an example").path();
        let text = std::fs::read_to_string(&path).expect("an example is text");
        let example: toml::Table = text.parse().expect("an example is TOML");
        let example = serde_json::to_value(example).expect("TOML as JSON");
        assert_allows(&schema, &schema, &example, &path.display().to_string());
        count += 1;
    }
    assert!(count >= 5, "only {count} examples were found");
    let odd = serde_json::json!({ "provider": { "isuer": "x" } });
    assert!(std::panic::catch_unwind(|| assert_allows(&schema, &schema, &odd, "a wrong key")).is_err());
}

/// The part of JSON Schema that says which keys and types there are.
fn assert_allows(root: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(path) = schema["$ref"].as_str() {
        let target = path.strip_prefix('#').and_then(|path| root.pointer(path));
        return assert_allows(root, target.unwrap_or_else(|| panic!("{at}: {path} leads nowhere")), value, at);
    }
    if let Some(ways) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let fits = ways.iter().any(|way| fits(root, way, value));
        return assert!(fits, "{at}: {value} fits none of {ways:?}");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        Value::String(name) => vec![name],
        _ => vec![],
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(types.is_empty() || types.contains(&is), "{at}: {value} is not {types:?}");
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{at}: {value} is none of {allowed:?}");
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        assert_allows(root, &schema["items"], item, &format!("{at}[{index}]"));
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => panic!("{at} is not in the schema"),
            (Value::Null, others) => assert_allows(root, others, value, &at),
            (known, _) => assert_allows(root, known, value, &at),
        }
    }
}

fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    let quiet = std::panic::AssertUnwindSafe(|| assert_allows(root, schema, value, ""));
    std::panic::catch_unwind(quiet).is_ok()
}

#[tokio::test]
async fn the_healthcheck_ends_as_readiness_says() {
    let site = Site::of(PROGRAM);
    let healthcheck = |launch: Launch| launch.args(["healthcheck"]).run();
    let ended = healthcheck(site.launch());
    assert_eq!(ended.code, Some(1), "nothing runs yet: {ended:?}");
    assert!(ended.stderr.contains("Connection refused"), "{ended:?}");

    let program = site.start(site.launch().env("VESTIBULE__DRAIN__GRACE", "30s")).await;
    let ended = healthcheck(site.launch());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let url = format!("http://127.0.0.1:{}/healthz", site.admin_port);
    assert_eq!(site.bare().args(["healthcheck", "--url", &url]).run().code, Some(0));

    program.signal("TERM");
    site.wait_for_readiness("the drain", |reply| reply.status == 503).await;
    let ended = healthcheck(site.launch());
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("503"), "{ended:?}");
    assert_eq!(site.bare().args(["healthcheck", "--url", &url]).run().code, Some(0), "it is healthy to the last");

    let ended = healthcheck(site.launch().env("VESTIBULE_ADMIN_LISTEN", "off"));
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("--url"), "{ended:?}");
}

#[test]
fn who_stops_reading_the_answer_causes_no_panic() {
    let ended = Launch::of("/bin/sh").args(["-c", "\"$0\" schema | :", PROGRAM]).run();
    assert_eq!(ended.stderr, "");
}
