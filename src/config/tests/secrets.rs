//! Secrets in every form, and none of them told.

use super::*;

#[test]
fn a_secret_of_a_higher_layer_replaces_every_form_of_a_lower_one() {
    let folder = Folder::new();
    let path = folder.file("session", &format!("{OTHER}\n"));
    let mut sources = Sources::toml(&with(&[]));
    sources.env = env(&[("SESSION_SECRET_FILE", path.to_str().unwrap())]);
    let secrets = read(&sources).unwrap().settings.session.secrets;
    assert_eq!(secrets.iter().map(|secret| secret.expose_secret()).collect::<Vec<_>>(), [OTHER]);
}

#[test]
fn both_forms_of_a_secret_in_one_layer_are_an_error() {
    let mut variables = env(&ENOUGH);
    variables.extend(env(&[("SESSION_SECRET_FILE", "/x"), ("OIDC_CLIENT_SECRET_FILE", "/y")]));
    let text = all(&read(&Sources { env: variables, ..Sources::default() }).unwrap_err());
    assert!(text.contains("variable SESSION_SECRET_FILE: error: session.secret_file gives the secret again"), "{text}");
    assert!(
        text.contains("variable OIDC_CLIENT_SECRET_FILE: error: provider.client_secret_file is given twice"),
        "{text}"
    );
}

#[test]
fn several_session_secrets_are_separated_by_white_space() {
    let mut variables = env(&ENOUGH);
    let both = format!("{SECRET}\n {OTHER}\n");
    variables[4].1 = both;
    let secrets = read(&Sources { env: variables, ..Sources::default() }).unwrap().settings.session.secrets;
    assert_eq!(secrets.iter().map(|secret| secret.expose_secret()).collect::<Vec<_>>(), [SECRET, OTHER]);
}

#[test]
fn secrets_are_taken_as_written_less_one_newline() {
    let folder = Folder::new();
    let (one, two) = (folder.file("one", &format!("{SECRET} \n\n")), folder.file("two", &format!("{OTHER}\r\n")));
    let lines = format!("secrets_files = [{one:?}, {two:?}]");
    let text = with(&[("session", &lines)]).replace(&format!("secret = \"{SECRET}\"\n"), "");
    let secrets = read(&Sources::toml(&text)).unwrap().settings.session.secrets;
    assert_eq!(
        secrets.iter().map(|secret| secret.expose_secret().to_owned()).collect::<Vec<_>>(),
        [format!("{SECRET} \n"), OTHER.to_owned()]
    );
}

#[test]
fn weak_and_repeated_secrets_stop_the_start() {
    for (written, why) in [
        ("secret = \"short\"", "is too short: 5 bytes, at least 32"),
        ("secret = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", "is too weak"),
        ("secret = \"changeme-changeme-changeme-changeme!\"", "is too weak"),
    ] {
        let text = errors(&[("session", written)]);
        assert!(text.contains(why) && text.contains("vestibule generate-secret"), "{text}");
    }
    let twice = errors(&[("session", &format!("secret = \"{SECRET} {SECRET}\""))]);
    assert!(twice.contains("is given twice"), "{twice}");
    let shared = errors(&[("provider", &format!("client_secret = \"{SECRET}\""))]);
    assert!(shared.contains("is the client secret"), "{shared}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Wherever a secret is written, right or wrong, no problem shows it.
    #[test]
    fn no_problem_shows_a_secret(secret in "[a-zA-Z0-9!#%&/=+ -]{6,40}", place in 0usize..9) {
        prop_assume!(secret.trim().len() >= 6 && !"vestibule".contains(secret.trim()));
        let secret = format!("{}QX", secret.trim());
        let quoted = format!("{secret:?}");
        let mut sources = Sources::toml(&match place {
            0 => with(&[("session", &format!("secret = {quoted}"))]),
            1 => with(&[("session", &format!("secrets = [{quoted}, 1]"))]),
            2 => with(&[("session", &format!("store = {quoted}"))]),
            3 => with(&[("session", &format!("secret = {quoted} x"))]),
            4 => with(&[("upstream", &format!("url = \"http://u:{}@h:x\"", secret.replace(['/', '#', '%', ' ', '='], "")))]),
            _ => with(&[]),
        });
        match place {
            5 => sources.env = env(&[("SESSION_SECRET", &secret)]),
            6 => sources.env = env(&[("SESSION_SECRE", &secret), ("VESTIBULE_SECRET", &secret)]),
            7 => sources.env = env(&[("OIDC_CLIENT_SECRET", &secret), ("OIDC_CLIENT_SECRET_FILE", "/nonexistent")]),
            8 => sources.flags = vec![("session.secret".to_owned(), secret.clone()), ("session.secret.x".to_owned(), secret.clone())],
            _ => {}
        }
        let problems = match read(&sources) {
            Ok(loaded) => loaded.warnings,
            Err(problems) => problems,
        };
        let shown = format!("{}{problems:?}", all(&problems));
        prop_assert!(!shown.contains(&secret), "{}", shown);
    }
}
