//! What everything but ID tokens may be signed with.

use super::Resolver;
use crate::authn::oidc::algorithms::AnswerAlgorithms;
use crate::authn::oidc::jose::Algorithm;
use crate::authn::oidc::security::Profile;
use crate::config::raw::RawProvider;

impl Resolver {
    pub(super) fn answer_algs(&mut self, at: &str, raw: &mut RawProvider, has_secret: bool) -> AnswerAlgorithms {
        let mut named = |leaf, written| self.signing_algs(at, leaf, written, has_secret);
        let algorithms = AnswerAlgorithms {
            userinfo: named("userinfo_signing_algs", raw.userinfo_signing_algs.take()),
            authorization: named("authorization_signing_algs", raw.authorization_signing_algs.take()),
            introspection: named("introspection_signing_algs", raw.introspection_signing_algs.take()),
            access_token: named("access_token_signing_algs", raw.access_token_signing_algs.take()),
        };
        if let Some(symmetric) = algorithms.access_token.iter().find(|algorithm| algorithm.is_symmetric()) {
            let what = format!("names {}: whoever knows the client secret could make tokens", symmetric.name());
            self.error(&format!("{at}.access_token_signing_algs"), what, "name asymmetric ones, such as RS256");
        }
        algorithms
    }

    /// FAPI 2.0 Security Profile §5.4.1.
    pub(super) fn answers_fit(&mut self, at: &str, profile: Profile, algorithms: &AnswerAlgorithms) {
        if profile != Profile::Fapi2 {
            return;
        }
        let AnswerAlgorithms { userinfo, authorization, introspection, access_token } = algorithms;
        for (leaf, named) in [
            ("userinfo_signing_algs", userinfo),
            ("authorization_signing_algs", authorization),
            ("introspection_signing_algs", introspection),
            ("access_token_signing_algs", access_token),
        ] {
            let is_weak = |algorithm: &&Algorithm| !profile.algorithms().contains(algorithm);
            if let Some(weak) = named.iter().find(is_weak) {
                let what = format!(
                    "contradicts profile = \"fapi2\": {} is not among PS256, ES256 and EdDSA (§5.4.1)",
                    weak.name()
                );
                self.error(&format!("{at}.{leaf}"), what, "name only those, or remove it");
            }
        }
    }
}
