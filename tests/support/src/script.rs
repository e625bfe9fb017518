//! Both ends of a connection byte by byte: applications and clients that do what no library would.

use std::future::Future;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// An application that does with each connection what `serve` does, until the test's runtime ends; its URL.
pub async fn application<F, Served>(serve: F) -> String
where
    F: Fn(TcpStream) -> Served + Send + 'static,
    Served: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound address"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    url
}

/// An application that answers nothing. Its URL, and of each connection that has ended the head and what came behind it.
pub async fn silent() -> (String, UnboundedReceiver<(String, Vec<u8>)>) {
    let (ended, ends) = unbounded_channel();
    let url = application(move |mut stream| {
        let ended = ended.clone();
        async move {
            let asked = head(&mut stream).await;
            let mut body = Vec::new();
            let _ = stream.read_to_end(&mut body).await;
            let _ = ended.send((asked, body));
        }
    })
    .await;
    (url, ends)
}

/// An application that agrees to every upgrade, says `welcome` in the same breath as its 101 and then everything in capitals
/// that it is told, to the end; what is no upgrade it answers with `plain`. Its URL, and the heads of its requests.
pub async fn agreeing() -> (String, UnboundedReceiver<String>) {
    let (asked, questions) = unbounded_channel();
    let url = application(move |mut stream| {
        let asked = asked.clone();
        async move {
            loop {
                let head = head(&mut stream).await;
                let protocol = head.lines().find_map(|line| line.strip_prefix("upgrade: ")).map(str::to_owned);
                if head.is_empty() || asked.send(head).is_err() {
                    return;
                }
                if let Some(protocol) = protocol {
                    let switch = format!("Connection: upgrade\r\nUpgrade: {protocol}\r\n\r\nwelcome");
                    let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{switch}");
                    stream.write_all(answer.as_bytes()).await.expect("the 101 is taken");
                    break;
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain";
                stream.write_all(answer).await.expect("the answer is taken");
            }
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                buffer[..count].make_ascii_uppercase();
                if stream.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (url, questions)
}

/// Connects and sends `head`, in which `{host}` stands for the host of a stage or site that listens at `address`.
pub async fn connect(address: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    let host = format!("localhost:{}", address.port());
    stream.write_all(head.replace("{host}", &host).as_bytes()).await.expect("the head is taken");
    stream
}

/// Reads to the blank line, or the end; what came beyond it stays unread.
pub async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("a head of text")
}

/// 65,521 bytes that look random: a prime, so that a piece that is lost, doubled or displaced changes the whole.
pub fn piece() -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..65_521).map(|_| next()).collect()
}

/// The pieces that make up `total` bytes.
pub fn pieces(piece: &[u8], total: u64) -> impl Iterator<Item = &[u8]> {
    let length = piece.len() as u64;
    (0..total.div_ceil(length)).map(move |number| {
        let left = total - number * length;
        // No longer than the piece, so it fits.
        &piece[..usize::try_from(left.min(length)).expect("the length of a slice")]
    })
}
