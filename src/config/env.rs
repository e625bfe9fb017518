//! The environment: a table of variables, and one generic form for every key (`VESTIBULE__SECTION__KEY`). The README's table
//! is made from this one. A variable that looks like one of ours and is none stops the start.

use std::fmt::Write as _;

use super::problem::{ConfigProblem, Place, nearest};
use super::shape::Shape;
use super::walk::Layer;

/// One documented variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// The dotted key it sets; empty for the variables that are no key of the file.
    pub key: &'static str,
    /// Never shown; also readable from a file named by `<name>_FILE`, which sets `<key>_file`.
    pub secret: bool,
    /// What holds without it.
    pub default: &'static str,
    /// What it is for.
    pub description: &'static str,
}

const fn plain(name: &'static str, key: &'static str, default: &'static str, description: &'static str) -> Variable {
    Variable { name, key, secret: false, default, description }
}

const fn secret(name: &'static str, key: &'static str, description: &'static str) -> Variable {
    Variable { name, key, secret: true, default: "", description }
}

const fn optional_secret(name: &'static str, key: &'static str, description: &'static str) -> Variable {
    Variable { name, key, secret: true, default: "none", description }
}

/// The variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "VESTIBULE_CONFIG";

static TABLE: &[Variable] = &[
    plain("OIDC_ISSUER", "provider.issuer", "required", "The issuer, exactly as the provider writes it"),
    plain("OIDC_CLIENT_ID", "provider.client_id", "required", "The client id registered at the provider"),
    secret("OIDC_CLIENT_SECRET", "provider.client_secret", "The client secret"),
    plain(
        "OIDC_DYNAMIC_REGISTRATION",
        "provider.dynamic_registration",
        "false",
        "Register a client at the provider; no client id and secret are needed then, but `VESTIBULE_STATE_DIR`",
    ),
    plain(
        "OIDC_REDIRECT_URI",
        "provider.redirect_uri",
        "required",
        "Where the provider sends people back to; its path becomes the callback endpoint",
    ),
    plain(
        "OIDC_CLIENT_AUTH_METHOD",
        "provider.client_auth_method",
        "what fits",
        "How the client authenticates, such as `private_key_jwt`",
    ),
    plain(
        "OIDC_PROFILE",
        "provider.profile",
        "none",
        "`fapi2`: all that the FAPI 2.0 Security Profile asks of a client",
    ),
    plain("OIDC_SCOPES", "provider.scopes", "openid email profile", "The scopes asked for (spaces or commas between)"),
    plain("OIDC_RESPONSE_TYPE", "provider.response_type", "code", "What is asked for: `code` or `code id_token`"),
    plain(
        "OIDC_RESPONSE_MODE",
        "provider.response_mode",
        "query",
        "How the answer comes back: `query`, `form_post`, `jwt`, `query.jwt` or `form_post.jwt`",
    ),
    plain(
        "OIDC_POST_LOGOUT_REDIRECT_URI",
        "provider.post_logout_redirect_uri",
        "none",
        "Where the provider sends people after signing out",
    ),
    plain(
        "OIDC_BACKCHANNEL_URL",
        "provider.backchannel_url",
        "the issuer's",
        "Where this process reaches the provider, when that differs from its public address",
    ),
    plain("OIDC_CA_FILE", "provider.ca_file", "none", "Extra roots (PEM) for connections to the provider"),
    plain(
        "OIDC_ALLOW_INSECURE_HTTP",
        "provider.allow_insecure_http",
        "false",
        "Allow http beyond loopback, for tests in a network of your own",
    ),
    secret(
        "SESSION_SECRET",
        "session.secret",
        "At least 32 bytes, from `vestibule generate-secret`; several, separated by white space: the first seals, all open",
    ),
    plain("VESTIBULE_SESSION_LIFETIME", "session.lifetime", "24h", "When a session ends whatever happens"),
    plain("VESTIBULE_SESSION_IDLE", "session.idle", "1h", "When an unused session ends"),
    optional_secret(
        "VESTIBULE_SESSION_STORE",
        "session.store",
        "Where sessions lie, if not in the cookie: `redis://…`, `postgres://…`, `sqlite:…`",
    ),
    plain(
        "VESTIBULE_SESSION_STORE_GRACE",
        "session.store_grace",
        "1m",
        "How long sessions that were seen go on while the store is away",
    ),
    optional_secret(
        "VESTIBULE_SESSION_SHARE",
        "session.share",
        "A store by which replicas with cookie sessions share what has ended and what was renewed",
    ),
    plain("VESTIBULE_COOKIE_NAME", "cookie.name", "vestibule", "The name all our cookies begin with"),
    plain(
        "VESTIBULE_UPSTREAM",
        "upstream.url",
        "required",
        "The application: `http://host:port`, also `https://…` or `unix:/path`",
    ),
    plain("VESTIBULE_LISTEN", "listen", "0.0.0.0:8080", "Where requests are taken"),
    plain(
        "VESTIBULE_ADMIN_LISTEN",
        "admin_listen",
        "127.0.0.1:9090",
        "Where health, readiness and metrics are answered, or `off`",
    ),
    optional_secret(
        "VESTIBULE_ADMIN_TOKEN",
        "admin_token",
        "At least 32 bytes, from `vestibule generate-secret`: who shows it there may list and end sessions",
    ),
    plain("VESTIBULE_WORKERS", "workers", "the cores it may use", "Worker threads"),
    plain(
        "VESTIBULE_TRUSTED_PROXIES",
        "trusted_proxies",
        "none",
        "Networks whose `X-Forwarded-*` and `Forwarded` headers are believed",
    ),
    plain("VESTIBULE_HOSTS", "hosts", "any", "The hosts that are served"),
    plain("VESTIBULE_RETURN_ORIGINS", "return_origins", "none", "Further origins people may be sent back to"),
    plain("VESTIBULE_NAME_CLAIM", "identity.name_claim", "sub", "The claim that names a person"),
    plain(
        "VESTIBULE_ROLES_CLAIMS",
        "identity.roles_claims",
        "groups, roles, realm_access.roles",
        "The claims that hold roles; nested ones as in TOML: `[\"groups\", [\"realm_access\", \"roles\"]]`",
    ),
    plain("VESTIBULE_DEFAULT_ROLES", "identity.default_roles", "none", "Roles of everyone signed in"),
    plain(
        "VESTIBULE_STATE_DIR",
        "state_dir",
        "none",
        "A folder for whatever outlives a restart: ended sessions, certificates of `[tls.acme]`, registrations at providers",
    ),
    plain("VESTIBULE_LOG_FORMAT", "log.format", "text", "`text` or `json`"),
    plain("VESTIBULE_LOG_LEVEL", "log.level", "info", "A level or a filter directive such as `vestibule=debug`"),
    plain(CONFIG_VARIABLE, "", "/etc/vestibule/vestibule.toml, if it exists", "The configuration file"),
];

/// Every documented variable, in the order of the README's table.
pub fn environment_table() -> &'static [Variable] {
    TABLE
}

/// The table as Markdown.
pub fn environment_markdown() -> String {
    let mut text = String::from("| Variable | Key in the file | Default | What it is for |\n|---|---|---|---|\n");
    for variable in TABLE {
        let key = if variable.key.is_empty() { "–".to_owned() } else { format!("`{}`", variable.key) };
        let name = if variable.secret {
            format!("`{name}` or `{name}_FILE`", name = variable.name)
        } else {
            format!("`{}`", variable.name)
        };
        let default = if variable.default.is_empty() { "required" } else { variable.default };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {name} | {key} | {default} | {} |", variable.description);
    }
    text.push_str(
        "\nEvery other key of the file is a variable too: `VESTIBULE__SECTION__KEY`, such as \
         `VESTIBULE__SESSION__BROWSER_SESSION=true`.\n",
    );
    text
}

/// The variable that sets `key`, for advice.
pub(super) fn variable_for(key: &str) -> Option<&'static str> {
    TABLE.iter().find(|variable| variable.key == key).map(|variable| variable.name)
}

/// Whether a variable is one of ours and sets something.
pub(super) fn is_ours(name: &str) -> bool {
    key_of(name).is_some() || name.starts_with("VESTIBULE__")
}

/// The layer of the environment.
pub(super) fn layer(variables: &[(String, String)], root: &Shape) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in variables {
        let place = Place::Variable(name.clone());
        if let Some(key) = key_of(name) {
            if !key.is_empty() {
                let segments: Vec<_> = key.split('.').map(str::to_owned).collect();
                layer.set(&segments, value, place, root);
            }
        } else if let Some(generic) = name.strip_prefix("VESTIBULE__") {
            let segments: Vec<_> = generic.split("__").map(str::to_ascii_lowercase).collect();
            layer.set(&segments, value, place, root);
        } else if is_service_link(name) {
            // A Service called `vestibule` sets VESTIBULE_PORT=tcp://…; anything else there was meant for us.
            if name == "VESTIBULE_PORT" && !value.contains("://") {
                let what = "is not read";
                layer.problems.push(ConfigProblem::warning("", place, what, "to set the port, write VESTIBULE_LISTEN"));
            }
        } else if let Some(problem) = misspelt(name) {
            layer.problems.push(problem);
        }
    }
    layer
}

/// The key that a documented variable sets.
fn key_of(name: &str) -> Option<String> {
    TABLE.iter().find_map(|variable| {
        if variable.name == name {
            return Some(variable.key.to_owned());
        }
        let is_file = variable.secret && name.strip_suffix("_FILE") == Some(variable.name);
        is_file.then(|| format!("{}_file", variable.key))
    })
}

fn names() -> Vec<String> {
    let files = TABLE.iter().filter(|variable| variable.secret).map(|variable| format!("{}_FILE", variable.name));
    TABLE.iter().map(|variable| variable.name.to_owned()).chain(files).collect()
}

/// What Kubernetes sets for a Service whose name begins with `vestibule`: `…_SERVICE_HOST`, `…_SERVICE_PORT…`, `…_PORT`,
/// `…_PORT_80_TCP…`.
fn is_service_link(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("VESTIBULE_") else { return false };
    let rest = format!("_{rest}");
    let numbered = |(_, tail): (&str, &str)| {
        let mut parts = tail.split('_');
        parts.next().is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
            && matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"))
            && parts.next().is_none()
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || rest.ends_with("_PORT")
        || rest.split_once("_PORT_").is_some_and(numbered)
}

/// `None` for variables that are none of our business.
fn misspelt(name: &str) -> Option<ConfigProblem> {
    let place = Place::Variable(name.to_owned());
    let names = names();
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("VESTIBULE_") {
        let fix = match nearest(&upper, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => {
                "the variables are listed by `vestibule environment`; any key is VESTIBULE__SECTION__KEY".to_owned()
            }
        };
        return Some(ConfigProblem::error("", place, "is not a known variable", fix));
    }
    // No two texts are nearer than their lengths: most names need no comparison, and whoever starts us no wait for it.
    let alike = names.iter().filter(|known| known.len().abs_diff(upper.len()) <= 2);
    let near = alike.map(|known| (strsim::damerau_levenshtein(&upper, known), known)).min();
    let (_, near) = near.filter(|(distance, _)| *distance <= 2)?;
    Some(ConfigProblem::error("", place, "looks like a misspelt variable", format!("did you mean {near}?")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Layer {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        layer(&variables, &Shape::root())
    }

    #[test]
    fn every_variable_sets_a_key_that_exists() {
        let root = Shape::root();
        for variable in TABLE.iter().filter(|variable| !variable.key.is_empty()) {
            let mut keys = vec![variable.key.to_owned()];
            if variable.secret {
                keys.push(format!("{}_file", variable.key));
            }
            for key in keys {
                let shape = key.split('.').try_fold(&root, |shape, key| shape.under(key));
                assert!(shape.is_some(), "{key}");
                if key == variable.key {
                    assert_eq!(shape.map(|shape| shape.secret), Some(variable.secret), "{key}");
                }
            }
        }
    }

    #[test]
    fn misspelt_variables_are_errors_that_name_the_right_one() {
        for (wrong, right) in [
            ("OIDC_ISUER", "OIDC_ISSUER"),
            ("ODIC_ISSUER", "OIDC_ISSUER"),
            ("OIDC_SCOPE", "OIDC_SCOPES"),
            ("SESSION_SECRETS", "SESSION_SECRET"),
            ("oidc_issuer", "OIDC_ISSUER"),
            ("OIDC_CLIENT_SECRET_FILES", "OIDC_CLIENT_SECRET_FILE"),
            ("VESTIBULE_UPSTREAMS", "VESTIBULE_UPSTREAM"),
            ("VESTIBULE_LOGLEVEL", "VESTIBULE_LOG_LEVEL"),
        ] {
            let layer = read(&[(wrong, "hunter2")]);
            let text = layer.problems[0].to_string();
            assert!(text.contains(&format!("did you mean {right}?")) && text.contains(wrong), "{text}");
            assert!(!layer.problems[0].is_warning());
            assert!(!text.contains("hunter2"));
        }
        assert!(!read(&[("VESTIBULE_COLOUR", "red")]).problems.is_empty());
    }

    #[test]
    fn variables_of_others_are_not_ours() {
        let layer = read(&[
            ("OIDC_PROVIDER_NAME", "x"),
            ("OIDC_RP_SIGN_ALGO", "x"),
            ("SESSION_MANAGER", "local/host:@/tmp/.ICE-unix/1"),
            ("SESSION_DRIVER", ""),
            ("PATH", "/bin"),
            ("VESTIBULE_SERVICE_HOST", "10.0.0.1"),
            ("VESTIBULE_SERVICE_PORT", "80"),
            ("VESTIBULE_SERVICE_PORT_HTTP", "80"),
            ("VESTIBULE_PORT", "tcp://10.0.0.1:80"),
            ("VESTIBULE_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("VESTIBULE_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("VESTIBULE_PORT_80_TCP_PROTO", "tcp"),
            ("VESTIBULE_METRICS_SERVICE_HOST", "10.0.0.2"),
            ("VESTIBULE_METRICS_PORT_9090_TCP_PORT", "9090"),
        ]);
        assert!(layer.problems.is_empty(), "{:?}", layer.problems);
        assert!(layer.dict.is_empty());
    }

    #[test]
    fn a_port_meant_for_us_is_a_warning() {
        let layer = read(&[("VESTIBULE_PORT", "8080")]);
        assert!(layer.problems.len() == 1 && layer.problems[0].is_warning(), "{:?}", layer.problems);
    }

    #[test]
    fn generic_variables_reach_every_key() {
        let layer = read(&[
            ("VESTIBULE__SESSION__BROWSER_SESSION", "true"),
            ("VESTIBULE__UPSTREAMS__API__URL", "http://127.0.0.1:1"),
            ("VESTIBULE__PROVIDER__AUTHORIZATION_PARAMS__PROMPT", "login"),
        ]);
        assert!(layer.problems.is_empty(), "{:?}", layer.problems);
        let keys: Vec<_> = layer.places.keys().map(String::as_str).collect();
        assert_eq!(keys, ["provider.authorization_params.prompt", "session.browser_session", "upstreams.api.url"]);
        let text = read(&[("VESTIBULE__SESION__IDLE", "1h")]).problems[0].to_string();
        assert!(text.contains("VESTIBULE__SESION__IDLE") && text.contains("\"session\""), "{text}");
    }

    #[test]
    fn two_variables_for_one_key_are_an_error() {
        let layer = read(&[("VESTIBULE_LISTEN", "0.0.0.0:1"), ("VESTIBULE__LISTEN", "0.0.0.0:2")]);
        assert!(layer.problems[0].to_string().contains("is set twice"), "{:?}", layer.problems);
    }

    #[test]
    fn the_table_is_markdown() {
        let text = environment_markdown();
        assert!(text.contains("| `OIDC_ISSUER` | `provider.issuer` | required |"), "{text}");
        assert!(text.contains("| `SESSION_SECRET` or `SESSION_SECRET_FILE` |"), "{text}");
        for row in text.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(row.matches('|').count(), 5, "{row}");
        }
    }
}
