//! What every authorization request at a provider asks for (OpenID Connect Core §3.1.2.1 and §5.5; resource indicators, RFC
//! 8707; rich authorization requests, RFC 9396), and what one sign-in changes in it.

use std::time::Duration;

use serde_json::{Map, Value, json};
use url::Url;

use super::demands::Demands;
use super::jose;
use super::wish::Wish;

/// Parameters with a setting of their own. None of them is sent unless it is set.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// `acr_values`: voluntary, so nothing is held against the answer.
    pub acr_values: Vec<String>,
    /// `login_hint`.
    pub login_hint: Option<String>,
    /// `ui_locales`.
    pub ui_locales: Vec<String>,
    /// `prompt`, never `none`.
    pub prompt: Option<String>,
    /// `claims`.
    pub claims: Option<Map<String, Value>>,
    /// `resource`, in the token request too (RFC 8707 §2.2).
    pub resources: Vec<String>,
    /// `authorization_details`, as written.
    pub authorization_details: Option<String>,
}

impl Ask {
    /// The parameters that have settings of their own.
    pub const NAMES: [&str; 8] =
        ["acr_values", "authorization_details", "claims", "login_hint", "max_age", "prompt", "resource", "ui_locales"];

    /// As parameters, with what `wish` asks for in place of what all sign-ins do.
    ///
    /// A required `acr` is asked for as an essential claim where the provider `takes_claims`, else as `acr_values`: both at
    /// once would be unspecified (Core §5.5.1.1).
    pub(super) fn parameters(&self, demands: &Demands, wish: &Wish, takes_claims: bool) -> Vec<(&'static str, String)> {
        let required = Some(&demands.required_acr).filter(|required| !required.is_empty());
        let mut claims = self.claims.clone();
        let mut acr_values = Some(&self.acr_values).filter(|values| !values.is_empty());
        if let (Some(required), None) = (required, &wish.acr_values) {
            if takes_claims {
                acr_values = None;
                insist_on_acr(claims.get_or_insert_default(), required);
            } else if acr_values.is_none() {
                acr_values = Some(required);
            }
        }
        let words = |list: &[String]| Some(list.join(" ")).filter(|text| !text.is_empty());
        let max_age = demands.max_age_with(wish).map(|age| age.as_secs().to_string());
        let single = [
            ("acr_values", wish.acr_values.clone().or_else(|| words(acr_values?))),
            ("max_age", max_age),
            ("login_hint", wish.login_hint.clone().or_else(|| self.login_hint.clone())),
            ("ui_locales", words(&self.ui_locales)),
            ("prompt", wish.renewing.map(|_| "none".to_owned()).or_else(|| self.prompt.clone())),
            ("claims", claims.map(|claims| Value::Object(claims).to_string())),
            ("authorization_details", self.authorization_details.clone()),
        ];
        let single = single.into_iter().filter_map(|(name, value)| Some((name, value?)));
        single.chain(self.resources.iter().map(|resource| ("resource", resource.clone()))).collect()
    }

    /// What is sent to the token endpoint, with each resource that tokens are for (RFC 8707 §2.2).
    pub(super) fn with_resources<'a>(&'a self, parameters: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
        let resources = self.resources.iter().map(|resource| ("resource", resource.as_str()));
        parameters.iter().copied().chain(resources).collect()
    }

    /// Reads a `claims` parameter (Core §5.5).
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence.
    pub fn read_claims(text: &str) -> Result<Map<String, Value>, &'static str> {
        let claims = jose::json_object(text.as_bytes()).map_err(|_| "is no JSON object that reads in one way")?;
        for (name, members) in claims.iter().filter(|(name, _)| *name == "userinfo" || *name == "id_token") {
            let members = members.as_object().ok_or("has a member that is no object")?;
            if name == "id_token" && members.contains_key("nonce") {
                return Err("asks for a nonce, which is Vestibule's own");
            }
            // §5.5.1: null, or an object.
            if !members.values().all(|one| one.is_null() || one.is_object()) {
                return Err("asks for a claim by something other than null or an object");
            }
        }
        match claims.contains_key("userinfo") || claims.contains_key("id_token") {
            true => Ok(claims),
            false => Err("has neither of the members \"id_token\" and \"userinfo\""),
        }
    }

    /// Whether `text` is an `authorization_details` parameter (RFC 9396 §2).
    pub fn is_details(text: &str) -> bool {
        let wrapped = format!("{{\"details\":{text}}}");
        let has_type = |one: &Value| one.get("type").is_some_and(Value::is_string);
        // Read as part of an object, for names that stand twice; one member more would be another text.
        jose::json_object(wrapped.as_bytes()).is_ok_and(|object| {
            let list = object.get("details").and_then(Value::as_array);
            object.len() == 1 && list.is_some_and(|list| !list.is_empty() && list.iter().all(has_type))
        })
    }

    /// Whether `text` is a `resource` (RFC 8707 §2): an absolute URI without fragment.
    pub fn is_resource(text: &str) -> bool {
        Url::parse(text).is_ok() && !text.contains('#') && text.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

/// Core §5.5.1.1. What the settings write about `acr` themselves stays.
fn insist_on_acr(claims: &mut Map<String, Value>, required: &[String]) {
    let in_id_token = claims.entry("id_token").or_insert_with(|| json!({}));
    if let Some(members) = in_id_token.as_object_mut() {
        members.entry("acr").or_insert_with(|| json!({ "essential": true, "values": required }));
    }
}

/// The longest `max_age` that fits into every provider's integers.
pub const LONGEST_MAX_AGE: Duration = Duration::from_secs(i32::MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::oidc::vectors::published;

    fn list(values: &[&str]) -> Vec<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    fn text(parameters: &[(&'static str, String)]) -> String {
        parameters.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    }

    #[test]
    fn a_required_acr_is_asked_for_in_one_way_only() {
        let demands = Demands { required_acr: list(&["gold", "silver"]), ..Demands::default() };
        let ask = Ask { acr_values: list(&["silver"]), ..Ask::default() };
        let essential = r#"claims={"id_token":{"acr":{"essential":true,"values":["gold","silver"]}}}"#;
        assert_eq!(text(&ask.parameters(&demands, &Wish::default(), true)), essential);
        assert_eq!(text(&ask.parameters(&demands, &Wish::default(), false)), "acr_values=silver");
        assert_eq!(text(&Ask::default().parameters(&demands, &Wish::default(), false)), "acr_values=gold silver");
        let wish = Wish { acr_values: Some("gold".into()), ..Wish::default() };
        assert_eq!(text(&ask.parameters(&demands, &wish, true)), "acr_values=gold");
        let claims = Ask::read_claims(r#"{"userinfo":{"name":null},"id_token":{"acr":{"value":"gold"}}}"#).unwrap();
        let ask = Ask { claims: Some(claims), ..Ask::default() };
        let written = r#"claims={"userinfo":{"name":null},"id_token":{"acr":{"value":"gold"}}}"#;
        assert_eq!(text(&ask.parameters(&demands, &Wish::default(), true)), written);
    }

    #[test]
    fn what_one_sign_in_asks_for_stands_above_the_settings_but_never_loosens_them() {
        let demands = Demands { max_age: Some(Duration::from_secs(60)), ..Demands::default() };
        let ask = Ask { login_hint: Some("ada".into()), ..Ask::default() };
        let wish = |max_age| Wish { login_hint: Some("grace".into()), max_age, ..Wish::default() };
        assert_eq!(text(&ask.parameters(&demands, &wish(Some(5)), true)), "max_age=5&login_hint=grace");
        assert_eq!(text(&ask.parameters(&demands, &wish(Some(500)), true)), "max_age=60&login_hint=grace");
        assert_eq!(text(&ask.parameters(&Demands::default(), &wish(None), true)), "login_hint=grace");
    }

    #[test]
    fn each_resource_is_a_parameter_of_its_own() {
        let ask = Ask { resources: list(&["https://a.example/", "urn:b"]), ..Ask::default() };
        let parameters = ask.parameters(&Demands::default(), &Wish::default(), true);
        assert_eq!(text(&parameters), "resource=https://a.example/&resource=urn:b");
    }

    #[test]
    fn the_examples_of_rfc_9396_are_asked_for_as_they_are_written() {
        let examples = &published()["rfc9396"];
        let one = &examples["2.1"];
        assert!(!Ask::is_details(&one.to_string()), "an object alone is none");
        let lists = examples["2.2"].as_array().unwrap().iter().cloned();
        for details in lists.chain([examples["2"].clone(), json!([one])]) {
            assert!(Ask::is_details(&details.to_string()) && Ask::is_details(&format!("{details:#}")), "{details}");
        }
        let query = examples["3"].as_str().unwrap();
        let sent = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "authorization_details");
        let written = sent.unwrap().1.into_owned();
        assert!(Ask::is_details(&written));
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), examples["2"]);
        let ask = Ask { authorization_details: Some(written.clone()), ..Ask::default() };
        let asked = ask.parameters(&Demands::default(), &Wish::default(), true);
        assert_eq!(asked, [("authorization_details", written)]);
    }

    #[test]
    fn what_is_no_claims_parameter_no_details_and_no_resource_is_found_out() {
        for bad in ["", "[]", "{}", "{\"id_token\":1}", "{\"id_token\":{\"a\":1}}", "{\"id_token\":{\"nonce\":null}}"] {
            assert!(Ask::read_claims(bad).is_err(), "{bad}");
        }
        assert!(Ask::read_claims(r#"{"id_token":{},"id_token":{}}"#).is_err());
        assert!(Ask::is_details(r#"[{"type":"payment","amount":{"v":1}}]"#));
        for bad in [
            "",
            "[]",
            "{}",
            "[{}]",
            "[1]",
            r#"[{"type":1}]"#,
            r#"[{"type":"a","type":"b"}]"#,
            r#"[{"type":"a"}],"x":1"#,
        ] {
            assert!(!Ask::is_details(bad), "{bad}");
        }
        assert!(Ask::is_resource("https://api.example/v1?x=1") && Ask::is_resource("urn:example:api"));
        for bad in ["", "/v1", "api", "https://api.example/#x", "https://api.example/#", "https://a b.example"] {
            assert!(!Ask::is_resource(bad), "{bad}");
        }
    }
}
