//! Which sessions a query means. One that could mean more than it says is refused: a word that is not known, one that comes
//! twice or is empty. To end sessions it takes exactly one choice; none of them is never everybody.

use super::fault::Fault;
use crate::store::Cursor;

/// Of whom, and from where on.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) user: Option<String>,
    pub(super) provider: Option<String>,
    pub(super) issuer: Option<String>,
    pub(super) from: Option<Cursor>,
    all: bool,
}

/// No question at all.
pub(super) fn none(query: &str) -> Result<(), Fault> {
    if query.is_empty() { Ok(()) } else { Err(Fault::Selection("a session is named by its path alone")) }
}

impl Selection {
    pub(super) fn to_list(query: &str) -> Result<Self, Fault> {
        let selection = Self::read(query)?;
        if selection.all {
            return Err(Fault::Selection("without a filter all are listed; there is no parameter for that"));
        }
        Ok(selection)
    }

    pub(super) fn to_end(query: &str) -> Result<Self, Fault> {
        let selection = Self::read(query)?;
        if selection.from.is_some() {
            return Err(Fault::Selection("sessions are ended all at once; from is for lists"));
        }
        match (&selection.user, &selection.provider, selection.all) {
            (None, None, false) => Err(Fault::Selection("say which sessions: user, provider, or all=true")),
            (None, None, true) | (_, _, false) => Ok(selection),
            (_, _, true) => Err(Fault::Selection("all=true contradicts user and provider: keep one of them")),
        }
    }

    /// For answer and log.
    pub(super) fn name(&self) -> &'static str {
        match (&self.user, &self.provider) {
            (Some(_), _) => "user",
            (None, Some(_)) => "provider",
            (None, None) => "all",
        }
    }

    fn read(query: &str) -> Result<Self, Fault> {
        let mut selection = Self::default();
        let mut seen = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if value.is_empty() {
                return Err(Fault::Selection("a parameter is empty"));
            }
            if seen.contains(&name) {
                return Err(Fault::Selection("a parameter comes twice"));
            }
            match &*name {
                "user" => selection.user = Some(value.into_owned()),
                "provider" => selection.provider = Some(value.into_owned()),
                "issuer" => selection.issuer = Some(value.into_owned()),
                "from" => {
                    let cursor = Cursor::parse(&value);
                    selection.from = Some(cursor.ok_or(Fault::Selection("from is no cursor of a list"))?);
                }
                "all" if value == "true" => selection.all = true,
                "all" => return Err(Fault::Selection("all is true or not there")),
                _ => return Err(Fault::Selection("known parameters are user, provider, issuer, from and all")),
            }
            seen.push(name);
        }
        if selection.issuer.is_some() && selection.user.is_none() {
            return Err(Fault::Selection("an issuer names no session: say whose"));
        }
        Ok(selection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_clear_choice_ends_anything() {
        for (query, name) in [
            ("user=ada", "user"),
            ("user=ada&provider=id", "user"),
            ("user=ada&provider=id&issuer=https%3A%2F%2Fid.example%2Fa", "user"),
            ("provider=id", "provider"),
            ("all=true", "all"),
        ] {
            assert_eq!(Selection::to_end(query).unwrap().name(), name, "{query}");
        }
        for query in [
            "",
            "&",
            "all",
            "all=",
            "all=false",
            "all=1",
            "all=true&all=true",
            "all=true&user=ada",
            "all=true&provider=id",
            "user=",
            "user=&all=true",
            "user=ada&user=bob",
            "user=ada&sub=bob",
            "issuer=https://id.example",
            "issuer=https://id.example&all=true",
            "provider=id&from=00",
            "User=ada",
        ] {
            assert!(Selection::to_end(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_list_goes_on_from_a_cursor() {
        let selection = Selection::to_list("user=a%2Bb%20c&from=12:ab").unwrap();
        assert_eq!(selection.user.as_deref(), Some("a+b c"));
        assert_eq!(selection.from.unwrap().as_str(), "12:ab");
        assert!(Selection::to_list("").is_ok());
        for query in ["all=true", "from=", "from=x", "from=1;2", "limit=5"] {
            assert!(Selection::to_list(query).is_err(), "{query}");
        }
    }
}
