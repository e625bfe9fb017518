//! The look of the demo's pages: one style, one small script, escaping that cannot be forgotten, and a CSP that allows
//! nothing but the two.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use minijinja::{AutoEscape, Environment, Value, context};

use super::listener::{Body, full};

/// A whole page: `template` (the content of `<main>`) with `values`, every value escaped. Forms may lead to ourselves and
/// to `form_target`, an origin: browsers apply `form-action` to redirects too.
pub(super) fn page(
    status: StatusCode,
    title: &str,
    template: &'static str,
    values: Value,
    form_target: &str,
) -> Response<Body> {
    let rendered = ENVIRONMENT
        .render_str(template, values)
        .and_then(|main| ENVIRONMENT.render_str(LAYOUT, context! { title, main, style => STYLE, script => SCRIPT }));
    let (status, html) = match rendered {
        Ok(html) => (status, html),
        Err(error) => {
            tracing::error!(%error, "a page of the demo cannot be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "The page cannot be rendered; the log says why.".to_owned())
        }
    };
    let mut response = plain(status, "text/html; charset=utf-8", html);
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; form-action 'self' {form_target}; \
         base-uri 'none'; frame-ancestors 'none'",
        *STYLE_HASH, *SCRIPT_HASH
    );
    match HeaderValue::try_from(policy) {
        Ok(policy) => _ = response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy),
        Err(_) => *response.body_mut() = full("The page has no valid policy."),
    }
    response
}

/// Any content, never cached.
pub(super) fn plain(status: StatusCode, content_type: &'static str, content: String) -> Response<Body> {
    let mut response = Response::new(full(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Not no-referrer: with it browsers write `Origin: null` on our own forms.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment
});

static STYLE_HASH: LazyLock<String> = LazyLock::new(|| source_hash(STYLE));
static SCRIPT_HASH: LazyLock<String> = LazyLock::new(|| source_hash(SCRIPT));

/// CSP Level 3 §2.3.1, hash-source.
fn source_hash(content: &str) -> String {
    format!("sha256-{}", STANDARD.encode(digest::digest(&digest::SHA256, content.as_bytes())))
}

// `main` is our own template, rendered and escaped already; style and script are constants.
const LAYOUT: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>{{ style|safe }}</style>
</head>
<body>
<main>
{{ main|safe }}
</main>
<script>{{ script|safe }}</script>
</body>
</html>
"#;

const STYLE: &str = "
:root { --ink: #1c2430; --soft: #5a6675; --paper: #f5f6f8; --card: #fff; --line: #d8dde4; --accent: #1f5fbf; --tint: #e6eefb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ecf2; --soft: #a4afbd; --paper: #12161c; --card: #1b212a; --line: #333d4a; --accent: #8ab4f8; --tint: #223247; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
.narrow { max-width: 28rem; margin: 0 auto; }
section > :last-child { margin-bottom: 0; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 0 0 .75rem; }
p { margin: 0 0 1rem; }
a { color: var(--accent); }
.soft { color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: 1.25rem; margin: 1.25rem 0; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .5rem; padding: 0; margin: 1rem 0; }
nav li { margin: 0; }
nav a { display: block; padding: .4rem .8rem; border: 1px solid var(--line); border-radius: .5rem; background: var(--card); text-decoration: none; }
nav a[aria-current] { background: var(--tint); border-color: var(--accent); }
table { border-collapse: collapse; width: 100%; font-size: .95rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .5rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .75rem .4rem 0; border-top: 1px solid var(--line); }
th { font-weight: 600; white-space: nowrap; width: 1%; padding-right: 1.5rem; }
td, code, pre { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
.none { color: var(--soft); font-family: system-ui, sans-serif; font-style: italic; }
.role { display: inline-block; background: var(--tint); border-radius: 1rem; padding: .1rem .75rem; margin: 0 .25rem .25rem 0; }
pre { background: var(--paper); border-radius: .5rem; padding: .75rem; margin: .5rem 0; white-space: pre-wrap; }
li { margin-bottom: .4rem; }
button { font: inherit; color: inherit; cursor: pointer; }
.person { display: block; width: 100%; text-align: left; background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: .8rem 1rem; margin: 0 0 .75rem; }
.person:hover { border-color: var(--accent); background: var(--tint); }
.person strong, .person span { display: block; }
.quiet { background: none; border: 0; padding: .4rem 0; color: var(--accent); text-decoration: underline; }
@media (max-width: 40rem) {
  th, td { display: block; width: auto; padding-right: 0; }
  td { border-top: 0; padding-top: 0; }
}
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
";

/// The live clock, where a page has one.
const SCRIPT: &str = "
const clock = document.getElementById('clock');
if (clock) {
  const events = new EventSource('/events');
  events.onmessage = (event) => { clock.textContent = event.data; };
  events.onerror = () => {
    clock.textContent = events.readyState === EventSource.CLOSED ? 'only for people who are signed in' : 'connecting again …';
  };
}
";

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn every_value_is_escaped() {
        let value = "<script>alert('1')</script>\"&";
        let response =
            page(StatusCode::OK, value, "<p title=\"{{ value }}\">", context! { value }, "http://localhost:1");
        let html = response.into_body().collect().await.unwrap().to_bytes();
        let html = String::from_utf8_lossy(&html);
        assert!(!html.contains("<script>alert") && html.matches("&lt;script&gt;alert").count() == 2, "{html}");
        assert!(!html.contains("\"&\""), "{html}");
    }
}
