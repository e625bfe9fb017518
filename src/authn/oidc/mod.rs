//! The OpenID Connect relying party: discovery, keys, the login transaction, token verification, userinfo, sign-out.

pub mod access_token;
#[cfg_attr(not(test), expect(dead_code, reason = "its caller comes with client authentication"))]
pub mod assertion;
pub mod client_keys;
pub mod discovery;
#[cfg_attr(not(test), expect(dead_code, reason = "its caller comes with bound tokens"))]
mod dpop;
pub mod id_token;
mod introspection;
pub mod jose;
#[cfg_attr(not(test), expect(dead_code, reason = "its caller comes with encrypted tokens"))]
mod jwe;
pub mod jwks;
#[cfg_attr(not(test), expect(dead_code, reason = "its callers come with client authentication"))]
mod jws;
mod known;
pub mod login;
pub mod party;
pub mod provider;
pub mod providers;
mod query;
pub mod registration;
#[cfg_attr(not(test), expect(dead_code, reason = "its caller comes with signed requests"))]
mod request_object;
pub mod response;
pub mod static_metadata;
mod thumbprint;
pub mod token_endpoint;
pub mod userinfo;
pub mod wish;

#[cfg(test)]
mod test_keys;
#[cfg(test)]
mod vectors;

pub use party::Party;
pub use provider::{Provider, Settings};
pub use providers::Providers;
pub use wish::Wish;
