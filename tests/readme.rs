//! What the README says is what the program does.

use std::path::Path;

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
fn every_reason_code_is_explained() {
    let readme = readme();
    let mut codes = Vec::new();
    collect_codes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut codes);
    assert!(codes.contains(&"missing_role".to_owned()), "the reason codes were not found in src/: {codes:?}");
    codes.retain(|code| !readme.contains(&format!("`{code}`")));
    assert!(codes.is_empty(), "README.md, \"When something is refused\", does not explain {codes:?}");
}

/// The literals that functions called `code` answer with, wherever below `folder` they stand.
fn collect_codes(folder: &Path, codes: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources can be listed") {
        let path = entry.expect("an entry of a folder of sources can be read").path();
        if path.is_dir() {
            collect_codes(&path, codes);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).expect("a source file can be read");
            for function in source.split("fn code(").skip(1) {
                let body = function.split("\n    }\n").next().unwrap_or_default();
                // Every second part between quotes is a literal.
                codes.extend(body.split('"').skip(1).step_by(2).map(str::to_owned));
            }
        }
    }
}
