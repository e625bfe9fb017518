//! `admin_listen` and `admin_token`: where and by whom sessions are listed and ended.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Resolver;
use super::session::{GENERATE, one_line};
use crate::authn::{oidc, session};
use crate::config::Admin;
use crate::config::raw::RawConfig;
use crate::config::secrets::weakness;
use crate::secret::SecretString;

/// Where it is unless that is said.
const DEFAULT: ([u8; 4], u16) = ([127, 0, 0, 1], 9090);

impl Resolver {
    pub(super) fn admin(&mut self, raw: &RawConfig) -> Admin {
        let listen = match &raw.admin_listen {
            Some(address) => address.0,
            None => Some(SocketAddr::from(DEFAULT)),
        };
        let token = self.admin_token(raw.admin_token.as_ref(), raw.admin_token_file.as_ref());
        if let Some((key, _)) = &token {
            match listen {
                None => {
                    let what = "is for the admin listener, which is off";
                    self.error(key, what, "remove it, or give admin_listen an address");
                }
                Some(address) if !address.ip().is_loopback() => {
                    let what = format!("crosses the network unencrypted on its way to admin_listen, {address}");
                    let fix = "listen on 127.0.0.1, or let nobody else into that network";
                    self.warn(key, what, fix);
                }
                Some(_) => {}
            }
        }
        Admin { listen, token: token.map(|(_, token)| token) }
    }

    /// With the key that it came by.
    fn admin_token(
        &mut self,
        written: Option<&SecretString>,
        file: Option<&PathBuf>,
    ) -> Option<(&'static str, SecretString)> {
        let (key, token) = match (written, file) {
            (Some(_), Some(_)) => {
                self.error("admin_token_file", "says again what admin_token does already", "keep one of them");
                return None;
            }
            (Some(token), None) => ("admin_token", one_line(token.expose_secret())),
            (None, Some(path)) => ("admin_token_file", one_line(&self.secret_file("admin_token_file", path)?)),
            (None, None) => return None,
        };
        let mut why = weakness(&token);
        // RFC 6750 §2.1: what a header can carry.
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            why = Some("holds what no Authorization header can carry: white space or letters beyond ASCII".to_owned());
        }
        if let Some(why) = why {
            self.error(key, why, GENERATE);
            return None;
        }
        Some((key, SecretString::new(token)))
    }

    /// Whoever has one of the others must not end everybody's sessions, nor whoever may do that read them.
    pub(super) fn own_admin_token(
        &mut self,
        admin: &Admin,
        session: Option<&session::Settings>,
        providers: &[oidc::Settings],
    ) {
        let Some(token) = &admin.token else { return };
        let clients = providers.iter().filter_map(|provider| provider.credentials.client_secret.as_ref());
        let sessions = session.into_iter().flat_map(|session| &session.secrets);
        if clients.chain(sessions).any(|other| other.expose_secret() == token.expose_secret()) {
            self.error("admin_token", "is a secret that is used for something else too", GENERATE);
        }
    }
}
