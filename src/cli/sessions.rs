//! `vestibule sessions`: a client of the admin API of a running proxy, with the proxy's own configuration.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use serde_json::Value;
use url::form_urlencoded::Serializer;
use vestibule::config::{self, Admin};
use vestibule::secret::SecretString;

use super::asking::{ask, http_uri, reachable};
use super::{CONFIGURATION, Options, RUNTIME, USAGE, print, refuse};

/// Longer than the proxy itself waits for its store.
const DEADLINE: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub(super) struct Command {
    /// The admin listener to ask, such as http://10.0.0.7:9090 [default: admin_listen]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// Prints JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists sessions; of a store alone, since nobody has a list of cookies
    List(Whose),
    /// Shows one session
    Show {
        /// Its id, as `list` shows it
        id: String,
    },
    /// Ends sessions: one, a person's, a provider's or everybody's
    #[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
    Revoke {
        #[command(flatten)]
        whose: Whose,
        /// One session, by its id
        #[arg(long, value_name = "ID", group = "which", conflicts_with_all = ["user", "provider", "issuer", "all"])]
        session: Option<String>,
        /// Everybody's
        #[arg(long, group = "which", conflicts_with_all = ["user", "provider", "issuer"])]
        all: bool,
    },
}

#[derive(Debug, Args)]
struct Whose {
    /// One person's: the `sub` that the provider gives
    #[arg(long, value_name = "SUB", group = "which")]
    user: Option<String>,
    /// One provider's: its provider_id
    #[arg(long, value_name = "ID", group = "which")]
    provider: Option<String>,
    /// The person's issuer, where the provider has one for each tenant
    #[arg(long, value_name = "ISSUER", requires = "user")]
    issuer: Option<String>,
}

impl Whose {
    fn query(&self) -> Serializer<'static, String> {
        let mut query = Serializer::new(String::new());
        for (name, value) in [("user", &self.user), ("provider", &self.provider), ("issuer", &self.issuer)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query
    }
}

/// A proxy that can be asked.
struct Proxy {
    base: String,
    token: SecretString,
}

pub(super) fn run(command: &Command, options: &Options) -> ExitCode {
    let outcome = Proxy::of(command.url.as_deref(), options).and_then(|proxy| match &command.action {
        Action::List(whose) => proxy.list(whose, command.json),
        Action::Show { id } => proxy.show(id, command.json),
        Action::Revoke { whose, session, all } => proxy.revoke(whose, session.as_deref(), *all, command.json),
    });
    outcome.unwrap_or_else(|code| code)
}

impl Proxy {
    fn of(url: Option<&str>, options: &Options) -> Result<Self, ExitCode> {
        let sources = options.sources().map_err(|problem| refuse(&[problem]))?;
        let Admin { listen, token } = config::load_admin(&sources).map_err(|problems| refuse(&problems))?;
        let Some(token) = token else {
            let what = "admin_token is not set, so no proxy would answer: set VESTIBULE_ADMIN_TOKEN_FILE or \
                        VESTIBULE_ADMIN_TOKEN, or write admin_token_file, for the proxy and for this command alike; \
                        `vestibule generate-secret` prints a good one";
            return Err(complain(CONFIGURATION, what));
        };
        let base = match (url, listen) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(address)) => format!("http://{}", reachable(address)),
            (None, None) => return Err(complain(CONFIGURATION, "admin_listen is off, so there is nobody to ask")),
        };
        if !http_uri(&base).is_some_and(|uri| uri.path() == "/" && uri.query().is_none()) {
            return Err(complain(USAGE, "--url takes an http URL without a path, such as http://127.0.0.1:9090"));
        }
        Ok(Self { base, token })
    }

    fn ask(&self, method: Method, path: &str) -> Result<Value, ExitCode> {
        let base = &self.base;
        let Some(uri) = http_uri(&format!("{base}{path}")) else {
            return Err(complain(USAGE, "that is no id of a session"));
        };
        let (status, body) = ask(method, &uri, Some(&self.token), DEADLINE).map_err(|error| {
            let why = vestibule::telemetry::chain(&*error);
            complain(
                RUNTIME,
                &format!("{base} does not answer: {why}; is the proxy running, and is this its admin_listen?"),
            )
        })?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() && answer.is_object() {
            return Ok(answer);
        }
        let detail = match (status, answer["code"].as_str(), answer["detail"].as_str()) {
            (StatusCode::UNAUTHORIZED, Some(_), _) => {
                "has another admin_token; this command takes it from where the proxy does".to_owned()
            }
            (StatusCode::NOT_FOUND, None, _) => "answers for no sessions: it runs without an admin_token".to_owned(),
            (_, Some(_), Some(detail)) => format!("says: {}", plain(detail)),
            _ => format!("answered {status}"),
        };
        Err(complain(RUNTIME, &format!("{base} {detail}")))
    }

    /// Page by page, so that a long list is seen as it comes.
    fn list(&self, whose: &Whose, json: bool) -> Result<ExitCode, ExitCode> {
        let (mut from, mut is_first) = (None::<String>, true);
        loop {
            let mut query = whose.query();
            if let Some(from) = &from {
                query.append_pair("from", from);
            }
            let page = self.ask(Method::GET, &format!("/sessions?{}", query.finish()))?;
            let sessions = page["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let mut text = String::new();
            if is_first && !json {
                text.push_str(&row(&["ID", "PROVIDER", "SUBJECT", "SINCE", "RENEWED", "UNTIL"]));
            }
            for session in sessions {
                match json {
                    true => line(&mut text, session),
                    false => text.push_str(&row(&COLUMNS.map(|name| column(session, name)))),
                }
            }
            let code = print(&text);
            from = page["next"].as_str().map(str::to_owned);
            is_first = false;
            if from.is_none() || code != ExitCode::SUCCESS {
                return Ok(code);
            }
        }
    }

    fn show(&self, id: &str, json: bool) -> Result<ExitCode, ExitCode> {
        let session = self.ask(Method::GET, &format!("/sessions/{id}"))?;
        let mut text = String::new();
        if json {
            line(&mut text, &session);
        } else {
            for name in COLUMNS {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{name:10}{}", plain(session[name].as_str().unwrap_or("-")));
            }
        }
        Ok(print(&text))
    }

    fn revoke(&self, whose: &Whose, session: Option<&str>, all: bool, json: bool) -> Result<ExitCode, ExitCode> {
        let path = match session {
            Some(id) => format!("/sessions/{id}"),
            None if all => "/sessions?all=true".to_owned(),
            None => format!("/sessions?{}", whose.query().finish()),
        };
        let answer = self.ask(Method::DELETE, &path)?;
        let mut text = String::new();
        if json {
            line(&mut text, &answer);
        } else {
            text.push_str("ended");
            // Writing to a String cannot fail.
            let _ = match (answer["deleted"].as_u64(), answer["pending"].as_str()) {
                (Some(count), _) => writeln!(text, ", {count} in the store"),
                (None, Some(pending)) => writeln!(text, "; {}", plain(pending)),
                (None, None) => writeln!(text, ", wherever their cookies are"),
            };
        }
        Ok(print(&text))
    }
}

const COLUMNS: [&str; 6] = ["id", "provider", "subject", "created", "changed", "expires"];

/// For people: of a digest as much as tells two people apart.
fn column<'s>(session: &'s Value, name: &str) -> &'s str {
    let text = session[name].as_str().unwrap_or("-");
    if name == "subject" { text.get(..8).unwrap_or(text) } else { text }
}

fn row(columns: &[&str; 6]) -> String {
    let [id, provider, subject, since, renewed, until] = columns.map(plain);
    format!("{id:32}  {provider:12}  {subject:8}  {since:20}  {renewed:20}  {until}\n")
}

fn line(text: &mut String, value: &Value) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{value}");
}

/// What another process says must not speak to the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

#[allow(clippy::print_stderr, reason = "this is where the command speaks to its operator")]
fn complain(code: u8, what: &str) -> ExitCode {
    eprintln!("vestibule: {what}");
    ExitCode::from(code)
}
