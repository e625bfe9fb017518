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
