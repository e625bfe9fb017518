//! What the tests stand on: a proxy started from TOML text, a provider that misbehaves on demand, an upstream that tells
//! what reached it, a user agent that is honest about cookies, a clock that tests move, and a maker of good and bad tokens.
//!
//! The fake provider shares no code with `vestibule` nor with its demo provider: a shared mistake would hide itself.
//!
//! Everything here runs on a runtime of its own ([`runtime`]), so that a test may block without stopping its provider or
//! its upstream, and panics freely: a panic here is a failed test.

mod browser;
mod clock;
mod echo;
pub mod encryption;
pub mod forge;
mod front;
pub mod h2;
mod judge;
mod listener;
mod nginx;
mod program;
mod provider;
mod raw;
pub mod real;
mod relay;
pub mod script;
mod stage;
pub mod stores;
mod tls;
mod trace;
mod watch;

use std::sync::OnceLock;

pub use self::h2::{H2Client, H2Frames, H2Reply};
pub use browser::{Browser, PostingForm, Reply, Request, StoredCookie};
pub use bytes;
pub use clock::TestClock;
pub use echo::{EchoUpstream, Received};
pub use fantoccini;
pub use front::Front;
pub use judge::until;
pub use nginx::Nginx;
pub use program::{Ended, Launch, Program, SESSION_SECRET, Site};
pub use provider::{
    AuthorizeFault, ClientAuth, Demands, DiscoveryFault, EncryptionFault, Endpoint, FakeProvider, Faults, IdTokenFault,
    IntrospectionFault, JwksFault, ProviderRequest, PushFault, RegistrationRules, ResponseFault, TokenCall, TokenFault,
    UserinfoFault,
};
pub use raw::{raw_request, raw_request_within};
pub use relay::Relay;
pub use serde_json::{Value, json};
pub use stage::{Stage, StageBuilder, free_port};
pub use tempfile;
pub use tls::{CertificateFiles, Signed, TestCa, TlsClient, get};
pub use {rcgen, tokio_rustls};

/// The runtime of every server in this crate; it lives as long as the test process.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("test-support")
            .enable_all()
            .build()
            .expect("a runtime for the test servers")
    })
}

/// `length` random bytes as base64url, for identifiers.
pub(crate) fn random_text(length: usize) -> String {
    use base64::Engine as _;
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
