//! The bounded client towards providers, as the ACME library wants it.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::provider_http::ProviderHttp;

pub(super) struct Client(pub(super) ProviderHttp);

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let http = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|error| Error::Other(error.into()))?.to_bytes();
            let response = http.send(Request::from_parts(head, body)).await;
            response.map(|response| response.map(Full::new).into()).map_err(|error| Error::Other(Box::new(error)))
        })
    }
}
