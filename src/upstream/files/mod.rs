//! The files of a folder in an upstream's place: no listing, no name that begins with a dot, nothing outside the folder.

mod body;
mod conditions;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use http::header::{
    ACCEPT, ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED,
    LOCATION, VARY,
};
use http::{HeaderName, Method, Response, StatusCode};
use percent_encoding::percent_decode_str;

use self::body::FileBody;
use self::conditions::{Answer, Validators};
use super::lifetime::{Term, Tether};
use crate::message::Body;
use crate::message::body::PIECE;

/// `files` of an upstream, checked.
#[derive(Debug, Clone)]
pub struct Files {
    /// The folder.
    pub root: PathBuf,
    /// Names that are looked for where a folder is asked for.
    pub index: Vec<String>,
    /// What a person gets where there is no file: a path below the folder. For applications whose pages are made in the
    /// browser.
    pub fallback: Option<String>,
}

/// Why there is no file to send.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// No such file, or none that anybody may have: 404.
    #[error("there is no such file")]
    NotFound(#[source] Option<io::Error>),
    /// The folder or a file in it cannot be read: 500.
    #[error("the file cannot be read")]
    Unreadable(#[source] io::Error),
}

impl FileError {
    /// The constant reason code for the log.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "file_not_found",
            Self::Unreadable(_) => "file_unreadable",
        }
    }

    /// 404 or 500.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What stands for a missing or forbidden name is told apart from what the system cannot do.
impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied};
        match error.kind() {
            // A link that leads out of the folder is "permission denied" too.
            NotFound | NotADirectory | IsADirectory | PermissionDenied | InvalidFilename | InvalidInput => {
                Self::NotFound(Some(error))
            }
            _ => Self::Unreadable(error),
        }
    }
}

/// A GET or HEAD for a file.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    /// The raw path, rewritten.
    pub(super) path: String,
    /// Path and query as the client wrote them, with a slash at the end of the path.
    pub(super) with_slash: String,
    /// What the request was let in for, if for a session.
    pub(super) term: Option<Term>,
    /// Whether a person would rather see a page.
    pub(super) is_for_a_person: bool,
}

#[derive(Debug)]
struct Opened {
    file: File,
    length: u64,
    modified: Option<SystemTime>,
    content_type: HeaderValue,
}

impl Files {
    /// Opens, judges and reads; blocks.
    pub(super) fn answer(&self, asked: &Asked) -> Result<Response<Body>, FileError> {
        // Anew each time: a folder that was replaced by another (a release, a mounted volume) is the new one.
        let root = Dir::open_ambient_dir(&self.root, ambient_authority()).map_err(FileError::Unreadable)?;
        let name = Name::read(&asked.path).ok_or(FileError::NotFound(None))?;
        let missing = match self.find(&root, &name) {
            Ok(Found::File(opened)) => return send(opened, asked),
            Ok(Found::Folder) => return move_to(&asked.with_slash),
            Err(FileError::NotFound(cause)) => FileError::NotFound(cause),
            Err(error) => return Err(error),
        };
        let Some(fallback) = self.fallback.as_ref().filter(|_| asked.is_for_a_person) else { return Err(missing) };
        let mut response = send(open(&root, fallback)?.ok_or(missing)?, asked)?;
        // A script that asks for the same address gets 404.
        response.headers_mut().insert(VARY, HeaderValue::from(ACCEPT));
        Ok(response)
    }

    fn find(&self, root: &Dir, name: &Name) -> Result<Found, FileError> {
        if !name.is_folder {
            match open(root, &name.path)? {
                Some(opened) => return Ok(Found::File(opened)),
                None => return self.index_of(root, &name.path).map(|_| Found::Folder),
            }
        }
        self.index_of(root, &name.path).map(Found::File)
    }

    fn index_of(&self, root: &Dir, folder: &str) -> Result<Opened, FileError> {
        for index in &self.index {
            let path = if folder.is_empty() { index.clone() } else { format!("{folder}/{index}") };
            match open(root, &path) {
                Ok(Some(opened)) => return Ok(opened),
                Ok(None) | Err(FileError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(FileError::NotFound(None))
    }
}

#[derive(Debug)]
enum Found {
    File(Opened),
    /// One with an index, asked for without its slash.
    Folder,
}

/// A path in the folder, and whether a slash ended it.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    path: String,
    is_folder: bool,
}

impl Name {
    /// Segment by segment, each percent-decoded once and taken as it is: `;` and `%` are letters like any other here. None for
    /// what no file is served under: names that begin with a dot (but the folder `.well-known`, RFC 8615), empty segments,
    /// bytes that are no UTF-8, a slash or control byte inside a segment.
    fn read(path: &str) -> Option<Self> {
        let (path, is_folder) = match path.strip_prefix('/')? {
            "" => return Some(Self { path: String::new(), is_folder: true }),
            path => path.strip_suffix('/').map_or((path, false), |path| (path, true)),
        };
        let mut name = String::with_capacity(path.len());
        for (position, segment) in path.split('/').enumerate() {
            let segment = percent_decode_str(segment).decode_utf8().ok()?;
            let is_hidden = segment.starts_with('.') && !(position == 0 && segment == ".well-known");
            if segment.is_empty() || is_hidden || segment.contains(|c: char| matches!(c, '/' | '\\') || c.is_control())
            {
                return None;
            }
            if position > 0 {
                name.push('/');
            }
            name.push_str(&segment);
        }
        Some(Self { path: name, is_folder })
    }
}

/// Opens a file without leaving `root`, whatever links lie on the way; `None` for a folder.
fn open(root: &Dir, path: &str) -> Result<Option<Opened>, FileError> {
    // First what it is: to open a pipe would wait for its writer.
    let metadata = root.metadata(path)?;
    if metadata.is_dir() {
        return Ok(None);
    }
    if !metadata.is_file() {
        return Err(FileError::NotFound(None));
    }
    let file = root.open(path)?.into_std();
    // Of what was really opened.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileError::NotFound(None));
    }
    let content_type = content_type(path);
    Ok(Some(Opened { file, length: metadata.len(), modified: metadata.modified().ok(), content_type }))
}

fn content_type(path: &str) -> HeaderValue {
    let guess = match mime_guess::from_path(path).first_raw() {
        // RFC 9239 §6: the older name of the same.
        Some("application/javascript") => "text/javascript",
        Some(guess) => guess,
        None => "application/octet-stream",
    };
    if guess.starts_with("text/") {
        // HTML and JavaScript of today are UTF-8, and without a word some would guess.
        HeaderValue::try_from(format!("{guess}; charset=utf-8"))
            .unwrap_or_else(|_| HeaderValue::from_static("text/plain; charset=utf-8"))
    } else {
        HeaderValue::from_static(guess)
    }
}

fn send(opened: Opened, asked: &Asked) -> Result<Response<Body>, FileError> {
    let Opened { mut file, length, modified, content_type } = opened;
    let validators = modified.and_then(|modified| validators(modified, length, SystemTime::now()));
    let answer = conditions::judge(&asked.method, &asked.headers, validators.as_ref(), length);
    let mut response = Response::new(Body::Empty);
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(validators) = &validators {
        put(headers, ETAG, validators.etag());
        put(headers, LAST_MODIFIED, httpdate::fmt_http_date(validators.modified));
    }
    let (status, part) = match answer {
        Answer::Whole => (StatusCode::OK, 0..length),
        Answer::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Answer::NotModified => (StatusCode::NOT_MODIFIED, 0..0),
        Answer::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, 0..0),
        Answer::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
    };
    match status {
        StatusCode::PARTIAL_CONTENT => {
            put(headers, CONTENT_RANGE, format!("bytes {}-{}/{length}", part.start, part.end - 1));
        }
        StatusCode::RANGE_NOT_SATISFIABLE => put(headers, CONTENT_RANGE, format!("bytes */{length}")),
        _ => {}
    }
    if status.is_success() {
        headers.insert(CONTENT_TYPE, content_type);
        let count = part.end - part.start;
        if asked.method == Method::HEAD {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(count));
        } else {
            if part.start > 0 {
                file.seek(SeekFrom::Start(part.start)).map_err(FileError::Unreadable)?;
            }
            *response.body_mut() = if count <= PIECE as u64 {
                // It is read with the opening.
                Body::full(body::read(&file, count).map_err(FileError::Unreadable)?)
            } else {
                Body::stream(FileBody::new(file, count, asked.term.clone().map(Tether::new)))
            };
        }
    }
    *response.status_mut() = status;
    Ok(response)
}

/// None where the time says nothing: what is built to be reproducible has the same one in each version.
fn validators(modified: SystemTime, length: u64, now: SystemTime) -> Option<Validators> {
    const REPRODUCIBLE: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).ok().filter(|since| *since > REPRODUCIBLE)?;
    // RFC 9110 §8.8.2.2: within a second of its change a file may change again and keep its time.
    let is_weak = now.duration_since(modified).map_or(true, |age| age < Duration::from_secs(1));
    let tag = format!("\"{:x}.{:x}-{length:x}\"", since.as_secs(), since.subsec_nanos());
    // §8.8.2.1: never later than the answer.
    Some(Validators { tag, is_weak, modified: modified.min(now) })
}

/// To the same address with a slash at the end, so that relative links lead into the folder.
fn move_to(with_slash: &str) -> Result<Response<Body>, FileError> {
    // `//host/` would be another site. Such a path has no file, and so never comes here.
    let location = (!with_slash.starts_with("//")).then(|| HeaderValue::try_from(with_slash).ok()).flatten();
    let mut response = Response::new(Body::Empty);
    // Not 301 or 308: a folder may become a file, and browsers would remember.
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, location.ok_or(FileError::NotFound(None))?);
    Ok(response)
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: String) {
    // Digits, dates and tags of ours are always values.
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_one_name_or_none() {
        for (path, name) in [
            ("/", Some(("", true))),
            ("/a.txt", Some(("a.txt", false))),
            ("/a/", Some(("a", true))),
            ("/a%20b/%c3%a9;x=1", Some(("a b/é;x=1", false))),
            ("/100%25", Some(("100%", false))),
            ("/a%2541", Some(("a%41", false))),
            ("/.well-known/security.txt", Some((".well-known/security.txt", false))),
            ("/a/.well-known/x", None),
            ("/.env", None),
            ("/.git/config", None),
            ("/%2egit/config", None),
            ("/a/..", None),
            ("/a/%2e%2e/b", None),
            ("/a%2fb", None),
            ("/a%5cb", None),
            ("/a%00", None),
            ("/a%0a", None),
            ("/%ff", None),
            ("/a//b", None),
            ("//a", None),
            ("//", None),
            ("a", None),
        ] {
            let read = Name::read(path);
            assert_eq!(read.as_ref().map(|name| (name.path.as_str(), name.is_folder)), name, "{path}");
        }
    }

    #[test]
    fn text_is_utf_8_and_the_unknown_is_bytes() {
        for (path, wanted) in [
            ("a.html", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.wasm", "application/wasm"),
            ("a.svg", "image/svg+xml"),
            ("a.woff2", "font/woff2"),
            ("a.webp", "image/webp"),
            ("a", "application/octet-stream"),
            ("a.unheard-of", "application/octet-stream"),
        ] {
            assert_eq!(content_type(path), wanted, "{path}");
        }
    }

    #[test]
    fn validators_are_weak_while_a_file_is_fresh_and_absent_where_its_time_says_nothing() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let old = validators(now - Duration::from_secs(1), 5, now).unwrap();
        assert_eq!(old.etag(), "\"6b49d1ff.0-5\"");
        assert!(validators(now - Duration::from_millis(999), 5, now).unwrap().is_weak);
        let future = validators(now + Duration::from_secs(9), 5, now).unwrap();
        assert!(future.is_weak && future.modified == now);
        for reproducible in [0, 1, 315_532_800] {
            assert_eq!(validators(SystemTime::UNIX_EPOCH + Duration::from_secs(reproducible), 5, now), None);
        }
    }

    proptest! {
        #[test]
        fn no_path_is_a_name_above_or_hidden(path in "\\PC{0,30}|([/.;a%]|%2f|%25|%2e|%5c|%00|\u{e9}){0,12}") {
            let Some(name) = Name::read(&path) else { return Ok(()) };
            for (position, segment) in name.path.split('/').enumerate() {
                prop_assert!(!segment.starts_with('.') || (position == 0 && segment == ".well-known"), "{path}");
                prop_assert!(!segment.contains(['\0', '\\']));
            }
            prop_assert!(!name.path.starts_with('/') && !name.path.contains("//"));
        }
    }
}
