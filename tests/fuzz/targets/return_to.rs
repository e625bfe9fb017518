//! Whatever return address is accepted, a user agent that follows it stays on an allowed origin.
#![no_main]

use libfuzzer_sys::fuzz_target;
use url::Url;
use vestibule::message::return_to::ReturnRules;
use vestibule::message::{Origin, ReturnTo};

fuzz_target!(|text: &str| {
    let own = Url::parse("https://app.example/").unwrap();
    let allowed = Url::parse("https://other.example:8443/").unwrap();
    let rules = ReturnRules {
        own: Origin::of(&own).unwrap(),
        allowed: vec![Origin::of(&allowed).unwrap()],
        own_paths: vec!["/auth".to_owned()],
        kept_post: Some("/auth/kept-post".to_owned()),
    };
    let Ok(accepted) = ReturnTo::parse(text, &rules) else { return };
    let target = own.join(accepted.as_str()).unwrap();
    let origin = Origin::of(&target).unwrap();
    assert!(origin == rules.own || rules.allowed.contains(&origin), "{text:?} leads to {target}");
    assert!(!(origin == rules.own && target.path().starts_with("/auth/")), "{text:?} leads to {target}");
    assert_eq!(ReturnTo::parse(accepted.as_str(), &rules).as_ref(), Ok(&accepted));
});
