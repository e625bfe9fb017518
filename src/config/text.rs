//! Values that are written as text and mean something else: durations, sizes, addresses, networks, URLs. Each has a JSON
//! Schema `format` under which the walk finds its parser, so that a bad one is told with its place.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use url::Url;

use crate::server;

/// What is wanted where `text` does not fit `format`; `None` where it fits or the format is none of ours.
pub(super) fn misfit(format: &str, text: &str) -> Option<&'static str> {
    let fits = match format {
        Span::FORMAT => Span::parse(text).is_some(),
        Size::FORMAT => Size::parse(text).is_some(),
        SizeOrOff::FORMAT => SizeOrOff::parse(text).is_some(),
        Often::FORMAT => Often::parse(text).is_some(),
        OftenOrOff::FORMAT => OftenOrOff::parse(text).is_some(),
        Address::FORMAT => Address::parse(text).is_some(),
        Place::FORMAT => Place::parse(text).is_some(),
        AdminAddress::FORMAT => AdminAddress::parse(text).is_some(),
        Network::FORMAT => Network::parse(text).is_some(),
        WebUrl::FORMAT => WebUrl::parse(text).is_some(),
        Statuses::FORMAT => Statuses::parse(text).is_some(),
        _ => true,
    };
    if fits { None } else { Some(wanted(format)) }
}

/// What a text of `format` is called in a sentence.
pub(super) fn wanted(format: &str) -> &'static str {
    match format {
        Span::FORMAT => "a duration with a unit",
        Size::FORMAT => "a size with a unit",
        SizeOrOff::FORMAT => "a size with a unit, or \"off\"",
        Often::FORMAT => "a number per s, min or h",
        OftenOrOff::FORMAT => "a number per s, min or h, or \"off\"",
        Address::FORMAT => "an address and port",
        Place::FORMAT => "an address and port, or unix: and a path",
        AdminAddress::FORMAT => "an address and port, or \"off\"",
        Network::FORMAT => "a network or an address",
        WebUrl::FORMAT => "an absolute http or https URL",
        Statuses::FORMAT => "a status or a range of them",
        "path" => "the path of a file",
        _ => "a text",
    }
}

macro_rules! written_as_text {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal, $example:literal, $parse:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub(super) struct $name(pub(super) $inner);

        impl $name {
            pub(super) const FORMAT: &'static str = $format;

            pub(super) fn parse(text: &str) -> Option<Self> {
                let parse: fn(&str) -> Option<$inner> = $parse;
                parse(text).map(Self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| D::Error::custom(wanted(Self::FORMAT)))
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schemars::json_schema!({ "type": "string", "format": $format, "examples": [$example] })
            }
        }
    };
}

written_as_text!(
    /// A duration with a unit, at most 100 years.
    Span(Duration), "duration-with-unit", "1h 30m", |text| {
        const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        humantime::parse_duration(text.trim()).ok().filter(|span| *span <= LONGEST)
    }
);
written_as_text!(
    /// A number of bytes with a unit.
    Size(usize), "size-with-unit", "32KiB", |text| {
        let size: bytesize::ByteSize = text.trim().parse().ok()?;
        usize::try_from(size.as_u64()).ok()
    }
);
written_as_text!(
    /// A number of bytes with a unit, or no bound.
    SizeOrOff(Option<u64>), "size-with-unit-or-off", "10MiB", |text| {
        if text == "off" { Some(None) } else { Size::parse(text).map(|size| Some(size.0 as u64)) }
    }
);
written_as_text!(
    /// How often in a second, minute or hour: the number, and the time in which one is earned.
    Often((u32, Duration)), "number-per-time", "10/s", |text| {
        let (count, unit) = text.split_once('/')?;
        let count: u32 = count.trim().parse().ok().filter(|count| *count > 0)?;
        let time = match unit.trim() {
            "s" => Duration::from_secs(1),
            "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        Some((count, (time / count).max(Duration::from_nanos(1))))
    }
);
written_as_text!(
    /// How often, or without a bound.
    OftenOrOff(Option<Often>), "number-per-time-or-off", "10/s", |text| {
        if text == "off" { Some(None) } else { Often::parse(text).map(Some) }
    }
);
written_as_text!(
    /// Where to listen.
    Address(SocketAddr), "address-and-port", "0.0.0.0:8080", |text| text.parse().ok()
);
written_as_text!(
    /// Where to listen, be it a unix socket.
    Place(server::Address), "address-and-port-or-unix-socket", "unix:/run/vestibule/http.sock", |text| {
        match text.strip_prefix("unix:") {
            Some(path) => (!path.is_empty()).then(|| server::Address::Unix(path.into())),
            None => text.parse().ok().map(server::Address::Tcp),
        }
    }
);
written_as_text!(
    /// Where to listen, or not at all.
    AdminAddress(Option<SocketAddr>), "address-and-port-or-off", "127.0.0.1:9090", |text| {
        if text == "off" { Some(None) } else { text.parse().ok().map(Some) }
    }
);
written_as_text!(
    /// A network; a single address is a network of one.
    Network(IpNet), "network", "10.0.0.0/8", |text| {
        text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
    }
);
written_as_text!(
    /// An absolute http or https URL with a host, without credentials, beside the text it was written as.
    WebUrl((Url, String)), "web-url", "https://app.example.com", |text| {
        let url = Url::parse(text).ok()?;
        let plain = matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(|host| !host.is_empty())
            && url.username().is_empty()
            && url.password().is_none();
        // The WHATWG parser forgives `https:host` and stray white space; an operator should not have to.
        let strict = text.to_ascii_lowercase().starts_with(&format!("{}://", url.scheme()))
            && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\');
        (plain && strict).then(|| (url, text.to_owned()))
    }
);
written_as_text!(
    /// A status of an answer, or a range of them, ends included.
    Statuses(RangeInclusive<u16>), "status-range", "200-299", |text| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| text.trim().parse().ok().filter(|status| (100..=599).contains(status));
        let (first, last) = (status(first)?, status(last)?);
        (first <= last).then_some(first..=last)
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_units() {
        assert_eq!(Span::parse("1h 30m").map(|span| span.0), Some(Duration::from_secs(5400)));
        assert_eq!(Span::parse("500ms").map(|span| span.0), Some(Duration::from_millis(500)));
        for bad in ["90", "", "soon", "-1s", "1000000000 years"] {
            assert!(Span::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(Size::parse("32KiB").map(|size| size.0), Some(32 * 1024));
        assert_eq!(Size::parse("1 MiB").map(|size| size.0), Some(1 << 20));
        assert!(Size::parse("big").is_none());
    }

    #[test]
    fn how_often_is_a_number_per_time() {
        let often = |text| Often::parse(text).map(|often| often.0);
        assert_eq!(often("10/s"), Some((10, Duration::from_millis(100))));
        assert_eq!(often("1 / h"), Some((1, Duration::from_secs(3600))));
        for bad in ["10", "0/s", "-1/s", "10/day", "10/5s", "1.5/s", "off", "/s", ""] {
            assert!(often(bad).is_none(), "{bad}");
        }
        assert!(OftenOrOff::parse("off").is_some_and(|often| often.0.is_none()));
        assert!(SizeOrOff::parse("off").is_some_and(|size| size.0.is_none()));
        assert_eq!(SizeOrOff::parse("1KiB").and_then(|size| size.0), Some(1024));
    }

    #[test]
    fn urls_are_absolute_and_plain() {
        for good in ["https://app.example.com/auth/callback", "http://[::1]:8080/cb", "HTTPS://APP.example.com/x"] {
            assert!(WebUrl::parse(good).is_some(), "{good}");
        }
        for bad in [
            "app.example.com/cb",
            "/cb",
            "ftp://host/",
            "https:host",
            "https://",
            "https://u:p@host/",
            "https://u@host/",
            " https://host/",
            "https://ho st/",
            "https:\\\\host\\",
        ] {
            assert!(WebUrl::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn one_address_is_a_network() {
        assert_eq!(Network::parse("10.1.2.3").map(|net| net.0.prefix_len()), Some(32));
        assert_eq!(Network::parse("fd00::/8").map(|net| net.0.prefix_len()), Some(8));
        assert!(Network::parse("10.0.0.0/33").is_none());
        assert!(Network::parse("example.com").is_none());
    }

    #[test]
    fn a_status_is_a_range_of_one() {
        for (text, range) in [("204", Some(204..=204)), ("200-299", Some(200..=299)), ("200 - 204", Some(200..=204))] {
            assert_eq!(Statuses::parse(text).map(|statuses| statuses.0), range, "{text}");
        }
        for bad in ["", "ok", "2xx", "299-200", "99", "200-600", "200-"] {
            assert!(Statuses::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn off_switches_the_admin_listener_off() {
        assert!(AdminAddress::parse("off").is_some_and(|address| address.0.is_none()));
        assert!(AdminAddress::parse("127.0.0.1:9090").is_some_and(|address| address.0.is_some()));
        assert!(AdminAddress::parse("none").is_none());
    }
}
