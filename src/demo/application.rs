//! The sample application behind the proxy: it knows nothing of OpenID Connect, and shows what reached it.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use minijinja::{Value, context};

use super::html::{page, plain};
use super::listener::{Answer, Body};
use crate::authn::roles::decode_list;

const TICK: Duration = Duration::from_secs(1);

/// The proxy's default identity headers.
const IDENTITY_HEADERS: [&str; 5] = [
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Groups",
    "X-Forwarded-Roles",
];

/// Path, what the link says, what the page says about itself.
const PLACES: [(&str, &str, &str); 4] = [
    ("/", "Home", "This page is for everybody who is signed in."),
    (
        "/public",
        "Public",
        "This page is public: nobody is asked to sign in, and no request gets an identity header, not even from who is signed in.",
    ),
    ("/editor", "Editors", "This page asks for any of the roles editor and admin."),
    ("/admin", "Admin", "This page asks for the role admin."),
];

/// The application.
pub(super) struct Application {
    /// The proxy's origin.
    pub(super) origin: String,
    /// The provider's address for "switch user".
    pub(super) switch_url: String,
}

impl Answer for Application {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, _) = request.into_parts();
        match head.uri.path() {
            "/events" if head.method == Method::GET => events(),
            "/favicon.ico" => plain(StatusCode::NOT_FOUND, "text/plain", String::new()),
            path => {
                let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
                let line = format!("{} {target} {:?}", head.method, head.version);
                self.show(path, &line, &head.headers)
            }
        }
    }
}

impl Application {
    /// What reached us: a page for browsers, text for everything else.
    fn show(&self, path: &str, request_line: &str, headers: &HeaderMap) -> Response<Body> {
        let place = PLACES.iter().find(|(place, ..)| *place == path);
        let status = if place.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        if !text(headers, ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/html")) {
            return plain(status, "text/plain; charset=utf-8", as_text(request_line, headers));
        }
        let identity: Vec<_> = IDENTITY_HEADERS.map(|name| (name, text(headers, name))).to_vec();
        let mut others: Vec<_> = headers
            .iter()
            .filter(|(name, _)| !IDENTITY_HEADERS.iter().any(|one| name.as_str().eq_ignore_ascii_case(one)))
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
            .collect();
        others.sort();
        let values = context! {
            title => place.map_or("No such page", |(_, name, _)| *name),
            about => place.map_or("The application has no page here; the request reached it all the same.", |(.., about)| *about),
            path,
            places => PLACES,
            request_line,
            user => text(headers, "X-Forwarded-User"),
            roles => decode_list(text(headers, "X-Forwarded-Roles").as_deref()).unwrap_or_default(),
            identity,
            others => others.into_iter().collect::<Value>(),
            origin => self.origin.as_str(),
            switch_url => self.switch_url.as_str(),
        };
        page(status, "Vestibule demo", PAGE, values, "")
    }
}

/// The request as it came, line by line.
fn as_text(request_line: &str, headers: &HeaderMap) -> String {
    let mut text = format!("{request_line}\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    text
}

/// A clock as server-sent events, for as long as somebody listens.
fn events() -> Response<Body> {
    let ticks = stream::unfold(tokio::time::interval(TICK), |mut interval| async {
        interval.tick().await;
        let event = format!("data: {}\n\n", humantime::format_rfc3339_seconds(SystemTime::now()));
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(event))), interval))
    });
    let mut response = Response::new(StreamBody::new(ticks).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// All values of a header: if it ever came twice, the page must show it.
fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join(" ⏎ "))
}

const PAGE: &str = r#"<h1>{% if user %}Hello, {{ user }}{% else %}Hello, whoever you are{% endif %}</h1>
<p>{{ about }}{% if roles %} Your roles: {% for role in roles %}<span class="role">{{ role }}</span>{% endfor %}{% elif user %} You have no role.{% endif %}</p>
<nav aria-label="Pages to try"><ul>
{% for place in places %}<li><a href="{{ place[0] }}"{% if place[0] == path %} aria-current="page"{% endif %}>{{ place[1] }}</a></li>
{% endfor %}<li><a href="/auth/userinfo">Userinfo</a></li>
{% if user %}<li><a href="{{ switch_url }}">Switch user</a></li>
<li><a href="/auth/logout">Sign out</a></li>{% else %}<li><a href="/auth/login">Sign in</a></li>{% endif %}
</ul></nav>
<section aria-labelledby="identity"><h2 id="identity">Who Vestibule says you are</h2>
<table><caption>Identity headers that reached this application. They come from Vestibule or not at all.</caption>
{% for name, value in identity %}<tr><th scope="row">{{ name }}</th><td>{% if value is none %}<span class="none">absent</span>{% else %}{{ value }}{% endif %}</td></tr>
{% endfor %}</table></section>
<section aria-labelledby="clock-title"><h2 id="clock-title">A live stream through the proxy</h2>
<p>Server-sent events, unbuffered: <code id="clock">connecting …</code></p></section>
<section aria-labelledby="next"><h2 id="next">What to try next</h2><ul>
<li>Open the admin page as <strong>grace</strong>: she is signed in, and refused.</li>
<li>Sign out, then open the <a href="/editor">editors’ page</a>: after the sign-in you are there, not here.</li>
<li>Switch to <strong>alan</strong>: his e-mail address is not verified, so <code>X-Forwarded-Email</code> is absent.</li>
<li>Pretend to be somebody else, and see that it does not reach the application:
<pre>curl -s {{ origin }}/public -H 'X-Forwarded-User: ada' -H 'X_Forwarded_Roles: admin'</pre></li>
<li>Ask like a program, and get 401 with problem JSON instead of a redirect: <pre>curl -i {{ origin }}/</pre></li>
</ul></section>
<section aria-labelledby="request"><h2 id="request">The rest of the request</h2>
<pre>{{ request_line }}</pre>
<table><caption>All other headers. Vestibule’s own cookies are not among them.</caption>
{% for name, value in others %}<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</table></section>"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn application() -> Application {
        let [origin, switch_url] = ["http://localhost:8080", "http://127.0.0.1:1/switch"].map(str::to_owned);
        Application { origin, switch_url }
    }

    async fn shown(accept: &str, headers: &[(&'static str, &str)]) -> (StatusCode, String) {
        let mut map = HeaderMap::new();
        map.insert(ACCEPT, HeaderValue::try_from(accept).unwrap());
        for (name, value) in headers {
            map.append(*name, HeaderValue::try_from(*value).unwrap());
        }
        let response = application().show("/", "GET / HTTP/1.1", &map);
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn the_page_shows_what_reached_it_escaped() {
        let headers = [("x-forwarded-user", "<b>ada"), ("x-forwarded-roles", "admin,a%2Cb"), ("x-other", "<i>")];
        let (status, html) = shown("text/html", &headers).await;
        assert_eq!(status, StatusCode::OK);
        assert!(html.contains("Hello, &lt;b&gt;ada") && html.contains(">a,b</span>"), "{html}");
        assert!(html.contains("<td>&lt;i&gt;</td>") && html.contains("absent"), "{html}");
    }

    #[tokio::test]
    async fn a_header_that_came_twice_shows() {
        let (_, html) = shown("text/html", &[("x-forwarded-user", "ada"), ("x-forwarded-user", "mallory")]).await;
        assert!(html.contains("ada ⏎ mallory"), "{html}");
    }

    #[tokio::test]
    async fn a_program_gets_text() {
        let (_, text) = shown("*/*", &[("x-forwarded-user", "ada")]).await;
        assert_eq!(text, "GET / HTTP/1.1\naccept: */*\nx-forwarded-user: ada\n");
    }

    #[test]
    fn the_clock_streams_until_the_end_cuts_it() {
        use std::io::{BufRead as _, BufReader, Read as _, Write as _};

        let (listener, address) = crate::demo::listener::bind().unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let thread = crate::demo::listener::serve("test", listener, stop.clone(), application()).unwrap();
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        connection.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut reader = BufReader::new(connection);
        let mut lines = String::new();
        while !lines.contains("data: 20") {
            assert!(reader.read_line(&mut lines).unwrap() > 0, "{lines}");
        }
        assert!(lines.contains("text/event-stream"), "{lines}");
        stop.cancel();
        thread.join().unwrap();
        // A reset would do as well as an end.
        let _ = reader.read_to_string(&mut lines);
    }
}
