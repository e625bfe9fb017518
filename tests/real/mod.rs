//! The same stories against real parts. `tests/run` starts them and says where they are; `tests/run fast` leaves this module
//! out by its name.

// Certificates are ordered from an authority, kept and renewed.
#[cfg(feature = "acme")]
mod acme;
// Access tokens that real providers gave.
mod bearer;
// A stock nginx in front takes the answers as they are, and a caching one mixes nobody up.
mod behind_nginx;
// What the fast tests do with less: bodies of a gigabyte, thousands of connections.
mod burden;
// What a real browser makes of our cookies.
mod cookies;
// A session of a real provider fits in one cookie and its callback passes a stock nginx.
mod cookie_size;
// What Dex does beside signing people in.
mod dex;
// The application in a frame of a portal.
mod frames;
// Tokens that begin without a redirect.
mod grants;
// Client authentication, pushed, signed and bound, at providers that demand it.
mod high_security;
// Clients of HTTP/2 that others wrote, and the protocol's conformance suite.
mod http2;
// gRPC of every kind, by a real client and a real server.
mod grpc;
// The container image is built and run.
mod image;
// The Kubernetes example passes a strict validator.
mod kubernetes;
// Forms that wait for a sign-in.
mod kept_posts;
// Providers end sessions, and tokens end with them.
mod logout;
// A sign-in at each provider, through its own pages.
mod providers;
// Clients and servers written in Python.
mod python;
// A page in a browser talks over a WebSocket until its session ends.
mod page_socket;
// Clients that register themselves.
mod registration;
// Two processes, of which one is killed or stands still.
#[cfg(all(feature = "redis", feature = "sql"))]
mod replicas;
// Access tokens of seconds and refresh tokens that are good for one use, while stores and providers fail.
#[cfg(all(feature = "redis", feature = "sql"))]
mod sessions;
// What people notice of a store that is slow, away, or back.
#[cfg(all(feature = "redis", feature = "sql"))]
mod store_faults;
// Stores that are shared, and what is left when they are killed.
#[cfg(all(feature = "redis", feature = "sql"))]
mod stores;
// The whole story in a browser.
mod story;
// What a provider signs, encrypts and says about a sign-in.
mod verification;
// WebSockets by a real client and a real server.
mod websocket;
