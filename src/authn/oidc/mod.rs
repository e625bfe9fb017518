//! The OpenID Connect relying party: discovery, keys, the login transaction, token verification, userinfo, sign-out.

mod claims;
pub mod discovery;
pub mod id_token;
pub mod jose;
pub mod jwks;
mod known;
pub mod login;
pub mod logout_token;
pub mod party;
pub mod provider;
pub mod providers;
mod query;
pub mod token_endpoint;
pub mod userinfo;
pub mod wish;

#[cfg(test)]
mod test_keys;

pub use party::Party;
pub use provider::{Provider, Settings};
pub use providers::Providers;
pub use wish::Wish;
