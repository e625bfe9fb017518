//! Upstreams without an address: `respond` and `files`.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::Resolver;
use crate::config::problem::shown;
use crate::config::raw::{RawRespond, RawUpstream};
use crate::message::edits::Way;
use crate::upstream::{Files, Own, Respond, UpstreamSettings};

impl Resolver {
    /// The upstream at `key`, which has no address because it needs none.
    pub(super) fn own_upstream(&mut self, key: &str, name: String, raw: RawUpstream) -> Option<UpstreamSettings> {
        let at = |leaf: &str| format!("{key}.{leaf}");
        let (what, allowed): (&str, &[&str]) = match raw.respond {
            Some(_) => ("respond", &["respond", "response_headers"]),
            None => ("files", &["files", "index", "fallback", "response_headers"]),
        };
        for leaf in self.written_below(key).iter().filter(|leaf| !allowed.contains(&leaf.as_str())) {
            self.error(&at(leaf), format!("means nothing beside {what}"), format!("remove {leaf} or {what}"));
        }
        let edits = self.edits(key, raw.request_headers, raw.response_headers);
        let own = match (raw.respond, raw.files) {
            (Some(respond), _) => self.respond(&at("respond"), respond).map(|respond| Own::Respond(Arc::new(respond))),
            (None, files) => {
                let root = self.folder(&at("files"), &files.unwrap_or_default());
                let index = self.index(&at("index"), raw.index);
                let fallback = raw.fallback.and_then(|file| self.fallback(&at("fallback"), file, root.as_deref()));
                root.map(|root| Own::Files(Arc::new(Files { root, index, fallback })))
            }
        };
        Some(UpstreamSettings { name, own: Some(own?), edits, ..UpstreamSettings::default() })
    }

    /// The keys that were written directly below `key`.
    pub(super) fn written_below(&self, key: &str) -> BTreeSet<String> {
        let below = self.places.keys().filter_map(|place| place.strip_prefix(key)?.strip_prefix('.'));
        below.map(|rest| rest.split(['.', '[']).next().unwrap_or_default().to_owned()).collect()
    }

    fn respond(&mut self, key: &str, raw: RawRespond) -> Option<Respond> {
        let at = |leaf: &str| format!("{key}.{leaf}");
        let status = StatusCode::from_u16(raw.status.unwrap_or(200)).ok().filter(|status| status.as_u16() >= 200)?;
        let body = raw.body.unwrap_or_default();
        if !body.is_empty() && matches!(status.as_u16(), 204 | 205 | 304) {
            self.error(
                &at("body"),
                format!("contradicts status = {}, which has none", status.as_u16()),
                "remove one of them",
            );
        }
        let mut headers: HeaderMap = self.fields(&at("headers"), raw.headers, Way::Response).into_iter().collect();
        if raw.content_type.is_some() && headers.contains_key(CONTENT_TYPE) {
            self.error(&at("content_type"), "is in headers too", "keep one of them");
        }
        match raw.content_type.as_deref().map(HeaderValue::from_str) {
            Some(Ok(value)) => {
                headers.insert(CONTENT_TYPE, value);
            }
            Some(Err(_)) => {
                self.error(&at("content_type"), "is no content type", "for example \"text/html; charset=utf-8\"")
            }
            None if !body.is_empty() => {
                headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain; charset=utf-8"));
            }
            None => {}
        }
        Some(Respond { status, headers, body: body.into() })
    }

    fn folder(&mut self, key: &str, path: &Path) -> Option<PathBuf> {
        let path = self.file(key, path);
        let why = match std::fs::read_dir(&path) {
            Ok(_) => return Some(path),
            Err(error) => error,
        };
        let what = format!("names {}, which cannot be read: {why}", path.display());
        self.error(key, what, "name a folder that this process may read");
        None
    }

    fn index(&mut self, key: &str, written: Option<Vec<String>>) -> Vec<String> {
        let Some(names) = written else { return vec!["index.html".to_owned()] };
        for name in names.iter().filter(|name| !is_file_below(name) || name.contains('/')) {
            self.error(key, format!("names {}, no name of a file", shown(name)), "for example [\"index.html\"]");
        }
        names
    }

    fn fallback(&mut self, key: &str, file: String, root: Option<&Path>) -> Option<String> {
        if !is_file_below(&file) {
            let fix = "write a path below the folder, such as \"index.html\"";
            self.error(key, format!("is {}, no file of the folder", shown(&file)), fix);
            return None;
        }
        if root.is_some_and(|root| !root.join(&file).is_file()) {
            self.warn(key, format!("is {file}, which is not there now"), "");
        }
        Some(file)
    }
}

/// A plain path that goes nowhere but down.
fn is_file_below(path: &str) -> bool {
    let is_plain =
        |part: Component<'_>| matches!(part, Component::Normal(name) if !name.as_encoded_bytes().starts_with(b"."));
    !path.is_empty() && !path.ends_with('/') && !path.contains('\0') && Path::new(path).components().all(is_plain)
}
