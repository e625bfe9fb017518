//! The OpenID Connect relying party: discovery, keys, the login transaction, token verification, userinfo, sign-out.

pub mod discovery;
pub mod id_token;
pub mod jose;
pub mod jwks;
mod known;
pub mod login;
pub mod provider;
mod query;
pub mod token_endpoint;
pub mod userinfo;

#[cfg(test)]
mod test_keys;

pub use provider::{Provider, Settings};
