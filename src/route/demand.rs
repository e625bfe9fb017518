//! Which of two routes demands more.

use super::{Access, Preflight, Require, Route};

impl Route {
    /// Whether everyone passes without a look at the session. A public route with conditions is none: it fails closed.
    pub(super) fn is_open(&self) -> bool {
        self.access == Access::Public && self.require.is_empty() && self.max_identity_age.is_none()
    }

    /// Whether more is demanded than to be signed in.
    pub(super) fn demands_more_than_sign_in(&self) -> bool {
        !self.require.is_empty() || self.max_identity_age.is_some()
    }

    /// 0: everyone, unseen; 1: everyone; 2: signed in.
    pub(super) fn level(&self) -> u8 {
        match self.access {
            Access::Required => 2,
            // Policy asks for a sign-in wherever something is required.
            _ if !self.require.is_empty() => 2,
            _ if self.is_open() => 0,
            Access::Public | Access::Optional => 1,
        }
    }

    /// Whether whoever passes here would pass `other` too.
    pub(super) fn demands_all_of(&self, other: &Self) -> bool {
        let is_as_recent = match (self.max_identity_age, other.max_identity_age) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(others)) => own <= others,
        };
        self.level() >= other.level() && is_as_recent && self.require.implies(&other.require)
    }

    /// Whether `self` must win on a lenient reading against `exact`, the less specific route that matches as written:
    /// it refuses somebody whom `exact` lets in, or else it lets less of a request through.
    pub(super) fn wins_leniently_over(&self, exact: &Self) -> bool {
        !exact.demands_all_of(self) || (self.demands_all_of(exact) && self.lets_less_through_than(exact))
    }

    fn lets_less_through_than(&self, other: &Self) -> bool {
        let within = |one: &Self, another: &Self| {
            is_subset(&one.allowed_origins, &another.allowed_origins)
                && is_subset(&one.pass_headers, &another.pass_headers)
                && is_subset(&one.upgrades, &another.upgrades)
                && one.pass_authorization <= another.pass_authorization
                && (one.preflight == Preflight::Refuse || another.preflight == Preflight::Forward)
        };
        within(self, other) && !within(other, self)
    }
}

impl Require {
    /// Whether whoever has this has `other` as well.
    fn implies(&self, other: &Self) -> bool {
        implies_any(&self.roles, &self.all_roles, &other.roles)
            && is_subset(&other.all_roles, &self.all_roles)
            && implies_any(&self.groups, &self.all_groups, &other.groups)
            && is_subset(&other.all_groups, &self.all_groups)
            && self.proof.implies(&other.proof)
    }
}

/// Whether one of `any` together with all of `all` makes one of `wanted` certain.
fn implies_any(any: &[String], all: &[String], wanted: &[String]) -> bool {
    wanted.is_empty() || (!any.is_empty() && is_subset(any, wanted)) || all.iter().any(|one| wanted.contains(one))
}

fn is_subset<T: PartialEq>(part: &[T], whole: &[T]) -> bool {
    part.iter().all(|one| whole.contains(one))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn demands_are_compared_by_whom_they_let_in() {
        let any = |roles: &[&str]| Require { roles: names(roles), ..Require::default() };
        let all = |roles: &[&str]| Require { all_roles: names(roles), ..Require::default() };
        for (one, another, implies) in [
            (any(&["a"]), Require::default(), true),
            (Require::default(), any(&["a"]), false),
            (any(&["a"]), any(&["a", "b"]), true),
            (any(&["a", "b"]), any(&["a"]), false),
            (all(&["a", "b"]), any(&["b", "c"]), true),
            (all(&["a", "b"]), all(&["a"]), true),
            (all(&["a"]), all(&["a", "b"]), false),
            (any(&["a"]), any(&["b"]), false),
        ] {
            assert_eq!(one.implies(&another), implies, "{one:?} {another:?}");
        }
        let aged = |seconds| Route { max_identity_age: Some(Duration::from_secs(seconds)), ..Route::default() };
        assert!(aged(1).demands_all_of(&aged(2)) && !aged(2).demands_all_of(&aged(1)));
        assert!(!Route::default().demands_all_of(&aged(1)) && aged(1).demands_all_of(&Route::default()));
    }

    #[test]
    fn what_lets_less_through_wins_among_equals() {
        let lax = Route { preflight: Preflight::Forward, pass_headers: names(&["x-original-url"]), ..Route::default() };
        let strict = Route::default();
        let other = Route { pass_authorization: true, ..Route::default() };
        assert!(strict.wins_leniently_over(&lax) && !lax.wins_leniently_over(&strict));
        assert!(!strict.wins_leniently_over(&strict) && !other.wins_leniently_over(&lax));
    }

    #[test]
    fn a_public_route_with_conditions_is_not_open() {
        let route = Route { access: Access::Public, max_identity_age: Some(Duration::ZERO), ..Route::default() };
        assert!(!route.is_open());
    }
}
