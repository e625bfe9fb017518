//! A client of HTTP/2, by prior knowledge or over a stream of TLS, near enough to the frames to misbehave.

use std::net::SocketAddr;
use std::time::Duration;

use ::h2::client::{ResponseFuture, SendRequest};
use ::h2::{RecvStream, SendStream};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::runtime;

/// No answer takes longer than this.
const DEADLINE: Duration = Duration::from_secs(30);

/// One connection. The connection ends when this is dropped.
#[derive(Debug)]
pub struct H2Client {
    sender: SendRequest<Bytes>,
    connection: Option<JoinHandle<Result<(), ::h2::Error>>>,
}

/// One answer.
#[derive(Debug)]
pub struct H2Reply {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The trailer fields.
    pub trailers: Option<HeaderMap>,
    /// Whether the head was all there was.
    pub head_only: bool,
}

impl H2Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }
}

impl H2Client {
    /// Connects.
    ///
    /// # Panics
    /// When there is no HTTP/2 at this address.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &::h2::client::Builder::new()).await
    }

    /// Connects with settings of its own.
    ///
    /// # Panics
    /// When there is no HTTP/2 at this address.
    pub async fn connect_with(address: SocketAddr, builder: &::h2::client::Builder) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Self::over(stream, builder).await
    }

    /// Speaks HTTP/2 on a stream that is there already.
    ///
    /// # Panics
    /// When there is no HTTP/2 at its other end.
    pub async fn over<S>(stream: S, builder: &::h2::client::Builder) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = builder.handshake(stream).await.expect("HTTP/2");
        let connection = runtime().spawn(connection);
        // The server's settings, without which nobody knows what it can do.
        let settings = async {
            while !sender.is_extended_connect_protocol_enabled() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(DEADLINE, settings).await.expect("settings in time");
        Self { sender, connection: Some(connection) }
    }

    /// A request whose body is still to be sent, unless `is_end`.
    ///
    /// # Errors
    /// The connection's.
    pub async fn open(
        &self,
        request: Request<()>,
        is_end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), ::h2::Error> {
        let mut sender = timeout(DEADLINE, self.sender.clone().ready()).await.expect("room for a stream in time")?;
        sender.send_request(request, is_end)
    }

    /// A request with this body (none at all where it is empty) and its whole answer.
    ///
    /// # Errors
    /// The stream's or the connection's.
    ///
    /// # Panics
    /// When no answer comes within 30 s.
    pub async fn send(&self, request: Request<()>, body: impl Into<Bytes>) -> Result<H2Reply, ::h2::Error> {
        let body = body.into();
        let (response, mut sending) = self.open(request, body.is_empty()).await?;
        if !body.is_empty() {
            sending.send_data(body, true)?;
        }
        timeout(DEADLINE, whole(response)).await.expect("an answer in time")
    }

    /// GET of an absolute URL.
    ///
    /// # Errors
    /// The stream's or the connection's.
    pub async fn get(&self, url: &str) -> Result<H2Reply, ::h2::Error> {
        self.send(Request::get(url).body(()).expect("a request"), Bytes::new()).await
    }

    /// How the connection ended.
    ///
    /// # Panics
    /// When it does not within `patience`.
    pub async fn end(mut self, patience: Duration) -> Result<(), ::h2::Error> {
        let connection = self.connection.take().expect("a connection");
        timeout(patience, connection).await.expect("the connection's end in time").expect("no panic")
    }
}

impl Drop for H2Client {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.abort();
        }
    }
}

/// Reads an answer to its end.
///
/// # Errors
/// The stream's or the connection's.
pub async fn whole(response: ResponseFuture) -> Result<H2Reply, ::h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let head_only = body.is_end_stream();
    let body_bytes = read(&mut body).await?;
    let trailers = body.trailers().await?;
    Ok(H2Reply { status: head.status, headers: head.headers, body: body_bytes, trailers, head_only })
}

async fn read(body: &mut RecvStream) -> Result<Bytes, ::h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

/// Frames written by hand. The preface and the first SETTINGS have been exchanged.
#[derive(Debug)]
pub struct H2Frames {
    reading: OwnedReadHalf,
    writing: OwnedWriteHalf,
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct H2Frame {
    /// RFC 9113 §6.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl H2Frames {
    /// Connects and says hello.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("a preface");
        let (reading, writing) = stream.into_split();
        let mut frames = Self { reading, writing };
        assert!(frames.write(4, 0, 0, &[]).await);
        frames
    }

    /// Writes a frame; false when nobody takes it any more.
    pub async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.writing.write_all(&frame(kind, flags, stream, payload)).await.is_ok()
    }

    /// Writes bytes as they are; false when nobody takes them any more.
    pub async fn write_bytes(&mut self, bytes: &[u8]) -> bool {
        self.writing.write_all(bytes).await.is_ok()
    }

    /// The next frame; `None` at the connection's end.
    ///
    /// # Panics
    /// When nothing comes within 30 s.
    pub async fn read(&mut self) -> Option<H2Frame> {
        timeout(DEADLINE, Self::read_frame(&mut self.reading)).await.expect("a frame in time")
    }

    async fn read_frame(reading: &mut OwnedReadHalf) -> Option<H2Frame> {
        let mut head = [0; 9];
        reading.read_exact(&mut head).await.ok()?;
        let [high, middle, low, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        reading.read_exact(&mut payload).await.ok()?;
        Some(H2Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The error code of the GOAWAY that comes before the connection's end; `None` when it ends without.
    pub async fn go_away(&mut self) -> Option<u32> {
        self.flood(0, |_| Vec::new()).await
    }

    /// Writes what `make` makes up to `most` times, until GOAWAY comes, then waits for the connection's end. The last
    /// GOAWAY's error code; `None` when the connection ends without.
    ///
    /// # Panics
    /// When it does not end within 30 s of the last byte.
    pub async fn flood(&mut self, most: usize, mut make: impl FnMut(usize) -> Vec<u8>) -> Option<u32> {
        let Self { reading, writing } = self;
        let told = async {
            while let Some(frame) = Self::read_frame(reading).await {
                if frame.kind == 7 {
                    return Some(u32::from_be_bytes(frame.payload[4..8].try_into().expect("four bytes")));
                }
            }
            None
        };
        let flooding = async {
            for number in 0..most {
                if writing.write_all(&make(number)).await.is_err() {
                    break;
                }
            }
            tokio::time::sleep(DEADLINE).await;
        };
        let mut code = tokio::select! {
            code = told => code,
            () = flooding => panic!("the connection does not end"),
        };
        if code.is_some() {
            // Whoever lingers for what is still to come is told that it was all.
            let _ = writing.shutdown().await;
        }
        while let Some(frame) = self.read().await {
            if frame.kind == 7 {
                code = frame.payload[4..8].try_into().ok().map(u32::from_be_bytes);
            }
        }
        code
    }
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block without compression (RFC 7541 §6.2.2), names and values below 127 bytes.
pub fn header_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}
