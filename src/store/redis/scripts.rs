//! What has to be one step at the server. Every script touches one key, so that it runs in a cluster too, and asks the
//! server's clock, so that all replicas agree on when a lease ends.
//!
//! A record is a hash: `b` sealed bytes, `v` version, `f` number of the last lease, `l` its end (0: nobody has one), `o`
//! owner, `c` created, `m` changed; times in milliseconds. Creating and replacing may be asked twice: the second time, the
//! same bytes are there already.

/// What a script answers where the key holds something else.
pub(super) const CORRUPT: i64 = -1;

macro_rules! script {
    ($body:literal) => {
        concat!(
            "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) ",
            "local function num(field) return tonumber(redis.call('HGET', KEYS[1], field) or '') end\n",
            $body
        )
    };
}

/// Bytes, owner, lifetime → 1, or 0 where there is another.
pub(super) const CREATE: &str = script!(
    "if redis.call('EXISTS', KEYS[1]) == 1 then
       if num('v') == 1 and redis.call('HGET', KEYS[1], 'b') == ARGV[1] then return 1 end
       return 0
     end
     redis.call('HSET', KEYS[1], 'b', ARGV[1], 'v', 1, 'f', 0, 'l', 0, 'o', ARGV[2], 'c', now, 'm', now)
     redis.call('PEXPIRE', KEYS[1], ARGV[3])
     return 1"
);

/// Version, span → {1, number, abandoned} {2, rest} {3} newer {4} gone.
pub(super) const LEASE: &str = script!(
    "if redis.call('EXISTS', KEYS[1]) == 0 then return {4} end
     local v, f, l = num('v'), num('f'), num('l')
     if not (v and f and l) then return {-1} end
     if v ~= tonumber(ARGV[1]) then return {3} end
     if l > now then return {2, l - now} end
     redis.call('HSET', KEYS[1], 'f', f + 1, 'l', now + ARGV[2])
     return {1, f + 1, l > 0 and 1 or 0}"
);

/// Version, number, bytes → the next version, or 0.
pub(super) const REPLACE: &str = script!(
    "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
     local v, f = num('v'), num('f')
     if not (v and f) then return -1 end
     if f ~= tonumber(ARGV[2]) then return 0 end
     if v == ARGV[1] + 1 and redis.call('HGET', KEYS[1], 'b') == ARGV[3] then return v end
     if v ~= tonumber(ARGV[1]) then return 0 end
     redis.call('HSET', KEYS[1], 'b', ARGV[3], 'v', v + 1, 'l', 0, 'm', now)
     return v + 1"
);

/// Version, number → 1, or 0.
pub(super) const RELEASE: &str = script!(
    "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
     local v, f = num('v'), num('f')
     if not (v and f) then return -1 end
     if v ~= tonumber(ARGV[1]) or f ~= tonumber(ARGV[2]) then return 0 end
     redis.call('HSET', KEYS[1], 'l', 0)
     return 1"
);

/// Handle, lifetime: into a sorted set by the end of each, which drops what has ended.
pub(super) const INDEX: &str = script!(
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
     redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
     if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
     return 1"
);

/// Message, span: onto a stream, which drops some of the oldest that nobody has to hear of any more.
pub(super) const PUBLISH: &str = script!(
    "redis.call('XADD', KEYS[1], '*', 'm', ARGV[1], 'u', string.format('%.0f', now + ARGV[2]))
     for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 16)) do
       if (tonumber(entry[2][4]) or 0) > now then break end
       redis.call('XDEL', KEYS[1], entry[1])
     end
     if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
     return 1"
);
