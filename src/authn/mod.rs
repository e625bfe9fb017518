//! Every way to become an [`Identity`]. Only code in this folder can construct one.

pub mod api_clients;
pub mod bearer;
mod claimed;
pub mod identity;
pub mod lifetime;
pub mod oidc;
pub mod password;
pub mod proof;
pub mod renewal;
pub mod roles;
pub mod session;
mod verdicts;

pub use identity::{Evidence, Identity};
