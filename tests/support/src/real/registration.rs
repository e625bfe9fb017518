//! Clients of one test's own, for what names its port: back-channel and front-channel logout, request objects by reference.

use http::Method;
use serde_json::{Value, json};

use super::{Kind, RealProvider, address};
use crate::browser::{Browser, Request};
use crate::{TestClock, random_text};

impl RealProvider {
    /// Registers a client of this test's own. `metadata` is written over what every client has: for Keycloak in the words of
    /// its admin API (`{"attributes": {"backchannel.logout.url": …}}`), for oidc-provider in those of RFC 7591.
    ///
    /// # Panics
    /// When the provider refuses it, or is Dex, which registers none.
    pub async fn registered(mut self, metadata: &Value) -> Self {
        match self.kind {
            Kind::Keycloak => {
                self.client_id = format!("vestibule-{}", random_text(9));
                let mut client = json!({
                    "clientId": self.client_id,
                    "secret": self.client_secret,
                    "protocol": "openid-connect",
                    "publicClient": false,
                    "redirectUris": ["http://localhost/*", "http://127.0.0.1/*"],
                    "attributes": { "pkce.code.challenge.method": "S256", "post.logout.redirect.uris": "+" },
                });
                write_over(&mut client, metadata);
                self.administer(Method::POST, "clients", Some(&client)).await;
            }
            Kind::OidcProvider => {
                let mut client = json!({
                    "redirect_uris": ["http://localhost/auth/callback"],
                    "post_logout_redirect_uris": ["http://localhost/"],
                });
                write_over(&mut client, metadata);
                let registered = send(json_request(&format!("{}/reg", self.issuer), &client)).await;
                registered["client_id"].as_str().expect("a client id").clone_into(&mut self.client_id);
                if let Some(secret) = registered["client_secret"].as_str() {
                    crate::trace::secret("client secret", secret);
                    secret.clone_into(&mut self.client_secret);
                }
            }
            Kind::Dex => panic!("Dex registers no clients"),
        }
        self
    }

    /// A token with which a client may register itself once (RFC 7591 §3): Keycloak lets nobody else.
    ///
    /// # Panics
    /// When Keycloak refuses it.
    pub async fn initial_access_token(&self) -> String {
        let asked = json!({ "count": 1, "expiration": 600 });
        let answer = self.administer(Method::POST, "clients-initial-access", Some(&asked)).await;
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// A person of this test's own at Keycloak, whose sessions no other test has a part in. The password is the name and
    /// `-password`, as everybody's.
    ///
    /// # Panics
    /// When Keycloak refuses it.
    pub async fn new_person(&self) -> String {
        let name = format!("person-{}", random_text(9).to_lowercase());
        let person = json!({
            "username": name,
            "enabled": true,
            "email": format!("{name}@example.com"),
            "emailVerified": true,
            "firstName": "Any",
            "lastName": "Body",
            "credentials": [{ "type": "password", "value": format!("{name}-password"), "temporary": false }],
        });
        self.administer(Method::POST, "users", Some(&person)).await;
        name
    }

    /// Ends all sessions of a person at Keycloak, as an administrator does: back-channel logout without a browser. The
    /// sessions of ada and grace belong to all tests: this is for a [`RealProvider::new_person`].
    ///
    /// # Panics
    /// When Keycloak refuses it.
    pub async fn end_all_sessions_of(&self, name: &str) {
        let people = self.administer(Method::GET, &format!("users?exact=true&username={name}"), None).await;
        let id = people[0]["id"].as_str().unwrap_or_else(|| panic!("nobody is called {name}: {people}"));
        self.administer(Method::POST, &format!("users/{id}/logout"), None).await;
    }

    /// One call of Keycloak's admin API, below the realm.
    async fn administer(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        assert_eq!(self.kind, Kind::Keycloak, "only Keycloak has this API");
        let keycloak = address("TESTS_KEYCLOAK");
        let fields =
            [("grant_type", "password"), ("client_id", "admin-cli"), ("username", "admin"), ("password", "admin")];
        let token_endpoint = format!("{keycloak}/realms/master/protocol/openid-connect/token");
        // A minute's life: asked for each time.
        let token = send(Request::new(Method::POST, &token_endpoint).form(&fields)).await;
        let token = token["access_token"].as_str().expect("an access token");
        let url = format!("{keycloak}/admin/realms/vestibule/{path}");
        let request = body.map_or_else(|| Request::new(method, &url), |body| json_request(&url, body));
        send(request.header("authorization", &format!("Bearer {token}"))).await
    }
}

fn json_request(url: &str, body: &Value) -> Request {
    Request::new(Method::POST, url).header("content-type", "application/json").body(body.to_string())
}

/// The answer's JSON; null without a body.
async fn send(request: Request) -> Value {
    let reply = Browser::new(TestClock::new()).send(request).await;
    assert!(reply.status.is_success(), "{} answered {}: {}", reply.url, reply.status, reply.text());
    if reply.body.is_empty() { Value::Null } else { reply.json() }
}

/// Writes the members of `other` over those of `value`, objects member by member.
fn write_over(value: &mut Value, other: &Value) {
    match (value, other) {
        (Value::Object(members), Value::Object(others)) => {
            for (name, other) in others {
                write_over(members.entry(name.as_str()).or_insert(Value::Null), other);
            }
        }
        (value, other) => other.clone_into(value),
    }
}
