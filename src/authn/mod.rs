//! Every way to become an [`Identity`]. Only code in this folder can construct one.

pub mod bearer;
pub mod identity;
pub mod lifetime;
pub mod oidc;
pub mod proof;
pub mod roles;
pub mod session;

pub use identity::{Evidence, Identity};
