//! `[api_clients]`.

use super::Resolver;
use crate::authn::api_clients::Settings;
use crate::authn::oidc;
use crate::authn::oidc::security::Profile;
use crate::config::raw::{PathOrOff, RawApiClients, RawEndpoints, RawGrant};
use crate::config::walk::below;

impl Resolver {
    pub(super) fn api_clients(
        &mut self,
        raw: RawApiClients,
        endpoints: &RawEndpoints,
        accepts_bearer: bool,
        providers: &[oidc::Settings],
    ) -> Settings {
        const KEY: &str = "api_clients.grants";
        let grants = raw.grants.unwrap_or_default();
        let is_on = |grant| grants.contains(&grant);
        let settings =
            Settings { device_code: is_on(RawGrant::DeviceCode), refresh_token: is_on(RawGrant::RefreshToken) };
        if !settings.device_code {
            if settings.refresh_token {
                let what = "takes refresh tokens, and nothing gives any out";
                self.error(KEY, what, "add \"device_code\", or remove \"refresh_token\"");
            }
            let written = [("device", &endpoints.device), ("token", &endpoints.token)];
            for (leaf, path) in written {
                if matches!(path, Some(PathOrOff::Path(_) | PathOrOff::Switch(true))) {
                    let what = "is an endpoint for API clients, which get no tokens here";
                    self.error(&format!("endpoints.{leaf}"), what, "write grants = [\"device_code\"] in [api_clients]");
                }
            }
            return settings;
        }
        for (leaf, path) in [("device", &endpoints.device), ("token", &endpoints.token)] {
            if matches!(path, Some(PathOrOff::Switch(false))) {
                let what = "is off, and without it no device code can be redeemed";
                self.error(&format!("endpoints.{leaf}"), what, "remove it, or \"device_code\" from api_clients.grants");
            }
        }
        if !accepts_bearer {
            let what = "hands out access tokens that no route takes";
            self.warn(KEY, what, "write accept = true and audiences in [bearer]");
        }
        for provider in providers {
            let at = if providers.len() == 1 { "provider".to_owned() } else { below("providers", &provider.id) };
            if provider.security.dpop.is_some() || provider.security.profile == Profile::Fapi2 {
                let what =
                    format!("hands out access tokens, and those of [{at}] are bound to a key that API clients lack");
                self.error(KEY, what, "use a provider section without dpop and profile");
            } else if provider.security.binds_by_tls() {
                let what =
                    format!("hands out access tokens, and those of [{at}] may be bound to the client certificate");
                self.warn(KEY, what, "switch that off for this client at the provider");
            }
        }
        settings
    }
}
