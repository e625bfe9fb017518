//! One line per request: path without query, no cookie, no authorization; values escaped.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use super::sink::Lines;
use super::text::{push_quoted, push_word};
use super::{LogFormat, output};

/// What one finished request looked like.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// The request id.
    pub id: &'a str,
    /// The client's address.
    pub client: std::net::IpAddr,
    /// The method.
    pub method: &'a str,
    /// The host.
    pub host: &'a str,
    /// The path without query.
    pub path: &'a str,
    /// The status.
    pub status: u16,
    /// The name of the route or endpoint, or `-`.
    pub route: &'a str,
    /// The reason code of a refusal, or `-`.
    pub reason: &'a str,
    /// The name of the signed-in person, or `-`.
    pub user: &'a str,
    /// From the request's head to the answer's head.
    pub duration: Duration,
}

/// Writes the line (target `vestibule::access`, level info); nothing where the access log is off. Never blocks.
pub fn record(access: Access<'_>) {
    let Some(output) = output::for_access() else { return };
    output.sink.append(|lines| match output.format {
        LogFormat::Text => push_text(lines, &access, SystemTime::now(), output.ansi),
        LogFormat::Json => push_json(lines, &access, SystemTime::now()),
    });
}

/// `2026-01-31T23:59:59.123Z  INFO vestibule::access: 200 GET app.example.com /path 1.234ms user=ada route=/ client=… id=…`
fn push_text(lines: &mut Lines, access: &Access<'_>, now: SystemTime, ansi: bool) {
    if ansi {
        lines.text.extend_from_slice(b"\x1b[2m");
    }
    lines.push_time(now);
    let out = &mut lines.text;
    if ansi {
        let colour = match access.status {
            0..=299 => 32,
            300..=399 => 36,
            400..=499 => 33,
            _ => 31,
        };
        // Writing to a Vec can't fail, here and below.
        let _ = write!(out, "\x1b[0m \x1b[32m INFO\x1b[0m \x1b[2mvestibule::access\x1b[0m: \x1b[{colour}m");
    } else {
        out.extend_from_slice(b"  INFO vestibule::access: ");
    }
    push_number(out, u64::from(access.status));
    if ansi {
        out.extend_from_slice(b"\x1b[0m");
    }
    for word in [access.method, access.host, access.path] {
        out.push(b' ');
        push_word(out, word);
    }
    out.push(b' ');
    push_millis(out, access.duration);
    out.extend_from_slice(b"ms");
    for (name, value) in [(" reason=", access.reason), (" user=", access.user), (" route=", access.route)] {
        if value != "-" {
            out.extend_from_slice(name.as_bytes());
            push_word(out, value);
        }
    }
    let _ = write!(out, " client={} id=", access.client);
    push_word(out, access.id);
    out.push(b'\n');
}

fn push_json(lines: &mut Lines, access: &Access<'_>, now: SystemTime) {
    lines.text.extend_from_slice(b"{\"timestamp\":\"");
    lines.push_time(now);
    let out = &mut lines.text;
    out.extend_from_slice(b"\",\"level\":\"INFO\",\"target\":\"vestibule::access\",\"message\":\"request\",\"id\":");
    push_quoted(out, access.id);
    // Writing to a Vec can't fail. An address has nothing to escape.
    let _ = write!(out, ",\"client\":\"{}\"", access.client);
    for (name, value) in [(",\"method\":", access.method), (",\"host\":", access.host), (",\"path\":", access.path)] {
        out.extend_from_slice(name.as_bytes());
        push_quoted(out, value);
    }
    out.extend_from_slice(b",\"status\":");
    push_number(out, u64::from(access.status));
    for (name, value) in [(",\"route\":", access.route), (",\"reason\":", access.reason), (",\"user\":", access.user)] {
        out.extend_from_slice(name.as_bytes());
        match value {
            "-" => out.extend_from_slice(b"null"),
            value => push_quoted(out, value),
        }
    }
    out.extend_from_slice(b",\"duration_ms\":");
    push_millis(out, access.duration);
    out.extend_from_slice(b"}\n");
}

/// Milliseconds with three decimals.
fn push_millis(out: &mut Vec<u8>, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    push_number(out, micros / 1000);
    let digit = |value: u64| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[b'.', digit(micros / 100), digit(micros / 10), digit(micros)]);
}

/// What `write!` does, in a fifth of its time.
fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[start..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const NOW: Duration = Duration::from_millis(951_782_399_007);
    const HOSTILE: &str =
        "x\" , \"status\":200,\r\n2000-02-28T23:59:59.007Z  INFO vestibule::access: 200 \u{1b}[2J user=admin";

    fn sample() -> Access<'static> {
        Access {
            id: "7f3c1e0a",
            client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            method: "GET",
            host: "app.example.com",
            path: "/admin/x",
            status: 403,
            route: "/admin/*",
            reason: "missing_role",
            user: "ada",
            duration: Duration::from_nanos(12_345_678),
        }
    }

    fn hostile() -> Access<'static> {
        Access { host: HOSTILE, path: HOSTILE, user: HOSTILE, method: HOSTILE, route: HOSTILE, id: HOSTILE, ..sample() }
    }

    fn text(access: &Access<'_>, ansi: bool) -> String {
        let mut lines = Lines::default();
        push_text(&mut lines, access, SystemTime::UNIX_EPOCH + NOW, ansi);
        String::from_utf8(lines.text).unwrap()
    }

    fn json(access: &Access<'_>) -> String {
        let mut lines = Lines::default();
        push_json(&mut lines, access, SystemTime::UNIX_EPOCH + NOW);
        String::from_utf8(lines.text).unwrap()
    }

    #[test]
    fn a_text_line_reads_like_a_sentence() {
        assert_eq!(
            text(&sample(), false),
            "2000-02-28T23:59:59.007Z  INFO vestibule::access: 403 GET app.example.com /admin/x 12.345ms \
             reason=missing_role user=ada route=/admin/* client=192.0.2.1 id=7f3c1e0a\n"
        );
        let anonymous = Access { reason: "-", user: "-", route: "-", status: 200, ..sample() };
        assert!(
            text(&anonymous, false)
                .ends_with("200 GET app.example.com /admin/x 12.345ms client=192.0.2.1 id=7f3c1e0a\n")
        );
        assert!(text(&sample(), true).contains("\u{1b}[33m403\u{1b}[0m GET "));
    }

    #[test]
    fn a_json_line_is_one_object() {
        let line = json(&Access { user: "-", ..sample() });
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "timestamp": "2000-02-28T23:59:59.007Z", "level": "INFO", "target": "vestibule::access",
                "message": "request", "id": "7f3c1e0a", "client": "192.0.2.1", "method": "GET",
                "host": "app.example.com", "path": "/admin/x", "status": 403, "route": "/admin/*",
                "reason": "missing_role", "user": null, "duration_ms": 12.345,
            })
        );
    }

    #[test]
    fn hostile_values_add_no_line_no_field_and_no_escape_sequence() {
        let line = text(&hostile(), false);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains('\u{1b}') && !line.contains('\r'));
        assert_eq!(line.matches(" user=\"").count(), 1);
        assert!(line.contains(r#"\" , \"status\":200"#), "every quote inside is escaped: {line}");

        let line = json(&hostile());
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["status"], 403);
        assert_eq!(value["user"], HOSTILE);
        assert_eq!(value.as_object().unwrap().len(), 14);
    }

    #[test]
    fn numbers_and_durations_are_exact() {
        for number in [0, 7, 10, 404, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
        for (micros, expected) in [(0, "0.000"), (9, "0.009"), (1_050, "1.050"), (61_000_000, "61000.000")] {
            let mut out = Vec::new();
            push_millis(&mut out, Duration::from_micros(micros));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
