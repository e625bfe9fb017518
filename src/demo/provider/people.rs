//! Who can sign in at the demo, and what their claims say.

use serde_json::{Map, Value, json};

/// A made-up person.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::demo) struct Person {
    /// `preferred_username`.
    pub(in crate::demo) login: &'static str,
    /// `name`.
    pub(in crate::demo) name: &'static str,
    /// `groups`.
    pub(in crate::demo) groups: &'static [&'static str],
    /// `email_verified`.
    pub(in crate::demo) email_verified: bool,
    /// For people to read.
    pub(in crate::demo) about: &'static str,
}

/// Everybody.
pub(in crate::demo) static PEOPLE: [Person; 3] = [
    Person {
        login: "ada",
        name: "Ada Lovelace",
        groups: &["/admins"],
        email_verified: true,
        about: "admin by her group, auditor by her name: may see /admin and /editor",
    },
    Person {
        login: "grace",
        name: "Grace Hopper",
        groups: &["/editors"],
        email_verified: true,
        about: "editor by her group: may see /editor",
    },
    Person {
        login: "alan",
        name: "Alan Turing",
        groups: &[],
        email_verified: false,
        about: "no role, and an e-mail address that nobody verified, so the application is not told it",
    },
];

impl Person {
    pub(super) fn by_login(login: &str) -> Option<&'static Self> {
        PEOPLE.iter().find(|person| person.login == login)
    }

    pub(super) fn subject(&self) -> String {
        format!("demo|{}", self.login)
    }

    /// The claims that `scope` asks for (Core §5.4); groups come with `profile`, as at most providers' own choice.
    pub(super) fn claims(&self, scope: &str) -> Map<String, Value> {
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), self.subject().into());
        let asked = |wanted: &str| scope.split(' ').any(|one| one == wanted);
        if asked("profile") {
            claims.insert("name".to_owned(), self.name.into());
            claims.insert("preferred_username".to_owned(), self.login.into());
            claims.insert("groups".to_owned(), json!(self.groups));
        }
        if asked("email") {
            claims.insert("email".to_owned(), format!("{}@example.com", self.login).into());
            claims.insert("email_verified".to_owned(), self.email_verified.into());
        }
        claims
    }
}
