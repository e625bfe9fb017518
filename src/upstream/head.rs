//! The head of a request as the upstream gets it: what is left of the client's, and what we write ourselves.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, request};

use super::expectation::Expectation;
use crate::authn::identity::IdentityHeaders;
use crate::message::{EarlyHints, Forwarding};

/// Both parts. The client's are emptied by the answer's head, which takes their place.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: request::Parts,
    pub(super) ours: Ours,
    /// Where hints go that come before the answer.
    pub(super) hints: Option<EarlyHints>,
    /// What holds the body back.
    pub(super) expectation: Option<Expectation>,
}

/// The fields that only we write, each exactly as it stands here, whatever the map beside it has by that name. They lie in
/// lists because a map would hash each name for nothing but being written out again; what is the same for many requests is
/// not taken out of where it lies.
#[derive(Debug, Default)]
pub(super) struct Ours {
    /// Most requests have no other that is made for them, and so no list.
    first: Option<(HeaderName, Option<HeaderValue>)>,
    own: Vec<(HeaderName, Option<HeaderValue>)>,
    forwarding: Option<Arc<Forwarding>>,
    identity: Option<IdentityHeaders>,
}

impl Ours {
    /// One more field, once with this value or not at all. None may come twice.
    pub(super) fn put(&mut self, name: HeaderName, value: Option<HeaderValue>) {
        debug_assert!(!self.rules(&name), "{name} is written twice");
        match self.first {
            None => self.first = Some((name, value)),
            Some(_) => self.own.push((name, value)),
        }
    }

    /// The same with those that tell where the request came from.
    pub(super) fn put_forwarding(&mut self, forwarding: Arc<Forwarding>) {
        debug_assert!(forwarding.fields().iter().all(|(name, _)| !self.rules(name)), "a field is written twice");
        self.forwarding = Some(forwarding);
    }

    /// The same with those that tell whose it is.
    pub(super) fn put_identity(&mut self, identity: IdentityHeaders) {
        debug_assert!(identity.iter().all(|(name, _)| !self.rules(name)), "a field is written twice");
        self.identity = Some(identity);
    }

    /// One more that may stand here already.
    pub(super) fn replace(&mut self, name: HeaderName, value: HeaderValue) {
        if self.rules(&name) {
            let others = self.all().filter(|(other, _)| **other != name);
            let own = others.map(|(name, value)| (name.clone(), value.cloned())).collect();
            *self = Self { own, ..Self::default() };
        }
        self.own.push((name, Some(value)));
    }

    /// Whether what the map has by that name does not count.
    pub(super) fn rules(&self, name: &HeaderName) -> bool {
        self.all().any(|(ours, _)| ours == name)
    }

    /// The fields that are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.all().filter_map(|(name, value)| Some((name, value?)))
    }

    fn all(&self) -> impl Iterator<Item = (&HeaderName, Option<&HeaderValue>)> {
        let forwarding = self.forwarding.as_deref().map(Forwarding::fields).unwrap_or_default();
        let fields = self.first.iter().chain(&self.own).chain(forwarding).map(|(name, value)| (name, value.as_ref()));
        fields.chain(self.identity.iter().flat_map(IdentityHeaders::iter))
    }

    /// Insert or remove, never just insert: `headers` say the same as the two together.
    pub(super) fn settle(&self, headers: &mut HeaderMap) {
        for (name, value) in self.all() {
            match value {
                Some(value) => headers.insert(name, value.clone()),
                None => headers.remove(name),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_field_of_ours_is_there_once_with_our_value_or_not_at_all(
            sent in prop::collection::vec(("x-(user|roles|other)", "[a-z]{0,6}"), 0..8),
            user in prop::option::of("[a-z]{0,6}"),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &sent {
                headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
            }
            let mut ours = Ours::default();
            ours.put(HeaderName::from_static("x-id"), Some(HeaderValue::from_static("1")));
            ours.put(HeaderName::from_static("x-other-id"), None);
            ours.put_identity(IdentityHeaders::for_test(vec![
                (HeaderName::from_static("x-user"), user.as_ref().map(|user| user.parse().unwrap())),
                (HeaderName::from_static("x-roles"), Some(HeaderValue::from_static("user"))),
            ]));
            ours.replace(HeaderName::from_static("x-roles"), HeaderValue::from_static("admin"));
            let mut lines: Vec<_> = headers.iter().filter(|(name, _)| !ours.rules(name)).chain(ours.iter()).collect();
            let mut settled = headers.clone();
            ours.settle(&mut settled);
            let mut wanted: Vec<_> = settled.iter().collect();
            lines.sort_unstable_by_key(|(name, value)| (name.as_str(), value.as_bytes()));
            wanted.sort_unstable_by_key(|(name, value)| (name.as_str(), value.as_bytes()));
            prop_assert_eq!(lines, wanted);
            prop_assert_eq!(settled.get_all("x-user").iter().collect::<Vec<_>>(), user.iter().collect::<Vec<_>>());
            prop_assert_eq!(settled.get_all("x-roles").iter().collect::<Vec<_>>(), ["admin"]);
            prop_assert_eq!((&settled["x-id"], settled.contains_key("x-other-id")), (&HeaderValue::from_static("1"), false));
        }
    }
}
