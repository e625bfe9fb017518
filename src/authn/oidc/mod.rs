//! The OpenID Connect relying party: discovery, keys, the login transaction, token verification, userinfo, sign-out.

pub mod ask;
#[cfg_attr(not(test), expect(dead_code, reason = "its caller comes with client authentication"))]
pub mod assertion;
mod claims;
pub mod client_keys;
pub mod decryption;
pub mod demands;
pub mod discovery;
#[cfg_attr(not(test), expect(dead_code, reason = "its caller comes with bound tokens"))]
mod dpop;
pub mod id_token;
pub mod jose;
mod jwe;
pub mod jwks;
#[cfg_attr(not(test), expect(dead_code, reason = "its callers come with client authentication"))]
mod jws;
mod known;
pub mod login;
pub mod logout_token;
pub mod party;
pub mod provider;
pub mod providers;
mod query;
#[cfg_attr(not(test), expect(dead_code, reason = "its caller comes with signed requests"))]
mod request_object;
pub mod response;
mod revocation;
pub mod static_metadata;
pub mod tenants;
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
