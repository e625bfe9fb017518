//! HTTP/2 towards the client: the same requests with the same outcome, more of them on one connection, and nothing that one
//! connection can do to the others.

mod drips;
mod floods;
mod requests;
mod sessions;
mod streams;
mod tls;
mod web_sockets;

use http::Request;
use http::request::Builder;
use vestibule_test_support::{Browser, Stage};

const PUBLIC: &str = "[[routes]]\npath = \"/*\"\naccess = \"public\"";

/// A request with the browser's cookies, each a crumb of its own.
fn with_cookies(stage: &Stage, browser: &Browser, mut request: Builder) -> Builder {
    for cookie in browser.cookies(&stage.origin()) {
        request = request.header("cookie", format!("{}={}", cookie.name, cookie.value));
    }
    request
}

fn get(stage: &Stage, path: &str) -> Builder {
    Request::get(stage.url(path))
}

/// The values of a field as the application saw them.
fn echoed(echo: &serde_json::Value, name: &str) -> Vec<String> {
    let fields = echo["headers"].as_array().expect("an echo").iter();
    let values = fields.filter(|field| field[0] == name).filter_map(|field| field[1].as_str());
    values.map(str::to_owned).collect()
}
