//! The JSON Schema of [`RawConfig`], and the same thing in the form that the walk reads.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::raw::RawConfig;
use super::text::wanted;

/// The JSON Schema (draft 2020-12) of the configuration file, made from the types that read it.
pub fn schema() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<RawConfig>().to_value();
    without_null(&mut schema);
    schema
}

/// What may stand at one place of the configuration.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    /// A right value, as TOML.
    pub(super) example: Option<String>,
    /// Its value is never shown.
    pub(super) secret: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Table {
        fields: BTreeMap<String, Shape>,
        /// What further keys hold, where keys are free.
        rest: Option<Box<Shape>>,
        /// Keys that cannot be left out.
        required: Vec<String>,
    },
    List(Box<Shape>),
    Text {
        /// See [`super::text`]; empty for plain text.
        format: String,
    },
    Choice(Vec<String>),
    Whole {
        min: i64,
        max: i64,
    },
    Switch,
    Either(Vec<Shape>),
}

impl Shape {
    /// The whole configuration.
    pub(super) fn root() -> Self {
        Self::read(&schema())
    }

    fn read(schema: &Value) -> Self {
        let example = schema["examples"].get(0).map(as_toml);
        let secret = schema["writeOnly"] == true;
        Self { kind: Kind::read(schema), example, secret }
    }

    /// What stands under `key`, where that is a table.
    pub(super) fn under(&self, key: &str) -> Option<&Shape> {
        match &self.kind {
            Kind::Table { fields, rest, .. } => fields.get(key).or(rest.as_deref()),
            Kind::Either(arms) => arms.iter().find_map(|arm| arm.under(key)),
            _ => None,
        }
    }

    /// The keys that may stand here; empty where it is no table.
    pub(super) fn keys(&self) -> Vec<&str> {
        match &self.kind {
            Kind::Table { fields, .. } => fields.keys().map(String::as_str).collect(),
            Kind::Either(arms) => arms.iter().flat_map(Self::keys).collect(),
            _ => Vec::new(),
        }
    }

    /// The keys that cannot be left out here.
    pub(super) fn required(&self) -> &[String] {
        match &self.kind {
            Kind::Table { required, .. } => required,
            _ => &[],
        }
    }

    /// The dotted place of a key called `name` in some section, for keys written into the wrong one.
    pub(super) fn find(&self, name: &str) -> Option<String> {
        let Kind::Table { fields, .. } = &self.kind else { return None };
        if fields.contains_key(name) {
            return Some(name.to_owned());
        }
        fields.iter().find_map(|(key, shape)| shape.find(name).map(|path| format!("{key}.{path}")))
    }

    /// What is wanted here, as part of a sentence.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            Kind::Table { .. } => "a table".to_owned(),
            Kind::List(items) => match items.kind {
                Kind::Table { .. } => "a list of tables".to_owned(),
                _ => "a list".to_owned(),
            },
            Kind::Text { format } => wanted(format).to_owned(),
            Kind::Choice(words) => one_of(words),
            Kind::Whole { .. } => "a whole number".to_owned(),
            Kind::Switch => "true or false".to_owned(),
            Kind::Either(arms) => arms.iter().map(Self::describe).collect::<Vec<_>>().join(", or "),
        }
    }
}

impl Kind {
    fn read(schema: &Value) -> Self {
        for union in ["anyOf", "oneOf"] {
            let Some(arms) = schema[union].as_array() else { continue };
            // An enum whose variants have descriptions is a list of constants.
            let words: Vec<_> = arms.iter().filter_map(|arm| arm["const"].as_str().map(str::to_owned)).collect();
            if words.len() == arms.len() {
                return Self::Choice(words);
            }
            return Self::Either(arms.iter().map(Shape::read).collect());
        }
        if schema["enum"].is_array() {
            return Self::Choice(words(&schema["enum"]));
        }
        match schema["type"].as_str() {
            Some("object") => Self::Table {
                fields: schema["properties"]
                    .as_object()
                    .map(|fields| fields.iter().map(|(key, value)| (key.clone(), Shape::read(value))).collect())
                    .unwrap_or_default(),
                rest: schema["additionalProperties"]
                    .as_object()
                    .map(|_| Box::new(Shape::read(&schema["additionalProperties"]))),
                required: words(&schema["required"]),
            },
            Some("array") => Self::List(Box::new(Shape::read(&schema["items"]))),
            Some("integer") => Self::Whole {
                min: schema["minimum"].as_i64().unwrap_or(0),
                max: schema["maximum"].as_i64().unwrap_or(u32::MAX.into()),
            },
            Some("boolean") => Self::Switch,
            _ => Self::Text { format: schema["format"].as_str().unwrap_or_default().to_owned() },
        }
    }
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// `one of "a", "b"`.
pub(super) fn one_of<S: AsRef<str>>(words: &[S]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("\"{}\"", word.as_ref())).collect();
    match words.as_slice() {
        [only] => only.clone(),
        words => format!("one of {}", words.join(", ")),
    }
}

fn as_toml(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(as_toml).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key} = {}", as_toml(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// TOML has no null: an optional key is one that is left out.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(fields) => {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(words)) = fields.get_mut("enum") {
                words.retain(|word| !word.is_null());
            }
            if let Some(Value::Array(arms)) = fields.get_mut("anyOf") {
                arms.retain(|arm| arm["type"] != "null");
                if let [Value::Object(only)] = arms.as_mut_slice() {
                    let only = std::mem::take(only);
                    fields.shift_remove("anyOf");
                    for (key, value) in only {
                        // The field's own description and examples say more than its type's.
                        fields.entry(key).or_insert(value);
                    }
                }
            }
            fields.values_mut().for_each(without_null);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_refuses_unknown_keys_and_knows_no_null() {
        let schema = schema();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["provider"]["additionalProperties"], false);
        assert_eq!(schema["properties"]["routes"]["items"]["additionalProperties"], false);
        assert!(!schema.to_string().contains("null"), "{schema:#}");
        assert!(!schema.to_string().contains("$ref"));
    }

    #[test]
    fn every_key_has_a_description() {
        fn look(path: &str, schema: &Value, silent: &mut Vec<String>) {
            for (key, value) in schema["properties"].as_object().into_iter().flatten() {
                if value["description"].as_str().is_none_or(str::is_empty) {
                    silent.push(format!("{path}{key}"));
                }
                look(&format!("{path}{key}."), value, silent);
            }
            if !schema["items"].is_null() {
                look(&format!("{path}[]."), &schema["items"], silent);
            }
        }
        let mut silent = Vec::new();
        look("", &schema(), &mut silent);
        assert!(silent.is_empty(), "{silent:?}");
    }

    #[test]
    fn shapes_follow_the_types() {
        let root = Shape::root();
        let at = |path: &str| {
            path.split('.').fold(root.clone(), |shape, key| shape.under(key).unwrap_or_else(|| panic!("{key}")).clone())
        };
        assert!(matches!(at("workers").kind, Kind::Whole { min: 1, max: 1024 }));
        assert!(matches!(at("provider.userinfo").kind, Kind::Switch));
        assert!(matches!(&at("session.idle").kind, Kind::Text { format } if format == "duration-with-unit"));
        assert!(matches!(&at("log.format").kind, Kind::Choice(words) if *words == ["text", "json"]));
        assert!(matches!(at("endpoints.login").kind, Kind::Either(_)));
        assert!(matches!(at("upstreams.anything").kind, Kind::Table { .. }));
        assert!(at("session.secret").secret && at("session.secrets").secret && at("provider.client_secret").secret);
        assert!(!at("session.secret_file").secret);
        assert_eq!(root.find("issuer").as_deref(), Some("provider.issuer"));
    }

    #[test]
    fn every_single_key_has_an_example() {
        fn look(path: String, shape: &Shape, bare: &mut Vec<String>) {
            match &shape.kind {
                Kind::Table { fields, .. } => {
                    fields.iter().for_each(|(key, below)| look(format!("{path}.{key}"), below, bare));
                }
                Kind::List(items) if matches!(items.kind, Kind::Table { .. }) => look(path, items, bare),
                _ if shape.secret || shape.example.is_some() => {}
                _ => bare.push(path),
            }
        }
        let mut bare = Vec::new();
        look(String::new(), &Shape::root(), &mut bare);
        bare.retain(|path| ![".trusted_proxies", ".state_dir"].contains(&path.as_str()));
        assert!(bare.is_empty(), "{bare:?}");
    }
}
