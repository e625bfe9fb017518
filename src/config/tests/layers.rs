//! Where settings come from, and which of them holds.

use super::*;

#[test]
fn variables_alone_are_enough() {
    let loaded = read(&Sources { env: env(&ENOUGH), ..Sources::default() }).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let settings = loaded.settings;
    assert_eq!(settings.server.listeners[0].address.to_string(), "0.0.0.0:8080");
    assert_eq!(settings.admin.listen.unwrap().to_string(), "127.0.0.1:9090");
    assert_eq!(settings.providers[0].issuer, "https://id.example.com");
    assert_eq!(settings.providers[0].credentials.client_id, "12345");
    assert_eq!(settings.providers[0].credentials.client_secret.as_ref().unwrap().expose_secret(), "67890");
    assert_eq!(settings.providers[0].scopes, ["openid", "email", "profile"]);
    assert!(settings.providers[0].userinfo && settings.providers[0].userinfo_required);
    assert_eq!(settings.session.lifetime, Duration::from_secs(24 * 3600));
    assert_eq!(settings.session.idle, Duration::from_secs(3600));
    assert_eq!(settings.message.cookie_bases, ["__Host-vestibule"]);
    assert_eq!(settings.upstreams[0].places, [Place::Host { host: "app".to_owned(), port: 3000 }]);
    assert_eq!(settings.endpoints.login_path.as_deref(), Some("/auth/login"));
    assert_eq!(settings.routes.prefix, "/auth");
    let callback = (Endpoint::Callback(0), "/auth/callback".to_owned());
    assert!(settings.routes.endpoints.contains(&callback) && settings.routes.endpoints.len() == 9);
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

#[cfg(feature = "sql")]
#[test]
fn a_variable_takes_the_place_of_a_file_that_says_the_same() {
    let written = ("session", "store_file = \"/nonexistent/store\"\nshare_file = \"/nonexistent/shared\"");
    let mut sources = Sources::toml(&with(&[written]));
    sources.env = env(&[("VESTIBULE_SESSION_STORE", "sqlite:/x/y.db"), ("VESTIBULE_SESSION_SHARE", "cookie")]);
    let session = read(&sources).unwrap_or_else(|problems| panic!("{}", all(&problems))).settings.session;
    assert!(session.store.is_some() && session.share.is_none());
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
