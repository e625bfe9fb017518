//! A person at the providers' pages without Chromium: forms are filled in and sent as a user agent would.

use url::Url;

use super::forms::{Form, forms};
use super::{Kind, RealProvider};
use crate::browser::{Browser, Reply};

/// No sign-in has more pages.
const PAGES: usize = 6;
/// No page is behind more redirects.
const REDIRECTS: usize = 10;

impl RealProvider {
    /// Goes to `start_url`, signs in as ada wherever that leads at the provider, consents, and comes back; the answer is the
    /// first page that is not the provider's.
    ///
    /// # Panics
    /// When the provider has more pages than any sign-in.
    pub async fn sign_in_without_browser(&self, browser: &Browser, start_url: &str) -> Reply {
        self.sign_in_without_browser_as(browser, start_url, "ada").await
    }

    /// The same for another person.
    ///
    /// # Panics
    /// When the provider has more pages than any sign-in.
    pub async fn sign_in_without_browser_as(&self, browser: &Browser, start_url: &str, name: &str) -> Reply {
        let reply = browser.follow(start_url, REDIRECTS).await;
        self.pass_pages(browser, reply, name).await
    }

    /// Answers every form that the provider shows, from `reply` on: login, consent, the confirmation of a device or of a
    /// sign-out, and forms that bring an answer back to the proxy. Ends at the first page that is not the provider's, or that
    /// has no form.
    ///
    /// # Panics
    /// When there are more pages than any story has.
    pub async fn pass_pages(&self, browser: &Browser, mut reply: Reply, name: &str) -> Reply {
        for _ in 0..PAGES {
            if !self.is_at(&reply.url) || forms(&reply.text()).is_empty() {
                return reply;
            }
            let visited = std::mem::take(&mut reply.visited);
            let answer = self.submit_form(browser, &reply, name).await;
            reply = browser.follow_reply(answer, REDIRECTS).await;
            reply.visited.splice(0..0, visited);
        }
        panic!("the sign-in does not end: {:#?}\n{}", reply.visited, reply.text());
    }

    fn is_at(&self, url: &Url) -> bool {
        let issuer = Url::parse(&self.issuer).expect("an issuer");
        let wire = self.backchannel.map(|wire| Url::parse(&format!("http://{wire}")).expect("an address"));
        url.origin() == issuer.origin() || wire.is_some_and(|wire| url.origin() == wire.origin())
    }

    /// Fills in and sends the form on `page` as the person of that name; redirects are the caller's to follow.
    ///
    /// # Panics
    /// When the page has no form.
    pub async fn submit_form(&self, browser: &Browser, page: &Reply, name: &str) -> Reply {
        let forms = forms(&page.text());
        let form = forms.iter().find(|form| form.asks_for("password"));
        // Dex shows a second form that refuses.
        let form = form.or_else(|| forms.iter().find(|form| !form.sends("approval", "rejected")));
        let Some(form) = form else { panic!("{} {} has no form: {}", page.url, page.status, page.text()) };
        let action = page.url.join(&form.action).expect("a form's address");
        let fields = self.fill_in(form, name);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        browser.submit(page.url.as_str(), action.as_str(), &fields).await
    }

    fn fill_in(&self, form: &Form, name: &str) -> Vec<(String, String)> {
        let mut fields = form.hidden.clone();
        for asked in &form.asked {
            let value = match asked.as_str() {
                "username" | "login" => self.login_name(name),
                "password" => format!("{name}-password"),
                _ => String::new(),
            };
            fields.push((asked.clone(), value));
        }
        let agreeing = |(name, _): &&(String, String)| matches!(name.as_str(), "accept" | "confirmLogout");
        fields.extend(form.buttons.iter().find(agreeing).cloned());
        // Its button stands outside the form.
        if self.kind == Kind::OidcProvider && form.id == "op.logoutForm" {
            fields.push(("logout".to_owned(), "yes".to_owned()));
        }
        fields
    }
}
