//! The ids of sessions that ended before their cookies expire. In memory; asked on every signed-in request, so reading
//! writes nothing that cores share.

use std::collections::HashMap;

use arc_swap::ArcSwap;

use super::SessionId;
use crate::clock::UnixTime;

/// Each shard is copied when an id is added to it, so many shards keep that cheap.
const SHARDS: usize = 256;

/// The set.
#[derive(Debug)]
pub struct EndedSessions {
    shards: Vec<ArcSwap<HashMap<SessionId, UnixTime>>>,
}

impl Default for EndedSessions {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| ArcSwap::default()).collect() }
    }
}

impl EndedSessions {
    /// Remembers `id` until `expires_at`; forgets what has expired in the same shard.
    pub fn add(&self, id: SessionId, expires_at: UnixTime, now: UnixTime) {
        self.shard(id).rcu(|shard| {
            let mut next = HashMap::clone(shard);
            next.retain(|_, expiry| *expiry > now);
            next.insert(id, expires_at);
            next
        });
    }

    /// Whether `id` has ended.
    pub fn contains(&self, id: SessionId) -> bool {
        let shard = self.shard(id).load();
        !shard.is_empty() && shard.contains_key(&id)
    }

    fn shard(&self, id: SessionId) -> &ArcSwap<HashMap<SessionId, UnixTime>> {
        &self.shards[usize::from(id.0[0]) % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_session_is_remembered_until_its_cookie_expires() {
        let ended = EndedSessions::default();
        let id = |tail| {
            let mut id = [7; 16];
            id[15] = tail;
            SessionId(id)
        };
        ended.add(id(1), UnixTime(100), UnixTime(50));
        assert!(ended.contains(id(1)));
        assert!(!ended.contains(id(2)));
        ended.add(id(2), UnixTime(200), UnixTime(100));
        assert!(ended.contains(id(2)));
        assert!(!ended.contains(id(1)), "expired entries are forgotten");
    }
}
