//! What the README says is what the program does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vestibule::config::{self, Sources};
use vestibule_test_support::{CertificateFiles, TestCa};

const BEGIN: &str = "<!-- environment:begin -->\n";
const END: &str = "<!-- environment:end -->";

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(path).expect("README.md can be read")
}

#[test]
fn the_table_of_variables_is_the_one_the_program_reads() {
    let readme = readme();
    let (_, rest) = readme.split_once(BEGIN).expect("README.md has the marker that begins the table");
    let (written, _) = rest.split_once(END).expect("README.md has the marker that ends the table");
    let expected = vestibule::config::environment_markdown();
    assert_eq!(
        written.trim(),
        expected.trim(),
        "the table of variables in README.md is out of date: put the output of `cargo run -- environment` between its markers",
    );
}

#[test]
fn every_file_that_the_readme_links_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = readme();
    let links: Vec<&str> = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .collect();
    assert!(links.len() > 5, "the README's links were not found: {links:?}");
    let missing: Vec<&str> = links.into_iter().filter(|target| !root.join(target).exists()).collect();
    assert!(missing.is_empty(), "README.md links files that do not exist: {missing:?}");
}

#[test]
fn every_fault_of_the_table_has_stories_that_exist() {
    let readme = readme();
    let (_, section) = readme.split_once("\n## When something is slow, away, or back\n").expect("a table of faults");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| fault |"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let faults = ["Redis is", "PostgreSQL is", "the provider is", "a replica is"]
        .map(|who| ["slow", "away", "back"].map(|how| format!("{who} {how}")));
    let named: Vec<&str> = rows.iter().map(|row| row[0].split(',').next().unwrap_or_default()).collect();
    assert_eq!(named, faults.as_flattened());
    for row in &rows {
        assert_eq!(row.len(), 5, "{row:?}");
        let stories: Vec<_> = row[4].split("[`").skip(1).filter_map(|link| link.split_once("`](")).collect();
        assert!(!stories.is_empty() && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        for (story, rest) in stories {
            let file = rest.split(')').next().unwrap_or_default();
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            let source = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(source.contains(&format!("\nasync fn {story}()")), "{file} has no story {story}");
        }
    }
}

#[test]
fn every_piece_of_configuration_in_readme_and_guides_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let upstream = "\n[upstream]\nurl = \"http://127.0.0.1:3000\"\n".to_owned();
    // The files of its [tls] are there, for this test.
    let ca = TestCa::new();
    let files = CertificateFiles::new(&ca.sign(&["app.example.com"]));
    let readme = readme().replace("/run/secrets/tls", &files.path("").display().to_string());
    let mut texts = vec![configuration(&readme)];
    for guide in ["auth0", "authentik", "entra", "keycloak"] {
        let path = root.join("deploy/guides").join(guide).with_extension("md");
        let guide = std::fs::read_to_string(path).expect("a guide can be read");
        texts.push(configuration(&guide.replace("\"…\"", "\"app\"")) + &upstream);
    }
    for mut text in texts {
        if !text.contains("[session]") {
            text.push_str(&format!("\n[session]\nsecret = \"{}\"\n", secret()));
        }
        if let Err(problems) = config::load(&Sources::toml(&text)) {
            panic!("{problems:#?}\n{text}");
        }
    }
}

/// The pieces in TOML, with values in the place of secret files.
fn configuration(markdown: &str) -> String {
    let mut text = String::new();
    for piece in markdown.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        for line in piece.lines() {
            match line.split(" = ").next() {
                Some("client_secret_file") => text.push_str("client_secret = \"what-the-provider-shows\""),
                Some("files") => text.push_str("files = \"/\""),
                Some("secrets_files") => text.push_str(&format!("secret = \"{}\"", secret())),
                _ => text.push_str(line),
            }
            text.push('\n');
        }
    }
    assert!(text.contains("client_secret"), "no configuration was found: {text}");
    text
}

fn secret() -> String {
    config::generate_secret().expect("the system gives random bytes")
}

#[test]
fn every_reason_code_is_explained_and_every_explained_code_exists() {
    let codes = codes();
    for known in
        ["missing_role", "path_dot_segment", "no_endpoint", "callback_state_missing", "identity_too_old", "unread"]
    {
        assert!(codes.contains(known), "{known} was not found in src/: {codes:?}");
    }
    let readme = readme();
    let (_, section) = readme.split_once("\n## When something is refused\n").expect("README.md has a table of codes");
    let section = section.split("\n## ").next().unwrap_or_default();
    let first_cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let explained: BTreeSet<String> = first_cells.flat_map(|cell| between(cell, '`')).map(str::to_owned).collect();
    let unexplained: Vec<_> = codes.difference(&explained).collect();
    assert!(unexplained.is_empty(), "README.md, \"When something is refused\", does not explain {unexplained:?}");
    let unknown: Vec<_> = explained.difference(&codes).collect();
    assert!(unknown.is_empty(), "README.md, \"When something is refused\", explains what does not exist: {unknown:?}");
}

/// Every reason code that the program can give, read from its source.
fn codes() -> BTreeSet<String> {
    let mut sources = Vec::new();
    collect_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    let mut codes = BTreeSet::new();
    for (path, source) in &sources {
        // Functions called `code` answer with nothing but codes.
        for function in source.split("fn code(").skip(1) {
            codes.extend(literals(function.split("\n    }\n").next().unwrap_or_default()));
        }
        // Codes that are written where they are used; the reason of an `allow` is a sentence.
        for before in ["ClientFault::Parameters(\"", "ClientFault::Logout(\"", "reason: \"", "reason = \""] {
            let written = source.split(before).skip(1).filter_map(|rest| rest.split('"').next());
            codes.extend(written.filter(|text| looks_like_a_code(text)).map(str::to_owned));
        }
        // What is said to whoever asked, and what hyper says by itself: each literal with a code's look is one.
        if ["reply/notice.rs", "server/connection.rs", "server/http1.rs", "server/http2.rs"]
            .iter()
            .any(|file| path.ends_with(file))
        {
            codes.extend(literals(source).filter(|literal| looks_like_a_code(literal)));
        }
    }
    codes
}

fn literals(source: &str) -> impl Iterator<Item = String> {
    between(source, '"').map(str::to_owned)
}

/// Every second part of what `mark` divides.
fn between(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

fn looks_like_a_code(literal: &str) -> bool {
    literal.starts_with(|first: char| first.is_ascii_lowercase())
        && literal.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The program's sources without their tests, and without the demo, whose provider has codes of its own.
fn collect_sources(folder: &Path, sources: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources can be listed") {
        let path = entry.expect("an entry of a folder of sources can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "demo" {
                collect_sources(&path, sources);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let source = std::fs::read_to_string(&path).expect("a source file can be read");
            let program = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
            sources.push((path, program));
        }
    }
}
