//! HTTP/2 as others understand it: the conformance suite h2spec, nghttp2's clients, and curl.

use std::process::{Command, Output, Stdio};

use vestibule_test_support::{CertificateFiles, Stage, TestCa, json};

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";

/// Runs a program to its end, beside the proxy.
async fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.expect("the program's thread").expect("the program can be started")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How many cases of the suite passed, and which did not.
async fn h2spec(port: u16, more: &[&str]) -> (usize, Vec<String>) {
    let h2spec = std::env::var_os("TESTS_H2SPEC")
        .expect("TESTS_H2SPEC is not set: ./tests/run installs it, ./tests/run fast leaves these tests out");
    let port = port.to_string();
    let report = text(&run(h2spec, &[&["-h", "127.0.0.1", "-p", &port, "-o", "10"], more].concat()).await);
    let (cases, failures) = report.split_once("\nFailures:").unwrap_or((&report, ""));
    let passed = cases.lines().filter(|line| line.contains('\u{2714}')).count();
    assert!(passed > 0, "{report}");
    let failed = failures.lines().filter_map(|line| line.split_once('\u{d7}')).map(|(_, case)| case.trim().to_owned());
    (passed, failed.collect())
}

#[tokio::test]
async fn every_case_of_h2spec_passes_but_one_with_a_reason() {
    // RFC 9113 §3.4: what begins with no preface gets GOAWAY or its connection closed. Our plain listener speaks HTTP/1.1
    // too, in which the same bytes are a bad request, and are told so before the connection is closed.
    const ANSWERED_IN_HTTP_1: &str = "2: Sends invalid connection preface";
    let stage = Stage::with(PUBLIC);
    let (passed, failed) = h2spec(stage.address().port(), &[]).await;
    assert!(passed >= 144, "{passed} cases passed");
    assert!(failed.iter().all(|case| case == ANSWERED_IN_HTTP_1), "{failed:?}");
}

#[tokio::test]
async fn every_case_of_h2spec_passes_over_tls() {
    let files = CertificateFiles::new(&TestCa::new().sign(&["localhost"]));
    let secure = "[provider]\nredirect_uri = \"https://localhost:{port}/auth/callback\"";
    let stage = Stage::with(&format!("{PUBLIC}\n{secure}\n{}", files.toml()));
    let (passed, failed) = h2spec(stage.address().port(), &["--tls", "--insecure"]).await;
    assert!(passed >= 145 && failed.is_empty(), "{passed} cases passed; {failed:?}");
}

#[tokio::test]
async fn curl_speaks_it_with_prior_knowledge_and_after_the_offer_of_an_upgrade_goes_on_without() {
    let stage = Stage::with(PUBLIC);
    let told = "%{http_version} %{http_code}";
    let upload = std::env::temp_dir().join(format!("vestibule-upload-{}", std::process::id()));
    std::fs::write(&upload, vec![b'u'; 5 << 20]).expect("room for a file");
    let data = format!("@{}", upload.display());
    let common = ["--noproxy", "*", "--silent", "--max-time", "60", "--write-out", told];
    let url = stage.url("/up");
    let curl = async |arguments: &[&str]| text(&run("curl", &[&common[..], arguments, &[url.as_str()]].concat()).await);

    let answer = curl(&["--http2-prior-knowledge", "--data-binary", &data]).await;
    std::fs::remove_file(upload).expect("a file of ours");
    let (body, told) = answer.rsplit_once('}').unwrap();
    assert_eq!(told, "2 200", "{body}");
    assert_eq!((stage.upstream.last().body_length, stage.upstream.last().complete), (5 << 20, true));
    assert!(curl(&["--http2-prior-knowledge", "--head"]).await.ends_with("2 200"));
    assert!(curl(&["--http2"]).await.ends_with("1.1 200"), "no upgrade to h2c");
}

#[tokio::test]
async fn nghttp_reads_an_answer_with_its_trailers() {
    let stage = Stage::with(PUBLIC);
    let output = text(&run("nghttp", &["-v", "-H", "te: trailers", &stage.url("/trailers")]).await);
    assert!(output.contains(":status: 200") && output.contains("x-checksum: abc"), "{output}");
    assert!(!output.contains("connection:") && !output.contains("transfer-encoding:"), "{output}");
}

#[tokio::test]
async fn h2load_gets_every_answer_of_a_hundred_streams_on_each_of_four_connections() {
    let stage = Stage::start();
    let browser = stage.signed_in_browser().await;
    let cookies = browser.cookies(&stage.origin());
    let cookie =
        cookies.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect::<Vec<_>>().join("; ");
    let arguments = ["-n", "4000", "-c", "4", "-m", "100", "-H", &format!("cookie: {cookie}"), &stage.url("/page")];
    let report = text(&run("h2load", &arguments).await);
    assert!(report.contains("4000 succeeded, 0 failed, 0 errored, 0 timeout"), "{report}");
    assert!(report.contains("status codes: 4000 2xx"), "{report}");
    assert_eq!(stage.upstream.count(), 4_000);
    assert_eq!(stage.upstream.last().json()["target"], json!("/page"));
}
