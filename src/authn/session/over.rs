//! Whose a session was that is over by itself: by its age, or because nobody used it.

use super::kept::Person;
use super::stored::StoredSessions;
use super::{FUTURE_LEEWAY, NoSession, Sessions, record};
use crate::message::OwnCookies;

impl Sessions {
    /// The person whose session a request shows, be it live, idle or past its lifetime. `None` where what comes is not authentic,
    /// is of another issuer or client, or was ended: signed out, revoked, not renewed. Whoever ended a session has meant it, and
    /// what its browser still sends is nobody's wish that is worth keeping.
    pub async fn person(&self, cookies: &OwnCookies) -> Option<Person> {
        let record = match self.open(cookies).await {
            Ok(opened) => opened.record,
            Err(NoSession::Expired) => self.expired(cookies)?,
            Err(_) => return None,
        };
        Some(Person { party: record.party, subject: record.marks.subject })
    }

    /// A session in a cookie that is past its lifetime. A store keeps no record as long.
    pub(super) fn expired(&self, cookies: &OwnCookies) -> Option<record::Record> {
        let value = self.jar.join(cookies).ok().flatten().filter(|value| !StoredSessions::is_ticket(value))?;
        let (bytes, _) = self.sealer.open_bytes(&value).ok()?;
        let (record, _) = record::unpack(bytes)?;
        let now = self.clock.now();
        self.provider(record.party)?;
        // For longer nobody remembers whether it was ended.
        let is_known =
            now < record.expires_at.after(self.settings.outlives) && record.issued_at <= now.after(FUTURE_LEEWAY);
        (is_known && !self.has_ended(&record)).then_some(record)
    }
}
