//! The few pages that people see: plain, accessible, with a strict CSP and no external asset. An operator can replace each
//! with a minijinja template of his own, checked at start; HTML escaping is forced whatever the file's name.
//!
//! # What an operator's template can rely on
//! The variables are the fields of [`PageContext`]; any other name is an error at start. The Content-Security-Policy allows
//! the template's own inline `<style>` elements (each by its hash, so their text must not depend on a variable), `data:`
//! images, and forms towards ourselves; no script, no `style` attribute, nothing from another host. There is no `safe`
//! filter, no `{% autoescape %}` and no way to read another file.

mod protect;
mod template;

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_FRAME_OPTIONS};
use http::{HeaderValue, Response, StatusCode};

pub use self::protect::{Ours, protect};
use self::template::Templates;
use crate::message::Body;

/// The pages that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Page {
    /// Several providers, one to be chosen.
    ChooseProvider,
    /// A sign-in could not be finished.
    SignInFailed,
    /// 403.
    AccessDenied,
    /// After a sign-out.
    SignedOut,
    /// Asks for a click before signing out (a cross-site GET does not sign out).
    ConfirmSignOut,
    /// Asks for a click before a form that was kept over a sign-in is sent.
    SendForm,
    /// 502, 503, 504: the application or the provider is away.
    Unavailable,
    /// Any other refusal (400, 404, 405, 421, 431 …).
    Error,
}

impl Page {
    /// Every page.
    pub const ALL: [Self; 8] = [
        Self::ChooseProvider,
        Self::SignInFailed,
        Self::AccessDenied,
        Self::SignedOut,
        Self::ConfirmSignOut,
        Self::SendForm,
        Self::Unavailable,
        Self::Error,
    ];

    /// Its name in the `[pages]` section.
    pub fn key(self) -> &'static str {
        match self {
            Self::ChooseProvider => "choose_provider",
            Self::SignInFailed => "sign_in_failed",
            Self::AccessDenied => "access_denied",
            Self::SignedOut => "signed_out",
            Self::ConfirmSignOut => "confirm_sign_out",
            Self::SendForm => "send_form",
            Self::Unavailable => "unavailable",
            Self::Error => "error",
        }
    }
}

/// The `[pages]` section: own templates by page.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Template files.
    pub templates: BTreeMap<Page, PathBuf>,
}

/// What a template can show. Field names are the template variables.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PageContext<'a> {
    /// The HTTP status.
    pub status: u16,
    /// A short heading, such as `Sign-in failed`.
    pub title: &'a str,
    /// What happened, in plain words.
    pub message: &'a str,
    /// What to do; may be empty.
    pub advice: &'a str,
    /// The request id.
    pub request_id: &'a str,
    /// Where the main button leads, when there is one: a path, or an http(s) URL; anything else is left out.
    pub action_url: Option<&'a str>,
    /// What the main button says.
    pub action_label: Option<&'a str>,
    /// Whether the main button is a form that POSTs (only `ConfirmSignOut` and `SendForm`).
    pub action_post: bool,
    /// The name of that form's one hidden field, where it has one (only `SendForm`).
    pub field_name: Option<&'a str>,
    /// Its value.
    pub field_value: Option<&'a str>,
    /// Where a second, less prominent link leads, when there is one; as `action_url`.
    pub other_url: Option<&'a str>,
    /// What that link says.
    pub other_label: Option<&'a str>,
    /// The providers to choose from (only `ChooseProvider`).
    pub choices: &'a [Choice],
    /// Where a form with the fields `email` and `rd` (hidden, `email_rd`) is sent by GET, when an e-mail address can choose
    /// the provider (only `ChooseProvider`).
    pub email_url: Option<&'a str>,
    /// The value of that form's `rd`.
    pub email_rd: Option<&'a str>,
}

/// One of several ways on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Choice {
    /// A path.
    pub url: String,
    /// What it is called.
    pub label: String,
    /// A `data:` URL of a picture.
    pub logo: Option<String>,
}

/// The compiled pages.
#[derive(Debug)]
pub struct Pages {
    templates: Templates,
}

/// A template that can't be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct TemplateProblem {
    /// Which page.
    pub page: Page,
    /// File, line and cause.
    pub message: String,
}

impl Pages {
    /// Compiles the built-in pages and the operator's; each is rendered with sample values, so that a mistake is found at
    /// start.
    ///
    /// # Errors
    /// Every problem.
    pub fn new(settings: &Settings) -> Result<Self, Vec<TemplateProblem>> {
        Ok(Self { templates: Templates::compile(&settings.templates)? })
    }

    /// A whole response: status, HTML, strict CSP (`default-src 'none'; style-src 'sha256-…'; img-src data:; base-uri 'none';
    /// frame-ancestors 'none'; form-action …`), `nosniff`, `no-referrer` (`same-origin` where a form is), `no-store`, the
    /// caching `Vary`. `form_action` is extra sources for the CSP's form-action (the provider's origin, for the sign-out
    /// form's redirect).
    pub fn render<'c>(&self, page: Page, context: &PageContext<'c>, form_action: &[String]) -> Response<Body> {
        let followable = |url: Option<&'c str>| url.filter(|url| is_followable(url));
        let (action_url, other_url) = (followable(context.action_url), followable(context.other_url));
        let email_url = followable(context.email_url);
        let context = PageContext { action_url, other_url, email_url, ..context.clone() };
        let rendered = self.templates.render(page, &context);
        let policy = with_form_action(rendered.policy, form_action);

        let mut response = Response::new(Body::full(rendered.html));
        *response.status_mut() = StatusCode::from_u16(context.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        protect(&mut response);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        // For user agents that do not know frame-ancestors.
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        if context.action_post {
            // Under no-referrer a form is sent with `Origin: null` (Fetch, "append a request Origin header"), which our own
            // cross-site check refuses. Other origins still learn nothing.
            headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        }
        // `protect` has set a stricter one, which stays if this were ever not a header value.
        if let Ok(policy) = HeaderValue::try_from(policy) {
            headers.insert(CONTENT_SECURITY_POLICY, policy);
        }
        response
    }
}

/// Escaping does not disarm `javascript:` in a link, and `//host` leaves for another host without saying so.
fn is_followable(url: &str) -> bool {
    let is_local_path = url.starts_with('/') && !url[1..].starts_with(['/', '\\']);
    is_local_path || url.starts_with("https://") || url.starts_with("http://")
}

/// Appends `form-action`. A source that could end the directive (CSP3 §2.2.1: `;` and `,` separate) is left out: the form
/// then fails, the policy never does.
fn with_form_action(policy: &str, sources: &[String]) -> String {
    let mut policy = format!("{policy}; form-action 'self'");
    let is_source = |source: &&String| {
        !source.is_empty() && source.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b';' | b','))
    };
    for source in sources.iter().filter(is_source) {
        policy.push(' ');
        policy.push_str(source);
    }
    policy
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use http_body_util::BodyExt as _;

    use super::*;

    const HOSTILE: &str = r#"</title></style><script>alert(1)</script>" onload='x' {{ 7*7 }} &amp;"#;

    fn built_in() -> Pages {
        Pages::new(&Settings::default()).unwrap()
    }

    fn sample() -> PageContext<'static> {
        PageContext {
            status: 403,
            title: "Access denied",
            message: "You are signed in, but this page needs a role that you do not have.",
            advice: "Ask the people who run the application for access.",
            request_id: "01hq3-7f2c",
            action_url: Some("/auth/logout"),
            action_label: Some("Sign out"),
            action_post: false,
            field_name: None,
            field_value: None,
            other_url: Some("/auth/other"),
            other_label: Some("Another way"),
            choices: &[],
            email_url: None,
            email_rd: None,
        }
    }

    fn with_template(page: Page, name: &str, text: &str) -> Result<Pages, Vec<TemplateProblem>> {
        let folder = std::env::temp_dir().join(format!("vestibule-pages-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        let pages = Pages::new(&Settings { templates: [(page, file)].into() });
        std::fs::remove_dir_all(&folder).unwrap();
        pages
    }

    fn html(response: Response<Body>) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn policy(response: &Response<Body>) -> String {
        response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned()
    }

    fn style_hashes(html: &str) -> Vec<String> {
        let mut hashes = Vec::new();
        for part in html.split("<style>").skip(1) {
            let style = part.split("</style>").next().unwrap();
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, style.as_bytes());
            hashes.push(format!("'sha256-{}'", STANDARD.encode(digest)));
        }
        hashes
    }

    #[test]
    fn every_page_is_whole_and_allows_exactly_its_own_style() {
        let pages = built_in();
        for page in Page::ALL {
            for action_post in [false, true] {
                let response = pages.render(page, &PageContext { action_post, ..sample() }, &[]);
                assert_eq!(response.status(), 403);
                let policy = policy(&response);
                let html = html(response);
                for once in ["<!doctype html>", "<html lang=\"en\">", "<title>Access denied</title>", "<main>", "<h1>"]
                {
                    assert_eq!(html.matches(once).count(), 1, "{once} in {page:?}");
                }
                assert!(html.contains("01hq3-7f2c") && html.contains("needs a role") && html.contains("for access"));
                assert!(html.contains("class=\"glyph"), "{page:?} has no glyph");
                assert_eq!(html.contains("<form"), action_post);
                assert!(!html.contains("<script") && !html.contains("style=\""));
                let [hash] = &style_hashes(&html)[..] else { panic!("one style element") };
                assert_eq!(
                    policy,
                    format!(
                        "default-src 'none'; style-src {hash}; img-src data:; base-uri 'none'; frame-ancestors 'none'; \
                         form-action 'self'"
                    )
                );
            }
        }
    }

    #[test]
    fn a_choice_is_no_error() {
        let choices = [Choice { url: "/a".to_owned(), label: "A".to_owned(), logo: None }];
        let context = PageContext { status: 401, choices: &choices, ..sample() };
        let page = html(built_in().render(Page::ChooseProvider, &context, &[]));
        assert!(!page.contains("Error 401") && page.contains("Request id"), "{page}");
        assert!(html(built_in().render(Page::Error, &sample(), &[])).contains("Error 403"));
    }

    #[test]
    fn a_page_without_advice_or_action_shows_neither() {
        let context = PageContext { advice: "", action_url: None, action_label: None, ..sample() };
        let context = PageContext { other_url: None, other_label: None, ..context };
        let html = html(built_in().render(Page::Error, &context, &[]));
        assert!(
            !html.contains("class=\"other\"")
                && !html.contains("class=\"advice\"")
                && !html.contains("class=\"action\"")
                && !html.contains("none<")
        );
    }

    #[test]
    fn hostile_values_stay_text_in_every_page() {
        let pages = built_in();
        for page in Page::ALL {
            let context = PageContext {
                title: HOSTILE,
                message: HOSTILE,
                advice: HOSTILE,
                request_id: HOSTILE,
                action_label: Some(HOSTILE),
                action_url: Some("/x\"><script>alert(1)</script>'"),
                other_label: Some(HOSTILE),
                other_url: Some("/x\"><script>alert(1)</script>'"),
                ..sample()
            };
            let html = html(pages.render(page, &context, &[]));
            assert!(!html.contains("<script"), "{page:?}");
            assert!(!html.contains("onload='x'") && !html.contains("/x\">"), "{page:?}");
            assert!(html.contains("{{ 7*7 }}"), "a value is never a template");
            assert_eq!(html.matches("</title>").count(), 1);
            assert_eq!(html.matches("</style>").count(), 1);
        }
    }

    #[test]
    fn a_link_that_runs_code_or_hides_its_host_is_left_out() {
        let pages = built_in();
        for url in ["javascript:alert(1)", "data:text/html,x", "//evil.example", "/\\evil.example", "", "evil"] {
            let page = html(pages.render(Page::Error, &PageContext { action_url: Some(url), ..sample() }, &[]));
            assert!(!page.contains("class=\"action\""), "{url}");
            let page = html(pages.render(Page::Error, &PageContext { other_url: Some(url), ..sample() }, &[]));
            assert!(!page.contains("class=\"other\""), "{url}");
        }
        for url in ["/", "/app?a=1", "https://id.example.com/logout", "http://localhost:8080/"] {
            let page = html(pages.render(Page::Error, &PageContext { action_url: Some(url), ..sample() }, &[]));
            assert!(page.contains("class=\"action\""), "{url}");
            let page = html(pages.render(Page::Error, &PageContext { other_url: Some(url), ..sample() }, &[]));
            assert!(page.contains("class=\"other\""), "{url}");
        }
    }

    #[test]
    fn answers_carry_every_protective_header() {
        let response = built_in().render(Page::SignedOut, &PageContext { status: 200, ..sample() }, &[]);
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("vary", "Cookie, Accept, Sec-Fetch-Mode, Sec-Fetch-Dest, X-Requested-With"),
        ] {
            assert_eq!(response.headers()[name], value, "{name}");
            assert_eq!(response.headers().get_all(name).iter().count(), 1);
        }
    }

    #[test]
    fn a_page_with_a_form_lets_the_form_name_its_own_origin() {
        let response = built_in().render(Page::ConfirmSignOut, &PageContext { action_post: true, ..sample() }, &[]);
        assert_eq!(response.headers()["referrer-policy"], "same-origin");
        assert_eq!(response.headers().get_all("referrer-policy").iter().count(), 1);
    }

    #[test]
    fn form_action_takes_sources_but_no_further_directive() {
        let sources =
            ["https://id.example.com", "https://x; script-src *", "https://y,*", "https://z *", "https://\r\na", ""];
        let sources = sources.map(str::to_owned);
        let response = built_in().render(Page::ConfirmSignOut, &sample(), &sources);
        assert!(policy(&response).ends_with("; form-action 'self' https://id.example.com"));
    }

    #[test]
    fn a_status_that_does_not_exist_becomes_500() {
        let response = built_in().render(Page::Error, &PageContext { status: 7, ..sample() }, &[]);
        assert_eq!(response.status(), 500);
    }

    #[test]
    fn an_operators_template_named_txt_is_escaped_all_the_same() {
        let text = "<!doctype html><p>{{ message }}</p><a href='{{ action_url }}'>x</a>";
        let pages = with_template(Page::AccessDenied, "denied.txt", text).unwrap();
        let context = PageContext { message: HOSTILE, action_url: Some("/'><b>"), ..sample() };
        let response = pages.render(Page::AccessDenied, &context, &[]);
        assert!(policy(&response).starts_with("default-src 'none'; img-src data:;"), "no style, so none is allowed");
        let own = html(response);
        assert!(own.contains("&lt;script&gt;") && !own.contains("<script") && !own.contains("<b>"));
        assert!(html(pages.render(Page::Error, &context, &[])).contains("class=\"glyph"), "other pages stay built in");
    }

    #[test]
    fn an_operators_styles_are_allowed_by_their_hashes() {
        let text = "<STYLE media=all>\r\np { color: red }\r\n</STYLE><p>{{ title }}</p><style>b{}</style>";
        let pages = with_template(Page::Error, "error.html", text).unwrap();
        let policy = policy(&pages.render(Page::Error, &sample(), &[]));
        // The HTML parser turns CR LF into LF before the hash is taken.
        for hash in style_hashes("<style>\np { color: red }\n</style><style>b{}</style>") {
            assert!(policy.contains(&hash), "{hash} in {policy}");
        }
    }

    #[test]
    fn a_broken_template_is_reported_with_file_line_and_cause() {
        let cases = [
            ("<p>\n\n{{ title }", 3, "syntax error"),
            ("<p>\n{{ tittle }}", 2, "did you mean title?"),
            ("{% if status == 1 %}\n{{ nobody }}{% endif %}", 2, "nobody is not a variable of this page"),
            ("\n{{ title|safe }}", 2, "safe"),
            ("\n\n{%- autoescape false %}{{ title }}{% endautoescape %}", 3, "autoescape"),
            ("\n{{ 1 / 0 }}", 2, ""),
            ("{% for a in range(9999) %}\n{% for b in range(9999) %}{% endfor %}{% endfor %}", 2, "fuel"),
            ("\n{% include 'other.html' %}", 2, "syntax error"),
            ("<p>\n<style>p { color: {{ title }} }</style>", 2, "<style>"),
        ];
        for (text, line, cause) in cases {
            let problems = with_template(Page::Error, "broken.html", text).unwrap_err();
            let message = &problems[0].message;
            assert!(message.contains(&format!("broken.html:{line}: ")), "{text:?}: {message}");
            assert!(message.contains(cause), "{text:?}: {message}");
            assert_eq!(problems[0].page, Page::Error);
        }
    }

    #[test]
    fn all_problems_of_all_templates_are_told_at_once() {
        let folder = std::env::temp_dir().join(format!("vestibule-pages-{}-all", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.join(name), bytes).unwrap();
            folder.join(name)
        };
        let settings = Settings {
            templates: [
                (Page::Error, folder.join("missing.html")),
                (Page::SignInFailed, file("big.html", &vec![b' '; 256 * 1024 + 1])),
                (Page::AccessDenied, file("latin1.html", b"\xe9")),
                (Page::SignedOut, folder.clone()),
                (Page::ConfirmSignOut, file("nobutton.html", b"<p>{{ title }}</p>")),
                (Page::Unavailable, file("two.html", b"{{ one }}{{ two }}")),
            ]
            .into(),
        };
        let problems = Pages::new(&settings).unwrap_err();
        std::fs::remove_dir_all(&folder).unwrap();
        let told: Vec<String> = problems.iter().map(|problem| format!("{:?} {problem}", problem.page)).collect();
        for (page, cause) in [
            ("Error", "missing.html: can't be read"),
            ("SignInFailed", "256 KiB"),
            ("AccessDenied", "UTF-8"),
            ("SignedOut", "not a file"),
            ("ConfirmSignOut", "form"),
            ("Unavailable", "one is not a variable"),
            ("Unavailable", "two is not a variable"),
        ] {
            assert!(
                told.iter().any(|line| line.starts_with(page) && line.contains(cause)),
                "{page} {cause}: {told:#?}"
            );
        }
    }

    #[test]
    fn a_template_that_fails_in_use_gives_way_to_the_built_in_page() {
        // The sample values have no status 418, so this branch is first seen here.
        let pages =
            with_template(Page::Error, "late.html", "{% if status == 418 %}{{ title|nofilter }}{% endif %}x").unwrap();
        let response = pages.render(Page::Error, &PageContext { status: 418, ..sample() }, &[]);
        let policy = policy(&response);
        let html = html(response);
        assert!(html.contains("<title>Access denied</title>"));
        assert!(policy.contains(&style_hashes(&html)[0]), "with the built-in page's own policy");
    }
}
