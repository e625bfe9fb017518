//! Guarded route × identity → [`Permit`] or [`Denial`]. Pure.

use std::time::Duration;

use crate::authn::Identity;
use crate::authn::identity::Names;
use crate::authn::lifetime::Lifetime;
use crate::authn::session::SessionId;
use crate::clock::UnixTime;
use crate::route::{Access, GuardedRoute, Preflight, Require, Route};

const SECOND: Duration = Duration::from_secs(1);

/// The right to forward one request on one route. Only [`authorize`] makes one.
#[derive(Debug)]
pub struct Permit<'r> {
    route: &'r Route,
    identity: Option<Identity>,
}

impl<'r> Permit<'r> {
    /// The route it was given for.
    pub fn route(&self) -> &'r Route {
        self.route
    }

    /// On whose behalf; `None` on an optional route without a session.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The same, where nothing else of it is needed any more.
    pub fn into_identity(self) -> Option<Identity> {
        self.identity
    }

    /// The session that it was given for, and its provider as an index; `None` where it was given for none.
    pub fn signed_in_at(&self) -> Option<(SessionId, usize)> {
        let identity = self.identity()?;
        Some((identity.session()?, identity.provider()))
    }

    /// How long what was let in may go on; `None` where nobody is known. Past the route's `max_identity_age`, or
    /// `require.max_age`, a new request would be refused, so a stream ends there too.
    pub fn lifetime(&self) -> Option<Lifetime> {
        let identity = self.identity()?;
        let lifetime = identity.lifetime();
        let first_too_old = |age| identity.authenticated_at().after(age).after(SECOND);
        let lifetime = self.route.max_identity_age.map_or(lifetime, |age| lifetime.until(first_too_old(age)));
        let proof_ends = self.route.require.proof.end_of(identity.proof());
        Some(proof_ends.map_or(lifetime, |end| lifetime.until(end)))
    }
}

/// What policy says.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "moved twice, where a box would be an allocation for every request")]
pub enum Verdict<'r> {
    /// Yes.
    Permit(Permit<'r>),
    /// Nobody is signed in, or too long ago.
    SignIn(SignInReason),
    /// Signed in, but not allowed: 403.
    Deny(Denial),
}

/// Why a sign-in is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInReason {
    /// No session.
    NoSession,
    /// Older than the route's `max_identity_age`.
    IdentityTooOld,
    /// Signed in at a provider that the route does not name.
    OtherProvider,
    /// Signed in, but not in one of the ways that the route requires, or too long ago by `auth_time`.
    InsufficientProof,
}

impl SignInReason {
    /// The constant reason code for the log; where there is no session, its absence has one.
    pub fn code(self) -> Option<&'static str> {
        match self {
            Self::NoSession => None,
            Self::IdentityTooOld => Some("identity_too_old"),
            Self::OtherProvider => Some("other_provider"),
            Self::InsufficientProof => Some("insufficient_proof"),
        }
    }
}

/// Why a signed-in person is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The route asks for roles that the person does not have.
    #[error("a required role is missing")]
    MissingRole,
    /// The route asks for groups that the person is not in.
    #[error("a required group is missing")]
    MissingGroup,
    /// An unsafe request or an upgrade from a foreign origin.
    #[error("the request came from another site")]
    ForeignOrigin,
    /// A CORS preflight where none is let through.
    #[error("cross-origin preflights are not let through here")]
    Preflight,
}

impl Denial {
    /// The constant reason code for the log.
    pub fn code(self) -> &'static str {
        match self {
            Self::MissingRole => "missing_role",
            Self::MissingGroup => "missing_group",
            Self::ForeignOrigin => "foreign_origin",
            Self::Preflight => "preflight",
        }
    }
}

/// The anonymous passage of a CORS preflight, which carries no cookie, where the route lets it through.
///
/// # Errors
/// [`Denial::Preflight`] where it does not.
pub fn preflight(route: GuardedRoute<'_>) -> Result<Permit<'_>, Denial> {
    let route = route.route();
    match route.preflight {
        Preflight::Forward => Ok(Permit { route, identity: None }),
        Preflight::Refuse => Err(Denial::Preflight),
    }
}

/// May `identity` use `route` now?
pub fn authorize<'r>(route: GuardedRoute<'r>, identity: Option<Identity>, now: UnixTime) -> Verdict<'r> {
    let route = route.route();
    let Some(identity) = identity else {
        return match route.access {
            Access::Required => Verdict::SignIn(SignInReason::NoSession),
            Access::Public | Access::Optional if route.require.is_empty() => {
                Verdict::Permit(Permit { route, identity: None })
            }
            Access::Public | Access::Optional => Verdict::SignIn(SignInReason::NoSession),
        };
    };
    if !route.providers.is_empty() && !route.providers.contains(&identity.provider()) {
        return Verdict::SignIn(SignInReason::OtherProvider);
    }
    if route.max_identity_age.is_some_and(|age| now.since(identity.authenticated_at()) > age) {
        return Verdict::SignIn(SignInReason::IdentityTooOld);
    }
    if !route.require.proof.is_met_by(identity.proof(), now) {
        return Verdict::SignIn(SignInReason::InsufficientProof);
    }
    match demand(&route.require, &identity) {
        Ok(()) => Verdict::Permit(Permit { route, identity: Some(identity) }),
        Err(denial) => Verdict::Deny(denial),
    }
}

fn demand(require: &Require, identity: &Identity) -> Result<(), Denial> {
    let any = |wanted: &[String], held: &Names| wanted.is_empty() || wanted.iter().any(|one| held.contains(one));
    let all = |wanted: &[String], held: &Names| wanted.iter().all(|one| held.contains(one));
    if !any(&require.roles, identity.roles()) || !all(&require.all_roles, identity.roles()) {
        return Err(Denial::MissingRole);
    }
    if !any(&require.groups, identity.groups()) || !all(&require.all_groups, identity.groups()) {
        return Err(Denial::MissingGroup);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn ada(roles: &[&str], groups: &[&str]) -> Identity {
        Identity::for_test("ada", roles, groups, NOW.before(Duration::from_secs(600)))
    }

    fn words(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    /// What is said, without the values that come with it.
    #[derive(Debug, PartialEq)]
    enum Said {
        Permit,
        SignIn(SignInReason),
        Deny(Denial),
    }

    fn said(route: &Route, identity: Option<Identity>) -> Said {
        match authorize(GuardedRoute::for_test(route), identity, NOW) {
            Verdict::Permit(_) => Said::Permit,
            Verdict::SignIn(reason) => Said::SignIn(reason),
            Verdict::Deny(denial) => Said::Deny(denial),
        }
    }

    #[test]
    fn nobody_passes_only_where_nothing_is_demanded() {
        let demands = Require { roles: words(&["admin"]), ..Require::default() };
        for (access, require, expected) in [
            (Access::Required, Require::default(), Said::SignIn(SignInReason::NoSession)),
            (Access::Required, demands.clone(), Said::SignIn(SignInReason::NoSession)),
            (Access::Optional, Require::default(), Said::Permit),
            (Access::Optional, demands.clone(), Said::SignIn(SignInReason::NoSession)),
            (Access::Public, Require::default(), Said::Permit),
            (Access::Public, demands, Said::SignIn(SignInReason::NoSession)),
        ] {
            let route = Route { access, require, ..Route::default() };
            assert_eq!(said(&route, None), expected, "{route:?}");
        }
    }

    #[test]
    fn any_of_the_roles_suffices_and_all_of_all_roles_must_hold() {
        let missing_role = || Said::Deny(Denial::MissingRole);
        let missing_group = || Said::Deny(Denial::MissingGroup);
        let require = |roles: &[&str], all_roles: &[&str], groups: &[&str], all_groups: &[&str]| Require {
            roles: words(roles),
            all_roles: words(all_roles),
            groups: words(groups),
            all_groups: words(all_groups),
            ..Require::default()
        };
        for (require, roles, groups, expected) in [
            (require(&[], &[], &[], &[]), &[][..], &[][..], Said::Permit),
            (require(&["a", "b"], &[], &[], &[]), &["b"], &[], Said::Permit),
            (require(&["a", "b"], &[], &[], &[]), &["c"], &[], missing_role()),
            (require(&["a"], &[], &[], &[]), &[], &["a"], missing_role()),
            (require(&["a"], &[], &[], &[]), &["A"], &[], missing_role()),
            (require(&["a"], &[], &[], &[]), &["ab", "a "], &[], missing_role()),
            (require(&[], &["a", "b"], &[], &[]), &["b", "a", "c"], &[], Said::Permit),
            (require(&[], &["a", "b"], &[], &[]), &["a"], &[], missing_role()),
            (require(&[], &[], &["/g", "/h"], &[]), &[], &["/h"], Said::Permit),
            (require(&[], &[], &["/g"], &[]), &[], &["/g/sub", "g"], missing_group()),
            (require(&[], &[], &["/g"], &[]), &["/g"], &[], missing_group()),
            (require(&[], &[], &[], &["/g", "/h"]), &[], &["/h", "/g"], Said::Permit),
            (require(&[], &[], &[], &["/g", "/h"]), &[], &["/h"], missing_group()),
            (require(&["a"], &["b"], &["/g"], &["/h"]), &["a", "b"], &["/g", "/h"], Said::Permit),
            (require(&["a"], &["b"], &["/g"], &["/h"]), &["b"], &["/g", "/h"], missing_role()),
            (require(&["a"], &["b"], &["/g"], &["/h"]), &["a"], &["/g", "/h"], missing_role()),
            (require(&["a"], &["b"], &["/g"], &["/h"]), &["a", "b"], &["/h"], missing_group()),
            (require(&["a"], &["b"], &["/g"], &["/h"]), &["a", "b"], &["/g"], missing_group()),
        ] {
            for access in [Access::Required, Access::Optional] {
                let route = Route { access, require: require.clone(), ..Route::default() };
                assert_eq!(said(&route, Some(ada(roles, groups))), expected, "{roles:?} {groups:?} {require:?}");
            }
        }
    }

    #[test]
    fn an_identity_that_is_too_old_signs_in_again_before_its_roles_are_looked_at() {
        let require = Require { roles: words(&["admin"]), ..Require::default() };
        for (age, roles, expected) in [
            (599, &["admin"][..], Said::SignIn(SignInReason::IdentityTooOld)),
            (599, &[], Said::SignIn(SignInReason::IdentityTooOld)),
            (600, &["admin"], Said::Permit),
            (600, &[], Said::Deny(Denial::MissingRole)),
        ] {
            let max_identity_age = Some(Duration::from_secs(age));
            let route = Route { max_identity_age, require: require.clone(), ..Route::default() };
            assert_eq!(said(&route, Some(ada(roles, &[]))), expected, "{age} s {roles:?}");
        }
    }

    #[test]
    fn a_permit_carries_the_identity_and_the_route_it_was_given_for() {
        let route = Route { name: "home".to_owned(), ..Route::default() };
        let verdict = authorize(GuardedRoute::for_test(&route), Some(ada(&["a"], &[])), NOW);
        let Verdict::Permit(permit) = verdict else { panic!("{verdict:?}") };
        assert_eq!(permit.route().name, "home");
        assert_eq!(permit.identity().map(Identity::name), Some("ada"));
    }
}
