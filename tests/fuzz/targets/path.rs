//! Whatever path is accepted, no reading of it climbs out of where it was judged to be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::message::RequestPath;

fuzz_target!(|raw: &str| {
    let Ok(path) = RequestPath::parse(raw) else { return };
    assert_eq!(path.raw(), raw);
    assert!(path.readings().next().is_some());
    for reading in path.readings() {
        assert!(!reading.split('/').any(|segment| matches!(segment, "." | "..")), "{raw:?} reads as {reading:?}");
        assert!(!reading.contains(['\\', '\0']), "{raw:?} reads as {reading:?}");
    }
});
