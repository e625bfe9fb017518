//! What a provider is asked for, and what its ID tokens must say.

use std::time::Duration;

use super::Resolver;
use crate::authn::oidc::ask::{Ask, LONGEST_MAX_AGE};
use crate::authn::oidc::demands::Demands;
use crate::config::problem::shown;
use crate::config::raw::RawProvider;
use crate::config::text::Span;

impl Resolver {
    pub(super) fn ask(&mut self, at: &str, raw: &mut RawProvider) -> Ask {
        let key = |leaf: &str| format!("{at}.{leaf}");
        let claims = raw.claims.take().and_then(|text| match Ask::read_claims(&text) {
            Ok(claims) => Some(claims),
            Err(what) => {
                self.error(&key("claims"), what, "for example '{\"id_token\":{\"email\":{\"essential\":true}}}'");
                None
            }
        });
        let authorization_details = raw.authorization_details.take();
        if authorization_details.as_deref().is_some_and(|text| !Ask::is_details(text)) {
            let what = "is no JSON list of objects with a \"type\"";
            self.error(&key("authorization_details"), what, "for example '[{\"type\":\"payment\"}]'");
        }
        let resources = raw.resource.take().map(|one| one.into_vec()).unwrap_or_default();
        if let Some(bad) = resources.iter().find(|resource| !Ask::is_resource(resource)) {
            let what = format!("names {}, no absolute URI without #", shown(bad));
            self.error(&key("resource"), what, "for example [\"https://api.example.com\"]");
        }
        let login_hint = raw.login_hint.take();
        if login_hint.as_deref().is_some_and(|hint| hint.is_empty() || hint.chars().any(char::is_control)) {
            self.error(&key("login_hint"), "is empty or has control characters", "for example \"ada@example.com\"");
        }
        Ask {
            acr_values: self.words(&key("acr_values"), raw.acr_values.take(), "gold"),
            login_hint,
            ui_locales: self.words(&key("ui_locales"), raw.ui_locales.take(), "de"),
            prompt: self.prompt(&key("prompt"), raw.prompt.take()),
            claims,
            resources,
            authorization_details,
        }
    }

    pub(super) fn demands(&mut self, at: &str, raw: &mut RawProvider) -> Demands {
        let key = |leaf: &str| format!("{at}.{leaf}");
        let max_age = raw.max_age.take().map(|Span(span)| span);
        if max_age.is_some_and(|age| age.subsec_nanos() != 0 || age > LONGEST_MAX_AGE) {
            self.error(&key("max_age"), "is not a number of whole seconds up to 68 years", "for example \"8h\"");
        }
        let max_token_age = raw.max_token_age.take().map(|Span(span)| span);
        if max_token_age.is_some_and(|age| age < Duration::from_secs(1)) {
            self.error(&key("max_token_age"), "is shorter than a second", "for example \"5m\"");
        }
        Demands {
            max_token_age,
            required_acr: self.words(&key("required_acr"), raw.required_acr.take(), "gold"),
            max_age,
        }
    }

    /// Core §3.1.3.7 item 9: "usually no more than a few minutes".
    pub(super) fn clock_skew(&mut self, at: &str, written: Option<Span>) -> Duration {
        let skew = written.map_or(Duration::from_secs(30), |Span(span)| span);
        if skew > Duration::from_secs(600) {
            let what = "is more than ten minutes: expired tokens would pass";
            self.error(&format!("{at}.clock_skew"), what, "for example \"30s\"");
        }
        skew
    }

    /// Values that travel in one parameter, separated by spaces.
    fn words(&mut self, key: &str, written: Option<Vec<String>>, example: &str) -> Vec<String> {
        let words = written.unwrap_or_default();
        if let Some(bad) =
            words.iter().find(|word| word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let what = format!("names {}, which is empty or has spaces or other letters", shown(bad));
            self.error(key, what, format!("for example [{example:?}]"));
        }
        words
    }

    /// Core §11: a provider ignores `offline_access` without consent, unless it has other reasons to grant it.
    pub(super) fn consent(&mut self, at: &str, scopes: &[String], prompt: &mut Option<String>) {
        let wanted = scopes.iter().any(|scope| scope == "offline_access");
        match prompt.as_deref() {
            None if wanted => *prompt = Some("consent".to_owned()),
            // Written empty: nothing at all is asked for.
            Some("") => *prompt = None,
            Some(words) if wanted && !words.split(' ').any(|word| word == "consent") => {
                let what = "has no consent, without which many providers ignore the scope offline_access";
                self.warn(&format!("{at}.prompt"), what, format!("write \"{words} consent\", if yours is one of them"));
            }
            _ => {}
        }
    }

    fn prompt(&mut self, key: &str, written: Option<String>) -> Option<String> {
        let text = written.as_deref()?;
        let words: Vec<_> = text.split(' ').collect();
        if text.is_empty() {
            return written;
        }
        if words.contains(&"none") {
            let what = "is none, with which nobody could ever sign in anew";
            self.error(key, what, "write \"login\", \"consent\" or \"select_account\", or remove it");
        } else if words.iter().any(|word| word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_graphic())) {
            self.error(key, "is no list of words with one space between", "for example \"select_account\"");
        }
        written
    }
}
