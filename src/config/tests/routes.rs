//! Which requests go there.

use super::*;

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
    let logouts = ["/-/id/backchannel-logout", "/-/id/frontchannel-logout"];
    assert_eq!(
        paths,
        [&["/auth/callback", "/-/id/login", "/-/id/signed-out"][..], &logouts, &["/me", "/-/id/jwks", "/-/id/request"]]
            .concat()
    );
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
