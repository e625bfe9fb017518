//! An upstream of several instances serves on whatever happens to one of them, and nothing is done twice.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use vestibule::upstream::Lookup;
use vestibule_test_support::script::{application, connect, head};
use vestibule_test_support::{Browser, EchoUpstream, Request, Stage, until};

use crate::upstreams::application::{Application, Way};

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";

/// A stage in front of `urls`, open to everybody.
fn in_front_of(urls: &[String], more: &str) -> Stage {
    Stage::with(&format!("[upstream]\nurl = unset\nurls = {urls:?}\n{more}\n{PUBLIC}"))
}

fn echoes(count: usize) -> (Vec<EchoUpstream>, Vec<String>) {
    let echoes: Vec<_> = (0..count).map(|_| EchoUpstream::start()).collect();
    let urls = echoes.iter().map(EchoUpstream::url).collect();
    (echoes, urls)
}

/// A value of the metrics; 0 where it is not there.
async fn metric(stage: &Stage, sample: &str) -> f64 {
    let text = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

async fn post(browser: &Browser, url: &str) -> StatusCode {
    browser.send(Request::new(Method::POST, url).body("once")).await.status
}

/// An instance that answers "ok", and 500 on `/health` while it is ill.
#[derive(Default)]
struct Plain {
    ill: AtomicBool,
    /// Requests for anything but `/health`.
    requests: AtomicUsize,
    open: AtomicUsize,
}

impl Plain {
    async fn start() -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plain = Arc::new(Self::default());
        tokio::spawn({
            let plain = plain.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let plain = plain.clone();
                    tokio::spawn(async move { plain.serve(stream).await });
                }
            }
        });
        (plain, address)
    }

    async fn serve(&self, mut stream: TcpStream) {
        self.open.fetch_add(1, Ordering::SeqCst);
        let mut head = Vec::new();
        while let Ok(byte) = stream.read_u8().await {
            head.push(byte);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            let is_check = head.starts_with(b"GET /health ");
            self.requests.fetch_add(usize::from(!is_check), Ordering::SeqCst);
            if head.starts_with(b"GET /slow ") {
                tokio::time::sleep(Duration::from_millis(800)).await;
            }
            let status = if is_check && self.ill.load(Ordering::SeqCst) { "500 Ill" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                break;
            }
            head.clear();
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// A name that stands for whatever a test says.
#[derive(Clone, Default)]
struct Dns(Arc<Mutex<Vec<SocketAddr>>>, Arc<AtomicUsize>);

impl Dns {
    fn set(&self, addresses: &[SocketAddr]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }

    fn lookup(&self) -> Lookup {
        let dns = self.clone();
        Lookup::new(move |host, port| {
            assert_eq!((host, port), ("app.test", 3000));
            dns.1.fetch_add(1, Ordering::SeqCst);
            match dns.0.lock().unwrap().as_slice() {
                [] => Err(io::Error::other("no such host")),
                addresses => Ok(addresses.to_vec()),
            }
        })
    }

    fn lookups(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }

    fn stage(&self, more: &str) -> Stage {
        let toml = format!("[upstream]\nurl = \"http://app.test:3000\"\n{more}\n{PUBLIC}");
        Stage::builder().toml(&toml).lookup(self.lookup()).start()
    }
}

#[tokio::test]
async fn requests_are_spread_over_all_instances() {
    let (echoes, urls) = echoes(3);
    let stage = in_front_of(&urls, "");
    let browser = stage.browser();
    for _ in 0..300 {
        assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
    }
    let counts: Vec<_> = echoes.iter().map(EchoUpstream::count).collect();
    assert!(counts.iter().sum::<usize>() == 300 && counts.iter().all(|count| *count > 50), "{counts:?}");
    assert_eq!(metric(&stage, "vestibule_upstream_retries_total{upstream=\"default\"}").await, 0.0);
}

#[tokio::test]
async fn a_busy_instance_gets_less() {
    let (echoes, urls) = echoes(2);
    let stage = in_front_of(&urls, "");
    let browser = stage.browser();
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let (browser, url) = (browser.tab(), stage.url("/slow?ms=1500"));
            tokio::spawn(async move { browser.fetch(&url).await.status })
        })
        .collect();
    until("the slow requests", async || echoes.iter().map(EchoUpstream::count).sum::<usize>() == 20).await;
    // Both were equally fast, so equally loaded.
    assert_eq!((echoes[0].count(), echoes[1].count()), (10, 10));
    for request in slow {
        assert_eq!(request.await.unwrap(), StatusCode::OK);
    }
}

#[tokio::test]
async fn an_instance_that_dies_under_load_fails_no_get_and_one_that_comes_back_is_used() {
    let (echoes, urls) = echoes(3);
    let stage = in_front_of(&urls, "eject_for = \"300ms\"");
    let over = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..12)
        .map(|_| {
            let (browser, url, over) = (stage.browser(), stage.url("/"), over.clone());
            tokio::spawn(async move {
                let mut answers = BTreeMap::<u16, usize>::new();
                while !over.load(Ordering::SeqCst) {
                    *answers.entry(browser.fetch(&url).await.status.as_u16()).or_default() += 1;
                }
                answers
            })
        })
        .collect();
    let pause = |millis| tokio::time::sleep(Duration::from_millis(millis));
    pause(200).await;
    for echo in &echoes[..2] {
        echo.take_down();
        pause(400).await;
        echo.bring_back();
        echo.forget();
        until("the instance that came back to be used", async || echo.count() > 20).await;
    }
    over.store(true, Ordering::SeqCst);
    for answers in load {
        let answers = answers.await.unwrap();
        assert_eq!(answers.keys().collect::<Vec<_>>(), [&200], "{answers:?}");
    }
    assert!(metric(&stage, "vestibule_upstream_retries_total{upstream=\"default\"}").await >= 3.0);
}

#[tokio::test]
async fn a_dead_instance_is_left_out_and_said_to_be() {
    let (echoes, urls) = echoes(2);
    let stage = in_front_of(&urls, "");
    echoes[1].take_down();
    let browser = stage.browser();
    for _ in 0..40 {
        assert_eq!(post(&browser, &stage.url("/")).await, StatusCode::OK, "nothing was sent where nobody listens");
    }
    assert_eq!(echoes[0].count(), 40);
    let sample = |name: &str, echo: &EchoUpstream| {
        let instance = echo.url().replace("http://", "");
        format!("vestibule_upstream_instance_{name}{{upstream=\"default\",instance=\"{instance}\"}}")
    };
    for (name, values) in [("up", [1.0, 0.0]), ("ejected", [0.0, 1.0])] {
        for (echo, value) in echoes.iter().zip(values) {
            assert_eq!(metric(&stage, &sample(name, echo)).await, value, "{name}");
        }
    }
    assert_eq!(metric(&stage, "vestibule_upstream_retries_total{upstream=\"default\"}").await, 3.0);
}

#[tokio::test]
async fn clients_that_leave_are_not_the_instances_fault() {
    for h2 in [false, true] {
        let way = Way { unix: false, tls: false, h2 };
        let applications = [Application::start(way).await, Application::start(way).await];
        let urls = applications.each_ref().map(|application| application.url().to_owned());
        let protocol = if h2 { "h2" } else { "http1" };
        let stage = in_front_of(&urls, &format!("eject_after = 1\nprotocol = \"{protocol}\""));
        let asked =
            || applications.iter().map(|application| application.requests.load(Ordering::SeqCst)).sum::<usize>();
        // While it thinks, in the middle of an upload of either framing, in the middle of an answer.
        let requests = [
            "GET /never HTTP/1.1\r\nHost: {host}\r\n\r\n",
            "POST /count HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\nhalf",
            "POST /count HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "GET /begin HTTP/1.1\r\nHost: {host}\r\n\r\n",
        ];
        for (number, request) in requests.iter().cycle().take(12).enumerate() {
            let mut stream = connect(stage.address(), request).await;
            until("the request at an instance", async || asked() > number).await;
            if request.contains("/begin") {
                head(&mut stream).await;
            }
            drop(stream);
            until("the client's end", async || metric(&stage, "vestibule_connections").await == 0.0).await;
        }
        for url in urls {
            let labels = format!("{{upstream=\"default\",instance=\"{}\"}}", url.trim_start_matches("http://"));
            for (name, value) in [("up", 1.0), ("ejected", 0.0)] {
                let sample = format!("vestibule_upstream_instance_{name}{labels}");
                let metrics = stage.browser().fetch(&stage.admin_url("/metrics")).await.text();
                assert!(metrics.contains(&sample), "{sample} in {metrics}");
                assert_eq!(metric(&stage, &sample).await, value, "{sample}");
            }
        }
        assert_eq!(
            (asked(), metric(&stage, "vestibule_upstream_retries_total{upstream=\"default\"}").await),
            (12, 0.0)
        );
    }
}

/// An instance that answers all but what `hangs_up` names.
async fn hanging_up(hangs_up: &'static str) -> String {
    application(move |mut stream| async move {
        loop {
            let head = head(&mut stream).await;
            if head.is_empty() || head.contains(hangs_up) {
                return;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await
}

async fn state_of(stage: &Stage, name: &str, url: &str) -> f64 {
    let instance = url.trim_start_matches("http://");
    metric(stage, &format!("vestibule_upstream_instance_{name}{{upstream=\"default\",instance=\"{instance}\"}}")).await
}

#[tokio::test]
async fn a_request_that_ends_whoever_takes_it_has_no_instance_left_out() {
    let urls = [hanging_up("/poison").await, hanging_up("/poison").await, hanging_up("/poison").await];
    let stage = in_front_of(&urls, "");
    let browser = stage.browser();
    for _ in 0..10 {
        let reply = browser.fetch(&stage.url("/poison")).await;
        assert_eq!((reply.status, reply.json()["code"].as_str()), (StatusCode::BAD_GATEWAY, Some("upstream_closed")));
        assert_eq!(post(&browser, &stage.url("/poison")).await, StatusCode::BAD_GATEWAY);
        for url in &urls {
            assert_eq!((state_of(&stage, "up", url).await, state_of(&stage, "ejected", url).await), (1.0, 0.0));
        }
    }
    assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_upgrade_that_no_instance_of_http_2_takes_has_none_left_out() {
    let closing = || application(|stream| async move { drop(stream) });
    let urls = [closing().await, closing().await];
    let secure = urls.each_ref().map(|url| url.replace("http://", "https://"));
    let stage = in_front_of(&secure, "protocol = \"h2\"");
    let upgrade = "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for _ in 0..10 {
        let answer = head(&mut connect(stage.address(), upgrade).await).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        for url in &urls {
            assert_eq!((state_of(&stage, "up", url).await, state_of(&stage, "ejected", url).await), (1.0, 0.0));
        }
    }
}

#[tokio::test]
async fn an_instance_that_ends_what_another_answers_is_left_out() {
    let urls = [hanging_up("GET").await, hanging_up("/poison").await];
    let stage = in_front_of(&urls, "eject_for = \"1h\"");
    let browser = stage.browser();
    for _ in 0..20 {
        assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
    }
    assert_eq!((state_of(&stage, "up", &urls[0]).await, state_of(&stage, "up", &urls[1]).await), (0.0, 1.0));
}

#[tokio::test]
async fn where_none_is_left_all_are_asked_and_the_first_that_comes_back_serves() {
    let (echoes, urls) = echoes(2);
    let stage = in_front_of(&urls, "eject_for = \"1h\"");
    let browser = stage.browser();
    echoes.iter().for_each(EchoUpstream::take_down);
    for _ in 0..20 {
        let reply = browser.fetch(&stage.url("/")).await;
        assert_eq!((reply.status, reply.json()["code"].as_str()), (StatusCode::BAD_GATEWAY, Some("upstream_connect")));
    }
    echoes[1].bring_back();
    for _ in 0..20 {
        assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
    }
    assert_eq!((echoes[0].count(), echoes[1].count()), (0, 20));
}

#[tokio::test]
async fn a_post_is_never_sent_twice_whatever_dies() {
    let (echoes, urls) = echoes(3);
    let stage = in_front_of(&urls, "eject_for = \"50ms\"");
    let over = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..8)
        .map(|task| {
            let (browser, url, over) = (stage.browser(), stage.url(""), over.clone());
            tokio::spawn(async move {
                let mut done = Vec::new();
                for number in 0.. {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    let path = format!("/{task}/{number}");
                    if post(&browser, &format!("{url}{path}")).await == StatusCode::OK {
                        done.push(path);
                    }
                }
                done
            })
        })
        .collect();
    for echo in echoes.iter().cycle().take(6) {
        tokio::time::sleep(Duration::from_millis(60)).await;
        echo.take_down();
        tokio::time::sleep(Duration::from_millis(60)).await;
        echo.bring_back();
    }
    over.store(true, Ordering::SeqCst);
    let mut done = Vec::new();
    for task in load {
        done.extend(task.await.unwrap());
    }
    let mut arrived = BTreeMap::<String, usize>::new();
    for request in echoes.iter().flat_map(EchoUpstream::requests) {
        *arrived.entry(request.target).or_default() += 1;
    }
    assert!(done.len() > 50 && done.iter().all(|path| arrived.contains_key(path)), "{}", done.len());
    arrived.retain(|_, times| *times > 1);
    assert!(arrived.is_empty(), "sent more than once: {arrived:?}");
}

#[tokio::test]
async fn one_that_takes_no_connection_costs_its_share_of_the_time_and_no_request() {
    // A queue of one that nobody empties: the kernel lets further ones wait.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await);
    }
    assert!(waiting.last().unwrap().is_err(), "the queue is full");
    let echo = EchoUpstream::start();
    let stage = in_front_of(&[format!("http://{address}"), echo.url()], "connect_timeout = \"1s\"");
    let browser = stage.browser();
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(post(&browser, &stage.url("/")).await, StatusCode::OK);
    }
    assert_eq!(echo.count(), 20);
    // Three times half a second, then it is left out.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_instance_that_fails_its_checks_gets_nothing_until_it_passes_them() {
    let (plain, address) = Plain::start().await;
    plain.ill.store(true, Ordering::SeqCst);
    let echo = EchoUpstream::start();
    let stage = in_front_of(
        &[format!("http://{address}"), echo.url()],
        "[upstream.health]\npath = \"/health\"\ninterval = \"500ms\"\ntimeout = \"500ms\"",
    );
    let up = format!("vestibule_upstream_instance_up{{upstream=\"default\",instance=\"{address}\"}}");
    until("the first check", async || metric(&stage, &up).await == 0.0).await;
    let browser = stage.browser();
    for _ in 0..30 {
        assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
    }
    assert_eq!(plain.requests(), 0);
    let check = echo.requests().into_iter().find(|request| request.path() == "/health").unwrap();
    assert_eq!(check.header("user-agent"), ["vestibule-health"]);
    assert!(check.header("x-forwarded-user").is_empty() && check.header("cookie").is_empty());
    plain.ill.store(false, Ordering::SeqCst);
    until("the instance to pass its checks", async || metric(&stage, &up).await == 1.0).await;
    for _ in 0..30 {
        assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
    }
    assert!(plain.requests() > 0);
    plain.ill.store(true, Ordering::SeqCst);
    echo.take_down();
    until("both to fail", async || metric(&stage, &up).await == 0.0).await;
    assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK, "an ill one is better than none");
}

#[tokio::test]
async fn a_names_addresses_are_followed_and_those_that_vanish_finish_what_they_do() {
    let ((old, old_address), (new, new_address)) = (Plain::start().await, Plain::start().await);
    let dns = Dns::default();
    dns.set(&[old_address]);
    let stage = dns.stage("resolve_interval = \"50ms\"");
    let browser = stage.browser();
    assert_eq!(dns.lookups(), 0, "nobody has asked");
    let in_flight = tokio::spawn({
        let (browser, url) = (browser.tab(), stage.url("/slow"));
        async move { browser.fetch(&url).await.status }
    });
    assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
    until("the slow request", async || old.requests() == 2).await;
    dns.set(&[new_address]);
    until("the new address", async || {
        assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
        new.requests() > 0
    })
    .await;
    let before = old.requests();
    until("the idle connection to close", async || old.open.load(Ordering::SeqCst) <= 1).await;
    for _ in 0..10 {
        assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
    }
    assert_eq!(in_flight.await.unwrap(), StatusCode::OK);
    assert_eq!(old.requests(), before);
    until("the last connection to close", async || old.open.load(Ordering::SeqCst) == 0).await;

    dns.set(&[]);
    let lookups = dns.lookups();
    until("lookups to fail", async || dns.lookups() > lookups + 2).await;
    assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK, "a failed lookup changes nothing");
    dns.set(&[old_address, new_address]);
    until("both to be used", async || {
        assert_eq!(browser.fetch(&stage.url("/")).await.status, StatusCode::OK);
        old.requests() > before
    })
    .await;
}

#[tokio::test]
async fn a_name_that_stands_for_nothing_is_told_at_once_and_found_as_soon_as_it_is_there() {
    let dns = Dns::default();
    let stage = dns.stage("resolve_interval = \"100ms\"");
    let browser = stage.browser();
    let begun = Instant::now();
    for _ in 0..5 {
        let reply = browser.fetch(&stage.url("/")).await;
        assert_eq!((reply.status, reply.json()["code"].as_str()), (StatusCode::BAD_GATEWAY, Some("upstream_connect")));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let (_plain, address) = Plain::start().await;
    dns.set(&[address]);
    until("the name", async || browser.fetch(&stage.url("/")).await.status == StatusCode::OK).await;
}

#[tokio::test]
async fn the_first_request_waits_for_the_first_lookup_within_its_time_to_connect() {
    let (_plain, address) = Plain::start().await;
    for (takes, status) in [(200, StatusCode::OK), (3_000, StatusCode::GATEWAY_TIMEOUT)] {
        let slow = Lookup::new(move |_, _| {
            std::thread::sleep(Duration::from_millis(takes));
            Ok(vec![address])
        });
        let toml = format!("[upstream]\nurl = \"http://app.test:3000\"\nconnect_timeout = \"1s\"\n{PUBLIC}");
        let stage = Stage::builder().toml(&toml).lookup(slow).start();
        assert_eq!(stage.browser().fetch(&stage.url("/")).await.status, status, "{takes} ms");
    }
}

#[tokio::test]
async fn an_address_that_is_written_is_never_resolved() {
    let (echoes, urls) = echoes(2);
    let never = Lookup::new(|host, _| panic!("{host} was looked up"));
    for urls in [&urls[..1], &urls[..]] {
        let toml = format!("[upstream]\nurl = unset\nurls = {urls:?}\n{PUBLIC}");
        let stage = Stage::builder().toml(&toml).lookup(never.clone()).start();
        for _ in 0..10 {
            assert_eq!(stage.browser().fetch(&stage.url("/")).await.status, StatusCode::OK);
        }
    }
    assert_eq!(echoes.iter().map(EchoUpstream::count).sum::<usize>(), 20);
}

#[tokio::test]
async fn an_open_web_socket_counts_as_load() {
    let (echoes, urls) = echoes(2);
    let stage = in_front_of(&urls, "");
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut request = format!("ws://{}/ws", stage.address()).into_client_request().unwrap();
        request.headers_mut().insert("host", stage.host().parse().unwrap());
        open.push(tokio_tungstenite::connect_async(request).await.unwrap());
    }
    assert_eq!((echoes[0].count(), echoes[1].count()), (5, 5));
}

#[tokio::test]
async fn of_a_name_with_both_families_the_one_that_answers_is_used() {
    let (plain, address) = Plain::start().await;
    let dns = Dns::default();
    dns.set(&[format!("[::1]:{}", address.port()).parse().unwrap(), address]);
    let stage = dns.stage("");
    for _ in 0..30 {
        assert_eq!(stage.browser().fetch(&stage.url("/")).await.status, StatusCode::OK);
    }
    assert_eq!(plain.requests(), 30);
    assert_eq!(metric(&stage, "vestibule_upstream_retries_total{upstream=\"default\"}").await, 1.0);
}
