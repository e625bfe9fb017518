//! Issuers of a provider with many tenants (OpenID Connect Core §3.1.3.7 item 2 for each of them): one discovery document, whose
//! `issuer` is a template, and ID tokens whose `iss` is that template filled with the token's own tenant (`tid`), as Microsoft
//! Entra ID has it.

use serde_json::{Map, Value};

/// What stands for the tenant in a template.
const PLACE: &str = "{tenantid}";

/// Whose ID tokens are taken. Never made without saying so for every tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenants {
    before: String,
    after: String,
    allowed: Allowed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Allowed {
    Any,
    These(Vec<String>),
}

impl Tenants {
    /// Of a template with exactly one `{tenantid}`; `None` for any other. An `allowed` that is `*` alone is every tenant.
    pub fn new(template: &str, allowed: &[String]) -> Option<Self> {
        let (before, after) = template.split_once(PLACE).filter(|(_, after)| !after.contains(PLACE))?;
        let allowed = match allowed {
            [all] if all == "*" => Allowed::Any,
            these => Allowed::These(these.to_vec()),
        };
        Some(Self { before: before.to_owned(), after: after.to_owned(), allowed })
    }

    /// Those that are named; `None` where every tenant is let in.
    pub fn named(&self) -> Option<&[String]> {
        match &self.allowed {
            Allowed::Any => None,
            Allowed::These(these) => Some(these),
        }
    }

    /// Whether it could be a tenant: nothing that changes what a URL means.
    pub fn is_tenant(text: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        (1..=255).contains(&text.len()) && text.bytes().all(plain) && !text.bytes().all(|byte| byte == b'.')
    }

    /// As the discovery document writes it.
    pub(super) fn template(&self) -> String {
        format!("{}{PLACE}{}", self.before, self.after)
    }

    /// Whether `issuer` is that of an allowed tenant.
    pub fn has(&self, issuer: &str) -> bool {
        self.tenant_of(issuer).is_some()
    }

    /// Whether `issuer` is that of the allowed tenant that the token names.
    pub(super) fn fits(&self, issuer: &str, claims: &Map<String, Value>) -> bool {
        let tenant = claims.get("tid").and_then(Value::as_str);
        tenant.is_some() && self.tenant_of(issuer) == tenant
    }

    /// The tenant whose issuer it is, if that is allowed.
    pub fn tenant_of<'i>(&self, issuer: &'i str) -> Option<&'i str> {
        let tenant = issuer.strip_prefix(&self.before)?.strip_suffix(&self.after)?;
        let is_allowed = match &self.allowed {
            Allowed::Any => true,
            Allowed::These(these) => these.iter().any(|one| one == tenant),
        };
        (is_allowed && Self::is_tenant(tenant)).then_some(tenant)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEMPLATE: &str = "https://login.example/{tenantid}/v2.0";

    fn fits(allowed: &str, issuer: &str, tid: Value) -> bool {
        let tenants = Tenants::new(TEMPLATE, &[allowed.to_owned()]).unwrap();
        tenants.fits(issuer, json!({ "tid": tid }).as_object().unwrap())
    }

    #[test]
    fn the_issuer_is_the_template_with_the_tokens_own_tenant_and_that_is_allowed() {
        let issuer = |tenant: &str| TEMPLATE.replace(PLACE, tenant);
        assert!(fits("t-1", &issuer("t-1"), json!("t-1")) && fits("*", &issuer("t-2"), json!("t-2")));
        for (allowed, issuer, tid) in [
            ("t-1", issuer("t-2"), json!("t-2")),
            ("t-1", issuer("t-1"), json!("t-2")),
            ("t-1", issuer("t-2"), json!("t-1")),
            ("*", issuer("t-1"), Value::Null),
            ("*", issuer("t-1"), json!(["t-1"])),
            ("*", issuer(""), json!("")),
            ("*", issuer(".."), json!("..")),
            ("*", issuer("a/b"), json!("a/b")),
            ("*", issuer("a?b"), json!("a?b")),
            ("*", issuer(PLACE), json!(PLACE)),
            ("*", "https://login.example/v2.0".to_owned(), json!("")),
            ("*", format!("{}/", issuer("t-1")), json!("t-1")),
            ("*", issuer("t-1").replace("login", "evil"), json!("t-1")),
            ("t-1", issuer("T-1"), json!("T-1")),
        ] {
            assert!(!fits(allowed, &issuer, tid.clone()), "{allowed} {issuer} {tid}");
        }
    }

    #[test]
    fn a_template_has_one_place() {
        for bad in ["https://login.example/v2.0", "https://login.example/{tenantid}/{tenantid}"] {
            assert_eq!(Tenants::new(bad, &["*".to_owned()]), None, "{bad}");
        }
        assert_eq!(Tenants::new(TEMPLATE, &["*".to_owned()]).unwrap().template(), TEMPLATE);
    }
}
