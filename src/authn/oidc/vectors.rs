//! Published test vectors, for the unit tests of this folder. `published.json` holds those of RFC 7515 to 7520, 7638
//! and 9396, `encrypted.json` tokens that another implementation made for these keys and this secret.

use std::sync::LazyLock;

use serde_json::Value;

pub(super) fn published() -> &'static Value {
    static VECTORS: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(include_str!("vectors/published.json")).unwrap());
    &VECTORS
}

pub(super) fn encrypted() -> &'static Value {
    static VECTORS: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(include_str!("vectors/encrypted.json")).unwrap());
    &VECTORS
}

/// RFC 8037 A.1.
pub(super) fn ed25519() -> Value {
    serde_json::json!({
        "kty": "OKP", "crv": "Ed25519",
        "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    })
}
