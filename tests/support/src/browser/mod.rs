//! A small user agent that is honest about cookies and follows one redirect at a time.

mod cookies;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

pub use cookies::StoredCookie;
use cookies::{Context, Jar, host, is_trustworthy, site};

use crate::clock::TestClock;
use crate::watch::Watch;
use crate::{TlsClient, runtime};

/// No answer takes longer than this.
const DEADLINE: Duration = Duration::from_secs(30);

/// A user agent. Clones are tabs: they share the cookies.
#[derive(Clone)]
pub struct Browser {
    clock: TestClock,
    jar: Arc<Mutex<Jar>>,
    routes: Arc<Mutex<BTreeMap<String, SocketAddr>>>,
    tls: Option<TlsClient>,
    watch: Option<Watch>,
    around: Option<Url>,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// What was asked.
    pub url: Url,
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// Everything that was asked on the way here, this included.
    pub visited: Vec<Url>,
    /// The page that started it.
    initiator: Option<Url>,
}

/// A request to be sent by [`Browser::send`]: the cookies are the jar's, everything else is as given.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
    initiator: Option<Url>,
    navigation: bool,
}

impl Request {
    /// A bare request, without any of the headers that a user agent adds.
    pub fn new(method: Method, url: &str) -> Self {
        Self {
            method,
            url: Url::parse(url).unwrap_or_else(|error| panic!("{url}: {error}")),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            initiator: None,
            navigation: false,
        }
    }

    /// Sets a header field, replacing it.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header name");
        self.headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
        self
    }

    /// Adds one more line of a header field.
    pub fn append_header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header name");
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
        self
    }

    /// Takes a header field out.
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a form body and its type.
    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.header("content-type", "application/x-www-form-urlencoded").body(body)
    }

    /// The page that starts it: decides `Sec-Fetch-Site`, `Origin`, and which cookies go along.
    pub fn from_page(mut self, page: &str) -> Self {
        self.initiator = Some(Url::parse(page).unwrap_or_else(|error| panic!("{page}: {error}")));
        self.fetch_site()
    }

    /// A top-level navigation, with the headers that go with it.
    pub fn navigation(method: Method, url: &str) -> Self {
        let mut request = Self::new(method, url)
            .header("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8")
            .header("accept-language", "en-GB,en;q=0.9")
            .header("upgrade-insecure-requests", "1")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "document")
            .header("sec-fetch-user", "?1");
        request.navigation = true;
        request.fetch_site()
    }

    /// What a script's `fetch(url)` sends from a page of the same origin.
    pub fn fetch(method: Method, url: &str) -> Self {
        let page = Url::parse(url).unwrap_or_else(|error| panic!("{url}: {error}")).join("/").expect("an origin");
        Self::new(method, url)
            .header("accept", "*/*")
            .header("sec-fetch-mode", "cors")
            .header("sec-fetch-dest", "empty")
            .from_page(page.as_str())
    }

    fn fetch_site(self) -> Self {
        if !is_trustworthy(&self.url) || !self.headers.contains_key("sec-fetch-mode") {
            return self;
        }
        let value = match &self.initiator {
            None => "none",
            Some(page) if page.origin() == self.url.origin() => "same-origin",
            Some(page) if site(page) == site(&self.url) => "same-site",
            Some(_) => "cross-site",
        };
        let origin = self.initiator.as_ref().map(|page| page.origin().ascii_serialization());
        let request = self.header("sec-fetch-site", value);
        match origin {
            // Fetch §3.2: Origin goes with unsafe methods, and with every cors request that crosses origins.
            Some(origin)
                if !request.method.is_safe()
                    || (value != "same-origin" && request.headers["sec-fetch-mode"] == "cors") =>
            {
                request.header("origin", &origin)
            }
            _ => request,
        }
    }

    fn context(&self, around: Option<&Url>) -> Context {
        Context {
            same_site: self.initiator.as_ref().is_none_or(|page| site(page) == site(&self.url)),
            safe_navigation: self.navigation && self.method.is_safe(),
            around: around.cloned(),
        }
    }
}

impl Browser {
    /// An empty jar; cookies end by `clock`.
    pub fn new(clock: TestClock) -> Self {
        Self { clock, jar: Arc::default(), routes: Arc::default(), tls: None, watch: None, around: None }
    }

    /// Another tab: the same cookies.
    pub fn tab(&self) -> Self {
        self.clone()
    }

    /// A frame in `page`, a page that is open in a window: whatever is asked for, by the page itself, too, has the cookies of that
    /// window. Those of third parties are switched off, but for partitioned ones.
    pub fn in_frame_of(&self, page: &str) -> Self {
        let around = Some(Url::parse(page).unwrap_or_else(|error| panic!("{page}: {error}")));
        Self { around, ..self.clone() }
    }

    /// Whether an answer is shown, and not blocked because of the page around the frame (CSP3 §6.4.2, HTML `X-Frame-Options`).
    pub fn shows(&self, reply: &Reply) -> bool {
        let Some(around) = &self.around else { return true };
        let policies = reply.headers.get_all(header::CONTENT_SECURITY_POLICY).iter();
        let policies = policies.map(|policy| policy.to_str().expect("a policy of text").to_owned()).collect::<Vec<_>>();
        let lists = policies.iter().flat_map(|policy| policy.split(';').map(str::trim));
        let lists: Vec<_> = lists.filter_map(|directive| directive.strip_prefix("frame-ancestors ")).collect();
        if lists.is_empty() {
            return !reply.headers.contains_key(header::X_FRAME_OPTIONS);
        }
        let origin = around.origin().ascii_serialization();
        let is_listed =
            |source: &str| source == origin || (source == "'self'" && around.origin() == reply.url.origin());
        lists.iter().all(|list| list.split(' ').any(is_listed))
    }

    /// This user agent with TLS for https. Without it, https is what a TLS server in front makes of it, so plain http here.
    pub fn with_tls(mut self, tls: TlsClient) -> Self {
        self.tls = Some(tls);
        self
    }

    /// This user agent with somebody who looks at what becomes of its sign-ins.
    pub(crate) fn watched(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }

    /// Takes no cookies from now on and forgets those it has.
    pub fn switch_cookies_off(&self) {
        let mut jar = self.jar.lock().unwrap();
        jar.remove(|_| true);
        jar.refuses_all = true;
    }

    /// Requests for `origin` (as `http://localhost:8080`) go to `address` from now on: a balancer's choice of a replica.
    pub fn connect(&self, origin: &str, address: SocketAddr) {
        let url = Url::parse(origin).expect("an origin");
        self.routes.lock().unwrap().insert(authority(&url), address);
    }

    /// Navigates as if the address had been typed in. Redirects are the caller's to follow.
    pub async fn get(&self, url: &str) -> Reply {
        self.send(Request::navigation(Method::GET, url)).await
    }

    /// Navigates by a link on `page`.
    pub async fn click(&self, page: &str, url: &str) -> Reply {
        self.send(Request::navigation(Method::GET, url).from_page(page)).await
    }

    /// Sends a form of `page`.
    pub async fn submit(&self, page: &str, url: &str, fields: &[(&str, &str)]) -> Reply {
        self.send(Request::navigation(Method::POST, url).form(fields).from_page(page)).await
    }

    /// What a script's `fetch` gets. Redirects are not followed.
    pub async fn fetch(&self, url: &str) -> Reply {
        self.send(Request::fetch(Method::GET, url)).await
    }

    /// Navigates and follows up to `max` redirects, of pages that refresh themselves, too, as long as they are shown. A redirect to another origin counts
    /// as started by the origin that sent it, as it is after a sign-in form: cookies with `SameSite=Strict` stay behind, also at
    /// whatever that redirects to in turn.
    ///
    /// # Panics
    /// When there are more.
    pub async fn follow(&self, url: &str, max: usize) -> Reply {
        let reply = self.get(url).await;
        self.follow_reply(reply, max).await
    }

    /// As [`Browser::follow`], from an answer on.
    pub async fn follow_reply(&self, mut reply: Reply, max: usize) -> Reply {
        for _ in 0..max {
            let visited = std::mem::take(&mut reply.visited);
            let Some(next) = self.onward(&reply).await else { return Reply { visited, ..reply } };
            reply = next;
            reply.visited.splice(0..0, visited);
        }
        assert!(reply.next().is_none(), "more than {max} redirects: {:#?}", reply.visited);
        reply
    }

    /// One step of [`Browser::follow_reply`]; `None` where nothing leads on.
    pub async fn onward(&self, reply: &Reply) -> Option<Reply> {
        let shown = self.shows(reply);
        match (reply.next(), reply.posting_form().filter(|_| shown), reply.refresh().filter(|_| shown)) {
            (Some(next), ..) => Some(self.hop(reply, &next).await),
            (None, Some(form), _) => Some(self.post(reply, &form).await),
            (None, None, Some(next)) => Some(self.click(reply.url.as_str(), next.as_str()).await),
            (None, None, None) => None,
        }
    }

    /// Follows the one redirect that `reply` is.
    ///
    /// # Panics
    /// When it is none.
    pub async fn step(&self, reply: &Reply) -> Reply {
        let next = reply.next().unwrap_or_else(|| panic!("not a redirect: {reply:#?}"));
        self.hop(reply, &next).await
    }

    /// What a script on `reply`'s page does with a form that posts itself.
    pub async fn post(&self, reply: &Reply, form: &PostingForm) -> Reply {
        let fields: Vec<_> = form.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.submit(reply.url.as_str(), form.action.as_str(), &fields).await
    }

    async fn hop(&self, reply: &Reply, next: &Url) -> Reply {
        match &reply.initiator {
            _ if next.origin() != reply.url.origin() => self.click(reply.url.as_str(), next.as_str()).await,
            Some(page) => self.click(page.as_str(), next.as_str()).await,
            None => self.get(next.as_str()).await,
        }
    }

    /// Sends one request with the jar's cookies and takes in those that come back.
    ///
    /// # Panics
    /// When no answer comes within 30 s.
    pub async fn send(&self, request: Request) -> Reply {
        let url = request.url.clone();
        tokio::time::timeout(DEADLINE, self.exchange(request))
            .await
            .unwrap_or_else(|_| panic!("no answer from {url} within {DEADLINE:?}"))
    }

    async fn exchange(&self, mut request: Request) -> Reply {
        if let Some(around) = self.around.as_ref().filter(|_| request.navigation) {
            request = request.header("sec-fetch-dest", "iframe");
            // Nobody types an address into a frame.
            if request.initiator.is_none() {
                request = request.from_page(around.as_str()).without_header("sec-fetch-user");
            }
        }
        let (url, initiator) = (request.url.clone(), request.initiator.clone());
        let context = request.context(self.around.as_ref());
        let cookies = self.jar.lock().unwrap().header(&url, &context, self.clock.unix());
        if let Some(cookies) = cookies {
            // A test's own Cookie header stands beside the jar's, as one more pair in the one line of a user agent.
            let own = request.headers.get(header::COOKIE).and_then(|value| value.to_str().ok());
            let line = own.map_or(cookies.clone(), |own| format!("{cookies}; {own}"));
            request.headers.insert(header::COOKIE, line.parse().expect("a Cookie header"));
        }
        let watch = self.watch.as_ref();
        let callback = watch.and_then(|watch| Some((watch, watch.callback(&url, &request.body)?)));
        let response = self.transmit(request).await;
        let (head, body) = response;
        if let Some((watch, callback)) = callback {
            watch.judge(&callback, head.status, &head.headers);
        }
        let mut jar = self.jar.lock().unwrap();
        for value in head.headers.get_all(header::SET_COOKIE) {
            jar.store(&String::from_utf8_lossy(value.as_bytes()), &url, &context, self.clock.unix());
        }
        Reply { status: head.status, headers: head.headers, body, visited: vec![url.clone()], url, initiator }
    }

    async fn transmit(&self, request: Request) -> (http::response::Parts, Bytes) {
        let url = &request.url;
        let address = self.address(url);
        let stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{url} ({address}): {error}"));
        let stream: Box<dyn Stream> = match &self.tls {
            Some(tls) if url.scheme() == "https" => {
                Box::new(tls.wrap(stream, host(url)).await.unwrap_or_else(|error| panic!("{url}: {error}")))
            }
            _ => Box::new(stream),
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        // Dropped with this call: a test that gives up cuts the connection, as a closed tab does.
        let connection = AbortOnDrop(runtime().spawn(connection));
        let mut builder = http::Request::builder()
            .method(request.method)
            .uri(&url[url::Position::BeforePath..url::Position::AfterQuery]);
        let headers = builder.headers_mut().expect("a well-made request");
        headers.insert(header::HOST, authority(url).parse().expect("a host"));
        headers.extend(request.headers);
        let request = builder.body(Full::new(request.body)).expect("a well-made request");
        let response = sender.send_request(request).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap_or_else(|error| panic!("{url}: the body broke off: {error}")).to_bytes();
        drop(connection);
        (head, body)
    }

    /// Loopback only: whatever a URL names, the connection stays on this machine.
    fn address(&self, url: &Url) -> SocketAddr {
        if let Some(address) = self.routes.lock().unwrap().get(&authority(url)) {
            return *address;
        }
        assert!(is_trustworthy(url) && url.scheme() == "http", "{url} is not on this machine and has no route");
        SocketAddr::from((Ipv4Addr::LOCALHOST, url.port_or_known_default().expect("a port")))
    }

    /// The cookies that `url`'s host would get.
    pub fn cookies(&self, url: &str) -> Vec<StoredCookie> {
        let url = Url::parse(url).expect("a URL");
        self.jar.lock().unwrap().of(&url, &self.context(), self.clock.unix())
    }

    /// The same as the value of a `Cookie` header, for a request written by hand.
    pub fn cookie_line(&self, url: &str) -> String {
        let cookies = self.cookies(url);
        cookies.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect::<Vec<_>>().join("; ")
    }

    /// One cookie of `url`'s host.
    pub fn cookie(&self, url: &str, name: &str) -> Option<StoredCookie> {
        self.cookies(url).into_iter().find(|cookie| cookie.name == name)
    }

    /// Every cookie in the jar.
    pub fn all_cookies(&self) -> Vec<StoredCookie> {
        self.jar.lock().unwrap().all()
    }

    /// What servers tried to set and a user agent refuses.
    pub fn rejected_cookies(&self) -> Vec<String> {
        self.jar.lock().unwrap().rejected.clone()
    }

    /// Puts a cookie into the jar as it is, whatever the rules say.
    pub fn plant(&self, cookie: StoredCookie) {
        self.jar.lock().unwrap().insert(cookie);
    }

    /// Takes in a `Set-Cookie` line as if `url` had sent it.
    pub fn set_cookie(&self, url: &str, set_cookie: &str) {
        let url = Url::parse(url).expect("a URL");
        self.jar.lock().unwrap().store(set_cookie, &url, &self.context(), self.clock.unix());
    }

    /// Of what the person does there.
    fn context(&self) -> Context {
        Context { same_site: true, safe_navigation: true, around: self.around.clone() }
    }

    /// Forgets the cookies that `pick` chooses.
    pub fn forget(&self, pick: impl Fn(&StoredCookie) -> bool) {
        self.jar.lock().unwrap().remove(pick);
    }

    /// Forgets cookies without an end, as a user agent does when it is closed.
    pub fn close(&self) {
        self.forget(|cookie| cookie.expires.is_none());
    }

    /// A user agent of its own with copies of these cookies: what a thief would have.
    pub fn stolen_copy(&self) -> Self {
        let copy = Self { watch: self.watch.clone(), ..Self::new(self.clock.clone()) };
        for cookie in self.all_cookies() {
            copy.plant(cookie);
        }
        *copy.routes.lock().unwrap() = self.routes.lock().unwrap().clone();
        copy
    }
}

/// A form of a page.
#[derive(Debug, Clone)]
pub struct PostingForm {
    /// Where to.
    pub action: Url,
    /// Names and values.
    pub fields: Vec<(String, String)>,
}

impl Reply {
    /// The redirect's target, made absolute; `None` when this is no redirect.
    pub fn next(&self) -> Option<Url> {
        let location = self.headers.get(header::LOCATION).filter(|_| self.status.is_redirection())?;
        let location = std::str::from_utf8(location.as_bytes()).expect("a Location of text");
        Some(self.url.join(location).unwrap_or_else(|error| panic!("Location {location}: {error}")))
    }

    /// Where a page leads on by itself (`http-equiv=refresh`), made absolute.
    pub fn refresh(&self) -> Option<Url> {
        let text = self.text();
        let (_, rest) = text.split_once("http-equiv=\"refresh\" content=\"0;url=")?;
        let address = rest.split('"').next()?.replace("&#39;", "'").replace("&quot;", "\"");
        let address = address.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        Some(self.url.join(&address).unwrap_or_else(|error| panic!("a refresh to {address}: {error}")))
    }

    /// The redirect's target.
    ///
    /// # Panics
    /// When this is no redirect.
    #[track_caller]
    pub fn location(&self) -> Url {
        self.next().unwrap_or_else(|| panic!("not a redirect: {} {}", self.status, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{} answered {}, not JSON ({error}): {}", self.url, self.status, self.text())
        })
    }

    /// One header field as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The form of a page that posts itself (OAuth 2.0 Form Post Response Mode).
    pub fn posting_form(&self) -> Option<PostingForm> {
        if self.text().to_ascii_lowercase().contains("forms[0].submit()") { self.form() } else { None }
    }

    /// The form of a page, with what it sends by itself.
    pub fn form(&self) -> Option<PostingForm> {
        let text = self.text();
        let lower = text.to_ascii_lowercase();
        let attribute = |tag: &str, name: &str| {
            let at = tag.to_ascii_lowercase().find(&format!("{name}=\""))? + name.len() + 2;
            let value = &tag[at..at + tag[at..].find('"')?];
            let plain = [("&quot;", "\""), ("&lt;", "<"), ("&#x2f;", "/"), ("&#x3a;", ":"), ("&amp;", "&")];
            Some(plain.iter().fold(value.to_owned(), |value, (from, to)| value.replace(from, to)))
        };
        let tags = |kind: &str| {
            let starts: Vec<_> = lower.match_indices(&format!("<{kind}")).map(|(at, _)| at).collect();
            starts.into_iter().filter_map(|at| Some(&text[at..at + text[at..].find('>')?])).collect::<Vec<_>>()
        };
        let action = attribute(tags("form").first()?, "action")?;
        let fields =
            tags("input").into_iter().filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value")?)));
        Some(PostingForm { action: self.url.join(&action).ok()?, fields: fields.collect() })
    }

    /// Where the page's links lead, made absolute, and what they say.
    pub fn links(&self) -> Vec<(String, String)> {
        let text = self.text();
        let links = text.split("<a ").skip(1).map(|link| {
            let href = link.split("href=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a link's address");
            let label = link.split('>').nth(1).and_then(|rest| rest.split('<').next()).expect("a link's text");
            let plain = |text: &str| text.replace("&#x2f;", "/").replace("&amp;", "&");
            let target = self.url.join(&plain(href)).unwrap_or_else(|error| panic!("a link to {href}: {error}"));
            (target.into(), plain(label))
        });
        links.collect()
    }

    /// The `Set-Cookie` lines.
    pub fn set_cookies(&self) -> Vec<String> {
        self.headers
            .get_all(header::SET_COOKIE)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    }

    /// How many bytes the answer's head takes on the wire: status line, fields, blank line.
    pub fn head_length(&self) -> usize {
        let status = self.status.canonical_reason().unwrap_or_default().len() + "HTTP/1.1 000 \r\n".len();
        let fields: usize = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        status + fields + 2
    }

    /// A header that the application saw, by its own account in the echo body; `None` when it did not.
    #[track_caller]
    pub fn echoed(&self, name: &str) -> Option<String> {
        let echo = self.json();
        let values: Vec<&str> = echo["headers"]
            .as_array()
            .unwrap_or_else(|| panic!("{} did not answer with an echo: {}", self.url, self.text()))
            .iter()
            .filter(|field| field[0].as_str().is_some_and(|field| field.eq_ignore_ascii_case(name)))
            .filter_map(|field| field[1].as_str())
            .collect();
        assert!(values.len() <= 1, "{name} reached the application more than once: {values:?}");
        values.first().map(|&value| value.to_owned())
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn authority(url: &Url) -> String {
    url.port().map_or_else(|| host(url).to_owned(), |port| format!("{}:{port}", host(url)))
}
