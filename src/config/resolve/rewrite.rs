//! What a route or an upstream changes on the way through.

use super::Resolver;
use super::endpoints::unusable;
use crate::config::problem::shown;
use crate::config::raw::RawRoute;
use crate::route::Rewrite;

impl Resolver {
    /// `strip_prefix` and `add_prefix` of a route.
    pub(super) fn rewrite(&mut self, index: usize, raw: &RawRoute) -> Option<Box<Rewrite>> {
        let at = |leaf: &str| format!("routes[{index}].{leaf}");
        let strip = self.prefix_of_paths(&at("strip_prefix"), raw.strip_prefix.as_deref());
        let add = self.prefix_of_paths(&at("add_prefix"), raw.add_prefix.as_deref());
        let rewrite = Rewrite { strip, add };
        let path = raw.path.as_deref().unwrap_or("/*");
        if !rewrite.strip.is_empty() && rewrite.pattern(path).is_none() {
            let strip = &rewrite.strip;
            let what =
                format!("is {strip}, and the route's path {path} is not below it: every request would be refused");
            self.error(&at("strip_prefix"), what, format!("write path = \"{strip}/*\", or another prefix"));
        }
        (rewrite != Rewrite::default()).then(|| Box::new(rewrite))
    }

    /// Plain segments without a slash at the end; empty where nothing was written.
    fn prefix_of_paths(&mut self, key: &str, written: Option<&str>) -> String {
        let Some(text) = written else { return String::new() };
        let prefix = text.strip_suffix('/').unwrap_or(text);
        if prefix.is_empty() || prefix.ends_with('/') || unusable(prefix) {
            let what = format!("is {}, no prefix of paths", shown(text));
            self.error(key, what, "write plain segments such as \"/app\", or remove it");
            return String::new();
        }
        prefix.to_owned()
    }
}
