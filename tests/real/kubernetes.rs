//! The Kubernetes example: accepted by a strict schema validator, and true to what its comments promise.

use std::path::Path;
use std::process::Command;

#[test]
fn the_kubernetes_example_passes_a_strict_validator() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("tests/image/validate-kubernetes"))
        .current_dir(root)
        .output()
        .expect("tests/image/validate-kubernetes can be started");
    assert!(
        output.status.success(),
        "tests/image/validate-kubernetes failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}
