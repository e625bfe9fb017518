//! Whom a session or a login transaction is bound to: issuer and client id, as a digest that fits into a sealed record.

use aws_lc_rs::digest::{self, SHA256};
use serde::{Deserialize, Serialize};

/// A digest of issuer and client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party([u8; 16]);

impl Party {
    /// Of one client at one issuer.
    pub fn of(issuer: &str, client_id: &str) -> Self {
        let mut context = digest::Context::new(&SHA256);
        context.update(&(issuer.len() as u64).to_be_bytes());
        context.update(issuer.as_bytes());
        context.update(client_id.as_bytes());
        Self(short(context))
    }

    /// As it is compared.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Of a name that an issuer gives, told apart by the kind of name. A provider with tenants has an issuer for each of them,
    /// and only within one is a name somebody's (OpenID Connect Core §2, `sub`).
    pub(in crate::authn) fn digest(self, kind: &str, issuer: &str, name: &str) -> [u8; 16] {
        let mut context = digest::Context::new(&SHA256);
        context.update(&self.0);
        for part in [kind, issuer] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.update(name.as_bytes());
        short(context)
    }
}

fn short(context: digest::Context) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&context.finish().as_ref()[..16]);
    short
}
