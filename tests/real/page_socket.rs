//! A WebSocket that a page's own script opens, in Chromium: with the session's cookie, which no script can read, and ended
//! with it.

use std::time::Duration;

use tokio::time::timeout;
use vestibule_test_support::real::Chromium;
use vestibule_test_support::{Stage, Value};

/// A page that talks to `/ws` and writes down what happens.
const PAGE: &str = "<!doctype html><title>A page with a socket</title><script>\
    const told = [];\
    const socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws');\
    socket.onopen = () => socket.send('hello');\
    socket.onmessage = (event) => told.push(event.data);\
    socket.onclose = (event) => told.push(event.code + ' ' + event.reason);\
    </script>";

fn stage() -> Stage {
    Stage::with(&format!(
        "[upstream]\nurl = unset\n[upstreams.default]\nurl = \"{{upstream}}\"\n\
         [upstreams.page]\nrespond = {{ status = 200, content_type = \"text/html\", body = {PAGE:?} }}\n\
         [[routes]]\npath = \"/*\"\nupstream = \"default\"\n[[routes]]\npath = \"/page\"\nupstream = \"page\"\n"
    ))
}

/// Waits until the page has been told exactly this.
async fn until_told(chromium: &Chromium, wanted: &[&str]) {
    chromium
        .until(&format!("{wanted:?}"), || async {
            let told = chromium.client.execute("return told", Vec::new()).await?;
            Ok(told == Value::from(wanted))
        })
        .await
        .unwrap();
}

async fn open_page(stage: &Stage) -> Chromium {
    let chromium = Chromium::start().await;
    chromium.goto(&stage.url("/page")).await.unwrap();
    until_told(&chromium, &["hello"]).await;
    chromium
}

#[tokio::test]
async fn a_pages_socket_is_told_why_it_ends_when_the_person_signs_out_in_another_tab() {
    let story = async {
        let stage = stage();
        let chromium = open_page(&stage).await;
        // A browser asks for an icon too.
        let handshake = stage.upstream.requests().into_iter().find(|request| request.path() == "/ws").unwrap();
        assert_eq!(handshake.header("x-forwarded-user"), ["248289761001"]);
        assert_eq!(handshake.header("origin"), [stage.origin()]);
        assert!(handshake.header("cookie").iter().all(|cookie| !cookie.contains("vestibule")), "our own cookies");
        chromium.client.execute("socket.send('and again')", Vec::new()).await.unwrap();
        until_told(&chromium, &["hello", "and again"]).await;

        let page = chromium.client.window().await.unwrap();
        chromium.new_tab().await.unwrap();
        chromium.goto(&stage.url("/auth/logout")).await.unwrap();
        chromium.show(&page).await.unwrap();
        until_told(&chromium, &["hello", "and again", "1008 session ended"]).await;

        // What a page does next: its handshake is refused, and it is told no more than that.
        stage.upstream.forget();
        let again = "const next = new WebSocket(location.origin.replace('http', 'ws') + '/ws'); \
                     next.onclose = (event) => told.push('refused with ' + event.code)";
        chromium.client.execute(again, Vec::new()).await.unwrap();
        until_told(&chromium, &["hello", "and again", "1008 session ended", "refused with 1006"]).await;
        stage.upstream.assert_untouched();
    };
    timeout(Duration::from_secs(60), story).await.expect("the story took longer than a minute");
}

#[tokio::test]
async fn a_pages_socket_is_told_that_the_proxy_goes_away() {
    let story = async {
        let mut stage = stage();
        let chromium = open_page(&stage).await;
        stage.stop();
        until_told(&chromium, &["hello", "1001 "]).await;
    };
    timeout(Duration::from_secs(60), story).await.expect("the story took longer than a minute");
}
