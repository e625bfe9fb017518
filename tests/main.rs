//! One test binary; a line and a sentence for each capability.

// Who may open which route, whatever the path is spelled like.
mod access;
// A program without a browser gets tokens by a person's word at another device, and by nothing else.
mod api_clients;
// An operator sees and ends sessions, and nobody else does.
mod admin_sessions;
// The same by the command line.
mod sessions_command;
// Secrets of the session are rotated while it runs.
mod secret_rotation;
// A program shows an access token that holds and is for us, or it gets nowhere.
mod bearer;
// Bodies of any size pass unchanged and are never gathered.
mod bodies;
// What we say is for whoever asked, and for no cache.
mod caching;
// The conformance suite of the OpenID Foundation finds nothing that is not told here.
mod conformance;
// Where an upstream wants to know the proxy itself, it shows a token of its own.
mod client_credentials;
// Signed out, a person is sent to sign in and a program is told where.
mod clients;
// Every command says what it did, every problem names its place and its remedy, and the exit code agrees.
mod command_line;
// A few variables are enough, and whatever is written twice is read in one order.
mod configuration;
// Our cookies go where they are needed, come back when they are needed, and are gone when they are deleted.
mod cookies;
// Many who sign in at once stay who they are.
mod crowd;
// What a foreign page asks for with somebody's session is not passed on.
mod cross_site;
// A certificate that counts no longer opens no connection, and ends those that it has opened between two requests.
mod client_certificates;
// The provider is told who the client is in the one way that both sides agree on.
mod client_auth;
// What tokens are bound to is shown wherever they are used.
mod bound_tokens;
// Where the request is pushed or signed, the browser carries a reference or what it cannot change.
mod par;
// Where the provider fetches the request, the browser carries its address.
mod request_objects;
// The demo shows what it promises.
#[cfg(feature = "demo")]
mod demo;
// What is encrypted to us is opened, and counts for no more than in the clear.
mod encrypted_tokens;
// A stop loses no request and ends within its bound.
mod drain;
// What has begun at the provider is finished, whoever goes away.
mod errands;
// The provider ends sessions with a token of its own, and nobody else does.
mod backchannel_logout;
// The provider's page ends sessions in a frame.
mod frontchannel_logout;
// People are signed in inside frames of pages that may show the application, and no other page gets anything of it.
mod frames;
// Whoever breaks off, falls silent or holds on costs a bounded piece of memory and nobody else's time.
mod faults;
// The proxy is invisible to the application's protocols.
mod forwarding;
// What is wrong with an ID token is found out, whatever it is, and what is merely unusual passes.
mod id_token_faults;
// HTTP/2 towards the client means what HTTP/1.1 means, and bears no more.
mod http2;
// Whatever a provider does, people are told in time and operators are told why.
mod hostile_provider;
// The application learns who somebody is from us or not at all.
mod identity;
// A third party may start a sign-in, and nothing else.
mod initiated_login;
// An upstream of several instances serves on whatever happens to one of them.
mod instances;
// Several providers side by side never take one for another.
mod providers;
// What is too long, too large or too slow is refused, and what is merely large or slow is not.
mod limits;
// A form whose session is over is sent after the sign-in of the same person, once, and by nobody else.
mod kept_posts;
// Signing in works from every tab, after every detour, and never in a circle.
mod login;
// Signing out ends the session here and at the provider.
mod logout;
// A connection may be kept and carry anybody's requests.
mod kept_connections;
// Requests come in by every listener, and who sent them is known by what each is trusted with.
mod listeners;
// A line tells what happened and nothing that was secret.
mod logs;
// What the program holds is little for those who wait and bounded for those who drip.
mod memory;
// A password is taken from a program where that is switched on, and from nobody else.
mod passwords;
// Every protocol of a client meets every protocol of an application.
mod pairs;
// A provider that is away, slow or talks nonsense takes nothing else down.
mod provider_faults;
// What a provider answers is believed in the form that was registered, and for what it says that it is.
mod provider_answers;
// Who asks too often is told when to come back, and nobody else notices.
mod rate_limits;
// The README says what the program does.
mod readme;
// The answer of a provider comes back in the way that was asked for, or not at all.
mod response_modes;
// A client that registers itself stays the same client, and its people stay signed in.
mod registration;
// A request has one reading or it is refused.
mod reading;
// Whoever comes over http or to an alias is sent to where the application lives.
mod redirects;
// What a route changes on the way is what was judged.
mod rewriting;
// What the operator says of a provider stands in the place of what it says of itself.
mod static_metadata;
// What is kept beside the cookie is changed by one at a time and never comes back.
mod store;
// Sessions in a store: any replica knows them, one renews each, and they end everywhere.
#[cfg(feature = "sql")]
mod stored_sessions;
// The same with sessions in cookies: replicas that share who renews.
#[cfg(feature = "sql")]
mod shared_renewals;
// A folder or a fixed answer stands where an application would.
mod static_files;
// Events, interim answers and upgrades pass as they come.
mod streams;
// Whatever still flows when a session ends, ends with it, and with a goodbye.
mod session_streams;
// The same stories against real parts, which `tests/run` starts.
mod real;
// What went wrong once, here or elsewhere in this field, stays mended.
mod regression;
// The program runs on whatever the world does to it, and stops when it is told to.
mod running;
// Each tenant of a provider is an issuer of its own.
mod tenants;
// TLS is spoken well, or not at all, and its certificates change without anybody's noticing.
mod tls;
// A session is renewed once, ahead of time, and nobody is signed out at random.
mod renewal;
// A sign-in lasts as long as the seal says and belongs to one application.
mod session;
// An ID token says what was asked for, in the way it was asked for, or it counts for nothing.
mod verification;
// What an application demands of a sign-in, people are asked for once, and programs are told.
mod insufficient;
// A page may ask for a stronger or more recent sign-in, once.
mod step_up;
// Every way to the application that can be configured carries everything.
mod upstreams;
