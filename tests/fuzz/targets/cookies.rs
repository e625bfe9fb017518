//! Whatever `Cookie` lines come, none of ours is left for the upstream, and none is made up.
#![no_main]

use http::header::{COOKIE, HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use vestibule::authn::session::cookie::{CookieJar, Settings};
use vestibule::message::OwnCookies;

const BASE: &str = "__Host-v";

fuzz_target!(|lines: Vec<Vec<u8>>| {
    let mut headers = HeaderMap::new();
    for line in lines {
        let Ok(value) = HeaderValue::from_bytes(&line) else { return };
        headers.append(COOKIE, value);
    }
    let own = OwnCookies::cut_from(&mut headers, &[BASE]);
    for (name, _) in own.iter() {
        assert!(name.starts_with(BASE.as_bytes()));
    }
    let again = OwnCookies::cut_from(&mut headers, &[BASE]);
    assert!(again.is_empty());
    let _ = CookieJar::new(&Settings::named("v"), true).join(&own);
});
