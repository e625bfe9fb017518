//! Header fields that are changed on the way through, as they are written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// Header fields to set and to remove.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawHeaderEdits {
    /// Name to static value; what came under that name is replaced.
    #[serde(default)]
    #[schemars(example = serde_json::json!({ "X-Environment": "production" }))]
    pub set: BTreeMap<String, String>,
    /// Names, in any spelling.
    #[schemars(example = ["X-Powered-By"])]
    pub remove: Option<Vec<String>>,
}

/// One answer to everything.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawRespond {
    /// Its status. Default 200.
    #[schemars(example = 503, range(min = 200, max = 599))]
    pub status: Option<u16>,
    /// Its body. Default none.
    #[schemars(example = &"Back soon.")]
    pub body: Option<String>,
    /// What the body is. Default text/plain; charset=utf-8.
    #[schemars(example = &"text/html; charset=utf-8")]
    pub content_type: Option<String>,
    /// Further header fields.
    #[serde(default)]
    #[schemars(example = serde_json::json!({ "Retry-After": "600" }))]
    pub headers: BTreeMap<String, String>,
}
