//! Our cookies: what a browser would not keep, or never send to where it is needed.

use super::*;
use crate::authn::session::cookie::SameSite;
use crate::message::Windows;

#[test]
fn what_browsers_would_not_keep_or_send_is_a_problem() {
    for (line, why) in [
        ("name = \"__Host-app\"", "begins with a prefix"),
        ("name = \"__secure-app\"", "begins with a prefix"),
        ("name = \"a b\"", "no name for our cookies"),
        ("name = \"a.b\"", "no name for our cookies"),
        ("name = \"\"", "no name for our cookies"),
        ("domain = \".example.com\"", "the dot in front means nothing any more\n    write \"example.com\""),
        ("domain = \"com\"", "a name that browsers keep no cookies for\n    write a name such as \"example.com\""),
        ("domain = \"192.0.2.1\"", "an address: there is nothing below it"),
        ("domain = \"[2001:db8::1]\"", "an address"),
        ("domain = \"example.com:8080\"", "no domain"),
        ("domain = \"https://example.com\"", "no domain"),
        ("domain = \"*.example.com\"", "no domain"),
        ("domain = \"example.com.\"", "which browsers read as another name"),
        ("domain = \"ex%61mple.com\"", "no domain"),
        ("domain = \"\"", "no domain"),
        ("domain = \"other.example.com\"", "app.example.com, the redirect URI's host, is not and does not lie below"),
        ("domain = \"pp.example.com\"", "does not lie below"),
        ("domain = \"x.app.example.com\"", "does not lie below"),
        ("path = \"app\"", "no path for cookies"),
        ("path = \"/a;b\"", "no path for cookies"),
        ("path = \"/app/*\"", "no path for cookies"),
        ("path = \"/app/../x\"", "no path for cookies"),
        ("path = \"/app/\"", "leaves out /app itself\n    write \"/app\""),
        ("path = \"/app\"", "does not cover /auth/callback, /auth/login, /auth/logout"),
        ("path = \"/aut\"", "does not cover"),
        ("same_site = \"none\"", "the session would come along with whatever any other site asks for"),
        ("same_site = \"stict\"", "did you mean \"strict\"?"),
        ("framed_by = [\"https://portal.example\"]", "where nobody can be signed in without partitioned"),
        ("framed_by = []", "write partitioned = true beside it"),
    ] {
        let text = errors(&[("cookie", line)]);
        assert!(text.contains(why), "{line}: {text}");
        assert_eq!(text.matches("error: ").count(), 1, "{line}: {text}");
    }
}

#[test]
fn all_of_it_is_told_at_once() {
    let local = "issuer = \"http://127.0.0.1:8180\"\nredirect_uri = \"http://localhost:8080/auth/callback\"";
    let cookie = "name = \"a b\"\ndomain = \"localhost\"\npath = \"/x\"\nsame_site = \"none\"\npartitioned = false";
    let text = errors(&[("provider", local), ("cookie", cookie)]);
    for why in [
        "no name for our cookies",
        "\"localhost\", a name that browsers keep no cookies for",
        "does not cover /auth/callback",
        "cookie.same_site is \"none\"",
    ] {
        assert!(text.contains(why), "{why}: {text}");
    }
    let partitioned = "partitioned = true\nsame_site = \"strict\"\ndomain = \"example.com\"";
    let text = errors(&[("provider", local), ("cookie", partitioned)]);
    for why in [
        "cookie.name is \"vestibule\", as by default",
        "cookie.framed_by names nobody",
        "cookie.same_site is \"strict\": such a cookie never comes into a frame of another site",
        "cookie.domain is for several hosts",
        "browsers refuse Partitioned without Secure",
    ] {
        assert!(text.contains(why), "{why}: {text}");
    }
}

/// With everything that belongs to it.
const FRAMED: &str = "name = \"intranet\"\npartitioned = true\nframed_by = [\"https://portal.example\"]";

#[test]
fn what_does_not_go_with_a_frame_is_a_problem() {
    for (from, to, why) in [
        ("name = \"intranet\"", "", "cookie.name is \"vestibule\", as by default"),
        ("\"intranet\"", "\"vestibule\"", "sends both\n    write a name of its own"),
        ("framed_by = [\"https://portal.example\"]", "", "somebody has to say of whose pages"),
        ("[\"https://portal.example\"]", "[]", "cookie.framed_by names nobody"),
        ("https://portal.example", "http://portal.example", "what goes over http is anybody's page"),
        ("https://portal.example", "http://localhost:8080", "what goes over http is anybody's page"),
        (
            "https://portal.example",
            "https://*.example",
            "cookie.framed_by[0] is \"https://*.example\", and not one host",
        ),
        ("https://portal.example", "https://a.example,b.example", "not one host by its name"),
        ("https://portal.example", "https://a.example;x", "not one host by its name"),
        ("https://portal.example", "https://[2001:db8::1]", "not one host by its name"),
        ("https://portal.example", "https://portal.example/page", "no origin"),
        ("https://portal.example", "https://user@portal.example", "no origin"),
        ("https://portal.example", "*", "no origin"),
        ("https://portal.example", "null", "no origin"),
        ("https://portal.example", "", "no origin"),
        ("partitioned = true", "partitioned = true\nsame_site = \"lax\"", "cookie.same_site is \"lax\""),
        ("partitioned = true", "partitioned = true\ndomain = \"example.com\"", "a partitioned session is one host's"),
        ("partitioned = true", "partitioned = false", "framed_by lets pages of other sites show"),
    ] {
        let text = errors(&[("cookie", &FRAMED.replace(from, to))]);
        assert!(text.contains(why), "{to}: {text}");
        assert_eq!(text.matches("error: ").count(), 1, "{to}: {text}");
    }
}

#[test]
fn frames_are_windows_where_they_are_let_in_and_nowhere_else() {
    let list = "[\"https://Portal.example:443/\", \"https://portal.example\", \"https://b.example:8443\"]";
    let framed = FRAMED.replace("[\"https://portal.example\"]", list);
    for line in [framed.clone(), format!("{framed}\nsame_site = \"none\"")] {
        let whole = settings(&[("cookie", &line)]);
        assert_eq!(whole.message.cookie_bases, ["__Host-intranet"]);
        assert_eq!(whole.message.windows, Windows::AndFrames);
        assert_eq!(whole.session.cookie.same_site, SameSite::Partitioned);
        let origins: Vec<_> = whole.session.cookie.framed_by.iter().map(ToString::to_string).collect();
        assert_eq!(origins, ["https://portal.example", "https://b.example:8443"]);
    }
    let whole = settings(&[("cookie", "name = \"intranet\"")]);
    assert!(whole.session.cookie.framed_by.is_empty() && whole.message.windows == Windows::Own);
}

#[test]
fn a_guarded_route_lies_where_the_session_comes() {
    let endpoints = ("endpoints", "prefix = \"/app/auth\"");
    let provider = ("provider", "redirect_uri = \"https://app.example.com/app/auth/callback\"");
    let path = ("cookie", "path = \"/app\"");
    let text = errors(&[endpoints, provider, path, ("routes", "path = \"/admin/*\"")]);
    assert!(text.contains("routes[0].path is \"/admin/*\", where no session ever comes"), "{text}");
    for route in
        ["path = \"/admin/*\"\naccess = \"public\"", "path = \"/app/admin/*\"", "path = \"/*\"", "path = \"/{any}/x\""]
    {
        let cookie = settings(&[endpoints, provider, path, ("routes", route)]).session.cookie;
        assert_eq!(cookie.path, "/app", "{route}");
    }
}

#[test]
fn cookies_come_out_as_written_and_the_prefix_goes_with_them() {
    let whole = settings(&[("cookie", "name = \"app\"")]);
    assert_eq!(whole.message.cookie_bases, ["__Host-app"]);
    assert_eq!((whole.session.cookie.domain, whole.session.cookie.same_site), (None, SameSite::Lax));
    for (domain, own) in [("example.com", "app.example.com"), ("App.Example.com", "app.example.com")] {
        let line = format!("domain = \"{domain}\"\nsame_site = \"strict\"\npartitioned = false\npath = \"/\"");
        let redirect_uri = format!("redirect_uri = \"https://{own}/auth/callback\"");
        let whole = settings(&[("provider", &redirect_uri), ("cookie", &line)]);
        assert_eq!(whole.message.cookie_bases, ["__Secure-vestibule", "__Host-vestibule"]);
        let cookie = whole.session.cookie;
        assert_eq!((cookie.domain, cookie.same_site), (Some(domain.to_ascii_lowercase()), SameSite::Strict));
    }
}
