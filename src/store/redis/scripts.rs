//! What has to be one step at the server. Every script touches one key, so that it runs in a cluster too, and asks the
//! server's clock, so that all replicas agree on when a lease ends.
//!
//! A record is a hash: `b` sealed bytes, `v` version, `f` whose the last lease was, `l` its end (0: nobody has one), `a`
//! whether the one before was abandoned, `o` owner, `c` created, `m` changed; times in milliseconds. Everything may be asked
//! twice: the second time, the same bytes are there already, or the lease is that bid's own.
//!
//! The mark of a series of steps is a hash: `n` the last step, `f` whose it is, `l` the end of its lease (0: it is over, -1: it
//! is lost). What a step brought is another: `n` the step, `b` the bytes.

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

/// Version, span, bid → {1, abandoned} {2, rest} {3} newer {4} gone.
pub(super) const LEASE: &str = script!(
    "if redis.call('EXISTS', KEYS[1]) == 0 then return {4} end
     local v, f, l = num('v'), redis.call('HGET', KEYS[1], 'f'), num('l')
     if not (v and f and l) then return {-1} end
     if v ~= tonumber(ARGV[1]) then return {3} end
     local a = num('a') or 0
     if l == 0 or f ~= ARGV[3] then
       if l > now then return {2, l - now} end
       a = l > 0 and 1 or 0
     end
     redis.call('HSET', KEYS[1], 'f', ARGV[3], 'l', now + ARGV[2], 'a', a)
     return {1, a}"
);

/// Version, bid, bytes → the next version, or 0.
pub(super) const REPLACE: &str = script!(
    "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
     local v, f = num('v'), redis.call('HGET', KEYS[1], 'f')
     if not (v and f) then return -1 end
     if f ~= ARGV[2] then return 0 end
     if v == ARGV[1] + 1 and redis.call('HGET', KEYS[1], 'b') == ARGV[3] then return v end
     if v ~= tonumber(ARGV[1]) then return 0 end
     redis.call('HSET', KEYS[1], 'b', ARGV[3], 'v', v + 1, 'l', 0, 'm', now)
     return v + 1"
);

/// Version, bid → 1, or 0. That the one before was abandoned is true for the next one too: as if this one had ended long ago.
pub(super) const RELEASE: &str = script!(
    "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
     local v, f = num('v'), redis.call('HGET', KEYS[1], 'f')
     if not (v and f) then return -1 end
     if v ~= tonumber(ARGV[1]) or f ~= ARGV[2] then return 0 end
     redis.call('HSET', KEYS[1], 'l', num('a') == 1 and 1 or 0)
     return 1"
);

/// Handle, lifetime: into a sorted set by the end of each, which drops what has ended.
pub(super) const INDEX: &str = script!(
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
     redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
     if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
     return 1"
);

/// The server's clock: seconds, microseconds.
pub(super) const TIME: &str = script!("return {tonumber(t[1]), tonumber(t[2])}");

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

/// Step, bid, span, span of the series → {1} ours {2, rest} {3} over {4} lost.
pub(super) const TAKE_STEP: &str = script!(
    "local asked = tonumber(ARGV[1])
     if redis.call('EXISTS', KEYS[1]) == 1 then
       local n, f, l = num('n'), redis.call('HGET', KEYS[1], 'f'), num('l')
       if not (n and f and l) then return {-1} end
       if n > asked then return {3} end
       if n == asked and not (f == ARGV[2] and l > 0) then
         if l == 0 then return {3} end
         if l > now then return {2, l - now} end
         return {4}
       end
     end
     redis.call('HSET', KEYS[1], 'n', ARGV[1], 'f', ARGV[2], 'l', now + ARGV[3])
     if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
     return {1}"
);

/// Step, bid, what became of it, span of the series → 1, or 0. Where the mark was lost, it is there again.
pub(super) const FINISH_STEP: &str = script!(
    "local asked = tonumber(ARGV[1])
     if redis.call('EXISTS', KEYS[1]) == 1 then
       local n = num('n')
       if not n then return -1 end
       if n > asked or (n == asked and redis.call('HGET', KEYS[1], 'f') ~= ARGV[2]) then return 0 end
     end
     redis.call('HSET', KEYS[1], 'n', ARGV[1], 'f', ARGV[2], 'l', ARGV[3])
     if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
     return 1"
);

/// Step, bid → 1, or 0. The step before is the last one again.
pub(super) const RELEASE_STEP: &str = script!(
    "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
     local n = num('n')
     if not n then return -1 end
     if n ~= tonumber(ARGV[1]) or redis.call('HGET', KEYS[1], 'f') ~= ARGV[2] then return 0 end
     redis.call('HSET', KEYS[1], 'n', n - 1, 'l', 0)
     return 1"
);

/// Step, bytes, span: in the place of what an earlier step brought.
pub(super) const BRING: &str = script!(
    "if (num('n') or 0) > tonumber(ARGV[1]) then return 0 end
     redis.call('HSET', KEYS[1], 'n', ARGV[1], 'b', ARGV[2])
     redis.call('PEXPIRE', KEYS[1], ARGV[3])
     return 1"
);

/// Step, span.
pub(super) const SHORTEN: &str = script!(
    "if num('n') == tonumber(ARGV[1]) and redis.call('PTTL', KEYS[1]) > tonumber(ARGV[2]) then
       redis.call('PEXPIRE', KEYS[1], ARGV[2])
     end
     return 1"
);
