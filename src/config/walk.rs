//! Reads one layer against the shape of the configuration and finds everything that is wrong with it: unknown keys, wrong
//! types, values that mean nothing; each with its place. What is right comes out as a dictionary for figment.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use figment::value::{Dict, Tag, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{ConfigProblem, Place, nearest, shown};
use super::shape::{Kind, Shape, one_of};

/// What one source says.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) dict: Dict,
    /// Dotted key → where it was written.
    pub(super) places: BTreeMap<String, Place>,
    /// Keys that were written, but not understood: not to be told as missing.
    pub(super) broken: BTreeSet<String>,
    pub(super) problems: Vec<ConfigProblem>,
}

/// The dotted key below `path`, quoted where TOML wants quotes.
pub(super) fn below(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

impl Layer {
    /// The TOML file. A syntax error is the only problem then, because nothing behind it can be believed.
    pub(super) fn from_file(name: &str, text: &str, root: &Shape) -> Self {
        let mut layer = Self::default();
        let source = Source { root, origin: Origin::File { name, text } };
        match DeTable::parse(text) {
            Ok(table) => layer.dict = layer.table(table.get_ref(), root, "", &source),
            Err(error) => {
                let place = source.place(error.span().unwrap_or_default());
                // Only the parser's own words: its Display would show the line, which may hold a secret.
                let what = format!("is not TOML: {}", error.message());
                layer.problems.push(ConfigProblem::error(
                    "",
                    place,
                    what,
                    "texts stand in double quotes, sections in [brackets]",
                ));
            }
        }
        layer
    }

    /// One value of the environment or the command line: text that becomes what its key wants.
    pub(super) fn set(&mut self, segments: &[String], text: &str, place: Place, root: &Shape) {
        let path = segments.iter().fold(String::new(), |path, key| below(&path, key));
        let mut shape = root;
        let mut walked = String::new();
        for key in segments {
            match shape.under(key) {
                Some(next) => shape = next,
                None => {
                    self.unknown(key, &walked, place, advice(key, shape, root));
                    return;
                }
            }
            walked = below(&walked, key);
        }
        if let Some(earlier) = self.places.get(&path) {
            let what = format!("is set twice: {earlier}, {place}");
            self.problems.push(ConfigProblem::error(path, place, what, "remove one of them"));
            return;
        }
        if text.is_empty() {
            self.broken.insert(path.clone());
            let fix = "write a value, or remove it: an empty one is never taken for a missing one";
            self.problems.push(ConfigProblem::error(path, place, "is empty", fix));
            return;
        }
        self.places.insert(path.clone(), place.clone());
        if let Some(value) = self.text(text, shape, &path, &Source { root, origin: Origin::Fixed(place) }) {
            put(&mut self.dict, segments, value);
        }
    }

    fn unknown(&mut self, key: &str, path: &str, place: Place, advice: String) {
        self.problems.push(ConfigProblem::error(below(path, key), place, "is not a known key", advice));
    }

    fn table(&mut self, table: &DeTable<'_>, shape: &Shape, path: &str, source: &Source<'_>) -> Dict {
        let mut dict = Dict::new();
        for (key, value) in table {
            let key_text: &str = key.get_ref();
            let Some(expected) = shape.under(key_text) else {
                self.unknown(key_text, path, source.place(key.span()), advice(key_text, shape, source.root));
                continue;
            };
            let path = below(path, key_text);
            if let Some(value) = self.value(value, expected, &path, source) {
                dict.insert(key_text.to_owned(), value);
            }
        }
        dict
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, shape: &Shape, path: &str, source: &Source<'_>) -> Option<Value> {
        let place = source.place(value.span());
        self.places.entry(path.to_owned()).or_insert(place);
        match (value.get_ref(), &shape.kind) {
            (_, Kind::Either(arms)) => match arms.iter().find(|arm| takes(arm, value.get_ref())) {
                Some(Shape { kind: Kind::Choice(words), .. }) => match value.get_ref().as_str() {
                    Some(word) if words.iter().any(|known| known == word) => Some(Value::from(word)),
                    Some(word) => {
                        let what = format!("is {}, not {}", shown(word), shape.describe());
                        let fix = self.fix(path, shape);
                        self.tell(path, what, fix)
                    }
                    None => self.wrong(path, shape, None),
                },
                Some(arm) => {
                    let arm = Shape { secret: shape.secret, example: shape.example.clone(), ..arm.clone() };
                    self.value(value, &arm, path, source)
                }
                None => self.wrong(path, shape, Some(kind_of(value.get_ref()))),
            },
            (DeValue::Table(table), Kind::Table { .. }) => {
                let dict = self.table(table, shape, path, source);
                let lacks = |key: &&String| !table.keys().any(|written| written.get_ref() == key.as_str());
                if let Some(key) = shape.required().iter().find(lacks) {
                    return self.tell(path, format!("lacks the key {key:?}"), self.fix(path, shape));
                }
                Some(Value::Dict(Tag::Default, dict))
            }
            (DeValue::Array(items), Kind::List(inner)) => {
                let inner = Shape { secret: shape.secret || inner.secret, ..(**inner).clone() };
                let items: Vec<_> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.value(item, &inner, &format!("{path}[{index}]"), source))
                    .collect();
                // All or nothing, or the indexes of later problems would be off.
                let whole: Option<Vec<_>> = items.into_iter().collect();
                if whole.is_none() {
                    self.broken.insert(path.to_owned());
                }
                whole.map(|items| Value::Array(Tag::Default, items))
            }
            (DeValue::String(text), Kind::Text { .. } | Kind::Choice(_)) => self.word(text, shape, path),
            (DeValue::Integer(number), Kind::Whole { .. }) => {
                let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
                self.whole(number, shape, path)
            }
            (DeValue::Boolean(switch), Kind::Switch) => Some(Value::from(*switch)),
            (found, _) => self.wrong(path, shape, Some(kind_of(found))),
        }
    }

    /// Text from a variable or flag, as what `shape` wants.
    fn text(&mut self, text: &str, shape: &Shape, path: &str, source: &Source<'_>) -> Option<Value> {
        let literal = text.trim_start().starts_with(['[', '{']);
        match &shape.kind {
            Kind::Text { .. } | Kind::Choice(_) => self.word(text, shape, path),
            Kind::Whole { .. } => self.whole(text.trim().parse().ok(), shape, path),
            Kind::Switch => match text.trim() {
                "true" => Some(Value::from(true)),
                "false" => Some(Value::from(false)),
                _ => self.wrong(path, shape, None),
            },
            Kind::List(_) | Kind::Table { .. } if literal && !shape.secret => self.literal(text, shape, path, source),
            Kind::List(inner) if !matches!(inner.kind, Kind::Table { .. }) => {
                // A secret may hold commas.
                let between = |c: char| c.is_whitespace() || (c == ',' && !shape.secret);
                let inner = Shape { secret: shape.secret, ..(**inner).clone() };
                let items = text.split(between).filter(|item| !item.is_empty());
                let items: Vec<_> = items.map(|item| self.text(item, &inner, path, source)).collect();
                items.into_iter().collect::<Option<Vec<_>>>().map(|items| Value::Array(Tag::Default, items))
            }
            Kind::List(_) | Kind::Table { .. } => {
                self.broken.insert(path.to_owned());
                let (what, fix) = (format!("must be {}", shape.describe()), "write it as in TOML: [{ … }] or { … }");
                self.problems.push(ConfigProblem::error(path, source.place(0..0), what, fix));
                None
            }
            Kind::Either(arms) => {
                let many = text.contains([',', ' ']);
                let arm = arms.iter().min_by_key(|arm| match &arm.kind {
                    Kind::List(_) | Kind::Table { .. } if literal => 0,
                    Kind::Switch if matches!(text, "true" | "false") => 1,
                    Kind::Choice(words) if words.iter().any(|word| word == text) => 2,
                    Kind::List(_) if many => 3,
                    Kind::Text { .. } => 4,
                    _ => 5,
                })?;
                let arm = Shape { secret: shape.secret, example: shape.example.clone(), ..arm.clone() };
                self.text(text, &arm, path, source)
            }
        }
    }

    /// A TOML literal in a variable or flag.
    fn literal(&mut self, text: &str, shape: &Shape, path: &str, source: &Source<'_>) -> Option<Value> {
        match DeValue::parse(text.trim()) {
            Ok(value) => self.value(&value, shape, path, source),
            Err(error) => {
                self.broken.insert(path.to_owned());
                let what = format!("is not a TOML value: {}", error.message());
                self.problems.push(ConfigProblem::error(
                    path,
                    source.place(0..0),
                    what,
                    "texts stand in double quotes",
                ));
                None
            }
        }
    }

    fn word(&mut self, text: &str, shape: &Shape, path: &str) -> Option<Value> {
        let fits = match &shape.kind {
            Kind::Choice(words) => words.iter().any(|word| word == text),
            Kind::Text { format } => super::text::misfit(format, text).is_none(),
            _ => false,
        };
        if fits {
            return Some(Value::from(text));
        }
        let what = if shape.secret {
            format!("is not {}", shape.describe())
        } else {
            format!("is {}, not {}", shown(text), shape.describe())
        };
        let fix = match &shape.kind {
            Kind::Choice(words) => match nearest(text, words.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("write {}", one_of(words)),
            },
            _ => self.fix(path, shape),
        };
        self.tell(path, what, fix)
    }

    fn whole(&mut self, number: Option<i64>, shape: &Shape, path: &str) -> Option<Value> {
        let Kind::Whole { min, max } = shape.kind else { return None };
        match number {
            Some(number) if (min..=max).contains(&number) => Some(Value::from(number)),
            Some(number) => {
                self.tell(path, format!("is {number}, out of range"), format!("write a number from {min} to {max}"))
            }
            None => self.wrong(path, shape, None),
        }
    }

    fn wrong(&mut self, path: &str, shape: &Shape, found: Option<&str>) -> Option<Value> {
        let found = found.map_or(String::new(), |found| format!(", not {found}"));
        let what = format!("must be {}{found}", shape.describe());
        let fix = self.fix(path, shape);
        self.tell(path, what, fix)
    }

    fn tell(&mut self, path: &str, what: String, fix: String) -> Option<Value> {
        self.broken.insert(path.to_owned());
        let place = self.places.get(path).cloned().unwrap_or(Place::Nowhere);
        self.problems.push(ConfigProblem::error(path, place, what, fix));
        None
    }

    /// How a right value would look where this one was written.
    fn fix(&self, path: &str, shape: &Shape) -> String {
        let Some(example) = &shape.example else { return String::new() };
        match self.places.get(path) {
            Some(Place::Variable(name)) => format!("for example {name}={}", example.trim_matches('"')),
            Some(Place::Flag(key)) => format!("for example {key}={}", example.trim_matches('"')),
            _ => {
                let key = path.rsplit('.').next().unwrap_or(path);
                let key = key.split('[').next().unwrap_or(key);
                format!("for example {key} = {example}")
            }
        }
    }
}

/// What to write instead of the unknown `key`, where `shape` was expected.
fn advice(key: &str, shape: &Shape, root: &Shape) -> String {
    let known = shape.keys();
    if known.is_empty() {
        return "there is nothing below it".to_owned();
    }
    if let Some(near) = nearest(key, known.iter().copied()) {
        return format!("did you mean {near:?}?");
    }
    match root.find(key).as_deref().map(|elsewhere| elsewhere.rsplit_once('.')) {
        Some(Some((section, _))) => format!("{key:?} belongs into [{section}]"),
        Some(None) => format!("{key:?} belongs above the first [section]"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// Whether `shape` is the arm for `value`, by type alone; a text that is one of an arm's words prefers that arm.
fn takes(shape: &Shape, value: &DeValue<'_>) -> bool {
    matches!(
        (value, &shape.kind),
        (DeValue::Table(_), Kind::Table { .. })
            | (DeValue::Array(_), Kind::List(_))
            | (DeValue::String(_), Kind::Text { .. } | Kind::Choice(_))
            | (DeValue::Integer(_), Kind::Whole { .. })
            | (DeValue::Boolean(_), Kind::Switch)
    )
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn put(dict: &mut Dict, segments: &[String], value: Value) {
    let [first, rest @ ..] = segments else { return };
    if rest.is_empty() {
        dict.insert(first.clone(), value);
        return;
    }
    let below = dict.entry(first.clone()).or_insert_with(|| Value::Dict(Tag::Default, Dict::new()));
    if let Value::Dict(_, below) = below {
        put(below, rest, value);
    }
}

/// Where the values that are being read come from.
enum Origin<'a> {
    File { name: &'a str, text: &'a str },
    Fixed(Place),
}

/// One reading of one source: what the whole may look like, and where this is.
struct Source<'a> {
    root: &'a Shape,
    origin: Origin<'a>,
}

impl Source<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        match &self.origin {
            Origin::Fixed(place) => place.clone(),
            Origin::File { name, text } => {
                let before = text.get(..span.start).unwrap_or(text);
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                Place::File { name: (*name).to_owned(), line, column }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Layer {
        Layer::from_file("v.toml", text, &Shape::root())
    }

    fn texts(layer: &Layer) -> Vec<String> {
        layer.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_problem_of_a_file_is_told_with_its_place() {
        let layer = file(
            "listen = 8080\nworkers = \"two\"\nissuer = \"https://id\"\n[provider]\nisuer = \"x\"\nuserinfo = \"yes\"\n\
             [session]\nidle = 60\n[log]\nformat = \"jsn\"\n[[routes]]\npath = \"/x\"\naccess = \"open\"\nfoo = 1\n",
        );
        assert_eq!(
            texts(&layer),
            [
                "v.toml:3:1: error: issuer is not a known key\n    \"issuer\" belongs into [provider]",
                "v.toml:1:10: error: listen must be an address and port, not a number\n    for example listen = \"0.0.0.0:8080\"",
                "v.toml:10:10: error: log.format is \"jsn\", not one of \"text\", \"json\"\n    did you mean \"json\"?",
                "v.toml:5:1: error: provider.isuer is not a known key\n    did you mean \"issuer\"?",
                "v.toml:6:12: error: provider.userinfo must be true or false, not a text\n    for example userinfo = true",
                "v.toml:13:10: error: routes[0].access is \"open\", not one of \"public\", \"optional\", \"required\"\n    write one of \"public\", \"optional\", \"required\"",
                "v.toml:14:1: error: routes[0].foo is not a known key\n    known here: access, add_prefix, allowed_origins, host, max_body, max_identity_age, methods, name, pass_authorization, pass_headers, path, preflight, provider, rate_limit, request_headers, require, response_headers, strip_prefix, upgrades, upstream",
                "v.toml:8:8: error: session.idle must be a duration with a unit, not a number\n    for example idle = \"1h 30m\"",
                "v.toml:2:11: error: workers must be a whole number, not a text\n    for example workers = 2",
            ]
        );
    }

    #[test]
    fn a_syntax_error_stands_alone_and_shows_no_line() {
        let layer = file("foo = 1\n[session]\nsecret = \"hunter2hunter2\nlisten = 3\n");
        assert_eq!(layer.problems.len(), 1);
        let text = layer.problems[0].to_string();
        assert!(text.starts_with("v.toml:3:"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(layer.dict.is_empty());
    }

    #[test]
    fn a_secret_of_the_wrong_type_is_not_shown() {
        let layer = file("[session]\nsecrets = [\"a\", 12345678]\nsecret = 87654321\n");
        let text = texts(&layer).join("\n");
        assert_eq!(layer.problems.len(), 2, "{text}");
        assert!(!text.contains("12345678") && !text.contains("87654321"), "{text}");
    }

    #[test]
    fn text_becomes_what_its_key_wants() {
        let root = Shape::root();
        let mut layer = Layer::default();
        let mut set = |key: &str, text: &str| {
            let segments: Vec<_> = key.split('.').map(str::to_owned).collect();
            layer.set(&segments, text, Place::Variable(key.to_uppercase()), &root);
        };
        set("provider.client_id", "12345");
        set("provider.scopes", "openid, email profile");
        set("provider.userinfo", "false");
        set("workers", "3");
        set("endpoints.login", "false");
        set("endpoints.logout", "/bye");
        set("identity.roles_claims", "[\"groups\", [\"realm_access\", \"roles\"]]");
        set("identity.headers", "{ X-Team = { claim = \"team\" } }");
        set("identity.name_claim", "email");
        assert!(layer.problems.is_empty(), "{:?}", layer.problems);
        let value = Value::from(layer.dict);
        let string = |path: &str| value.find_ref(path).and_then(|value| value.as_str().map(str::to_owned));
        assert_eq!(string("provider.client_id").as_deref(), Some("12345"));
        assert_eq!(string("identity.name_claim").as_deref(), Some("email"));
        assert_eq!(value.find_ref("provider.scopes").and_then(Value::as_array).map(<[_]>::len), Some(3));
        assert_eq!(value.find_ref("provider.userinfo").and_then(Value::to_bool), Some(false));
        assert_eq!(value.find_ref("endpoints.login").and_then(Value::to_bool), Some(false));
        assert_eq!(string("endpoints.logout").as_deref(), Some("/bye"));
        assert_eq!(string("identity.headers.X-Team.claim").as_deref(), Some("team"));
    }

    #[test]
    fn bad_text_is_told_with_its_variable() {
        let root = Shape::root();
        let mut layer = Layer::default();
        let mut set = |key: &str, text: &str| {
            let segments: Vec<_> = key.split('.').map(str::to_owned).collect();
            layer.set(&segments, text, Place::Variable(format!("V_{}", key.to_uppercase())), &root);
        };
        set("workers", "0");
        set("listen", "");
        set("log.colour", "red");
        set("session.lifetime", "soon");
        set("routes", "public");
        let texts = texts(&layer);
        assert!(texts[0].starts_with("variable V_WORKERS: error: workers is 0, out of range"), "{texts:#?}");
        assert!(texts[1].contains("listen is empty"), "{texts:#?}");
        assert!(texts[2].contains("log.colour is not a known key"), "{texts:#?}");
        assert!(texts[3].contains("for example V_SESSION.LIFETIME=1h 30m"), "{texts:#?}");
        assert!(texts[4].contains("must be a list of tables"), "{texts:#?}");
    }
}
