//! What the program takes: memory of connections, connections to the application, time to start.
//!
//! `tests/bench/run idle start` measures the same on cores of their own, beside nginx;
//! `faults::a_thousand_connections_held_open_cost_little_and_hold_up_nobody` and `upstreams::a_hundred_requests_at_once_share_few_connections` hold the bounds.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vestibule_test_support::{Site, free_port, script};

use crate::house::{House, Kit, Store};
use crate::table::{Cell, Table};

const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const MIB: f64 = 1_048_576.0;

pub(crate) async fn run(kit: &Kit) -> Table {
    let mut table = Table::new("what it takes, signed in", &["Vestibule"]);
    let (kept, sockets) = if kit.short { (500, 500) } else { (5_000, 2_000) };
    let each = [idle(kit, kept, "/", "").await, idle(kit, sockets, "/ws", UPGRADE).await];
    let text = format!("{:.1} / {:.1} KiB", each[0], each[1]);
    let good = each[0] <= 27.9 && each[1] <= 72.5;
    table.row(
        "memory of an idle connection (5,000), of an idle WebSocket (2,000)",
        "27.9 / 72.5 KiB",
        [Cell::of(text, good)],
    );
    let count = connections(kit).await;
    table.row(
        "connections kept to the application after 5,000 requests of 64 clients",
        "136",
        [Cell::of(format!("{count}"), (32..=136).contains(&count))],
    );
    let mut starts: Vec<_> = (0..7).map(|_| start(kit)).collect();
    starts.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (millis, resident) = starts[starts.len() / 2];
    let file = std::fs::metadata(&kit.program).expect("the program").len() as f64 / MIB;
    let text = format!("{millis:.0} ms, {resident:.1} MiB, {file:.1} MiB");
    let good = millis <= 13.0 && resident <= 21.0 && file <= 38.7;
    table.row(
        "start to first answer (median of 7), memory then, program file",
        "13 ms, 21 MiB, 38.7 MiB",
        [Cell::of(text, good)],
    );
    table
}

/// KiB that each of `count` connections adds once it is idle.
async fn idle(kit: &Kit, count: usize, path: &str, fields: &str) -> f64 {
    let house = House::start(kit, Store::Cookie, "[limits]\nmax_connections = 20000\n").await;
    let browser = house.signed_in().await;
    let (origin, cookies) = (house.origin(), browser.cookie_line(&house.origin()));
    let host = origin.trim_start_matches("http://");
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nCookie: {cookies}\r\n{fields}\r\n");
    let open = async |count: usize| {
        let mut all = Vec::new();
        for _ in 0..count {
            let mut stream = TcpStream::connect(house.door()).await.expect("the door is open");
            stream.write_all(head.as_bytes()).await.expect("the head is taken");
            let answer = script::head(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 101"), "{answer}");
            let length = answer.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or_default();
            stream.read_exact(&mut vec![0; length]).await.expect("the body is there");
            all.push(stream);
        }
        all
    };
    // What the first ones bring is not theirs.
    drop(open(50).await);
    let before = proportional_set(house.programs[0].id());
    let _all = open(count).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = proportional_set(house.programs[0].id());
    (after as f64 - before as f64) / count as f64
}

/// KiB that a process holds, of pages that are shared its part.
fn proportional_set(id: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).expect("a program that runs");
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).expect("a known field");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of kilobytes")
}

async fn connections(kit: &Kit) -> usize {
    let house = House::start(kit, Store::Cookie, "").await;
    let browser = house.signed_in().await;
    let asked = (0..64).map(|_| async {
        for _ in 0..5_000 / 64 {
            // Long enough that all of them are there at once.
            browser.fetch(&house.url("/slow?ms=5")).await;
        }
    });
    join_all(asked).await;
    let upstream: SocketAddr = house.site.upstream.url().trim_start_matches("http://").parse().expect("an address");
    established_to(upstream.port())
}

/// Open connections to a port of this machine.
fn established_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let is_it = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        let to = fields.next().and_then(|address| address.split_once(':'));
        let state = fields.next();
        to.is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port)) && state == Some("01")
    };
    table.lines().filter(is_it).count()
}

/// Milliseconds from the start of the process to its first answer, and MiB that it holds then.
fn start(kit: &Kit) -> (f64, f64) {
    let site = Site::of(&kit.program);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let launch = site.launch().env("VESTIBULE_LISTEN", address.to_string());
    let begun = Instant::now();
    let program = launch.start();
    while !answers(address) {
        std::thread::sleep(Duration::from_micros(500));
    }
    let took = begun.elapsed().as_secs_f64() * 1e3;
    // It asks the provider meanwhile.
    std::thread::sleep(Duration::from_millis(300));
    (took, program.memory() as f64 / MIB)
}

fn answers(address: SocketAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    let asked = stream.write_all(format!("GET / HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", address.port()).as_bytes());
    asked.is_ok() && stream.read(&mut [0; 64]).is_ok_and(|count| count > 0)
}
