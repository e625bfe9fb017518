//! Where configuration comes from, and how its layers become one: defaults < TOML < environment < flags.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::env;
use super::problem::{ConfigProblem, Place};
use super::raw::RawConfig;
use super::shape::Shape;
use super::walk::Layer;

/// Read when nothing names another file, if it exists.
pub const DEFAULT_FILE: &str = "/etc/vestibule/vestibule.toml";

/// A configuration file, already read.
#[derive(Debug, Clone)]
pub struct FileSource {
    /// Its path: shown in problems, and relative paths in it start from its folder.
    pub name: String,
    /// TOML.
    pub text: String,
}

/// Everything a configuration is made from, beside the defaults.
#[derive(Clone, Default)]
pub struct Sources {
    /// The TOML file.
    pub file: Option<FileSource>,
    /// Environment variables; all of them, ours are picked out.
    pub env: Vec<(String, String)>,
    /// Dotted key and value, from the command line.
    pub flags: Vec<(String, String)>,
}

// No derive: the environment holds secrets.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = self.file.as_ref().map(|file| &file.name);
        f.debug_struct("Sources").field("file", &file).finish_non_exhaustive()
    }
}

impl Sources {
    /// The sources of this process: `file`, else what `VESTIBULE_CONFIG` names, else [`DEFAULT_FILE`] if it exists.
    ///
    /// # Errors
    /// When a file that was named cannot be read.
    pub fn from_process(file: Option<&Path>, flags: Vec<(String, String)>) -> Result<Self, ConfigProblem> {
        let mut env = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => env.push((name, value)),
                Err(_) if env::is_ours(&name) => {
                    let place = Place::Variable(name);
                    return Err(ConfigProblem::error("", place, "is not UTF-8 text", "write it in UTF-8"));
                }
                Err(_) => {}
            }
        }
        let variable = env.iter().find(|(name, _)| name == env::CONFIG_VARIABLE).map(|(_, value)| value.as_str());
        let place = match file {
            Some(_) => Place::Flag("config".to_owned()),
            None => Place::Variable(env::CONFIG_VARIABLE.to_owned()),
        };
        if file.is_none() && variable == Some("") {
            return Err(ConfigProblem::error("", place, "is empty", "write the path of a file, or remove it"));
        }
        let file = match file.or(variable.map(Path::new)) {
            Some(named) => Some(read(named, place)?),
            None if Path::new(DEFAULT_FILE).exists() => Some(read(Path::new(DEFAULT_FILE), Place::Nowhere)?),
            None => None,
        };
        Ok(Self { file, env, flags })
    }

    /// Only a TOML text: no environment, no flags. For tests.
    pub fn toml(text: &str) -> Self {
        let file = FileSource { name: "vestibule.toml".to_owned(), text: text.to_owned() };
        Self { file: Some(file), ..Self::default() }
    }
}

fn read(path: &Path, place: Place) -> Result<FileSource, ConfigProblem> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(FileSource { name, text }),
        Err(error) => {
            let what = format!("the configuration file {name} cannot be read: {error}");
            Err(ConfigProblem::error("", place, what, "name a TOML file that this process may read"))
        }
    }
}

/// All layers as one.
pub(super) struct Merged {
    pub(super) raw: RawConfig,
    pub(super) places: BTreeMap<String, Place>,
    pub(super) broken: BTreeSet<String>,
    pub(super) problems: Vec<ConfigProblem>,
}

/// Keys that are different ways to say one thing: a higher layer's replaces all of a lower one's.
const ALTERNATIVES: &[&[&str]] = &[
    &["provider.client_secret", "provider.client_secret_file", "provider.public_client"],
    &["admin_token", "admin_token_file"],
    &["session.secrets", "session.secrets_files", "session.secret", "session.secret_file"],
    &["session.store", "session.store_file"],
    &["session.share", "session.share_file"],
];

/// Reads every layer and merges them. `None` where the file has a syntax error: then that problem stands alone.
pub(super) fn merge(sources: &Sources) -> Result<Merged, Vec<ConfigProblem>> {
    let root = Shape::root();
    let file = match &sources.file {
        Some(file) => Layer::from_file(&file.name, &file.text, &root),
        None => Layer::default(),
    };
    // Only a syntax error has no key: nothing is known about the file then.
    if file.problems.iter().any(|problem| problem.key.is_empty()) {
        return Err(file.problems);
    }
    let mut layers = [file, env::layer(&sources.env, &root), flags(&sources.flags, &root)];
    for upper in 1..layers.len() {
        let (lower, upper) = layers.split_at_mut(upper);
        for keys in ALTERNATIVES.iter().filter(|keys| keys.iter().any(|key| upper[0].places.contains_key(*key))) {
            lower.iter_mut().for_each(|layer| keys.iter().for_each(|key| forget(layer, key)));
        }
    }
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    let (mut broken, mut problems) = (BTreeSet::new(), Vec::new());
    let mut figment = Figment::new();
    for layer in layers {
        for key in layer.places.keys() {
            // A list is replaced as a whole, with the places of its items.
            places.retain(|place, _| !place.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('[')));
        }
        places.extend(layer.places);
        broken.extend(layer.broken);
        problems.extend(layer.problems);
        figment = figment.merge(Checked(layer.dict));
    }
    match figment.extract::<RawConfig>() {
        Ok(raw) => Ok(Merged { raw, places, broken, problems }),
        Err(errors) => {
            // What was wrong is told already, unless a value has a shape that types allow and the schema does not tell. The
            // error's own text could show a value.
            problems.extend(errors.into_iter().map(|error| {
                let key = error.path.join(".");
                let place = places.get(&key).cloned().unwrap_or(Place::Nowhere);
                ConfigProblem::error(key, place, "cannot be read as what it should be", "see `vestibule schema`")
            }));
            Err(problems)
        }
    }
}

fn flags(flags: &[(String, String)], root: &Shape) -> Layer {
    let mut layer = Layer::default();
    for (key, value) in flags {
        let place = Place::Flag(key.clone());
        let Some(segments) = segments(key) else {
            let fix = "write section.key=value, such as log.format=json";
            layer.problems.push(ConfigProblem::error("", place, "is not a key", fix));
            continue;
        };
        let shape = segments.iter().try_fold(root, |shape, key| shape.under(key));
        if shape.is_some_and(|shape| shape.secret) {
            let what = "is a secret on the command line, where every process on this machine can read it";
            layer.problems.push(ConfigProblem::warning(key.clone(), place.clone(), what, "put it into a file"));
        }
        layer.set(&segments, value, place, root);
    }
    layer
}

/// A dotted key; segments may be quoted as in TOML.
fn segments(key: &str) -> Option<Vec<String>> {
    let mut segments = Vec::new();
    let mut rest = key;
    loop {
        let (segment, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
        };
        if segment.is_empty() {
            return None;
        }
        segments.push(segment.to_owned());
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(segments),
            None => return None,
        }
    }
}

fn forget(layer: &mut Layer, key: &str) {
    layer.places.retain(|place, _| place != key && !place.strip_prefix(key).is_some_and(|rest| rest.starts_with('[')));
    if let Some((section, leaf)) = key.split_once('.')
        && let Some(Value::Dict(_, dict)) = layer.dict.get_mut(section)
    {
        dict.remove(leaf);
    }
}

/// A layer that has been walked, for figment.
struct Checked(Dict);

impl Provider for Checked {
    fn metadata(&self) -> Metadata {
        Metadata::named("configuration")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.0.clone())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_keys_may_be_quoted() {
        assert_eq!(segments("log.format").unwrap(), ["log", "format"]);
        assert_eq!(segments("identity.headers.\"X-A.b\"").unwrap(), ["identity", "headers", "X-A.b"]);
        for bad in ["", ".", "a.", ".a", "a..b", "\"a", "\"a\"b"] {
            assert_eq!(segments(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_named_file_must_exist() {
        let missing = Path::new("/nonexistent/vestibule.toml");
        let problem = Sources::from_process(Some(missing), Vec::new()).unwrap_err();
        assert!(problem.to_string().contains("/nonexistent/vestibule.toml"), "{problem}");
    }

    #[test]
    fn sources_do_not_show_the_environment() {
        let sources = Sources { env: vec![("SESSION_SECRET".into(), "hunter2".into())], ..Sources::default() };
        assert!(!format!("{sources:?}").contains("hunter2"));
    }
}
