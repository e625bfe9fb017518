//! What an ID token has to say about how and when the person proved who they are (OpenID Connect Core §2, and §3.1.3.7 items
//! 10, 12 and 13).

use std::time::Duration;

use serde_json::{Map, Value};

use super::claims::{numeric_date, string};
use super::id_token::IdTokenError;
use super::wish::Wish;
use crate::clock::UnixTime;

/// What is demanded of every sign-in at a provider.
#[derive(Debug, Clone, Default)]
pub struct Demands {
    /// An ID token that was issued longer ago is refused.
    pub max_token_age: Option<Duration>,
    /// `acr` is one of these; empty: whatever it is.
    pub required_acr: Vec<String>,
    /// `auth_time` lies no longer ago. In whole seconds.
    pub max_age: Option<Duration>,
}

impl Demands {
    /// The longest time since the person last proved who they are, for one sign-in: no wish loosens the setting.
    pub(super) fn max_age_with(&self, wish: &Wish) -> Option<Duration> {
        let wished = wish.max_age.map(|seconds| Duration::from_secs(seconds.into()));
        [self.max_age, wished].into_iter().flatten().min()
    }

    /// Holds a verified ID token against this, and against what its sign-in asked for; `leeway` in seconds.
    pub(super) fn judge(
        &self,
        claims: &Map<String, Value>,
        wish: &Wish,
        leeway: u64,
        now: UnixTime,
    ) -> Result<(), IdTokenError> {
        let is_older = |time: u64, age: Duration| now.0 > time.saturating_add(age.as_secs()).saturating_add(leeway);
        if let Some(age) = self.max_token_age
            && numeric_date(claims, "iat")?.is_none_or(|issued| is_older(issued, age))
        {
            return Err(IdTokenError::TooOld);
        }
        if !self.required_acr.is_empty() || wish.acr_values.is_some() {
            let acr = string(claims, "acr")?.ok_or(IdTokenError::Acr)?;
            let is_required = self.required_acr.is_empty() || self.required_acr.iter().any(|one| one == acr);
            let is_wished = wish.acr_values.as_ref().is_none_or(|wished| wished.split(' ').any(|one| one == acr));
            if !is_required || !is_wished {
                return Err(IdTokenError::Acr);
            }
        }
        self.judge_age(claims, wish, is_older, now.0.saturating_add(leeway))
    }

    /// The same for a renewed ID token (Core §12.2): when the person proved who they are is what it was, and what it leaves
    /// out is, too.
    pub(super) fn judge_renewed(&self, claims: &Map<String, Value>) -> Result<(), IdTokenError> {
        match string(claims, "acr")? {
            Some(acr) if !self.required_acr.is_empty() && !self.required_acr.iter().any(|one| one == acr) => {
                Err(IdTokenError::Acr)
            }
            _ => Ok(()),
        }
    }

    fn judge_age(
        &self,
        claims: &Map<String, Value>,
        wish: &Wish,
        is_older: impl Fn(u64, Duration) -> bool,
        latest: u64,
    ) -> Result<(), IdTokenError> {
        let Some(age) = self.max_age_with(wish) else { return Ok(()) };
        // Core §2: required once `max_age` was asked for.
        match numeric_date(claims, "auth_time")? {
            Some(time) if time <= latest && !is_older(time, age) => Ok(()),
            _ => Err(IdTokenError::AuthTime),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn judge(demands: &Demands, wish: &Wish, claims: Value) -> Result<(), IdTokenError> {
        demands.judge(claims.as_object().unwrap(), wish, 30, UnixTime(NOW))
    }

    #[test]
    fn without_demands_everything_will_do() {
        assert_eq!(judge(&Demands::default(), &Wish::default(), json!({})), Ok(()));
    }

    #[test]
    fn a_token_must_be_young_enough_by_its_time_of_issue() {
        let demands = Demands { max_token_age: Some(Duration::from_secs(60)), ..Demands::default() };
        for (claims, expected) in [
            (json!({"iat": NOW - 90}), Ok(())),
            (json!({"iat": NOW - 91}), Err(IdTokenError::TooOld)),
            (json!({}), Err(IdTokenError::TooOld)),
            (json!({"iat": "x"}), Err(IdTokenError::ClaimType("iat"))),
        ] {
            assert_eq!(judge(&demands, &Wish::default(), claims.clone()), expected, "{claims}");
        }
    }

    #[test]
    fn acr_must_be_one_of_those_required_and_one_of_those_wished_for() {
        let demands = Demands { required_acr: vec!["gold".into(), "silver".into()], ..Demands::default() };
        let wish = |acr: &str| Wish { acr_values: Some(acr.into()), ..Wish::default() };
        for (acr, wish, expected) in [
            (json!("gold"), Wish::default(), Ok(())),
            (json!("Gold"), Wish::default(), Err(IdTokenError::Acr)),
            (json!("gold silver"), Wish::default(), Err(IdTokenError::Acr)),
            (json!(null), Wish::default(), Err(IdTokenError::ClaimType("acr"))),
            (json!(["gold"]), Wish::default(), Err(IdTokenError::ClaimType("acr"))),
            (json!("silver"), wish("gold"), Err(IdTokenError::Acr)),
            (json!("gold"), wish("platinum gold"), Ok(())),
            (json!("platinum"), wish("platinum gold"), Err(IdTokenError::Acr)),
        ] {
            assert_eq!(judge(&demands, &wish, json!({ "acr": acr })), expected, "{acr} {wish:?}");
        }
        assert_eq!(judge(&demands, &Wish::default(), json!({})), Err(IdTokenError::Acr));
    }

    #[test]
    fn auth_time_must_be_there_recent_and_no_fiction_once_max_age_is_asked_for() {
        let demands = Demands { max_age: Some(Duration::from_secs(300)), ..Demands::default() };
        let wish = Wish { max_age: Some(10), ..Wish::default() };
        for (claims, wish, expected) in [
            (json!({"auth_time": NOW - 330}), Wish::default(), Ok(())),
            (json!({"auth_time": NOW - 331}), Wish::default(), Err(IdTokenError::AuthTime)),
            (json!({"auth_time": NOW - 40}), wish.clone(), Ok(())),
            (json!({"auth_time": NOW - 41}), wish, Err(IdTokenError::AuthTime)),
            (json!({"auth_time": NOW + 31}), Wish::default(), Err(IdTokenError::AuthTime)),
            (json!({}), Wish::default(), Err(IdTokenError::AuthTime)),
            (json!({"auth_time": "1"}), Wish::default(), Err(IdTokenError::ClaimType("auth_time"))),
            (json!({"auth_time": 1e300}), Wish::default(), Err(IdTokenError::ClaimType("auth_time"))),
        ] {
            assert_eq!(judge(&demands, &wish, claims.clone()), expected, "{claims} {wish:?}");
        }
    }
}
