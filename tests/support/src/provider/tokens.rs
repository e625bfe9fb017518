//! ID tokens, well-made and not.

use serde_json::{Map, Value, json};

use super::faults::{EncryptionFault, IdTokenFault};
use super::{CLIENT_ID, CLIENT_SECRET, Grant, State, stray_key};
use crate::forge::{self, SigningKey};

/// Registered claims that a user's claims never replace.
const LIFETIME_SECONDS: u64 = 300;

impl State {
    /// The ID token for `grant`, with the fault of the moment; `None` when it is to be missing.
    pub(super) fn id_token(&mut self, grant: &Grant, access_token: &str) -> Option<String> {
        let key = self.keys[0].clone();
        let fault = self.faults.id_token;
        let mut claims = self.claims(grant, access_token, &key);
        if let Some(fault) = fault {
            spoil_claims(&mut claims, fault, self.clock.unix(), &key);
        }
        let nameless = json!({ "alg": key.alg().name(), "typ": "JWT" });
        let token = match fault {
            None if self.faults.keys_without_names => key.token_with_header(&nameless, &claims),
            Some(IdTokenFault::WrongKey) if self.faults.keys_without_names => {
                stray_key(key.alg()).token_with_header(&nameless, &claims)
            }
            None => key.token(&claims),
            Some(fault) => spoiled_token(&key, &claims, fault)?,
        };
        let token = self.encrypted(token, &claims);
        crate::trace::secret("ID token", &token);
        if let Some((_, signature)) = token.rsplit_once('.') {
            crate::trace::secret("ID token's signature", signature);
        }
        self.id_tokens.push(token.clone());
        Some(token)
    }

    /// Encrypted where the client has a key, with the fault of the moment.
    pub(super) fn encrypted(&self, token: String, claims: &Value) -> String {
        let Some(key) = &self.encryption else { return token };
        const ALG: &str = "RSA-OAEP-256";
        match self.faults.encryption {
            None => key.encrypt(&token, ALG),
            Some(EncryptionFault::Plain) => token,
            Some(EncryptionFault::Unsigned) => key.encrypt(&claims.to_string(), ALG),
            Some(EncryptionFault::AlgNone) => key.encrypt(&forge::unsigned(claims), ALG),
            Some(EncryptionFault::Twice) => key.encrypt(&key.encrypt(&token, ALG), ALG),
            Some(EncryptionFault::Tampered) => forge::tampered(&key.encrypt(&token, ALG)),
            Some(EncryptionFault::Sha1) => key.encrypt(&token, "RSA-OAEP"),
            Some(EncryptionFault::Empty) => key.encrypt("", ALG),
        }
    }

    pub(super) fn claims(&self, grant: &Grant, access_token: &str, key: &SigningKey) -> Value {
        let now = self.clock.unix();
        let mut claims: Map<String, Value> = grant
            .user
            .iter()
            .filter(|(name, _)| !self.userinfo_only.contains(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let registered = json!({
            "iss": self.issuer,
            "aud": self.client_id,
            "azp": self.client_id,
            "exp": now + LIFETIME_SECONDS,
            "iat": now,
            "auth_time": grant.authenticated_at,
            "nonce": grant.nonce,
            "at_hash": key.alg().access_token_hash(access_token),
        });
        let Value::Object(registered) = registered else { unreachable!("written as an object above") };
        claims.extend(registered.into_iter().filter(|(_, value)| !value.is_null()));
        claims.extend(grant.acr.as_ref().map(|acr| ("acr".to_owned(), json!(acr))));
        claims.extend(self.faults.id_token_claims.clone());
        claims.retain(|_, value| !value.is_null());
        Value::Object(claims)
    }
}

fn spoil_claims(claims: &mut Value, fault: IdTokenFault, now: u64, key: &SigningKey) {
    let claims = claims.as_object_mut().expect("claims are an object");
    let mut set = |name: &str, value: Value| {
        claims.insert(name.to_owned(), value);
    };
    match fault {
        IdTokenFault::WrongIssuer => set("iss", json!("https://other.example.com")),
        IdTokenFault::IssuerWithSlash => {
            let issuer = format!("{}/", claims["iss"].as_str().expect("an issuer"));
            claims.insert("iss".to_owned(), json!(issuer));
        }
        IdTokenFault::WrongAudience => set("aud", json!("another-client")),
        IdTokenFault::ExtraAudience => set("aud", json!([CLIENT_ID, "another-client"])),
        IdTokenFault::WrongAuthorizedParty => set("azp", json!("another-client")),
        IdTokenFault::WrongNonce => set("nonce", json!("bm90LXRoZS1ub25jZS1vZi10aGlzLXNpZ24taW4")),
        IdTokenFault::WrongAccessTokenHash => {
            set("at_hash", json!(key.alg().access_token_hash("another access token")));
        }
        IdTokenFault::Expired => {
            set("iat", json!(now - 900));
            set("auth_time", json!(now - 900));
            set("exp", json!(now - 300));
        }
        IdTokenFault::ExpiryIsText => set("exp", json!((now + LIFETIME_SECONDS).to_string())),
        IdTokenFault::IssuedInTheFuture => {
            set("iat", json!(now + 600));
            set("exp", json!(now + 1200));
        }
        IdTokenFault::NotYetValid => {
            set("nbf", json!(now + 600));
            set("exp", json!(now + 1200));
        }
        IdTokenFault::EmptySubject => set("sub", json!("")),
        IdTokenFault::SubjectIsNumber => set("sub", json!(248_289_761_001_u64)),
        IdTokenFault::MissingAudience => drop(claims.remove("aud")),
        IdTokenFault::MissingNonce => drop(claims.remove("nonce")),
        IdTokenFault::MissingExpiry => drop(claims.remove("exp")),
        IdTokenFault::MissingIssuedAt => drop(claims.remove("iat")),
        IdTokenFault::MissingSubject => drop(claims.remove("sub")),
        IdTokenFault::WrongKey
        | IdTokenFault::TamperedSignature
        | IdTokenFault::AlgNone
        | IdTokenFault::Hs256WithPublicKey
        | IdTokenFault::Hs256WithClientSecret
        | IdTokenFault::UnknownKeyId
        | IdTokenFault::CriticalHeader
        | IdTokenFault::Garbage
        | IdTokenFault::Missing => {}
    }
}

fn spoiled_token(key: &SigningKey, claims: &Value, fault: IdTokenFault) -> Option<String> {
    let alg = key.alg();
    let token = match fault {
        IdTokenFault::WrongKey => {
            stray_key(alg).token_with_header(&json!({ "alg": alg.name(), "typ": "JWT", "kid": key.kid() }), claims)
        }
        IdTokenFault::UnknownKeyId => stray_key(alg).token(claims),
        IdTokenFault::TamperedSignature => forge::tampered(&key.token(claims)),
        IdTokenFault::AlgNone => forge::unsigned(claims),
        IdTokenFault::Hs256WithPublicKey => forge::hs256(key.public_pem().as_bytes(), Some(key.kid()), claims),
        IdTokenFault::Hs256WithClientSecret => forge::hs256(CLIENT_SECRET.as_bytes(), None, claims),
        IdTokenFault::CriticalHeader => {
            let header = json!({
                "alg": alg.name(), "kid": key.kid(), "crit": ["http://example.com/unheard-of"],
                "http://example.com/unheard-of": true,
            });
            key.token_with_header(&header, claims)
        }
        IdTokenFault::Garbage => "this.is-not.a-token".to_owned(),
        IdTokenFault::Missing => return None,
        _ => key.token(claims),
    };
    Some(token)
}
