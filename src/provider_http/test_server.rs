//! A tiny provider on loopback for unit tests: one closure answers everything.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// What the closure answers with.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The server; ends when dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    task: AbortHandle,
}

impl TestServer {
    /// Starts on a free port of 127.0.0.1.
    pub(crate) async fn start(answer: impl Fn(Request<Bytes>) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                        let answer = Arc::clone(&answer);
                        async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await?.to_bytes();
                            Ok::<_, hyper::Error>(answer(Request::from_parts(head, body)))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        })
        .abort_handle();
        Self { address, task }
    }

    /// `http://127.0.0.1:PORT` plus `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer with a media type and a whole body.
pub(crate) fn answer(status: u16, media_type: &str, body: impl Into<Bytes>) -> Answer {
    Response::builder()
        .status(status)
        .header("content-type", media_type)
        .body(Full::new(body.into()).boxed_unsync())
        .unwrap()
}

/// A JSON answer.
pub(crate) fn json(status: u16, body: &serde_json::Value) -> Answer {
    answer(status, "application/json", body.to_string())
}
