//! Mistakes in the configuration: whether the program refuses to start, names the key, and tells all of them at once.
//!
//! What holds each row: `command_line::`, `configuration::`.

use std::time::{Duration, Instant};

use vestibule_test_support::{Launch, Site};

use crate::house::Kit;
use crate::table::{Cell, Table};

/// How to make a mistake, and what has to be named.
struct Mistake {
    what: &'static str,
    named: &'static str,
    make: fn(&Site, Launch) -> Launch,
}

const MISTAKES: [Mistake; 13] = [
    Mistake {
        what: "a session secret of 5 bytes",
        named: "SESSION_SECRET",
        make: |_, launch| launch.env("SESSION_SECRET", "short"),
    },
    Mistake {
        what: "an unknown kind of store",
        named: "VESTIBULE_SESSION_STORE",
        make: |_, launch| launch.env("VESTIBULE_SESSION_STORE", "memcached://127.0.0.1:11211"),
    },
    Mistake {
        what: "a secret file that is not there",
        named: "OIDC_CLIENT_SECRET_FILE",
        make: |_, launch| launch.without("OIDC_CLIENT_SECRET").env("OIDC_CLIENT_SECRET_FILE", "/nowhere/secret"),
    },
    Mistake {
        what: "a route's path that is no path",
        named: "routes[0].path",
        make: |site, launch| with_file(site, launch, "[[routes]]\npath = \"public/{(\"\naccess = \"public\"\n"),
    },
    Mistake {
        what: "a redirect URI without a host",
        named: "OIDC_REDIRECT_URI",
        make: |_, launch| launch.env("OIDC_REDIRECT_URI", "/auth/callback"),
    },
    Mistake {
        what: "an upstream without a scheme",
        named: "VESTIBULE_UPSTREAM",
        make: |_, launch| launch.env("VESTIBULE_UPSTREAM", "localhost:3000"),
    },
    Mistake {
        what: "a misspelt variable",
        named: "VESTIBULE_SESION_IDLE",
        make: |_, launch| launch.env("VESTIBULE_SESION_IDLE", "5m"),
    },
    Mistake {
        what: "a misspelt key",
        named: "session.lifetme",
        make: |site, launch| with_file(site, launch, "[session]\nlifetme = \"1h\"\n"),
    },
    Mistake { what: "no issuer", named: "OIDC_ISSUER", make: |_, launch| launch.without("OIDC_ISSUER") },
    Mistake {
        what: "an issuer that is reached without TLS",
        named: "OIDC_ISSUER",
        make: |_, launch| launch.env("OIDC_ISSUER", "http://id.example.com/realms/demo"),
    },
    Mistake {
        what: "an address that is in use",
        named: "listen",
        make: |site, launch| launch.env("VESTIBULE_LISTEN", site.upstream.url().replace("http://", "")),
    },
    Mistake {
        what: "a duration without a unit",
        named: "VESTIBULE_SESSION_LIFETIME",
        make: |_, launch| launch.env("VESTIBULE_SESSION_LIFETIME", "24"),
    },
    Mistake {
        what: "cookies for another domain than the redirect URI's",
        named: "cookie.domain",
        make: |site, launch| with_file(site, launch, "[cookie]\ndomain = \"example.com\"\n"),
    },
];

fn with_file(site: &Site, launch: Launch, text: &str) -> Launch {
    launch.env("VESTIBULE_CONFIG", site.file("mistake.toml", text))
}

pub(crate) async fn run(kit: &Kit) -> Table {
    let mut table = Table::new("configuration", &["Vestibule"]);
    let (mut refused, mut named, mut wrong) = (0, 0, Vec::new());
    for Mistake { what, named: name, make } in MISTAKES {
        let site = Site::of(&kit.program);
        match told(make(&site, site.launch())) {
            Some(text) => {
                refused += 1;
                let is_named = text.contains(name);
                named += usize::from(is_named);
                if !is_named {
                    wrong.push(format!("{what}: {}", text.trim()));
                }
            }
            None => wrong.push(format!("{what}: starts")),
        }
    }
    let detail = if wrong.is_empty() { String::new() } else { format!(" ({})", wrong.join("; ").replace('\n', " ")) };
    let all = MISTAKES.len();
    table.row(
        "mistakes that are refused at the start",
        "11 of 13",
        [Cell::of(format!("{refused} of {all}{detail}"), refused == all)],
    );
    table.row("of them, the key is named", "6", [Cell::of(format!("{named}"), named == all)]);
    let site = Site::of(&kit.program);
    let three = [0, 5, 11];
    let launch = three.iter().fold(site.launch(), |launch, &number| (MISTAKES[number].make)(&site, launch));
    let text = told(launch).unwrap_or_default();
    let count = three.iter().filter(|&&number| text.contains(MISTAKES[number].named)).count();
    table.row("three mistakes at once", "all 3 told", [Cell::of(format!("{count} told"), count == 3)]);
    table
}

/// What it said before it ended by itself; `None` if it runs.
fn told(launch: Launch) -> Option<String> {
    let mut program = launch.start();
    let end = Instant::now() + Duration::from_secs(5);
    while program.status().is_none() {
        if Instant::now() > end || program.line(&["ready to take requests"]).is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = program.ended();
    Some(ended.stdout + &ended.stderr)
}
