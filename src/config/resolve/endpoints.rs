//! `[endpoints]`.

use super::Resolver;
use crate::authn::{api_clients, oidc};
use crate::config::problem::shown;
use crate::config::raw::{PathOrOff, RawEndpoints};
use crate::config::walk::below;
use crate::endpoints;
use crate::message::Origin;
use crate::route::Endpoint;

/// Our endpoints, as routing and as themselves.
pub(super) struct Endpoints {
    pub(super) prefix: String,
    pub(super) paths: Vec<(Endpoint, String)>,
    pub(super) settings: endpoints::Settings,
}

/// Whether a path could be read in more than one way, or is a pattern.
pub(super) fn unusable(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/');
    !path.starts_with('/')
        || !path.bytes().all(plain)
        || path.contains("//")
        || path.split('/').any(|segment| matches!(segment, "." | ".."))
}

impl Resolver {
    /// Callbacks have the paths of the redirect URIs.
    pub(super) fn endpoints(
        &mut self,
        raw: RawEndpoints,
        providers: &[oidc::Settings],
        return_origins: Vec<Origin>,
        (api_clients, keeps_posts): (api_clients::Settings, bool),
    ) -> Endpoints {
        let prefix = self.prefix(raw.prefix);
        if providers.len() > 1 && matches!(raw.login, Some(PathOrOff::Switch(false))) {
            let what = "switches off where people choose one of several providers";
            self.error("endpoints.login", what, "remove it, or configure one provider");
        }
        if keeps_posts && matches!(raw.kept_post, Some(PathOrOff::Switch(false))) {
            let what = "switches off where forms that are kept (session.keep_posts) are sent after all";
            self.error("endpoints.kept_post", what, "remove it, or session.keep_posts");
        }
        let written = [
            (Endpoint::Login, raw.login, "login"),
            (Endpoint::Logout, raw.logout, "logout"),
            (Endpoint::SignedOut, raw.signed_out, "signed-out"),
            (Endpoint::KeptPost, raw.kept_post, "kept-post"),
            (Endpoint::BackchannelLogout, raw.backchannel_logout, "backchannel-logout"),
            (Endpoint::FrontchannelLogout, raw.frontchannel_logout, "frontchannel-logout"),
            (Endpoint::Userinfo, raw.userinfo, "userinfo"),
            (Endpoint::Jwks, raw.jwks, "jwks"),
            (Endpoint::Device, raw.device, "device"),
            (Endpoint::Token, raw.token, "token"),
            (Endpoint::RequestObject, raw.request, "request"),
        ];
        // Off, unless there is something to get there.
        let is_on = |endpoint| match endpoint {
            Endpoint::Device | Endpoint::Token => api_clients.device_code,
            Endpoint::KeptPost => keeps_posts,
            _ => true,
        };
        let written = written.into_iter().filter(|(endpoint, ..)| is_on(*endpoint));
        let callbacks = providers.iter().map(|provider| provider.redirect_uri.path().to_owned());
        let mut paths: Vec<(Endpoint, String)> =
            callbacks.enumerate().map(|(index, path)| (Endpoint::Callback(index), path)).collect();
        for (endpoint, path, default) in written {
            let leaf = endpoint.name();
            let key = format!("endpoints.{leaf}");
            let path = match path {
                Some(PathOrOff::Switch(false)) => continue,
                Some(PathOrOff::Switch(true)) | None => format!("{prefix}/{default}"),
                Some(PathOrOff::Path(path)) => path,
            };
            if path == "/" || path.ends_with('/') || unusable(&path) {
                let what = format!("is {}, no path for an endpoint", shown(&path));
                self.error(&key, what, format!("write a whole path such as \"{prefix}/{default}\", or false"));
                continue;
            }
            if let Some((other, _)) = paths.iter().find(|(_, earlier)| *earlier == path) {
                let (key, other) = match other {
                    Endpoint::Callback(index) => match providers {
                        [_] => ("provider.redirect_uri".to_owned(), leaf),
                        several => (format!("{}.redirect_uri", below("providers", &several[*index].id)), leaf),
                    },
                    other => (key, other.name()),
                };
                self.error(
                    &key,
                    format!("has the path {path}, which is that of endpoints.{other} too"),
                    "choose another path",
                );
                continue;
            }
            paths.push((endpoint, path));
        }
        let path_of = |endpoint| {
            let found = paths.iter().find(|(one, _)| *one == endpoint);
            found.map(|(_, path)| path.clone())
        };
        let settings = endpoints::Settings {
            login_path: path_of(Endpoint::Login),
            logout_path: path_of(Endpoint::Logout),
            signed_out_path: path_of(Endpoint::SignedOut),
            kept_post_path: path_of(Endpoint::KeptPost),
            return_origins,
            api_clients,
            sign_in_rate: None,
            accepts_bearer: false,
        };
        Endpoints { prefix, paths, settings }
    }

    fn prefix(&mut self, written: Option<String>) -> String {
        const DEFAULT: &str = "/auth";
        let Some(prefix) = written else { return DEFAULT.to_owned() };
        let trimmed = prefix.strip_suffix('/').unwrap_or(&prefix);
        if trimmed.is_empty() || trimmed.ends_with('/') || unusable(trimmed) {
            let what = format!("is {}, no prefix for our endpoints", shown(&prefix));
            self.error("endpoints.prefix", what, "write a path such as \"/auth\": everything below it is ours");
            return DEFAULT.to_owned();
        }
        trimmed.to_owned()
    }
}
