//! Bodies and streams through the program, with somebody signed in, and an application that does what no library would.
//!
//! What holds each row: `bodies::`, `streams::`, `faults::`, `forwarding::`, `access::no_spelling_of_a_guarded_path_is_less_guarded`,
//! `session::the_application_never_sees_our_cookies_and_cannot_set_them`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use futures_util::future::{join, join_all};
use http::StatusCode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use vestibule_test_support::script::{self, pieces};

use crate::house::{House, Kit, Store};
use crate::table::{Cell, Table};

const MIB: u64 = 1 << 20;
/// Longer than anything is waited for.
const LONG: Duration = Duration::from_secs(5);
/// Events tell when they left by it.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
const EVERY: Duration = Duration::from_millis(10);

/// What the application noticed.
#[derive(Debug, Default)]
struct Notes {
    /// When it saw that a client was gone.
    gone: Mutex<Option<Instant>>,
    /// Bytes that it could write to a client that reads nothing.
    written: AtomicU64,
}

/// Somebody who is signed in, and an application that is scripted.
struct Scene {
    house: House,
    cookies: String,
    notes: Arc<Notes>,
    application: std::net::SocketAddr,
}

impl Scene {
    async fn start(kit: &Kit) -> Self {
        let notes = Arc::new(Notes::default());
        let told = Arc::clone(&notes);
        let url = script::application(move |stream| serve(stream, Arc::clone(&told))).await;
        let toml = format!(
            "[upstreams.scripted]\nurl = \"{url}\"\n[[routes]]\npath = \"/*\"\nupstream = \"scripted\"\n\
             [[routes]]\npath = \"/echo/*\"\nupstream = \"default\"\n"
        );
        let house = House::start(kit, Store::Cookie, &toml).await;
        let browser = house.browser();
        let page = browser.follow(&house.url("/echo/"), 10).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text());
        let cookies = browser.cookie_line(&house.origin());
        let application = url.trim_start_matches("http://").parse().expect("an address");
        Self { house, cookies, notes, application }
    }

    /// Sends a head; `line` as `GET /path`.
    async fn ask(&self, line: &str, fields: &str) -> TcpStream {
        let (origin, cookies) = (self.house.origin(), &self.cookies);
        let host = origin.trim_start_matches("http://");
        let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nCookie: {cookies}\r\n{fields}\r\n");
        let mut stream = TcpStream::connect(self.house.door()).await.expect("the door is open");
        stream.write_all(head.as_bytes()).await.expect("the head is taken");
        stream
    }

    /// The whole answer, of a connection that is to be closed.
    async fn answer(&self, line: &str, fields: &str) -> String {
        let mut stream = self.ask(line, &format!("Connection: close\r\n{fields}")).await;
        rest(&mut stream).await
    }
}

/// Everything to the end, however that comes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) async fn run(kit: &Kit) -> Table {
    let mut table = Table::new("bodies and streams, signed in", &["Vestibule"]);
    let scene = Scene::start(kit).await;
    let patient = async { scene.answer("GET /wait", "").await };
    let others = async {
        let total = if kit.short { 50 * MIB } else { 200 * MIB };
        table.row(
            "200 MiB up (length, chunked) and down: memory at the most",
            "right; +0.3 MiB",
            [bulk(&scene, total).await],
        );
        table.row(
            "an application, a client that reads nothing: taken in meanwhile",
            "16 / 8 MiB",
            [held(&scene).await],
        );
        for (what, path, busy) in [
            ("event stream: delay p50 / p99, ms", "/events", false),
            ("NDJSON: the same", "/ndjson", false),
            ("event stream beside a download: the same", "/events", true),
        ] {
            let best = if busy { "p99 3.8" } else { "0.3 / 0.5 (no proxy: 0.15 / 0.35)" };
            table.row(what, best, [delays(&scene, path, busy).await]);
        }
        table.row("application dies in mid-body, 4 ways: the client sees it", "4/4", [cut_short(&scene).await]);
        let kept = [kept(&scene, "GET").await, kept(&scene, "POST").await];
        let text = format!("{} / {}", kept[0], kept[1]);
        let what = "kept connections closed unannounced, 1,000 GET / 1,000 POST: failed";
        table.row(what, "0 / 0", [Cell::of(text, kept == [0, 0])]);
        let gone = [gone(&scene, "/think").await, gone(&scene, "/stream").await];
        let good = gone[0] < 0.1 && gone[1] < 0.1;
        let text = format!("{:.2} / {:.2} s", gone[0], gone[1]);
        table.row(
            "client gone while the application thinks / in mid-stream: noticed in",
            "0.00 / 0.02 s",
            [Cell::of(text, good)],
        );
        let what = "trailers of an answer / of a request; 100-continue";
        table.row(what, "passed / lost; passed", [trailers(&scene).await]);
        table.row("103 Early Hints", "passed", [early_hints(&scene).await]);
        table.row("413 while 50 MiB are still being sent, 5 times", "5/5", [refused(&scene).await]);
        let what = "`a%2Fb`, `a//b`, `a/../b`, `%5C`, `%00` at the application";
        table.row(what, "same, 301, 301, same, 404", [paths(&scene).await]);
        let own = scene.answer("GET /seen", "").await.rsplit("\r\n\r\n").next().map_or(usize::MAX, str::len);
        let own = own.saturating_sub("/seen\n".len());
        table.row("own cookies at the application", "52 B", [Cell::of(format!("{own} B"), own == 0)]);
    };
    let (patient, ()) = join(patient, others).await;
    let status = patient.split(' ').nth(1).unwrap_or("none").to_owned();
    let good = status == "200";
    table.row("a request that takes 35 s", "200", [Cell::of(status, good)]);
    table
}

/// The application: the path says what it does.
async fn serve(mut stream: TcpStream, notes: Arc<Notes>) {
    let head = script::head(&mut stream).await;
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    // A client that leaves is no news.
    let _ = play(&mut stream, &head, &target, &notes).await;
}

async fn play(stream: &mut TcpStream, head: &str, target: &str, notes: &Notes) -> std::io::Result<()> {
    let mut scrap = vec![0; 64 * 1024];
    match target {
        "/down" => {
            let total: u64 = field(head, "x-total").parse().unwrap_or_default();
            stream
                .write_all(
                    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {total}\r\n\r\n").as_bytes(),
                )
                .await?;
            let piece = script::piece();
            for piece in pieces(&piece, total) {
                stream.write_all(piece).await?;
            }
        }
        "/unread" => sleep(LONG * 2).await,
        "/endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await?;
            loop {
                let count = stream.write(&scrap).await?;
                notes.written.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
        "/events" | "/ndjson" | "/stream" => {
            let kind = if target == "/ndjson" { "application/x-ndjson" } else { "text/event-stream" };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let sent = async {
                loop {
                    let event = format!("data: {}\n\n", BEGINNING.elapsed().as_nanos());
                    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                    if stream.write_all(chunk.as_bytes()).await.is_err() {
                        return;
                    }
                    sleep(EVERY).await;
                }
            };
            sent.await;
            *notes.gone.lock().expect("no panic while it is held") = Some(Instant::now());
        }
        "/think" => {
            let _ = stream.read(&mut scrap).await;
            *notes.gone.lock().expect("no panic while it is held") = Some(Instant::now());
        }
        "/wait" => {
            sleep(Duration::from_secs(35)).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await?;
        }
        "/die/length" | "/die/length/reset" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nten bytes!").await?;
            die(stream, target).await;
        }
        "/die/chunked" | "/die/chunked/reset" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nten bytes!\r\n").await?;
            die(stream, target).await;
        }
        "/kept" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
            // No word of the close.
            sleep(Duration::from_millis(3)).await;
        }
        "/hints" => {
            let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
            stream.write_all(hints).await?;
            sleep(Duration::from_millis(50)).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
        }
        "/continue" => {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            stream.read_exact(&mut scrap[..4]).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await?;
        }
        "/trailers" => {
            let answer =
                b"HTTP/1.1 200 OK\r\nTrailer: X-Checksum\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                           4\r\nbody\r\n0\r\nX-Checksum: abc\r\n\r\n";
            stream.write_all(answer).await?;
        }
        "/trailed" => {
            let mut body = Vec::new();
            while !body.ends_with(b"\r\n\r\n") {
                body.push(stream.read_u8().await?);
            }
            say(stream, &String::from_utf8_lossy(&body)).await?;
        }
        "/refuse" => {
            let refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large";
            stream.write_all(refusal).await?;
            let reading = async { while matches!(stream.read(&mut scrap).await, Ok(count) if count > 0) {} };
            let _ = timeout(Duration::from_millis(1500), reading).await;
        }
        _ => say(stream, &format!("{target}\n{}", field(head, "cookie"))).await?,
    }
    Ok(())
}

async fn say(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", text.len());
    stream.write_all((head + text).as_bytes()).await
}

async fn die(stream: &TcpStream, target: &str) {
    sleep(Duration::from_millis(30)).await;
    if target.ends_with("/reset") {
        stream.set_zero_linger().expect("the socket is open");
    }
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")));
    line.and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value)
}

async fn send(stream: &mut TcpStream, total: u64, chunked: bool) {
    let piece = script::piece();
    for piece in pieces(&piece, total) {
        if chunked {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.expect("it is taken");
        }
        stream.write_all(piece).await.expect("it is taken");
        if chunked {
            stream.write_all(b"\r\n").await.expect("it is taken");
        }
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n").await.expect("it is taken");
    }
}

/// Up and down, looking at every byte.
async fn bulk(scene: &Scene, total: u64) -> Cell {
    // Everything that is only needed once is there after a small one.
    let mut right = pass(scene, MIB).await;
    let program = &scene.house.programs[0];
    program.forget_peak_memory();
    let before = program.peak_memory();
    right &= pass(scene, total).await;
    let growth = program.peak_memory().saturating_sub(before) as f64 / MIB as f64;
    Cell::of(format!("{}; +{growth:.1} MiB", if right { "right" } else { "wrong" }), right && growth <= 0.5)
}

async fn pass(scene: &Scene, total: u64) -> bool {
    let piece = script::piece();
    let mut sum = digest::Context::new(&digest::SHA256);
    pieces(&piece, total).for_each(|piece| sum.update(piece));
    let sum = hex(sum);
    let mut right = true;
    let length = format!("Content-Length: {total}\r\n");
    for (fields, chunked) in [(&*length, false), ("Transfer-Encoding: chunked\r\n", true)] {
        let mut stream = scene.ask("POST /echo/up", &format!("Connection: close\r\n{fields}")).await;
        send(&mut stream, total, chunked).await;
        let answer = rest(&mut stream).await;
        right &= answer.starts_with("HTTP/1.1 200") && answer.contains(&sum);
    }
    let mut stream = scene.ask("GET /down", &format!("Connection: close\r\nX-Total: {total}\r\n")).await;
    script::head(&mut stream).await;
    let (mut came, mut buffer) = (digest::Context::new(&digest::SHA256), vec![0; 256 * 1024]);
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        came.update(&buffer[..count]);
    }
    right && hex(came) == sum
}

fn hex(sum: digest::Context) -> String {
    sum.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is taken in for somebody who reads nothing: by the program and by the kernel, on both ways through it.
async fn held(scene: &Scene) -> Cell {
    let mut up = scene.ask("POST /unread", "Connection: close\r\nContent-Length: 1000000000\r\n").await;
    let (piece, mut sent) = (vec![7; 64 * 1024], 0);
    while let Ok(Ok(count)) = timeout(Duration::from_millis(700), up.write(&piece)).await {
        sent += count as u64;
    }
    let mut down = scene.ask("GET /endless", "Connection: close\r\n").await;
    script::head(&mut down).await;
    let mut before = u64::MAX;
    while before != scene.notes.written.load(Ordering::Relaxed) {
        before = scene.notes.written.load(Ordering::Relaxed);
        sleep(Duration::from_millis(400)).await;
    }
    let [sent, taken] = [sent, before].map(|bytes| bytes as f64 / MIB as f64);
    Cell::of(format!("{sent:.0} / {taken:.0} MiB"), sent <= 17.5 && taken <= 8.5)
}

/// Milliseconds from the application's write to the client's read, beside those without a proxy.
async fn delays(scene: &Scene, path: &str, busy: bool) -> Cell {
    let load = busy.then(|| {
        let scene = (scene.house.door(), scene.house.origin(), scene.cookies.clone());
        tokio::spawn(download_again_and_again(scene))
    });
    let through = events(scene.ask(&format!("GET {path}"), "").await).await;
    let mut direct = TcpStream::connect(scene.application).await.expect("the application");
    direct.write_all(format!("GET {path} HTTP/1.1\r\nHost: application\r\n\r\n").as_bytes()).await.expect("a head");
    let direct = events(direct).await;
    if let Some(load) = load {
        load.abort();
    }
    let text = |[half, most]: [f64; 2]| format!("{half:.2} / {most:.2}");
    let good =
        if busy { through[1] <= 3.8 } else { through[0] <= direct[0] + 0.15 && through[1] <= direct[1] * 3.0 + 0.5 };
    Cell::of(format!("{} (no proxy: {})", text(through), text(direct)), good)
}

async fn download_again_and_again((door, origin, cookies): (std::net::SocketAddr, String, String)) {
    let host = origin.trim_start_matches("http://").to_owned();
    let head = format!("GET /down HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\nX-Total: 50000000\r\n\r\n");
    let mut scrap = vec![0; 256 * 1024];
    loop {
        let mut stream = TcpStream::connect(door).await.expect("the door is open");
        stream.write_all(head.as_bytes()).await.expect("the head is taken");
        let mut left = 50_000_000_usize;
        while left > 0 {
            left = left.saturating_sub(stream.read(&mut scrap).await.expect("the body goes on").max(1));
        }
    }
}

async fn events(stream: TcpStream) -> [f64; 2] {
    let (mut lines, mut found) = (BufReader::new(stream), Vec::new());
    let begun = Instant::now();
    let mut line = String::new();
    while begun.elapsed() < Duration::from_secs(3) {
        line.clear();
        lines.read_line(&mut line).await.expect("it goes on");
        if let Some(left) = line.strip_prefix("data: ") {
            let left: u128 = left.trim().parse().expect("a number");
            found.push((BEGINNING.elapsed().as_nanos() - left) as f64 / 1e6);
        }
    }
    found.sort_by(f64::total_cmp);
    [found[found.len() / 2], found[found.len() * 99 / 100]]
}

async fn cut_short(scene: &Scene) -> Cell {
    let mut seen = 0;
    for path in ["/die/length", "/die/length/reset", "/die/chunked", "/die/chunked/reset"] {
        let answer = scene.answer(&format!("GET {path}"), "").await;
        let is_whole = answer.ends_with("0\r\n\r\n") || !answer.starts_with("HTTP/1.1 200");
        seen += usize::from(!is_whole && answer.contains("ten bytes!"));
    }
    Cell::of(format!("{seen}/4"), seen == 4)
}

/// A thousand requests on four connections to an application that closes each of its own after an answer.
async fn kept(scene: &Scene, method: &str) -> usize {
    let client = |seed: u64| async move {
        let mut failed = 0;
        let fields = if method == "POST" { "Content-Length: 4\r\n" } else { "" };
        let (origin, cookies) = (scene.house.origin(), &scene.cookies);
        let host = origin.trim_start_matches("http://");
        let body = if method == "POST" { "body" } else { "" };
        let request = format!(
            "{method} /kept HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nCookie: {cookies}\r\n{fields}\r\n{body}"
        );
        let mut stream = TcpStream::connect(scene.house.door()).await.expect("the door is open");
        for number in 0..250_u64 {
            stream.write_all(request.as_bytes()).await.expect("the request is taken");
            let head = script::head(&mut stream).await;
            let length: usize = field(&head, "content-length").parse().unwrap_or_default();
            stream.read_exact(&mut vec![0; length]).await.expect("the body is there");
            failed += usize::from(!head.starts_with("HTTP/1.1 200"));
            // Anywhere around the moment of the close.
            sleep(Duration::from_micros((number * 7919 + seed * 104_729) % 6_000)).await;
        }
        failed
    };
    join_all((0..4).map(client)).await.into_iter().sum()
}

/// Seconds until the application sees that its client has gone.
async fn gone(scene: &Scene, path: &str) -> f64 {
    *scene.notes.gone.lock().expect("no panic while it is held") = None;
    let stream = scene.ask(&format!("GET {path}"), "").await;
    sleep(Duration::from_millis(300)).await;
    drop(stream);
    let since = Instant::now();
    while since.elapsed() < LONG {
        if let Some(at) = *scene.notes.gone.lock().expect("no panic while it is held") {
            return at.saturating_duration_since(since).as_secs_f64();
        }
        sleep(Duration::from_millis(1)).await;
    }
    LONG.as_secs_f64()
}

async fn trailers(scene: &Scene) -> Cell {
    let down = scene.answer("GET /trailers", "TE: trailers\r\n").await.to_ascii_lowercase();
    let mut up =
        scene.ask("POST /trailed", "Connection: close\r\nTrailer: X-Checksum\r\nTransfer-Encoding: chunked\r\n").await;
    up.write_all(b"4\r\nbody\r\n0\r\nX-Checksum: abc\r\n\r\n").await.expect("it is taken");
    let up = rest(&mut up).await.to_ascii_lowercase();
    let mut waiting =
        scene.ask("POST /continue", "Connection: close\r\nExpect: 100-continue\r\nContent-Length: 4\r\n").await;
    let interim = timeout(LONG, script::head(&mut waiting)).await.unwrap_or_default();
    waiting.write_all(b"body").await.expect("it is taken");
    let whole = timeout(LONG, script::head(&mut waiting)).await.unwrap_or_default();
    let passed = [
        down.contains("x-checksum: abc"),
        up.contains("x-checksum: abc"),
        interim.starts_with("HTTP/1.1 100") && whole.starts_with("HTTP/1.1 200"),
    ];
    let [down, up, on] = passed.map(|passed| if passed { "passed" } else { "lost" });
    Cell::of(format!("{down} / {up}; {on}"), passed == [true; 3])
}

async fn early_hints(scene: &Scene) -> Cell {
    let answer = scene.answer("GET /hints", "").await;
    let passed = answer.starts_with("HTTP/1.1 103");
    Cell::of(if passed { "passed" } else { "left out" }, passed && answer.contains("HTTP/1.1 200"))
}

async fn refused(scene: &Scene) -> Cell {
    let tries = (0..5).map(|_| async {
        let stream = scene.ask("POST /refuse", &format!("Content-Length: {}\r\n", 50 * MIB)).await;
        let (mut read, mut write) = stream.into_split();
        let sending = tokio::spawn(async move {
            let piece = vec![7; 64 * 1024];
            // To its end, unless the connection is closed.
            for _ in 0..50 * MIB / piece.len() as u64 {
                if write.write_all(&piece).await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(1)).await;
            }
        });
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"too large") {
            match timeout(LONG, read.read(&mut buffer)).await {
                Ok(Ok(count)) if count > 0 => answer.extend_from_slice(&buffer[..count]),
                _ => break,
            }
        }
        sending.abort();
        usize::from(answer.starts_with(b"HTTP/1.1 413") && answer.ends_with(b"too large"))
    });
    let count: usize = join_all(tries).await.into_iter().sum();
    Cell::of(format!("{count}/5"), count == 5)
}

async fn paths(scene: &Scene) -> Cell {
    let mut seen = Vec::new();
    for path in ["/a%2Fb", "/a//b", "/a/../b", "/a%5Cb", "/a%00b"] {
        let answer = scene.answer(&format!("GET {path}"), "").await;
        let is_same = answer.contains(&format!("\r\n\r\n{path}\n"));
        seen.push(if is_same { "same".to_owned() } else { answer.split(' ').nth(1).unwrap_or("none").to_owned() });
    }
    let good = seen == ["same", "same", "400", "400", "400"];
    Cell::of(seen.join(", "), good)
}
