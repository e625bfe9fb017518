//! Header fields that an upstream or a route sets and removes.

use std::collections::BTreeMap;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::Resolver;
use crate::config::problem::shown;
use crate::config::raw::RawHeaderEdits;
use crate::config::walk::below;
use crate::message::edits::{Edits, HeaderEdits, Way, refusal};
use crate::message::headers::fold;

impl Resolver {
    /// `request_headers` and `response_headers` of the upstream or route at `key`.
    pub(super) fn edits(&mut self, key: &str, request: RawHeaderEdits, response: RawHeaderEdits) -> Option<Box<Edits>> {
        let edits = Edits {
            request: self.header_edits(&format!("{key}.request_headers"), request, Way::Request),
            response: self.header_edits(&format!("{key}.response_headers"), response, Way::Response),
        };
        (!edits.is_empty()).then(|| Box::new(edits))
    }

    fn header_edits(&mut self, key: &str, raw: RawHeaderEdits, way: Way) -> HeaderEdits {
        let set = self.fields(&format!("{key}.set"), raw.set, way);
        let mut removed = Vec::new();
        for (index, text) in raw.remove.unwrap_or_default().iter().enumerate() {
            let key = format!("{key}.remove[{index}]");
            let Some(name) = self.field_name(&key, text, way) else { continue };
            if set.iter().any(|(set, _)| fold(set.as_str()) == fold(name.as_str())) {
                self.error(
                    &key,
                    format!("is {name}, which is set too"),
                    "remove one of them: what is set replaces what came",
                );
            }
            removed.push(name);
        }
        HeaderEdits::new(&removed, set)
    }

    /// Fields with static values. The values are never shown: one may be a key.
    pub(super) fn fields(
        &mut self,
        key: &str,
        written: BTreeMap<String, String>,
        way: Way,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut fields: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for (text, value) in written {
            let key = below(key, &text);
            let Some(name) = self.field_name(&key, &text, way) else { continue };
            if let Some(what) = way.unsettable(&name) {
                self.error(&key, what, "remove it");
            }
            if fields.iter().any(|(other, _)| fold(other.as_str()) == fold(name.as_str())) {
                self.error(&key, "is there in another spelling too", "keep one of them");
            }
            let is_trimmed = value.trim() == value;
            match HeaderValue::from_str(&value).ok().filter(|_| is_trimmed) {
                Some(mut value) => {
                    value.set_sensitive(name == AUTHORIZATION);
                    fields.push((name, value));
                }
                None => self.error(&key, "has a value that no header can carry", "write printable ASCII on one line"),
            }
        }
        fields
    }

    fn field_name(&mut self, key: &str, text: &str, way: Way) -> Option<HeaderName> {
        let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
            self.error(key, format!("names {}, no header", shown(text)), "for example \"X-Environment\"");
            return None;
        };
        if let Some((what, fix)) = refusal(&name, way, &self.identity_names) {
            self.error(key, format!("names {name}, {what}"), fix);
            return None;
        }
        Some(name)
    }
}
