//! `upstream.access_token = "client_credentials"`, and the table that says what is asked for.

use super::Resolver;
use crate::authn::oidc;
use crate::authn::oidc::ask::Ask;
use crate::authn::oidc::client_credentials::Settings;
use crate::authn::oidc::grant::is_scope;
use crate::config::problem::shown;
use crate::config::raw::RawClientCredentials;
use crate::config::shape::one_of;
use crate::config::walk::below;

impl Resolver {
    /// For the upstream at `upstream`. `shows_certificate`: to which a certificate of ours is shown.
    pub(super) fn client_credentials(
        &mut self,
        upstream: &str,
        raw: Option<RawClientCredentials>,
        shows_certificate: bool,
        providers: &[oidc::Settings],
    ) -> Settings {
        let RawClientCredentials { provider, scopes, resource, audience } = raw.unwrap_or_default();
        let at = |leaf: &str| below(&below(upstream, "client_credentials"), leaf);
        let provider = self.one_provider(&at("provider"), provider, providers);
        if let Some(settings) = providers.get(provider) {
            self.can_have_own_token(upstream, settings, shows_certificate);
        }
        let scopes = scopes.unwrap_or_default();
        if let Some(bad) = scopes.iter().find(|scope| scope.contains(' ') || !is_scope(scope)) {
            self.error(&at("scopes"), format!("names {}, no scope", shown(bad)), "for example [\"orders.read\"]");
        }
        let resources = resource.map(|one| one.into_vec()).unwrap_or_default();
        if let Some(bad) = resources.iter().find(|resource| !Ask::is_resource(resource)) {
            let what = format!("names {}, no absolute URI without #", shown(bad));
            self.error(&at("resource"), what, "for example [\"https://api.example.com\"]");
        }
        if audience.as_deref().is_some_and(|audience| audience.trim().is_empty()) {
            self.error(&at("audience"), "is empty", "name what the provider calls the upstream, or remove it");
        }
        Settings { provider, scopes, resources, audience }
    }

    /// The one that is named, or the only one there is: its index.
    pub(super) fn one_provider(&mut self, key: &str, written: Option<String>, providers: &[oidc::Settings]) -> usize {
        let ids: Vec<_> = providers.iter().map(|provider| provider.id.as_str()).collect();
        match (written, providers) {
            // Problems with providers have been told.
            (_, []) | (None, [_]) => {}
            (None, _) => {
                let what = "is missing: there are several providers";
                self.error(key, what, format!("write {}", one_of(&ids)));
            }
            (Some(id), _) => match ids.iter().position(|known| *known == id) {
                Some(index) => return index,
                None => {
                    self.error(key, format!("names {}, no provider", shown(&id)), format!("write {}", one_of(&ids)))
                }
            },
        }
        0
    }

    fn can_have_own_token(&mut self, upstream: &str, provider: &oidc::Settings, shows_certificate: bool) {
        let key = below(upstream, "access_token");
        if provider.is_public_client() {
            // RFC 6749 §4.4.
            let what = "asks for client credentials, and the client has none";
            self.error(&key, what, "give the provider's section a client secret, keys or a certificate");
        }
        if provider.security.dpop.is_some() {
            let what = "asks for a token that is bound to a key (dpop), which the upstream would want to see proved";
            self.error(&key, what, "use a provider section without dpop, or a client certificate in its place");
        } else if provider.security.binds_by_tls() && !shows_certificate {
            let what = "asks for a token that may be bound to the client certificate, which this upstream is not shown";
            self.warn(&key, what, format!("write client_certificate_file in [{upstream}.tls]"));
        }
    }
}
