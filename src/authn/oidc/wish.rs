//! What one authorization request asks of the provider beyond the settings (OpenID Connect Core §3.1.2.1): of a sign-in by a
//! route, by the upstream or by a link, or of a renewal without a word to the person.

use serde::{Deserialize, Serialize};

use crate::authn::proof::ProofDemand;
use crate::authn::session::SessionId;
use crate::authn::session::renewing::Renewing;

/// Parameters of one authorization request (OpenID Connect Core §3.1.2.1). Those that the ID token has to answer to travel
/// in `state`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Who is expected to sign in; a hint and nothing more, so it does not travel in `state`.
    #[serde(skip)]
    pub login_hint: Option<String>,
    /// The authentication context classes to choose from, in order of preference, separated by spaces.
    pub acr_values: Option<String>,
    /// The longest time since the person last proved who they are, in seconds.
    pub max_age: Option<u32>,
    /// The session that it is to renew without a word to the person (`prompt=none`).
    pub renewing: Option<Renewing>,
    /// The session that it takes the place of: its cookie may not come along with the answer.
    pub replaces: Option<SessionId>,
}

impl Wish {
    /// Whether the ID token has to answer to it.
    pub fn asks_for_proof(&self) -> bool {
        self.acr_values.is_some() || self.max_age.is_some()
    }

    /// The same, and what `demand` wants beside it: of the classes those that both name, where there are any.
    pub fn and(&self, demand: &ProofDemand) -> Self {
        let acr_values = match (&self.acr_values, demand.acr_values()) {
            (Some(wished), Some(demanded)) => {
                let is_demanded = |word: &&str| demanded.split(' ').any(|other| other == *word);
                let both = wished.split(' ').filter(is_demanded).collect::<Vec<_>>().join(" ");
                Some(if both.is_empty() { wished.clone() } else { both })
            }
            (wished, demanded) => wished.clone().or(demanded),
        };
        let max_age = [self.max_age, demand.max_age()].into_iter().flatten().min();
        let (renewing, replaces) = (self.renewing, self.replaces);
        Self { login_hint: self.login_hint.clone(), acr_values, max_age, renewing, replaces }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wish_and_a_demand_together_want_what_both_want() {
        let wish = |acr: &str, max_age| Wish {
            login_hint: Some("ada".into()),
            acr_values: (!acr.is_empty()).then(|| acr.to_owned()),
            max_age,
            ..Wish::default()
        };
        let demand = |acr: &str, age: Option<u64>| {
            ProofDemand::new(
                acr.split_whitespace().map(str::to_owned).collect(),
                age.map(Duration::from_secs),
                Duration::ZERO,
            )
        };
        for (one, other, expected) in [
            (wish("", None), demand("", None), wish("", None)),
            (wish("", None), demand("a b", Some(5)), wish("a b", Some(5))),
            (wish("a", Some(9)), demand("", None), wish("a", Some(9))),
            (wish("c b a", Some(9)), demand("a b", Some(5)), wish("b a", Some(5))),
            (wish("c", Some(1)), demand("a b", Some(5)), wish("c", Some(1))),
        ] {
            assert_eq!(one.and(&other), expected);
        }
    }
}
