//! The OpenID Connect relying party: discovery, keys, the login transaction, token verification, userinfo, sign-out.

pub mod access_token;
pub mod algorithms;
pub mod ask;
pub mod assertion;
pub mod authorization;
mod capabilities;
pub(in crate::authn) mod claims;
pub mod client_auth;
pub mod client_credentials;
pub mod client_keys;
pub mod decryption;
pub mod demands;
pub mod device;
pub mod discovery;
mod dpop;
pub mod grant;
pub mod id_token;
pub mod insufficient;
mod introspection;
pub mod jose;
mod jwe;
pub mod jwks;
mod jws;
mod known;
pub mod login;
pub mod logout_token;
mod ourselves;
pub mod par;
pub mod party;
pub mod password;
pub mod provider;
pub mod providers;
mod query;
pub mod refresh;
pub mod registration;
mod request_object;
pub mod response;
mod revocation;
pub mod security;
pub mod settings;
mod signed_jwks;
pub mod static_metadata;
mod support;
pub mod tenants;
mod thumbprint;
pub mod tls_client;
pub mod token_endpoint;
pub mod userinfo;
pub mod wish;

#[cfg(test)]
mod test_keys;
#[cfg(test)]
mod vectors;

pub use party::Party;
pub use provider::Provider;
pub use providers::Providers;
pub use settings::Settings;
pub use wish::Wish;
