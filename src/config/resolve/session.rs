//! `[session]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Resolver;
use crate::authn::session::renewing::When;
use crate::authn::session::{cookie, kept};
use crate::authn::{oidc, session};
use crate::config::SecretFiles;
use crate::config::problem::nearest;
use crate::config::raw::RawSession;
use crate::config::secrets::{SHORTEST, weakness};
use crate::config::text::Span;
use crate::secret::SecretString;
use crate::store::{Location, LocationProblem};

/// Each may send every browser to the provider and back.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(10);
/// Longer than any store is restarted or fails over.
const LONGEST_GRACE: Duration = Duration::from_secs(3600);
/// It lies in memory.
const LARGEST_POST: usize = 8 << 20;
/// Of a record's 1 MiB, so that nothing that is sealed can be too large.
const LARGEST_STORED: usize = 512 << 10;
/// A form is kept for so long at least, and at most.
const SHORTEST_KEPT: Duration = Duration::from_secs(60);
const LONGEST_KEPT: Duration = Duration::from_secs(12 * 3600);
/// What comes later than that after the end of its session is not kept.
const OUTLIVES: Duration = Duration::from_secs(12 * 3600);
/// Makes a good one.
pub(super) const GENERATE: &str = "`vestibule generate-secret` prints a good one";

impl Resolver {
    pub(super) fn session(
        &mut self,
        raw: RawSession,
        cookie: cookie::Settings,
        state_dir: Option<PathBuf>,
    ) -> Option<session::Settings> {
        let lifetime = self.span("session.lifetime", raw.lifetime.as_ref(), Duration::from_secs(24 * 3600));
        let idle_written = raw.idle.is_some();
        // A short lifetime shortens the default idle time with it.
        let idle = self.span("session.idle", raw.idle.as_ref(), Duration::from_secs(3600).min(lifetime));
        for (key, span) in [("session.lifetime", lifetime), ("session.idle", idle)] {
            if !span.is_zero() && span < Duration::from_secs(1) {
                self.error(key, "is shorter than a second", "sessions count in whole seconds");
            }
        }
        if idle_written && idle > lifetime {
            let what = "is longer than session.lifetime, so it never counts";
            self.error(
                "session.idle",
                what,
                format!("write at most {:?}", humantime::format_duration(lifetime).to_string()),
            );
        }
        // RFC 6265bis §5.5: user agents keep no cookie longer.
        if lifetime > Duration::from_secs(400 * 24 * 3600) {
            self.error(
                "session.lifetime",
                "is longer than 400 days, the longest a browser keeps a cookie",
                "for example \"24h\"",
            );
        }
        let every = raw.renew_every.as_ref().map(|span| self.span("session.renew_every", Some(span), Duration::ZERO));
        if every.is_some_and(|every| every < SHORTEST_RENEWAL) {
            let fix = "write at least \"10s\"; \"15m\" is usual";
            self.error("session.renew_every", "is so short that people would hardly do anything else", fix);
        }
        let renewal = When { refresh: raw.renew.unwrap_or(true), every };
        let store_grace = self.store_grace(&raw);
        let store = ("session.store", raw.store.as_ref());
        let store = self.store(store, ("session.store_file", raw.store_file.as_ref()));
        let share = self.share(&raw, store.is_some());
        let keep_posts = self.keep_posts(&raw, store.is_some());
        let secrets = self.secrets(&raw)?;
        Some(session::Settings {
            secrets,
            lifetime,
            idle,
            renewal,
            browser_session: raw.browser_session.unwrap_or(false),
            cookie,
            store,
            share,
            store_grace,
            outlives: keep_posts.map_or(Duration::ZERO, |_| OUTLIVES),
            keep_posts,
            state_dir,
        })
    }

    /// Off, unless it is written.
    fn keep_posts(&mut self, raw: &RawSession, is_stored: bool) -> Option<kept::Settings> {
        let Some(largest) = &raw.keep_posts else {
            let others = [
                ("session.keep_posts_total", raw.keep_posts_total.is_some()),
                ("session.keep_posts_for", raw.keep_posts_for.is_some()),
            ];
            for (key, _) in others.iter().filter(|(_, written)| *written) {
                self.error(
                    key,
                    "has no meaning without session.keep_posts",
                    "write keep_posts = \"64KiB\", or remove it",
                );
            }
            return None;
        };
        let largest = largest.0;
        if !(1..=LARGEST_POST).contains(&largest) {
            self.error("session.keep_posts", "is out of range", "write a size up to 8MiB, such as \"64KiB\"");
        }
        if is_stored && largest > LARGEST_STORED && largest <= LARGEST_POST {
            let what = "is larger than what a session store keeps of one form";
            self.error("session.keep_posts", what, "write a size up to 512KiB");
        }
        let total = raw.keep_posts_total.as_ref().map_or(16 << 20, |total| total.0);
        if total < largest.saturating_add(kept::HEAD) {
            let what = "leaves no room for a single form of session.keep_posts, with 5 KiB beside it";
            self.error("session.keep_posts_total", what, "write a larger one, such as \"16MiB\"");
        }
        let life = self.span("session.keep_posts_for", raw.keep_posts_for.as_ref(), Duration::from_secs(15 * 60));
        if !(SHORTEST_KEPT..=LONGEST_KEPT).contains(&life) {
            let what = "is out of range: people sign in meanwhile, and what they entered is not to lie around";
            self.error("session.keep_posts_for", what, "write a span from \"1m\" to \"12h\"; \"15m\" is usual");
        }
        Some(kept::Settings { largest, total, life })
    }

    fn store_grace(&mut self, raw: &RawSession) -> Duration {
        // Zero is a choice here.
        let grace = raw.store_grace.as_ref().map_or(Duration::from_secs(60), |Span(span)| *span);
        if grace > LONGEST_GRACE {
            let what = "is so long that sessions which were ended elsewhere would go on for hours";
            self.error("session.store_grace", what, "write at most \"1h\"; \"0s\" is none at all");
        }
        grace
    }

    /// By what replicas share what they know of sessions in cookies.
    fn share(&mut self, raw: &RawSession, has_store: bool) -> Option<Location> {
        let key = "session.share";
        let share = self.store((key, raw.share.as_ref()), ("session.share_file", raw.share_file.as_ref()));
        if has_store && share.is_some() {
            let what = "is not needed: replicas share by session.store what they know";
            self.error(key, what, "remove it");
        }
        share
    }

    /// A store that is named by one of two keys; `None` for "cookie".
    fn store(
        &mut self,
        (key, written): (&str, Option<&SecretString>),
        (file_key, file): (&str, Option<&PathBuf>),
    ) -> Option<Location> {
        let (key, written) = match (written, file) {
            (Some(_), Some(_)) => {
                self.error(file_key, format!("says again what {key} does already"), "keep one of them");
                return None;
            }
            (Some(store), None) => (key, store.expose_secret().to_owned()),
            (None, Some(path)) => (file_key, one_line(&self.secret_file(file_key, path)?)),
            (None, None) => return None,
        };
        if written == "cookie" {
            return None;
        }
        // The value itself may carry a password, so nothing of it is shown.
        match Location::parse(&written, &self.file(key, Path::new(""))) {
            Ok(location) => {
                if let Err(missing) = location.is_built_in() {
                    self.error(key, missing, "use a build that has it, or write \"cookie\"");
                }
                Some(location)
            }
            Err(problems) => {
                let near = nearest(&written, ["cookie"]).map(|near| format!("did you mean {near:?}?"));
                for LocationProblem { what, fix } in problems {
                    self.error(key, what, near.clone().unwrap_or_else(|| fix.to_owned()));
                }
                None
            }
        }
    }

    /// The key ring: one of four ways to give it.
    fn secrets(&mut self, raw: &RawSession) -> Option<Vec<SecretString>> {
        let ways = [
            ("session.secrets", raw.secrets.is_some()),
            ("session.secrets_files", raw.secrets_files.is_some()),
            ("session.secret", raw.secret.is_some()),
            ("session.secret_file", raw.secret_file.is_some()),
        ];
        let given: Vec<_> = ways.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
        match given.as_slice() {
            [] => {
                if !ways.iter().any(|(key, _)| self.broken.contains(*key)) {
                    let fix = format!(
                        "set SESSION_SECRET or SESSION_SECRET_FILE, or write secret_file in [session]; {GENERATE}"
                    );
                    self.error("session.secret", "is missing", fix);
                }
                return None;
            }
            [_] => {}
            [first, others @ ..] => {
                for other in others {
                    let what = format!("gives the secret again: {first} ({}) does already", self.place(first));
                    self.error(
                        other,
                        what,
                        "keep one of them; to rotate, list the new secret first and the old one after it",
                    );
                }
                return None;
            }
        }
        let mut secrets: Vec<(String, String)> = Vec::new();
        for (index, secret) in raw.secrets.iter().flatten().enumerate() {
            secrets.push((format!("session.secrets[{index}]"), one_line(secret.expose_secret())));
        }
        for (index, path) in raw.secrets_files.iter().flatten().enumerate() {
            let key = format!("session.secrets_files[{index}]");
            let text = self.secret_file(&key, path)?;
            secrets.push((key, one_line(&text)));
        }
        if let Some(secret) = &raw.secret {
            secrets.extend(words("session.secret", secret.expose_secret()));
        }
        if let Some(path) = &raw.secret_file {
            let text = self.secret_file("session.secret_file", path)?;
            secrets.extend(words("session.secret_file", &text));
        }
        if secrets.is_empty() {
            self.error(given[0], "is empty", GENERATE);
            return None;
        }
        let mut sound = true;
        for (index, (key, secret)) in secrets.iter().enumerate() {
            if let Some(why) = weakness(secret) {
                sound = false;
                self.error(key, why, advice(secrets.len(), key));
            } else if secrets[..index].iter().any(|(_, earlier)| earlier == secret) {
                sound = false;
                self.error(key, "is given twice", "each secret of the ring is another one");
            }
        }
        sound.then(|| secrets.into_iter().map(|(_, secret)| SecretString::new(secret)).collect())
    }

    /// The files among these ways.
    pub(super) fn secret_files(&self, raw: &RawSession) -> Option<SecretFiles> {
        let one = raw.secret_file.iter().map(|path| self.file("session.secret_file", path));
        let many = raw.secrets_files.iter().flatten().enumerate();
        let many = many.map(|(index, path)| self.file(&format!("session.secrets_files[{index}]"), path));
        let paths: Vec<_> = one.chain(many).collect();
        (!paths.is_empty()).then(|| SecretFiles { paths, several: raw.secret_file.is_some() })
    }

    /// The provider knows the client secret, so it must not open sessions.
    pub(super) fn distinct_secrets(&mut self, session: Option<&session::Settings>, providers: &[oidc::Settings]) {
        let Some(session) = session else { return };
        let mut clients = providers.iter().filter_map(|provider| provider.credentials.client_secret.as_ref());
        let is_session = |client: &SecretString| {
            session.secrets.iter().any(|secret| secret.expose_secret() == client.expose_secret())
        };
        if clients.any(is_session) {
            self.error("session.secret", "is the client secret, which the provider knows too", GENERATE);
        }
    }
}

fn advice(count: usize, key: &str) -> String {
    let separated = count > 1 && (key == "session.secret" || key == "session.secret_file");
    if separated {
        format!("white space separates several secrets, each of at least {SHORTEST} bytes; {GENERATE}")
    } else {
        GENERATE.to_owned()
    }
}

/// As written, less one trailing newline.
pub(super) fn one_line(text: &str) -> String {
    let line = text.strip_suffix('\n').unwrap_or(text);
    line.strip_suffix('\r').unwrap_or(line).to_owned()
}

/// Several secrets, separated by white space.
fn words(key: &str, text: &str) -> Vec<(String, String)> {
    text.split_whitespace().map(|word| (key.to_owned(), word.to_owned())).collect()
}
