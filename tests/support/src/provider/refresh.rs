//! Refresh tokens, as strictly as any provider has them: each is good for one use, and a second use of one ends every token
//! of its sign-in (RFC 9700 §4.14.2).

use serde_json::Value;

use super::{FakeProvider, Grant, State};
use crate::random_text;

/// What a refresh token stands for.
#[derive(Debug, Clone)]
pub(super) struct Refreshable {
    grant: Grant,
    /// The sign-in that it goes back to, by its nonce where it has one.
    family: String,
    used: bool,
    revoked: bool,
}

impl Refreshable {
    pub(super) fn of(grant: &Grant) -> Self {
        Self {
            grant: grant.clone(),
            family: grant.nonce.clone().unwrap_or_else(|| random_text(8)),
            used: false,
            revoked: false,
        }
    }
}

impl State {
    /// RFC 6749 §6. Renewed ID tokens have no nonce, and the time of the sign-in (OpenID Connect Core §12.2).
    pub(super) fn refresh(&mut self, token: &str, jkt: Option<String>) -> Result<Value, &'static str> {
        let known = self.refreshable.get_mut(token).ok_or("invalid_grant")?;
        let family = known.family.clone();
        if known.used {
            self.reuse_alarms += 1;
            self.revoke_family(&family);
            return Err("invalid_grant");
        }
        if known.revoked {
            return Err("invalid_grant");
        }
        known.used = !self.keeps_refresh_tokens;
        let mut grant = known.grant.clone();
        grant.nonce = None;
        // What is known of the same person today.
        if grant.user.get("sub") == self.user.get("sub") {
            grant.user = self.user.clone();
        }
        let mut tokens = self.tokens(&grant, jkt);
        if self.keeps_refresh_tokens {
            tokens.as_object_mut().expect("an object").remove("refresh_token");
        }
        if let Some(next) = tokens["refresh_token"].as_str().and_then(|next| self.refreshable.get_mut(next)) {
            next.family = family;
        }
        Ok(tokens)
    }

    fn revoke_family(&mut self, family: &str) {
        for one in self.refreshable.values_mut().filter(|one| one.family == family) {
            one.revoked = true;
        }
    }
}

impl FakeProvider {
    /// How often a refresh token came that had been used before: each time whoever holds it may be a thief.
    pub fn reuse_alarms(&self) -> usize {
        self.state().reuse_alarms
    }

    /// Ends every sign-in, as an administrator would: no refresh token is good any more, and nobody is signed in.
    pub fn end_all_sign_ins(&self) {
        let mut state = self.state();
        state.refreshable.values_mut().for_each(|one| one.revoked = true);
        state.knows_the_person = false;
    }

    /// How often a refresh token was used with success.
    pub fn refreshes(&self) -> usize {
        let is_refresh = |form: &[(String, String)]| form.iter().any(|pair| pair.1 == "refresh_token");
        self.token_calls().iter().filter(|call| call.accepted && is_refresh(&call.form)).count()
    }

    /// No refresh tokens from now on.
    pub fn give_no_refresh_tokens(&self) {
        self.faults(|faults| faults.no_refresh_tokens = true);
    }
}
