//! Providers with an issuer for each tenant.

use url::Url;

use super::Resolver;
use crate::authn::oidc::tenants::Tenants;
use crate::config::problem::shown;
use crate::config::raw::RawProvider;

impl Resolver {
    /// Whom it lets in is never left open: any tenant of such a provider can be made by anybody.
    pub(super) fn tenants(&mut self, at: &str, raw: &mut RawProvider) -> Option<Tenants> {
        const EXAMPLE: &str = "for example [\"8f1c2c4b-7a0e-4b5e-9c43-0d2f5a6b7c8d\"]";
        let (template_key, allowed_key) = (format!("{at}.issuer_template"), format!("{at}.allowed_tenants"));
        let (template, allowed) = (raw.issuer_template.take(), raw.allowed_tenants.take());
        let (template, allowed) = match (template, allowed) {
            (None, None) => return None,
            (Some(template), Some(allowed)) => (template, allowed),
            (Some(_), None) => {
                self.error(&allowed_key, "is missing beside issuer_template", EXAMPLE);
                return None;
            }
            (None, Some(_)) => {
                let fix = "write issuer_template as the discovery document writes its issuer, or remove it";
                self.error(&allowed_key, "means nothing without issuer_template", fix);
                return None;
            }
        };
        let is_any = matches!(&*allowed, [all] if all == "*");
        if let Some(bad) = allowed.iter().find(|tenant| !is_any && !Tenants::is_tenant(tenant)) {
            self.error(&allowed_key, format!("names {}, no tenant", shown(bad)), EXAMPLE);
        } else if allowed.is_empty() {
            self.error(&allowed_key, "is an empty list: nobody could ever sign in", EXAMPLE);
        } else if is_any {
            let what = "lets people of every tenant in, and anybody can have one";
            self.warn(&allowed_key, what, "name the tenants, or let roles and groups decide");
        }
        let tenants = Tenants::new(&template, &allowed);
        let origin = |text: &str| Url::parse(text).ok().map(|url| url.origin());
        // In the host it would let the tenant choose who signs.
        let filled = origin(&template.replace("{tenantid}", "a"));
        let is_in_path = filled.is_some() && filled == origin(&template.replace("{tenantid}", "b"));
        let is_of_issuer = raw.issuer.as_deref().is_none_or(|issuer| origin(issuer) == filled);
        if tenants.is_none() || !is_in_path {
            let fix = "for example \"https://login.microsoftonline.com/{tenantid}/v2.0\"";
            self.error(&template_key, "is no URL with one {tenantid} in its path", fix);
        } else if !is_of_issuer {
            self.error(&template_key, "is at another place than issuer", "write both as the provider does");
        }
        tenants
    }
}
