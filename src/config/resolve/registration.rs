//! `provider.dynamic_registration`.

use std::path::Path;

use super::Resolver;
use crate::authn::oidc::client_auth::ClientAuthMethod;
use crate::authn::oidc::device;
use crate::authn::oidc::registration::RegistrationSettings;
use crate::authn::oidc::security::RequestObject;
use crate::authn::{api_clients, oidc};
use crate::config::raw::RawProvider;
use crate::route::Endpoint;
use crate::upstream::UpstreamSettings;

/// Tells each provider where it reaches our endpoints.
pub(super) fn reached_at(providers: &mut [oidc::Settings], endpoints: &[(Endpoint, String)]) {
    for provider in providers {
        let at = |endpoint: Endpoint| {
            let (_, path) = endpoints.iter().find(|(one, _)| *one == endpoint)?;
            provider.redirect_uri.join(path).ok()
        };
        if provider.security.signed_requests == Some(RequestObject::Reference) {
            provider.request_objects_at = at(Endpoint::RequestObject);
        }
        let (login, jwks) = (at(Endpoint::Login), at(Endpoint::Jwks));
        let (back, front) = (at(Endpoint::BackchannelLogout), at(Endpoint::FrontchannelLogout));
        if let Some(registration) = &mut provider.registration {
            (registration.initiate_login_uri, registration.jwks_uri) = (login, jwks);
            registration.backchannel_logout_uri = back;
            registration.frontchannel_logout_uri = front;
        }
    }
}

/// Tells each client that registers itself what else it is going to ask for (RFC 7591 §2).
pub(super) fn further_grants(
    providers: &mut [oidc::Settings],
    api_clients: api_clients::Settings,
    upstreams: &[UpstreamSettings],
) {
    for (index, provider) in providers.iter_mut().enumerate() {
        let has_own_token =
            upstreams.iter().any(|upstream| upstream.own_token.as_ref().is_some_and(|own| own.provider == index));
        let Some(registration) = &mut provider.registration else { continue };
        let grants = [
            (device::GRANT_TYPE, api_clients.device_code),
            ("refresh_token", api_clients.refresh_token),
            ("client_credentials", has_own_token),
            ("password", provider.insecure_password_grant),
        ];
        registration.further_grants = grants.into_iter().filter(|(_, is_on)| *is_on).map(|(grant, _)| grant).collect();
    }
}

impl Resolver {
    /// Whether every provider that is to fetch requests finds them somewhere.
    pub(super) fn has_request_objects(&mut self, providers: &[oidc::Settings]) {
        let by_reference = |provider: &&oidc::Settings| {
            provider.security.signed_requests == Some(RequestObject::Reference) && provider.request_objects_at.is_none()
        };
        if let Some(provider) = providers.iter().find(by_reference) {
            let what = format!("switches off where the provider {} fetches requests", provider.id);
            self.error("endpoints.request", what, "remove it, or write request_object = \"value\"");
        }
    }

    /// `None` where a client id is written, and where something is wrong.
    pub(super) fn registration(
        &mut self,
        at: &str,
        raw: &RawProvider,
        state_dir: Option<&Path>,
    ) -> Option<RegistrationSettings> {
        let key = |leaf: &str| format!("{at}.{leaf}");
        if !raw.dynamic_registration.unwrap_or(false) {
            let for_registration = [
                ("registration_token_file", raw.registration_token_file.is_some()),
                ("client_name", raw.client_name.is_some()),
            ];
            for (leaf, _) in for_registration.into_iter().filter(|(_, written)| *written) {
                let what = "is for a client that registers itself";
                self.error(&key(leaf), what, "add dynamic_registration = true, or remove it");
            }
            return None;
        }
        let written = [
            ("client_id", raw.client_id.is_some()),
            ("client_secret", raw.client_secret.is_some()),
            ("client_secret_file", raw.client_secret_file.is_some()),
        ];
        for (leaf, _) in written.into_iter().filter(|(_, written)| *written) {
            let what = "contradicts dynamic_registration: the provider gives it";
            self.error(&key(leaf), what, "remove one of them");
        }
        if let Some(method) = raw.client_auth_method.map(ClientAuthMethod::from)
            && !method.needs_secret()
            && !matches!(method, ClientAuthMethod::None | ClientAuthMethod::PrivateKeyJwt)
        {
            let what = format!("is {:?}, which no client can register by itself here", method.name());
            let fix = "write \"private_key_jwt\" with client_keys_files, or register the client by hand";
            self.error(&key("client_auth_method"), what, fix);
        }
        if raw.profile.is_some() && raw.client_keys_files.is_none() {
            let what = "is missing: under a profile, a client that registers itself proves a key, not a certificate";
            self.error(&key("client_keys_files"), what, format!("write client_keys_files in [{at}]"));
        }
        let token_file = raw.registration_token_file.as_ref().map(|path| {
            let path = self.file(&key("registration_token_file"), path);
            self.readable(&key("registration_token_file"), &path);
            path
        });
        let Some(state_dir) = state_dir else {
            let what = "is missing: the registration has to outlive a restart";
            self.error("state_dir", what, "name a folder that this process may write, such as \"/var/lib/vestibule\"");
            return None;
        };
        Some(RegistrationSettings {
            state_dir: state_dir.to_owned(),
            token_file,
            client_name: raw.client_name.clone().filter(|name| !name.trim().is_empty()),
            is_public: raw.public_client.unwrap_or(false),
            // Once the endpoints are known.
            initiate_login_uri: None,
            jwks_uri: None,
            backchannel_logout_uri: None,
            frontchannel_logout_uri: None,
            further_grants: Vec::new(),
        })
    }
}
