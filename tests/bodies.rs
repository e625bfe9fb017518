//! Bodies of any size pass unchanged and are never gathered, whoever is slow: through the program itself, whose memory is
//! looked at from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use vestibule_test_support::script::{self, application, connect, pieces};
use vestibule_test_support::{Program, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");
pub(crate) const MIB: u64 = 1 << 20;
/// What a body of any size may cost the program.
pub(crate) const COST: u64 = 4 * MIB;
/// What the kernel may hold of a body on its two ways through the loopback, and the program with it.
const IN_BETWEEN: u64 = 32 * MIB;

/// The program in front of `application`, and below `/echo` of the site's own, open to everybody.
async fn in_front_of(site: &Site, application: &str) -> Program {
    let routes = format!(
        "[upstreams.scripted]\nurl = \"{application}\"\n\
         [[routes]]\npath = \"/*\"\naccess = \"public\"\nupstream = \"scripted\"\n\
         [[routes]]\npath = \"/echo/*\"\naccess = \"public\"\nupstream = \"default\"\n"
    );
    site.start(site.launch().env("VESTIBULE_CONFIG", site.file("routes.toml", &routes))).await
}

pub(crate) fn hex(digest: &digest::Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    /// By the end of the connection; for answers only.
    Close,
}

impl Framing {
    fn field(self, total: u64) -> String {
        match self {
            Self::Length => format!("Content-Length: {total}\r\n"),
            Self::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
            Self::Close => String::new(),
        }
    }

    async fn send(self, stream: &mut TcpStream, piece: &[u8], total: u64) {
        for piece in pieces(piece, total) {
            if self == Self::Chunked {
                stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
            }
            stream.write_all(piece).await.unwrap();
            if self == Self::Chunked {
                stream.write_all(b"\r\n").await.unwrap();
            }
        }
        if self == Self::Chunked {
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
    }
}

/// Reads an answer's body to the end of the connection, its chunks put together; length and SHA-256.
async fn receive(stream: &mut TcpStream, chunked: bool) -> (u64, String) {
    let (mut sum, mut total) = (digest::Context::new(&digest::SHA256), 0);
    let mut stream = tokio::io::BufReader::with_capacity(256 * 1024, stream);
    let mut buffer = vec![0; 256 * 1024];
    let mut left = if chunked { 0 } else { u64::MAX };
    loop {
        if left == 0 {
            let mut line = String::new();
            tokio::io::AsyncBufReadExt::read_line(&mut stream, &mut line).await.unwrap();
            if line == "\r\n" {
                continue;
            }
            left = u64::from_str_radix(line.trim_end(), 16).unwrap_or_else(|_| panic!("a chunk size: {line:?}"));
            if left == 0 {
                break;
            }
        }
        let most = left.min(buffer.len() as u64) as usize;
        let count = stream.read(&mut buffer[..most]).await.unwrap();
        if count == 0 {
            assert!(!chunked, "an end in the middle of a chunk");
            break;
        }
        sum.update(&buffer[..count]);
        total += count as u64;
        left -= count as u64;
    }
    (total, hex(&sum.finish()))
}

/// `total` bytes up and down, with each framing there is; the program may not grow by more than [`COST`].
pub(crate) async fn pass_both_ways(total: u64) {
    let piece = Arc::new(script::piece());
    let site = Site::of(PROGRAM);
    let down = application({
        let piece = Arc::clone(&piece);
        move |mut stream| {
            let piece = Arc::clone(&piece);
            async move {
                // The path says what is wanted: framing and length.
                let head = script::head(&mut stream).await;
                let (framing, total) = head.split(' ').nth(1).unwrap()[1..].split_once('/').unwrap();
                let framing = match framing {
                    "length" => Framing::Length,
                    "chunked" => Framing::Chunked,
                    _ => Framing::Close,
                };
                let total: u64 = total.parse().unwrap();
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{}\r\n", framing.field(total));
                stream.write_all(head.as_bytes()).await.unwrap();
                framing.send(&mut stream, &piece, total).await;
            }
        }
    })
    .await;
    let program = in_front_of(&site, &down).await;
    // Everything that is only needed once is there after a small one.
    round(&site, &piece, MIB).await;
    program.forget_peak_memory();
    let before = program.peak_memory();
    round(&site, &piece, total).await;
    let growth = program.peak_memory().saturating_sub(before);
    assert!(growth < COST, "{} KiB more for {} MiB", growth / 1024, total / MIB);
}

async fn round(site: &Site, piece: &[u8], total: u64) {
    let mut sum = digest::Context::new(&digest::SHA256);
    pieces(piece, total).for_each(|piece| sum.update(piece));
    let sum = hex(&sum.finish());
    for framing in [Framing::Length, Framing::Chunked] {
        let fields = framing.field(total);
        let request = format!("POST /echo/up HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\n{fields}\r\n");
        let mut stream = connect(site.address(), &request).await;
        framing.send(&mut stream, piece, total).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&sum), "{framing:?}: {answer}");
    }
    for (framing, path) in [(Framing::Length, "length"), (Framing::Chunked, "chunked"), (Framing::Close, "close")] {
        let request = format!("GET /{path}/{total} HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\n\r\n");
        let mut stream = connect(site.address(), &request).await;
        let head = script::head(&mut stream).await.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let chunked = head.contains("transfer-encoding: chunked");
        assert_eq!(chunked, framing != Framing::Length, "{framing:?}: {head}");
        assert_eq!(receive(&mut stream, chunked).await, (total, sum.clone()), "{framing:?}");
    }
}

#[tokio::test]
async fn two_hundred_mebibytes_pass_both_ways_unchanged_and_in_flat_memory() {
    pass_both_ways(200 * MIB).await;
}

#[tokio::test]
async fn an_application_that_reads_slowly_slows_the_client_down() {
    const TOTAL: u64 = 64 * MIB;
    let (go, gate) = oneshot::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(Some(gate)));
    let url = application(move |mut stream| {
        let gate = gate.lock().unwrap().take();
        async move {
            script::head(&mut stream).await;
            if let Some(gate) = gate {
                gate.await.unwrap();
            }
            let (mut total, mut buffer) = (0, vec![0; 256 * 1024]);
            while total < TOTAL {
                total += stream.read(&mut buffer).await.unwrap() as u64;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let site = Site::of(PROGRAM);
    let program = in_front_of(&site, &url).await;
    let before = program.peak_memory();
    let request = format!("POST / HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\nContent-Length: {TOTAL}\r\n\r\n");
    let mut stream = connect(site.address(), &request).await;
    let piece = vec![7; 64 * 1024];
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_millis(500), stream.write(&piece)).await {
        sent += written.unwrap() as u64;
        assert!(sent < IN_BETWEEN, "{} MiB were taken in for an application that reads nothing", sent / MIB);
    }
    let growth = program.peak_memory().saturating_sub(before);
    assert!(growth < COST, "{} KiB are held for an application that reads nothing", growth / 1024);
    go.send(()).unwrap();
    while sent < TOTAL {
        let left = (TOTAL - sent).min(piece.len() as u64) as usize;
        sent += stream.write(&piece[..left]).await.unwrap() as u64;
    }
    assert!(script::head(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_reads_slowly_slows_the_application_down() {
    const TOTAL: u64 = 64 * MIB;
    let written = Arc::new(AtomicU64::new(0));
    let url = application({
        let written = written.clone();
        move |mut stream| {
            let written = written.clone();
            async move {
                script::head(&mut stream).await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                let piece = vec![7; 64 * 1024];
                while written.load(Ordering::Relaxed) < TOTAL {
                    let count = stream.write(&piece).await.unwrap();
                    written.fetch_add(count as u64, Ordering::Relaxed);
                }
            }
        }
    })
    .await;
    let site = Site::of(PROGRAM);
    let program = in_front_of(&site, &url).await;
    let before = program.peak_memory();
    let mut stream = connect(site.address(), "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").await;
    assert!(script::head(&mut stream).await.starts_with("HTTP/1.1 200"));
    // Until nothing moves any more.
    let mut so_far = u64::MAX;
    while so_far != written.load(Ordering::Relaxed) {
        so_far = written.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(so_far < IN_BETWEEN, "{} MiB were taken in for a client that reads nothing", so_far / MIB);
    let growth = program.peak_memory().saturating_sub(before);
    assert!(growth < COST, "{} KiB are held for a client that reads nothing", growth / 1024);
    let (mut total, mut buffer) = (0, vec![0; 256 * 1024]);
    while total < TOTAL {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{total}");
        total += count as u64;
    }
}

#[tokio::test]
async fn a_refusal_of_the_application_reaches_a_client_that_is_still_sending() {
    const TOTAL: u64 = 50 * MIB;
    let url = application(|mut stream| async move {
        script::head(&mut stream).await;
        let refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large";
        stream.write_all(refusal).await.unwrap();
        let mut scrap = vec![0; 64 * 1024];
        let reading = async { while matches!(stream.read(&mut scrap).await, Ok(count) if count > 0) {} };
        let _ = timeout(Duration::from_millis(700), reading).await;
    })
    .await;
    let site = Site::of(PROGRAM);
    let _program = in_front_of(&site, &url).await;
    let request = format!("POST / HTTP/1.1\r\nHost: {{host}}\r\nContent-Length: {TOTAL}\r\n\r\n");
    let clients = (0..5).map(|_| async {
        let stream = connect(site.address(), &request).await;
        let (mut read, mut write) = stream.into_split();
        let sending = tokio::spawn(async move {
            let piece = vec![7; 64 * 1024];
            for _ in 0..TOTAL / piece.len() as u64 {
                if write.write_all(&piece).await.is_err() {
                    return;
                }
                // A client with a line of its own, not one that is done before it is told.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(b"too large") {
            let count = timeout(Duration::from_secs(5), read.read(&mut buffer)).await.expect("an answer").unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..count]);
        }
        sending.abort();
        String::from_utf8(answer).unwrap()
    });
    for answer in futures_util::future::join_all(clients).await {
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
}
