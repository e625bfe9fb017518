//! What is wrong with a configuration, in words for its operator: the key, where it came from, what is wrong, what to write
//! instead. A secret's value is never part of it.

use std::fmt;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: the value is missing, or a default.
    Nowhere,
    /// The TOML file.
    File {
        /// As it was named.
        name: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A command line flag, by its dotted key.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("configuration"),
            Self::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(key) => write!(f, "flag for {key}"),
        }
    }
}

/// Whether the program can start all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It can not.
    Error,
    /// It can.
    Warning,
}

/// One problem. Its `Display` is the text for the operator, without a newline at its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigProblem {
    /// The dotted key (`provider.issuer`, `routes[2].path`); empty where a whole source is meant.
    pub key: String,
    /// Where it came from.
    pub place: Place,
    /// What is wrong.
    pub what: String,
    /// What to do about it; may be empty.
    pub fix: String,
    /// Whether the program can start all the same.
    pub severity: Severity,
}

impl ConfigProblem {
    /// A problem that stops the start.
    pub fn error(key: impl Into<String>, place: Place, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { key: key.into(), place, what: what.into(), fix: fix.into(), severity: Severity::Error }
    }

    /// A problem that doesn't.
    pub fn warning(key: impl Into<String>, place: Place, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(key, place, what, fix) }
    }

    /// Whether the program can start all the same.
    pub fn is_warning(&self) -> bool {
        self.severity == Severity::Warning
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}: {severity}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{} ", self.key)?;
        }
        f.write_str(&self.what)?;
        for line in self.fix.lines() {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// A value as it may be shown: escaped, cut, and left out where it could carry credentials.
pub(super) fn shown(value: &str) -> String {
    const LONGEST: usize = 100;
    if value.contains('@') {
        return "the value (not shown, it may carry credentials)".to_owned();
    }
    let cut: String = value.chars().take(LONGEST).collect();
    let dots = if cut.len() < value.len() { "…" } else { "" };
    format!("{cut:?}{dots}")
}

/// The known word nearest to `word`, when it is near enough for a suggestion.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let reach = (word.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_place_key_fault_and_fix() {
        let place = Place::File { name: "vestibule.toml".to_owned(), line: 3, column: 7 };
        let problem = ConfigProblem::error("log.format", place, "is \"xml\"", "write \"text\" or \"json\"");
        assert_eq!(
            problem.to_string(),
            "vestibule.toml:3:7: error: log.format is \"xml\"\n    write \"text\" or \"json\""
        );
    }

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("isuer", ["issuer", "scopes"]), Some("issuer"));
        assert_eq!(nearest("ISSUER", ["issuer"]), Some("issuer"));
        assert_eq!(nearest("colour", ["issuer", "scopes"]), None);
    }

    #[test]
    fn values_with_credentials_are_not_shown() {
        assert!(!shown("http://user:hunter2@host/").contains("hunter2"));
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
    }
}
