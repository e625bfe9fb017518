//! Whatever a configuration file says, loading it ends in settings or in problems, never in a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vestibule::config::{self, Sources};

fuzz_target!(|text: &str| {
    if let Err(problems) = config::load(&Sources::toml(text)) {
        assert!(!problems.is_empty());
    }
});
