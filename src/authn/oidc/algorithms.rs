//! What each kind of token may be signed with: an algorithm is registered for each of them apart (OpenID Connect Registration
//! §2 for ID tokens and userinfo, JARM §3, RFC 9701 §6), so that one says nothing of the others.

use super::capabilities::{Capabilities, algorithms};
use super::jose::Algorithm;
use super::known::Known;
use super::settings::Settings;

/// What the settings name for everything but ID tokens and logout tokens; an empty list names nothing.
#[derive(Debug, Clone, Default)]
pub struct AnswerAlgorithms {
    /// Signed userinfo. Where one is named, userinfo that is not signed is refused.
    pub userinfo: Vec<Algorithm>,
    /// Signed authorization responses.
    pub authorization: Vec<Algorithm>,
    /// Signed introspection answers.
    pub introspection: Vec<Algorithm>,
    /// Access tokens that are verified here.
    pub access_token: Vec<Algorithm>,
}

/// A kind of signed token that is no ID token and no logout token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Userinfo,
    Authorization,
    Introspection,
    AccessToken,
}

impl Kind {
    /// What the metadata offer for it; of access tokens they say nothing.
    pub(super) fn offered(self, capabilities: &Capabilities) -> &[String] {
        match self {
            Self::Userinfo => &capabilities.userinfo_signing_algs,
            Self::Authorization => &capabilities.authorization_signing_algs,
            Self::Introspection => &capabilities.introspection_signing_algs,
            Self::AccessToken => &[],
        }
    }

    fn named(self, settings: &Settings) -> &[Algorithm] {
        match self {
            Self::Userinfo => &settings.answer_algs.userinfo,
            Self::Authorization => &settings.answer_algs.authorization,
            Self::Introspection => &settings.answer_algs.introspection,
            Self::AccessToken => &settings.answer_algs.access_token,
        }
    }

    /// What it may be signed with by the provider of `known`.
    pub(super) fn algorithms(self, known: &Known) -> Vec<Algorithm> {
        known.settings.algorithms_of(self, &known.metadata.capabilities)
    }
}

/// What ID tokens and logout tokens may be signed with.
pub(super) fn of_id_tokens(known: &Known) -> Vec<Algorithm> {
    known.settings.allowed_algorithms(&known.metadata.id_token_signing_algs)
}

impl Settings {
    /// What ID tokens may be signed with, given what the metadata offers. HMAC is never taken from there: the secret is
    /// enough to sign with it.
    pub(super) fn allowed_algorithms(&self, offered: &[Algorithm]) -> Vec<Algorithm> {
        if self.is_symmetric() {
            return self.signing_algs.clone();
        }
        let wanted = if self.signing_algs.is_empty() { offered } else { &self.signing_algs };
        let mut allowed = asymmetric(wanted);
        if allowed.is_empty() && self.signing_algs.is_empty() {
            // Discovery §3: every provider must offer it.
            allowed.push(Algorithm::RS256);
        }
        allowed
    }

    /// Whether the client is registered for one HMAC algorithm, so that the provider's key set plays no part in ID tokens.
    pub(super) fn is_symmetric(&self) -> bool {
        matches!(*self.signing_algs, [only] if only.is_symmetric()) && self.credentials.client_secret.is_some()
    }

    /// What a token of this kind may be signed with: what is named, else every asymmetric one that the metadata offer.
    pub(super) fn algorithms_of(&self, kind: Kind, capabilities: &Capabilities) -> Vec<Algorithm> {
        let named = kind.named(self);
        if let [only] = named
            && only.is_symmetric()
        {
            return named.to_vec();
        }
        if !named.is_empty() {
            return asymmetric(named);
        }
        let offered = algorithms(kind.offered(capabilities)).filter(|offered| !offered.is_empty());
        let is_offered = |one: &Algorithm| offered.as_ref().is_none_or(|offered| offered.contains(one));
        let mut allowed = self.security.profile.algorithms().to_vec();
        // Whoever signs its ID tokens with the secret does so with the rest, as a rule; whoever presents a token knows none.
        if self.is_symmetric() && kind != Kind::AccessToken {
            allowed.extend(&self.signing_algs);
        }
        allowed.retain(is_offered);
        allowed
    }
}

fn asymmetric(algorithms: &[Algorithm]) -> Vec<Algorithm> {
    algorithms.iter().copied().filter(|algorithm| !algorithm.is_symmetric()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::oidc::provider::test_settings;
    use crate::authn::oidc::security::Profile;

    #[test]
    fn each_kind_of_answer_has_algorithms_of_its_own() {
        use Algorithm::*;
        let mut settings = test_settings("https://id.example");
        settings.signing_algs = vec![ES256];
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let capabilities = Capabilities {
            userinfo_signing_algs: names(&["none", "HS256", "RS256", "PS256"]),
            authorization_signing_algs: names(&["ES384"]),
            ..Capabilities::default()
        };
        let of = |settings: &Settings, kind| settings.algorithms_of(kind, &capabilities);
        assert_eq!(of(&settings, Kind::Userinfo), [RS256, PS256], "what is named for ID tokens is for those");
        assert_eq!(of(&settings, Kind::Authorization), [ES384]);
        assert_eq!(of(&settings, Kind::Introspection), Algorithm::ASYMMETRIC, "where nothing is said");
        settings.answer_algs.userinfo = vec![EdDSA];
        settings.answer_algs.introspection = vec![HS256];
        assert_eq!((of(&settings, Kind::Userinfo), of(&settings, Kind::Introspection)), (vec![EdDSA], vec![HS256]));
        settings.signing_algs = vec![HS256];
        assert_eq!(of(&settings, Kind::Authorization), [ES384], "not offered, so not taken");
        assert!(!of(&settings, Kind::AccessToken).iter().any(|algorithm| algorithm.is_symmetric()));
        settings.signing_algs = Vec::new();
        settings.security.profile = Profile::Fapi2;
        assert_eq!(of(&settings, Kind::AccessToken), Profile::Fapi2.algorithms());
        assert_eq!(of(&settings, Kind::Authorization), []);
    }

    #[test]
    fn the_secret_signs_the_other_answers_too_where_it_signs_id_tokens() {
        let mut settings = test_settings("https://id.example");
        settings.signing_algs = vec![Algorithm::HS256];
        let allowed = settings.algorithms_of(Kind::Userinfo, &Capabilities::default());
        assert!(allowed.contains(&Algorithm::HS256) && allowed.contains(&Algorithm::RS256), "{allowed:?}");
        assert!(!allowed.contains(&Algorithm::HS512));
    }
}
