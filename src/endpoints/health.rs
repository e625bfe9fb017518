//! The admin listener: `/healthz`, `/readyz` and `/metrics`, for the orchestrator and the scraper, never for people. They are
//! answered from memory; `/sessions` is for operators (see [`super::admin`]). It keeps nothing open, and goes on until the very
//! end of a drain.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::admin::AdminApi;
use crate::telemetry::metrics::{self, Metrics};

/// Connections at the same time; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 64;

/// Time for a request's head; a whole connection, which carries one request, has twice that.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest request head, in bytes (the smallest that hyper takes).
const MAX_HEAD: usize = 8 * 1024;

/// The most header fields.
const MAX_HEADERS: usize = 64;

/// How long a failed accept (no file descriptor left) is waited out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin listener answers from.
#[derive(Clone)]
pub struct AdminState {
    /// All workers' counters.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the stop begins.
    pub draining: CancellationToken,
    /// Whether the provider is known, or a sentence that says why not. Must not block.
    pub provider_status: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// For operators; `None`: there is no such path.
    pub api: Option<Arc<AdminApi>>,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").field("draining", &self.draining.is_cancelled()).finish_non_exhaustive()
    }
}

/// Answers until `stop` is cancelled; connections that are then still open are cut.
pub async fn serve_admin(listener: TcpListener, state: AdminState, stop: CancellationToken) {
    serve(listener, state, stop, HEADER_TIMEOUT).await;
}

async fn serve(listener: TcpListener, state: AdminState, stop: CancellationToken, header_timeout: Duration) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropped with this future, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&listener, &free) => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer, permit)) => {
                connections.spawn(serve_connection((stream, peer.ip()), permit, state.clone(), header_timeout));
            }
            Err(error) => {
                tracing::warn!(%error, "admin listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(free).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

async fn serve_connection(
    (stream, peer): (TcpStream, IpAddr),
    permit: OwnedSemaphorePermit,
    state: AdminState,
    header_timeout: Duration,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(&state, &request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Who sends no request, or reads no answer, is told nothing and not worth a log line.
    let _ = tokio::time::timeout(2 * header_timeout, connection).await;
    drop(permit);
}

async fn answer<B>(state: &AdminState, request: &Request<B>, peer: IpAddr) -> Response<Full<Bytes>> {
    let (method, path) = (request.method(), request.uri().path());
    if let Some(api) = state.api.as_ref().filter(|_| AdminApi::has(path)) {
        return api.answer(request, peer).await;
    }
    let make = match path {
        "/healthz" => health,
        "/readyz" => readiness,
        "/metrics" => exposition,
        _ => return json(StatusCode::NOT_FOUND, &serde_json::json!({ "status": "not found" })),
    };
    if method != Method::GET && method != Method::HEAD {
        let mut refused = json(StatusCode::METHOD_NOT_ALLOWED, &serde_json::json!({ "status": "method not allowed" }));
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    make(state)
}

/// This process can answer.
fn health(_: &AdminState) -> Response<Full<Bytes>> {
    json(StatusCode::OK, &serde_json::json!({ "status": "ok" }))
}

/// Whether new connections are welcome. A provider that is away is no reason to send them elsewhere: sessions and public
/// routes still work, and the other replicas have the same provider.
fn readiness(state: &AdminState) -> Response<Full<Bytes>> {
    if state.draining.is_cancelled() {
        return json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "status": "draining" }));
    }
    let ready = match (state.provider_status)() {
        Ok(()) => serde_json::json!({ "status": "ready", "provider": "available" }),
        Err(reason) => serde_json::json!({ "status": "ready", "provider": "unavailable", "reason": reason }),
    };
    json(StatusCode::OK, &ready)
}

fn exposition(state: &AdminState) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, metrics::CONTENT_TYPE, state.metrics.render())
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    respond(status, "application/json", format!("{value}\n"))
}

pub(super) fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Running {
        address: SocketAddr,
        draining: CancellationToken,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    async fn start(provider: Result<(), String>) -> Running {
        start_with(provider, HEADER_TIMEOUT).await
    }

    async fn start_with(provider: Result<(), String>, header_timeout: Duration) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
        let state = AdminState {
            metrics: Metrics::new(),
            draining: draining.clone(),
            provider_status: Arc::new(move || provider.clone()),
            api: None,
        };
        state.metrics.worker().request(200, None, Duration::from_millis(1));
        let task = tokio::spawn(serve(listener, state, stop.clone(), header_timeout));
        Running { address, draining, stop, task }
    }

    impl Running {
        /// Sends raw bytes, reads to the end.
        async fn exchange(&self, bytes: &[u8]) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            // The answer may come, and the connection go, before everything is sent.
            let _ = stream.write_all(bytes).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        }

        async fn ask(&self, request: &str) -> (String, String) {
            let answer = self.exchange(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.to_ascii_lowercase(), body.to_owned())
        }
    }

    #[tokio::test]
    async fn health_says_ok_whatever_the_state() {
        let running = start(Err("away".to_owned())).await;
        for _ in 0..2 {
            let (head, body) = running.ask("GET /healthz").await;
            assert!(head.starts_with("http/1.1 200 ") && head.contains("content-type: application/json"), "{head}");
            assert_eq!(body, "{\"status\":\"ok\"}\n");
            running.draining.cancel();
        }
    }

    #[tokio::test]
    async fn readiness_tells_of_the_provider_and_refuses_only_while_draining() {
        let running = start(Ok(())).await;
        let (head, body) = running.ask("GET /readyz").await;
        assert!(head.starts_with("http/1.1 200 "));
        assert_eq!(body, "{\"status\":\"ready\",\"provider\":\"available\"}\n");
        running.draining.cancel();
        let (head, body) = running.ask("GET /readyz?verbose").await;
        assert!(head.starts_with("http/1.1 503 ") && head.contains("cache-control: no-store"), "{head}");
        assert_eq!(body, "{\"status\":\"draining\"}\n");

        let running = start(Err("the provider answered \"no\"".to_owned())).await;
        let (head, body) = running.ask("GET /readyz").await;
        assert!(head.starts_with("http/1.1 200 "));
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["provider"], "unavailable");
        assert_eq!(body["reason"], "the provider answered \"no\"");
    }

    #[tokio::test]
    async fn metrics_are_exposed_with_their_media_type() {
        let (head, body) = start(Ok(())).await.ask("GET /metrics").await;
        assert!(head.contains(&format!("content-type: {}", metrics::CONTENT_TYPE)), "{head}");
        assert!(body.contains("vestibule_requests_total{status=\"2xx\"} 1\n") && body.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn head_has_no_body_other_methods_and_paths_are_refused() {
        let running = start(Ok(())).await;
        let (head, body) = running.ask("HEAD /readyz").await;
        assert!(head.starts_with("http/1.1 200 ") && head.contains("content-length: 42") && body.is_empty(), "{head}");
        let (head, _) = running.ask("POST /healthz").await;
        assert!(head.starts_with("http/1.1 405 ") && head.contains("allow: get, head"), "{head}");
        for path in ["/", "/sessions", "/sessions/0", "/healthz/", "/auth/login", "/Metrics", "//metrics"] {
            let (head, _) = running.ask(&format!("GET {path}")).await;
            assert!(head.starts_with("http/1.1 404 "), "{path}: {head}");
        }
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused_and_the_connection_ends() {
        let running = start(Ok(())).await;
        let large = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nx: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD));
        assert!(!running.exchange(large.as_bytes()).await.starts_with("HTTP/1.1 200"));
        let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(MAX_HEADERS + 1));
        assert!(running.exchange(many.as_bytes()).await.starts_with("HTTP/1.1 431"));
        let two = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(running.exchange(two).await.matches("HTTP/1.1 ").count(), 1);
    }

    #[tokio::test]
    async fn who_sends_nothing_is_let_go() {
        let running = start_with(Ok(()), Duration::from_millis(200)).await;
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS + 4 {
            idle.push(TcpStream::connect(running.address).await.unwrap());
        }
        // Waits in the queue until the idle ones are cut.
        let (head, _) = running.ask("GET /healthz").await;
        assert!(head.starts_with("http/1.1 200 "));
        let mut rest = Vec::new();
        let _ = idle[0].read_to_end(&mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    }

    #[tokio::test]
    async fn it_answers_during_the_drain_and_ends_with_stop() {
        let running = start(Ok(())).await;
        let open = TcpStream::connect(running.address).await.unwrap();
        running.draining.cancel();
        assert!(running.ask("GET /healthz").await.0.starts_with("http/1.1 200 "));
        running.stop.cancel();
        running.task.await.unwrap();
        assert!(TcpStream::connect(running.address).await.is_err());
        drop(open);
    }
}
