//! `[bearer]`, and how each provider's access tokens are verified.

use super::Resolver;
use crate::authn::oidc::access_token::AccessTokens;
use crate::authn::{bearer, oidc};
use crate::config::raw::{RawAccessTokenFormat, RawBearer, RawIntrospection};

impl Resolver {
    pub(super) fn bearer(&mut self, raw: RawBearer, providers: &[oidc::Settings]) -> Option<bearer::Settings> {
        let audiences = raw.audiences.unwrap_or_default();
        if !raw.accept.unwrap_or(false) {
            if !audiences.is_empty() {
                self.error("bearer.audiences", "is for access tokens, which are not taken", "add accept = true");
            }
            return None;
        }
        if audiences.is_empty() || audiences.iter().any(|audience| audience.trim().is_empty()) {
            let what = "is missing: a token for any other application would be taken";
            self.error("bearer.audiences", what, "name what the provider writes into aud, such as [\"api\"]");
        }
        let kinds: Vec<_> = providers.iter().map(|provider| provider.access_tokens).collect();
        if !bearer::are_told_apart(&kinds) {
            let what = "does not say whose opaque tokens are: with several providers each would see the others'";
            self.error("bearer.accept", what, "write access_token_format = \"jwt\" for all of them");
        }
        let says_no_tenant =
            |one: &&oidc::Settings| one.tenants.is_some() && one.access_tokens == AccessTokens::Userinfo;
        if let Some(provider) = providers.iter().find(says_no_tenant) {
            let what = format!(
                "cannot tell the tenants of {:?} apart: its userinfo does not say whose a token is",
                provider.id
            );
            self.error("bearer.accept", what, "write access_token_format = \"jwt\" there, or introspection = \"json\"");
        }
        if kinds.contains(&AccessTokens::Userinfo) {
            let what = "takes the token of every client of the provider: userinfo does not say whom a token is for";
            self.warn("bearer.accept", what, "write introspection = \"json\" in [provider], if it offers that");
        }
        Some(bearer::Settings { audiences })
    }

    pub(super) fn access_tokens(
        &mut self,
        at: &str,
        format: Option<RawAccessTokenFormat>,
        introspection: Option<RawIntrospection>,
    ) -> AccessTokens {
        match (format, introspection) {
            (Some(RawAccessTokenFormat::Opaque), None) => AccessTokens::Userinfo,
            (Some(RawAccessTokenFormat::Opaque), Some(kind)) => {
                AccessTokens::Introspection { signed: kind == RawIntrospection::Jwt }
            }
            (_, Some(_)) => {
                let what = "is for opaque access tokens";
                self.error(&format!("{at}.introspection"), what, "add access_token_format = \"opaque\", or remove it");
                AccessTokens::Jwt
            }
            (Some(RawAccessTokenFormat::AtJwt), None) => AccessTokens::Rfc9068,
            (_, None) => AccessTokens::Jwt,
        }
    }
}
