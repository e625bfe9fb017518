use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use http_body_util::BodyExt;

use super::*;

/// Answers by path: `/slow` after 300 ms, `/panic` never, `/refuse` without reading the body, else the worker's number.
#[derive(Clone)]
struct Echo {
    worker: usize,
    refused: Arc<Mutex<Vec<&'static str>>>,
    cancelled: Arc<AtomicUsize>,
}

struct Gone(Arc<AtomicUsize>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handler for Echo {
    async fn handle(&self, request: Request<Incoming>, _: &Connection) -> Response<Body> {
        match request.uri().path() {
            "/slow" => {
                let gone = Gone(Arc::clone(&self.cancelled));
                tokio::time::sleep(Duration::from_millis(300)).await;
                std::mem::forget(gone);
            }
            "/panic" => panic!("as asked"),
            "/refuse" => return Response::builder().status(403).body(Body::full("no")).unwrap(),
            _ => drop(request.into_body().collect().await),
        }
        Response::new(Body::full(format!("worker {}", self.worker)))
    }

    fn refused(&self, reason: &'static str, _: u16) {
        self.refused.lock().unwrap().push(reason);
    }
}

struct Running {
    address: SocketAddr,
    drain: Drain,
    thread: Option<JoinHandle<()>>,
    refused: Arc<Mutex<Vec<&'static str>>>,
    cancelled: Arc<AtomicUsize>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.drain.closing.cancel();
        self.drain.cut.cancel();
        self.thread.take().map(JoinHandle::join);
    }
}

fn listener(address: SocketAddr) -> Listener {
    Listener::plain(Address::Tcp(address))
}

fn start(change: impl FnOnce(&mut Settings)) -> Running {
    let mut settings = Settings {
        listeners: vec![listener(SocketAddr::from(([127, 0, 0, 1], 0)))],
        workers: NonZeroUsize::new(2).unwrap(),
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(900),
        ..Settings::default()
    };
    change(&mut settings);
    let bound = bind(settings).unwrap();
    let (address, drain) = (bound.addresses()[0].tcp().unwrap(), Drain::default());
    let (refused, cancelled) = (Arc::default(), Arc::default());
    let thread = {
        let (drain, refused, cancelled) = (drain.clone(), Arc::clone(&refused), Arc::clone(&cancelled));
        std::thread::spawn(move || {
            let make = move |worker| Echo { worker, refused: Arc::clone(&refused), cancelled: Arc::clone(&cancelled) };
            bound.serve(make, drain);
        })
    };
    Running { address, drain, thread: Some(thread), refused, cancelled }
}

impl Running {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }
}

fn send(mut stream: &TcpStream, head: &str) {
    stream.write_all(head.as_bytes()).unwrap();
}

/// Reads one answer with a length.
fn read_answer(mut stream: &TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap() == 0 {
            return String::from_utf8(bytes).unwrap();
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn read_to_end(mut stream: &TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn an_address_in_use_is_told_and_the_workers_share_one() {
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let in_use = |address: SocketAddr| {
        let error = bind(Settings { listeners: vec![listener(address)], ..Settings::default() }).unwrap_err();
        matches!(error, BindError::Address { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse)
    };
    assert!(in_use(taken.local_addr().unwrap()));

    let running = start(|_| {});
    assert!(in_use(running.address), "also when it is one of ours");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let stream = running.connect();
        send(&stream, GET);
        seen.insert(read_answer(&stream).lines().last().unwrap_or_default().to_owned());
    }
    assert_eq!(seen.len(), 2, "both workers get connections: {seen:?}");
}

#[test]
fn idle_connections_outlive_the_head_timeout_and_heads_do_not_get_the_idle_time() {
    let running = start(|_| {});
    let kept = running.connect();
    send(&kept, GET);
    assert!(read_answer(&kept).starts_with("HTTP/1.1 200"));
    std::thread::sleep(Duration::from_millis(600));
    send(&kept, GET);
    assert!(read_answer(&kept).starts_with("HTTP/1.1 200"), "600 ms of idling is past the head's 300 ms");
    let start = Instant::now();
    assert_eq!(read_to_end(&kept), "");
    let idled = start.elapsed();
    assert!(idled > Duration::from_millis(700) && idled < Duration::from_secs(5), "{idled:?}");

    let slow = running.connect();
    let start = Instant::now();
    let dripping = slow.try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        for byte in GET.bytes() {
            if (&dripping).write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let mut rest = Vec::new();
    let _ = (&slow).read_to_end(&mut rest);
    assert!(rest.is_empty() && start.elapsed() < Duration::from_millis(850), "{:?}", start.elapsed());
    drip.join().unwrap();
    assert_eq!(*running.refused.lock().unwrap(), ["head_timeout"]);
}

#[test]
fn a_connection_that_rested_goes_on_where_it_was() {
    let mut running = start(|settings| {
        settings.idle_timeout = Duration::from_millis(2_500);
        settings.workers = NonZeroUsize::MIN;
    });
    let (asked, silent, posted) = (running.connect(), running.connect(), running.connect());
    send(&asked, GET);
    read_answer(&asked);
    send(&posted, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok");
    read_answer(&posted);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(1_300));
        for stream in [&asked, &posted] {
            // More than what is read to wake up, and a beginning that comes in pieces.
            send(stream, "G");
            std::thread::sleep(Duration::from_millis(20));
            send(stream, &format!("ET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(900)));
            assert!(read_answer(stream).starts_with("HTTP/1.1 200"));
        }
    }
    assert_eq!(read_to_end(&silent), "", "a rest does not prolong the idle time");
    let start = Instant::now();
    assert_eq!(read_to_end(&asked), "");
    let idled = start.elapsed();
    assert!(idled > Duration::from_millis(1_500) && idled < Duration::from_secs(6), "{idled:?}");

    let last = running.connect();
    send(&last, GET);
    read_answer(&last);
    std::thread::sleep(Duration::from_millis(1_300));
    running.drain.closing.cancel();
    assert_eq!(read_to_end(&last), "", "the end of service wakes it");
    running.thread.take().unwrap().join().unwrap();
}

#[test]
fn a_head_that_began_behind_a_request_has_to_end_too() {
    let running = start(|settings| settings.idle_timeout = Duration::from_secs(60));
    let stream = running.connect();
    send(&stream, &format!("{GET}G"));
    assert!(read_answer(&stream).contains("worker"));
    assert_eq!(read_to_end(&stream), "");
    assert_eq!(*running.refused.lock().unwrap(), ["head_timeout"]);
}

#[test]
fn heads_that_hyper_answers_are_told_to_the_handler() {
    let running = start(|settings| settings.max_header_bytes = 4096);
    for (request, status, reason) in [
        ("GARBAGE\r\n\r\n".to_owned(), "HTTP/1.1 400", "malformed_head"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(9000)), "HTTP/1.1 431", "head_too_large"),
    ] {
        let stream = running.connect();
        send(&stream, &request);
        assert!(read_to_end(&stream).starts_with(status), "{reason}");
        // The connection's task says so after the client has read its end.
        let mut told = None;
        for _ in 0..200 {
            told = running.refused.lock().unwrap().pop();
            if told.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(told, Some(reason));
    }
}

#[test]
fn a_panic_ends_one_connection_and_not_the_worker() {
    let running = start(|settings| settings.workers = NonZeroUsize::MIN);
    let stream = running.connect();
    send(&stream, "GET /panic HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(read_to_end(&stream), "");
    let stream = running.connect();
    send(&stream, GET);
    assert!(read_answer(&stream).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_client_that_goes_away_cancels_its_request() {
    let running = start(|_| {});
    let stream = running.connect();
    send(&stream, "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(50));
    drop(stream);
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(running.cancelled.load(Ordering::SeqCst), 1);
}

/// A client of HTTP/2 that has said hello and asks for nothing.
fn say_hello(running: &Running) -> TcpStream {
    let stream = running.connect();
    send(&stream, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    stream
}

/// Reads a frame: its type, its flags, what it carries; `None` at the connection's end.
fn read_frame(mut stream: &TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    match stream.read_exact(&mut head) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
        outcome => outcome.expect("a frame or the end in time"),
    }
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).unwrap();
    Some((head[3], head[4], payload))
}

/// RFC 9113 §6.7.
const PING: u8 = 6;

#[test]
fn a_client_of_http2_that_answers_no_ping_is_given_up_and_one_that_does_is_kept() {
    let running = start(|settings| {
        settings.idle_timeout = Duration::from_secs(60);
        settings.h2_ping = (Duration::from_millis(150), Duration::from_secs(1));
    });
    let (silent, polite) = (say_hello(&running), say_hello(&running));
    let answering = std::thread::spawn(move || {
        let mut answered = 0;
        // For longer than the silent one may live.
        while answered < 10 {
            let (kind, flags, payload) = read_frame(&polite).expect("a connection that stays open");
            if (kind, flags) == (PING, 0) {
                (&polite).write_all(&[&[0, 0, 8, PING, 1, 0, 0, 0, 0], payload.as_slice()].concat()).unwrap();
                answered += 1;
            }
        }
        polite
    });
    let mut pings = 0;
    while let Some((kind, flags, _)) = read_frame(&silent) {
        pings += usize::from((kind, flags) == (PING, 0));
    }
    assert_eq!(pings, 1, "it is asked once, and then given up");
    let polite = answering.join().unwrap();
    assert!(read_frame(&polite).is_some_and(|(kind, ..)| kind == PING), "it is still asked");
}

#[test]
fn the_client_reads_a_refusal_of_a_body_that_it_is_still_sending() {
    let running = start(|_| {});
    for _ in 0..5 {
        let stream = running.connect();
        send(&stream, "POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: 4000000\r\n\r\n");
        let chunk = [b'x'; 8000];
        for _ in 0..500 {
            (&stream).write_all(&chunk).unwrap();
        }
        assert!(read_answer(&stream).starts_with("HTTP/1.1 403"));
    }
}

#[test]
fn over_the_cap_connections_wait_for_one_to_end() {
    let running = start(|settings| {
        settings.workers = NonZeroUsize::MIN;
        settings.max_connections = 1;
        settings.idle_timeout = Duration::from_secs(30);
    });
    let first = running.connect();
    send(&first, GET);
    read_answer(&first);
    let second = running.connect();
    send(&second, GET);
    second.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!((&second).read(&mut [0]).is_err(), "not before the first has ended");
    drop(first);
    second.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(read_answer(&second).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_drain_finishes_requests_closes_idle_connections_and_then_ends() {
    let mut running = start(|settings| settings.idle_timeout = Duration::from_secs(30));
    let idle = running.connect();
    send(&idle, GET);
    read_answer(&idle);
    let busy = running.connect();
    send(&busy, "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    running.drain.draining.cancel();
    let fresh = running.connect();
    send(&fresh, GET);
    assert!(!read_answer(&fresh).contains("connection: close"), "during grace everything goes on");
    running.drain.closing.cancel();
    let answer = read_answer(&busy);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    assert_eq!(read_to_end(&idle), "");
    running.thread.take().unwrap().join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(TcpStream::connect(running.address).is_err());
}

#[test]
fn the_cut_ends_what_is_left() {
    let mut running = start(|_| {});
    let stuck = running.connect();
    send(&stuck, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n");
    std::thread::sleep(Duration::from_millis(50));
    running.drain.closing.cancel();
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    running.drain.cut.cancel();
    running.thread.take().unwrap().join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_worker_that_cannot_start_begins_the_drain() {
    use std::os::unix::fs::OpenOptionsExt;
    const O_NONBLOCK: i32 = 0o4000;
    // No socket: one that nobody can wait for, and one that the runtime panics at.
    for flags in [O_NONBLOCK, 0] {
        let workers = NonZeroUsize::new(2).unwrap();
        let listeners = vec![listener(([127, 0, 0, 1], 0).into())];
        let mut bound = bind(Settings { listeners, workers, ..Settings::default() }).unwrap();
        let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open("/dev/null").unwrap();
        bound.sockets[1][0] = BoundSocket::Tcp(StdListener::from(std::os::fd::OwnedFd::from(file)));
        let drain = Drain::default();
        let settings = drain::Settings { grace: Duration::ZERO, timeout: Duration::ZERO };
        let steps = drain.clone().run(std::future::pending(), settings);
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let make = |worker| Echo { worker, refused: Arc::default(), cancelled: Arc::default() };
            bound.serve(make, drain);
            let _ = ended.send(());
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(steps);
        end.recv_timeout(Duration::from_secs(10)).expect("an end, because one worker is missing");
    }
}

#[test]
fn an_idle_connection_takes_little_room() {
    fn room<F: Future>(_: impl Fn(connection::Open, Echo, Arc<connection::Terms>) -> F) -> usize {
        size_of::<F>()
    }
    let room = room(connection::serve);
    assert!(room <= 1600, "{room} bytes");
}
