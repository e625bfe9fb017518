//! HTTP as we trust it. Everything that reads a request from outside lives here: [`Inbound::sanitize`] is the only door,
//! and what comes through it has one reading, no header that could be mistaken for ours, and a known client.

pub mod body;
pub mod certificate;
pub mod challenge;
pub mod cookies;
pub mod early_hints;
pub mod edits;
pub mod forwarded;
pub mod headers;
pub mod inbound;
pub mod initiator;
pub mod path;
pub mod recall;
pub mod return_to;

pub use body::Body;
pub use certificate::ClientCertificate;
pub use cookies::{DuplicateCookie, OwnCookies, is_ours};
pub use early_hints::EarlyHints;
pub use forwarded::{Client, Forwarding, Scheme};
pub use inbound::{
    Connection, Inbound, Malformed, RequestId, Settings, Windows, is_for_another_site, is_frame, is_navigation,
    is_prefetch, prefers_html,
};
pub use initiator::Initiator;
pub use path::{PathError, RequestPath};
pub use recall::Recall;
pub use return_to::{Origin, ReturnTo};
