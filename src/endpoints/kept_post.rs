//! A form whose session was over when it came: kept, and sent on after the sign-in of the same person (`session.keep_posts`).
//!
//! 1. **Kept** is what a page of our own sends, as a form, in a window, from our own origin by every word of the browser
//!    ([`is_own_form`](crate::message::inbound::is_own_form)), with a session that is authentic and over by its age or for want of
//!    use, or not recent or strong enough for the route. Never for one that was ended: whoever signed out, or was signed out,
//!    sends nothing more. The answer is 303 to an address of ours that names what is kept, so going back or reloading sends nothing.
//! 2. **That address** is where the sign-in leads, like any other page that people wanted to see: any number of tabs, providers
//!    and stray callbacks go the ways they always go. Its page has a form with one hidden field, the name of what is kept, and a
//!    button. No script; nothing that was entered is in it.
//! 3. **The button** posts to the very address that the form was for, under the URL that the person knows: what the
//!    application answers is at home there, relative links and reloads included. That request goes the way of all others, so
//!    route, roles, limits, origin and session are judged anew; only once it is admitted, and was sent by a page of ours in
//!    so many words, what was kept takes the place of its body, its type and its `Referer`. Everything else is the
//!    browser's of now. It is taken away before it is sent: at most once, and the second try is told so. Only where no
//!    connection to the application came about, so that nothing was sent, it waits on.
//!
//! A redirect with 307 could not carry a body that the browser no longer has, and an endpoint that forwards for another path
//! would answer under the wrong address and need a second way to be let in.
//!
//! Whoever else is signed in by then is told that it was not sent, and it is thrown away. Where it lies meanwhile, and who can
//! open it: [`kept`](crate::authn::session::kept).

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use tracing::info;

use super::Endpoints;
use super::form::{self, URL_ENCODED};
use super::query::{self, Repeated};
use crate::admission::Challenge;
use crate::authn::session::kept::{BrowserSecret, KeptPost, KeptPosts, NotKept, PostId, Seen, Taken};
use crate::authn::session::{NoSession, set_cookies};
use crate::message::{Body, Inbound, OwnCookies, RequestPath, ReturnTo};
use crate::policy::{self, Permit, SignInReason, Verdict};
use crate::reply::pages::Page;
use crate::reply::{ClientFault, Exchange, KeptPostFault, Notice, Rejection, Replies, redirect};
use crate::route::{GuardedRoute, Target};
use crate::upstream::UpstreamError;

/// The hidden field of the page's form.
const FIELD: &str = "vestibule_kept_post";
/// How long that form is: `FIELD=ID`.
const MARK_LEN: u64 = (FIELD.len() + 1 + PostId::LEN) as u64;
/// The longest `Content-Type` that is kept, in bytes: a boundary has at most 70 (RFC 2046 §5.1.1).
const MAX_TYPE: usize = 256;
/// The longest `Referer`; a longer one is left out.
const MAX_REFERER: usize = 2048;

/// A form that may be kept, less what it says.
struct Form {
    target: String,
    content_type: String,
    referer: Option<String>,
    length: u64,
}

impl Form {
    /// What HTML forms can send (HTML, "Form submission", `enctype`), of a length that is known, to an address that a form leads to.
    fn of(inbound: &Inbound, endpoints: &Endpoints) -> Option<Self> {
        // Sessions live on that host alone, and a form's address is one of ours.
        if !inbound.is_own_form(&endpoints.rules.own) || inbound.host() != endpoints.host() || inbound.is_tunnel() {
            return None;
        }
        let headers = inbound.headers();
        let (content_type, essence) = form::content_type(headers)?;
        let is_form =
            [URL_ENCODED, "multipart/form-data", "text/plain"].iter().any(|one| essence.eq_ignore_ascii_case(one));
        let is_plain = !headers.contains_key(header::CONTENT_ENCODING) && !headers.contains_key(header::TRAILER);
        let target = inbound.path_and_query();
        // One that a browser would write another way would not come back to where it was for.
        let comes_back = ReturnTo::parse(target, &endpoints.rules).is_ok_and(|parsed| parsed.as_str() == target);
        let referer = headers.get(header::REFERER).and_then(|referer| referer.to_str().ok());
        (is_form && is_plain && comes_back && content_type.len() <= MAX_TYPE).then(|| Self {
            target: target.to_owned(),
            content_type: content_type.to_owned(),
            referer: referer.filter(|referer| referer.len() <= MAX_REFERER).map(str::to_owned),
            length: inbound.body_length().unwrap_or(u64::MAX),
        })
    }
}

impl Endpoints {
    /// Keeps a form that came without a session that would do, and leads on to where it waits. `None`: it is none to be kept.
    ///
    /// # Errors
    /// [`NotKept`] where there is no room for it.
    pub(super) async fn keep(
        &self,
        challenge: &Challenge<'_>,
        inbound: &mut Inbound,
        replies: &Replies,
    ) -> Result<Option<Response<Body>>, NotKept> {
        let Some((posts, path)) = self.kept_posts() else { return Ok(None) };
        let Some(form) = Form::of(inbound, self) else { return Ok(None) };
        // Who has to sign in elsewhere is somebody else there.
        if challenge.has_session && challenge.renews_at.is_none() {
            return Ok(None);
        }
        let Some(person) = self.sessions.person(inbound.cookies()).await else { return Ok(None) };
        let secret = self.shown_secret(inbound.cookies()).unwrap_or_default();
        // Boxed: few forms are kept, and no challenge has to make room for that.
        let mut body = None;
        if may_be_marked(inbound) {
            body = Box::pin(read(inbound.body_mut(), form.length)).await;
            if body.is_none() {
                return Ok(None);
            }
        }
        let id = match body.as_deref().and_then(mark_in) {
            // What our own page sends: it waits already, and needs no room.
            Some(id) => id,
            None => {
                let room = posts.room(&person, form.length).inspect_err(|not_kept| refused(*not_kept, replies))?;
                if body.is_none() {
                    body = Box::pin(read(inbound.body_mut(), form.length)).await;
                }
                let Some(body) = body else { return Ok(None) };
                let Form { target, content_type, referer, .. } = form;
                let post = KeptPost { person, target, content_type, referer };
                let kept = posts.keep(room, &secret, &post, &body).await;
                let id = kept.inspect_err(|not_kept| refused(*not_kept, replies))?;
                replies.metrics().kept_post("kept");
                info!(bytes = body.len(), "a form is kept until its person has signed in again");
                id
            }
        };
        let mut response = redirect(StatusCode::SEE_OTHER, &format!("{path}?form={id}"));
        let cookie = self.sessions.jar().kept().set(secret.as_str(), Some(posts.life()));
        set_cookies(response.headers_mut(), [cookie]);
        Ok(Some(response))
    }

    /// Where a form waits: a page with a button for whoever may send it, the way to sign in for whoever is not signed in.
    pub(super) async fn kept_post(
        &self,
        inbound: Inbound,
        replies: &Replies,
        exchange: &mut Exchange<'_>,
    ) -> Result<Response<Body>, Rejection> {
        let (posts, _) = self.kept_posts().ok_or(Rejection::NoEndpoint)?;
        let text = query::single(inbound.query(), "form");
        let text = text.map_err(|Repeated| ClientFault::Parameters("form_repeated"))?.unwrap_or_default();
        let id = PostId::parse(text.as_bytes()).ok_or(KeptPostFault::Gone)?;
        let secret = self.shown_secret(inbound.cookies()).ok_or(KeptPostFault::Gone)?;
        let seen = posts.look(id, &secret).await?.ok_or(KeptPostFault::Gone)?;
        let Some(route) = self.guarded(&seen.post.target) else {
            return Err(throw_away(posts, seen, KeptPostFault::OtherPage, replies).await);
        };
        let renews_at = self.providers.by_party(seen.post.person.party).map(|(index, _)| index);
        let sign_in = |reason: &'static str, has_session, is_step_up| Challenge {
            reason,
            has_session,
            is_step_up,
            renews_at,
            silently: None,
            route: route.route(),
        };
        let (identity, renewal) = match self.sessions.authenticate(&inbound).await {
            Ok(session) => session,
            Err(NoSession::Away(away)) => return Err(away.into()),
            Err(absence) => {
                let challenge = sign_in(absence.code(), false, false);
                return self.challenge(challenge, inbound, replies, exchange).await;
            }
        };
        if *identity.subject() != seen.post.person.subject {
            return Err(throw_away(posts, seen, KeptPostFault::OtherPerson, replies).await);
        }
        match policy::authorize(route, Some(identity), self.logins.now()) {
            Verdict::Permit(_) => Ok(renewal.attach(self.ask_to_send(id, &seen.post, replies, exchange))),
            Verdict::Deny(denial) => {
                posts.take(seen).await?;
                replies.metrics().kept_post(denial.code());
                Ok(renewal.attach(self.deny(denial, &inbound, replies, exchange)))
            }
            Verdict::SignIn(reason) => {
                let is_step_up = reason == SignInReason::InsufficientProof;
                let challenge = sign_in(reason.code().unwrap_or("no_session"), true, is_step_up);
                self.challenge(challenge, inbound, replies, exchange).await
            }
        }
    }

    /// Puts what was kept in the place of a request that says so, once it is admitted. Any other request stays as it is.
    ///
    /// # Errors
    /// [`KeptPostFault`]; [`ClientFault::CrossSite`] where no page of ours says it.
    pub async fn restore_form(
        &self,
        inbound: &mut Inbound,
        permit: &Permit<'_>,
        replies: &Replies,
    ) -> Result<Option<Box<Taken>>, Rejection> {
        match self.kept_posts() {
            // Boxed: few requests are as long as that.
            Some((posts, _)) if may_be_marked(inbound) => {
                let outcome = Box::pin(self.restore_marked(posts, inbound, permit)).await;
                outcome.inspect_err(|rejection| replies.metrics().kept_post(rejection.notice().code))
            }
            _ => Ok(None),
        }
    }

    /// What was kept and taken away is gone now, unless nothing of it was sent.
    pub async fn settle_form(&self, taken: Option<Box<Taken>>, failed: Option<&UpstreamError>, replies: &Replies) {
        let (Some(taken), Some((posts, _))) = (taken, self.kept_posts()) else { return };
        match failed {
            Some(error) if error.is_before_sending() => {
                replies.metrics().kept_post(error.code());
                Box::pin(posts.put_back(*taken)).await;
            }
            _ => {
                replies.metrics().kept_post("sent");
                info!("a form that was kept was sent");
            }
        }
    }

    /// What was taken away for it, if it is one.
    async fn restore_marked(
        &self,
        posts: &KeptPosts,
        inbound: &mut Inbound,
        permit: &Permit<'_>,
    ) -> Result<Option<Box<Taken>>, Rejection> {
        let body = form::whole(inbound.body_mut(), MARK_LEN as usize).await.map_err(ClientFault::from)?;
        let Some(id) = mark_in(&body) else {
            inbound.put_body(body);
            return Ok(None);
        };
        if !inbound.is_own_form(&self.rules.own) {
            return Err(ClientFault::CrossSite.into());
        }
        let secret = self.shown_secret(inbound.cookies()).ok_or(KeptPostFault::Gone)?;
        let seen = posts.look(id, &secret).await?.ok_or(KeptPostFault::Gone)?;
        // By a session: an access token or a password says nothing about whose browser it is.
        let identity = permit.identity().filter(|identity| identity.session().is_some());
        if identity.is_none_or(|identity| *identity.subject() != seen.post.person.subject) {
            posts.take(seen).await?;
            return Err(KeptPostFault::OtherPerson.into());
        }
        if seen.post.target != inbound.path_and_query() {
            return Err(KeptPostFault::OtherPage.into());
        }
        let taken = posts.take(seen).await?.ok_or(KeptPostFault::Gone)?;
        let body = taken.body().ok_or(KeptPostFault::Gone)?;
        let KeptPost { content_type, referer, .. } = taken.post();
        let content_type = HeaderValue::try_from(content_type).map_err(|_| KeptPostFault::Gone)?;
        let referer = referer.as_ref().and_then(|referer| HeaderValue::try_from(referer).ok());
        inbound.put_form(Bytes::from(body), content_type, referer);
        Ok(Some(Box::new(taken)))
    }

    fn ask_to_send(&self, id: PostId, post: &KeptPost, replies: &Replies, exchange: &Exchange<'_>) -> Response<Body> {
        let path = post.target.split('?').next().unwrap_or_default();
        let message = format!(
            "Your session was over when you sent the form to {path}. What you entered was kept while you signed in, and has not \
             been passed on yet."
        );
        let notice = Notice::new(StatusCode::OK, "send_form", Page::SendForm, "Send what you entered?", message);
        let back = post.referer.as_deref().and_then(|referer| ReturnTo::parse(referer, &self.rules).ok());
        let notice = notice
            .advice("It is sent once, as you. If you leave this page, it is thrown away after a while.")
            .action(post.target.as_str(), "Send it now")
            .other(back.unwrap_or_else(ReturnTo::root).as_str(), "Go back without sending");
        let notice = Notice { post: true, field: Some((FIELD, id.to_string())), ..notice };
        // Chromium applies form-action to redirects, and where the application leads on to is its own affair.
        let is_https = self.rules.own.as_str().starts_with("https:");
        let anywhere = if is_https { &["https:"][..] } else { &["https:", "http:"] };
        replies.page(&notice, exchange, &anywhere.iter().map(|scheme| (*scheme).to_owned()).collect::<Vec<_>>())
    }

    fn kept_posts(&self) -> Option<(&KeptPosts, &str)> {
        Some((self.kept_posts.as_ref()?, self.settings.kept_post_path.as_deref()?))
    }

    /// The guarded route that a form goes to now.
    fn guarded(&self, target: &str) -> Option<GuardedRoute<'_>> {
        let path = RequestPath::parse(target.split('?').next().unwrap_or_default()).ok()?;
        match self.routes.resolve_parts(self.host(), &Method::POST, &path).ok()? {
            Target::Guarded(route) => Some(route),
            _ => None,
        }
    }

    fn shown_secret(&self, cookies: &OwnCookies) -> Option<BrowserSecret> {
        BrowserSecret::shown(cookies.get(self.sessions.jar().kept().name()).ok()??)
    }
}

/// Once, where it is decided.
fn refused(not_kept: NotKept, replies: &Replies) {
    replies.metrics().kept_post(not_kept.code());
    info!(reason = not_kept.code(), "a form is not kept");
}

/// Nobody is to send it any more.
async fn throw_away(posts: &KeptPosts, seen: Seen, fault: KeptPostFault, replies: &Replies) -> Rejection {
    replies.metrics().kept_post(fault.code());
    match posts.take(seen).await {
        Ok(_) => fault.into(),
        Err(away) => away.into(),
    }
}

/// What a person is told of it.
pub(super) fn told(not_kept: NotKept) -> &'static str {
    match not_kept {
        NotKept::TooLarge => {
            "It is too large to be kept while you sign in. Go back, copy what you need, and sign in first."
        }
        NotKept::Full | NotKept::TooMany | NotKept::Away => {
            "It could not be kept while you sign in. Go back, copy what you need, and sign in first."
        }
    }
}

/// Whole, as announced, and in time.
async fn read(body: &mut Incoming, length: u64) -> Option<Bytes> {
    form::whole(body, usize::try_from(length).ok()?).await.ok()
}

/// By its outside. Whatever else has this length is looked into, and goes on as it is.
fn may_be_marked(inbound: &Inbound) -> bool {
    *inbound.method() == Method::POST
        && inbound.body_length() == Some(MARK_LEN)
        && form::content_type(inbound.headers()).is_some_and(|(_, essence)| essence.eq_ignore_ascii_case(URL_ENCODED))
}

/// What our own page sends in the place of a form.
fn mark_in(body: &[u8]) -> Option<PostId> {
    PostId::parse(body.strip_prefix(FIELD.as_bytes())?.strip_prefix(b"=")?)
}
