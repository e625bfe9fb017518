//! Every example in `config/` is sound.

use super::*;

/// Needs the real `Routes`: an example with a pattern that is none, or two equal routes, would fail here.
#[test]
fn every_example_has_routes_that_compile() {
    for (name, text) in examples() {
        let mut sources = Sources::toml(&text);
        sources.env = env(&ENOUGH);
        if text.contains("[providers.") {
            sources.env.retain(|(name, _)| !name.starts_with("OIDC_"));
        }
        if text.contains("[upstreams.default]") {
            sources.env.retain(|(name, _)| name != "VESTIBULE_UPSTREAM");
        }
        if let Err(problems) = load(&sources) {
            panic!("{name}: {}", all(&problems));
        }
    }
}

fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            // What the examples mount exists only here.
            let text = std::fs::read_to_string(&path).unwrap();
            (name, text.replace("/run/secrets/tls/", &format!("{}/", tls_files().display())))
        })
        .collect()
}

#[test]
fn every_example_is_sound_and_complete() {
    let folder = Folder::new();
    let secrets = [folder.file("one", SECRET), folder.file("two", OTHER)];
    let mut seen = 0;
    let mut written = String::new();
    for (name, text) in examples() {
        assert!(text.starts_with("# "), "{name} says what it is for");
        written += &text;
        // The secrets of the examples are mounted somewhere that does not exist here.
        let mut sources = Sources::toml(&text);
        sources.env = match name.as_str() {
            "container.toml" => env(&ENOUGH),
            _ => env(&[("SESSION_SECRET_FILE", secrets[0].to_str().unwrap())]),
        };
        if text.contains("client_secret_file") && name != "container.toml" {
            sources.env.extend(env(&[("OIDC_CLIENT_SECRET_FILE", secrets[1].to_str().unwrap())]));
        }
        match read(&sources) {
            Ok(loaded) if name == "development.toml" => assert_eq!(loaded.warnings.len(), 1),
            Ok(loaded) => assert!(loaded.warnings.is_empty(), "{name}: {}", all(&loaded.warnings)),
            Err(problems) => panic!("{name}: {}", all(&problems)),
        }
        seen += 1;
    }
    assert!(seen >= 8, "{seen}");
    let shape = shape::Shape::root();
    let mut keys = Vec::new();
    leaves(&shape, &mut keys);
    // Every key stands in some example, but for secrets as plain values.
    keys.retain(|key| {
        !written.contains(&format!("{key} = "))
            && !["secret", "secrets", "client_secret", "admin_token"].contains(&key.as_str())
    });
    assert!(keys.is_empty(), "{keys:?}");
}

fn leaves(shape: &shape::Shape, keys: &mut Vec<String>) {
    if let shape::Kind::Table { fields, rest, .. } = &shape.kind {
        for (key, below) in fields {
            match &below.kind {
                shape::Kind::Table { .. } => leaves(below, keys),
                shape::Kind::List(items) if matches!(items.kind, shape::Kind::Table { .. }) => leaves(items, keys),
                _ => keys.push(key.clone()),
            }
        }
        rest.iter().for_each(|rest| leaves(rest, keys));
    }
}
