//! What one sign-in asks of the provider beyond the settings: by a route, by the upstream, or by a link.

use serde::{Deserialize, Serialize};

/// Parameters of one authorization request (OpenID Connect Core §3.1.2.1). Those that the ID token has to answer to travel
/// in `state`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Who is expected to sign in; a hint and nothing more, so it does not travel in `state`.
    #[serde(skip)]
    pub login_hint: Option<String>,
    /// The authentication context classes to choose from, in order of preference, separated by spaces.
    pub acr_values: Option<String>,
    /// The longest time since the person last proved who they are, in seconds.
    pub max_age: Option<u32>,
}

impl Wish {
    /// Whether the ID token has to answer to it.
    pub fn asks_for_proof(&self) -> bool {
        self.acr_values.is_some() || self.max_age.is_some()
    }
}
