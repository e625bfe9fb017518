//! All configured providers.

use std::borrow::Cow;
use std::sync::Arc;

use super::Provider;
use super::decryption::is_encrypted;
use super::logout_token::{LogoutTokenError, UnprovenLogout};
use super::party::Party;

/// The providers in the order of the configuration; never empty.
#[derive(Debug, Clone)]
pub struct Providers(Arc<[Arc<Provider>]>);

impl Providers {
    /// Of `providers`; `None` where there is none.
    pub fn new(providers: Vec<Arc<Provider>>) -> Option<Self> {
        (!providers.is_empty()).then(|| Self(providers.into()))
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Provider>> {
        self.0.iter()
    }

    /// The only one, or the one that was configured first.
    pub fn first(&self) -> &Arc<Provider> {
        &self.0[0]
    }

    /// By its index in the configuration, as routes and callbacks know it.
    pub fn at(&self, index: usize) -> &Arc<Provider> {
        self.0.get(index).unwrap_or(&self.0[0])
    }

    /// By its `provider_id`.
    pub fn by_id(&self, id: &str) -> Option<(usize, &Arc<Provider>)> {
        self.iter().enumerate().find(|(_, provider)| provider.settings().id == id)
    }

    /// The one whose issuer and client id a logout token names, which it then has to prove.
    ///
    /// # Errors
    /// [`LogoutTokenError::Issuer`] and [`LogoutTokenError::Audience`].
    pub fn addressed_by(&self, token: &UnprovenLogout<'_>) -> Result<&Arc<Provider>, LogoutTokenError> {
        let mut of_issuer = self
            .iter()
            .filter(|provider| token.issuer().is_some_and(|issuer| provider.settings().is_issuer(issuer)))
            .peekable();
        of_issuer.peek().ok_or(LogoutTokenError::Issuer)?;
        let mut for_us = of_issuer.filter(|provider| provider.is_us(|client_id| token.is_for(client_id)));
        for_us.next().ok_or(LogoutTokenError::Audience)
    }

    /// A logout token with its encryption taken off, if it has any: opened with the keys that ID tokens are encrypted to
    /// (OpenID Connect Back-Channel Logout §2.6 item 1). The first provider whose keys open it does: what is inside says whose it
    /// is, and proves it.
    ///
    /// # Errors
    /// [`LogoutTokenError::Undecryptable`].
    pub fn open_logout_token<'t>(&self, token: &'t str) -> Result<Cow<'t, str>, LogoutTokenError> {
        if !is_encrypted(token) {
            return Ok(Cow::Borrowed(token));
        }
        let opened = self.iter().find_map(|provider| provider.open_logout_token(token));
        opened.map(Cow::Owned).ok_or(LogoutTokenError::Undecryptable)
    }

    /// By whom sessions are bound to.
    pub fn by_party(&self, party: Party) -> Option<(usize, &Arc<Provider>)> {
        self.iter().enumerate().find(|(_, provider)| provider.settings().party() == party)
    }
}
