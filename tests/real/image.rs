//! The container image: really built by podman, run the way a careful cluster would, and stopped in time.

use std::path::Path;
use std::process::Command;

#[test]
fn the_image_builds_runs_confined_and_stops_in_time() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("tests/image/build-and-run"))
        .current_dir(root)
        // What cargo tells this test must not reach the cargo inside the image, nor our variables the container.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .expect("tests/image/build-and-run can be started");
    assert!(
        output.status.success(),
        "tests/image/build-and-run failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

#[test]
fn every_base_image_can_be_replaced() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile");
    let text = std::fs::read_to_string(path).expect("the Dockerfile can be read");
    let bases: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next()).collect();
    assert_eq!(bases, ["${BUILDER_IMAGE}", "${RUNTIME_IMAGE}"]);
    // An argument of a FROM counts only above the first one.
    let before = text.split("\nFROM ").next().expect("a beginning");
    for argument in ["\nARG BUILDER_IMAGE=", "\nARG RUNTIME_IMAGE="] {
        assert_eq!((before.matches(argument).count(), text.matches(argument).count()), (1, 1), "{argument}");
    }
}
