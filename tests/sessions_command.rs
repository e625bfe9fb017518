//! `vestibule sessions`, as an operator uses it on the machine of a running proxy.

use std::path::PathBuf;

use vestibule_test_support::{Ended, Launch, Stage, Value, json};

use crate::admin_sessions::TOKEN;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vestibule");

struct Operator {
    folder: tempfile::TempDir,
    stage: Stage,
}

impl Operator {
    fn of(toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let toml = toml.replace("{folder}", &folder.path().display().to_string());
        let stage = Stage::with(&format!("admin_token = \"{TOKEN}\"\n{toml}"));
        std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
        Self { folder, stage }
    }

    fn token(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// Nothing of the proxy's configuration but what says where and by whom it is asked.
    fn launch(&self) -> Launch {
        let launch = Launch::of(PROGRAM).env("VESTIBULE_ADMIN_TOKEN_FILE", self.token());
        launch.env("VESTIBULE_ADMIN_LISTEN", self.stage.admin_address().to_string())
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Ended {
        let ended = self.launch().args(["sessions"]).args(arguments).run();
        assert!(!ended.stdout.contains(TOKEN) && !ended.stderr.contains(TOKEN), "{ended:?}");
        ended
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{arguments:?} {ended:?}");
        ended.stdout
    }

    async fn sign_in(&self, sub: &str) -> vestibule_test_support::Browser {
        self.stage.provider.set_user(json!({ "sub": sub, "preferred_username": sub }));
        self.stage.signed_in_browser().await
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[cfg(feature = "sql")]
#[tokio::test]
async fn sessions_are_listed_shown_and_ended() {
    let operator = Operator::of("[session]\nstore = \"sqlite:{folder}/sessions.db\"");
    let (ada, bob) = (operator.sign_in("ada").await, operator.sign_in("bob").await);
    let listed = lines(&operator.done(&["list", "--json"]));
    assert_eq!(listed.len(), 2);
    let table = operator.done(&["list"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.starts_with("ID ") && table.lines().skip(1).all(|line| line.contains("  default  ")), "{table}");
    let of_ada = lines(&operator.done(&["list", "--user", "ada", "--json"]));
    assert_eq!(of_ada.len(), 1);
    let id = of_ada[0]["id"].as_str().unwrap();
    assert_eq!(lines(&operator.done(&["show", id, "--json"])), of_ada);
    let shown = operator.done(&["show", id]);
    assert!(shown.contains(id) && shown.contains("provider  default"), "{shown}");

    assert_eq!(operator.done(&["revoke", "--session", id]), "ended, 1 in the store\n");
    operator.stage.assert_ended(&ada).await;
    operator.stage.assert_signed_in(&bob).await;
    let ended = operator.run(&["show", id]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("there is no such session"), "{ended:?}");
    let answer = lines(&operator.done(&["revoke", "--user", "bob", "--provider", "default", "--json"]));
    assert_eq!(answer, [json!({ "ended": "user", "deleted": 1 })]);
    operator.stage.assert_ended(&bob).await;
    assert_eq!(operator.done(&["list", "--json"]), "");
}

#[tokio::test]
async fn sessions_in_cookies_end_too() {
    let operator = Operator::of("");
    for arguments in
        [["revoke", "--all"].as_slice(), &["revoke", "--provider", "default"], &["revoke", "--user", "ada"]]
    {
        let ada = operator.sign_in("ada").await;
        assert_eq!(operator.done(arguments), "ended, wherever their cookies are\n");
        operator.stage.assert_ended(&ada).await;
    }
    let ended = operator.run(&["list"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("session.store"), "{ended:?}");
}

#[tokio::test]
async fn a_command_that_names_no_session_or_too_many_is_not_sent() {
    let operator = Operator::of("");
    let ada = operator.sign_in("ada").await;
    for arguments in [
        ["revoke"].as_slice(),
        &["revoke", "--all", "--user", "ada"],
        &["revoke", "--all", "--session", "00"],
        &["revoke", "--session", "00", "--provider", "default"],
        &["revoke", "--issuer", "https://id.example"],
        &["revoke", "--user"],
        &["revoke", "ada"],
        &[],
    ] {
        assert_eq!(operator.run(arguments).code, Some(64), "{arguments:?}");
    }
    for id in ["", "?all=true", "..", "x y"] {
        assert_ne!(operator.run(&["revoke", "--session", id]).code, Some(0), "{id}");
    }
    assert_eq!(operator.run(&["revoke", "--user", "ada", "--provider", "other"]).code, Some(1));
    operator.stage.assert_signed_in(&ada).await;
}

#[tokio::test]
async fn what_is_wrong_is_told_with_what_to_do() {
    let operator = Operator::of("");
    let told = |launch: Launch, code: i32, what: &str| {
        let ended = launch.args(["sessions", "revoke", "--all"]).run();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{ended:?}");
        assert!(ended.stderr.contains(what), "{ended:?}");
    };
    let url = format!("http://{}", operator.stage.admin_address());
    told(Launch::of(PROGRAM), 78, "VESTIBULE_ADMIN_TOKEN_FILE");
    told(operator.launch().env("VESTIBULE_ADMIN_TOKEN_FILE", "/nowhere/token"), 78, "cannot be read");
    told(operator.launch().env("VESTIBULE_ADMIN_LISTEN", "off"), 78, "admin_token");
    std::fs::write(operator.folder.path().join("other"), format!("{TOKEN}x")).unwrap();
    told(
        operator.launch().env("VESTIBULE_ADMIN_TOKEN_FILE", operator.folder.path().join("other")),
        1,
        "another admin_token",
    );
    told(operator.launch().env("VESTIBULE_ADMIN_LISTEN", "127.0.0.1:1"), 1, "is the proxy running");
    let without = Stage::start();
    let address = without.admin_address().to_string();
    told(operator.launch().env("VESTIBULE_ADMIN_LISTEN", address), 1, "without an admin_token");
    let at = |url: &str| operator.launch().args(["sessions", "revoke", "--all", "--url", url]).run();
    assert_eq!(at("https://127.0.0.1:9090").code, Some(64));
    assert_eq!(at("http://127.0.0.1:9090/sessions").code, Some(64));
    assert_eq!(at(&url).code, Some(0));
    assert_eq!(at(&format!("{url}/")).code, Some(0));
}
