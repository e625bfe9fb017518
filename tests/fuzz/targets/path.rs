//! Whatever path is accepted, no reading of it climbs out of where it was judged to be, nor out of where it is rewritten to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::message::RequestPath;
use vestibule::route::Rewrite;

fuzz_target!(|raw: &str| {
    let Ok(path) = RequestPath::parse(raw) else { return };
    assert_eq!(path.raw(), raw);
    assert!(path.readings().next().is_some());
    for reading in path.readings() {
        assert!(!reading.split('/').any(|segment| matches!(segment, "." | "..")), "{raw:?} reads as {reading:?}");
        assert!(!reading.contains(['\\', '\0']), "{raw:?} reads as {reading:?}");
    }
    let rewrite = Rewrite { strip: "/a".to_owned(), add: "/b".to_owned() };
    let Ok(rewritten) = rewrite.apply(&path) else { return };
    for reading in rewritten.readings() {
        let rest = reading.strip_prefix("/b").filter(|rest| rest.is_empty() || rest.starts_with('/'));
        assert!(rest.is_some(), "{raw:?} was rewritten to what reads as {reading:?}");
    }
});
