//! Where log lines go: each thread appends to a buffer of its own, one background thread writes them out, so that nobody
//! who serves requests ever waits for a slow reader of the log.

use std::cell::OnceCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

/// Lines wait at most this long while there is room.
const LINGER: Duration = Duration::from_millis(100);

/// A buffer with more bytes than this is written out at once.
const FULL: usize = 32 * 1024;

/// A buffer with more bytes than this takes no further line: the reader of the log is too slow.
const LIMIT: usize = 1024 * 1024;

/// How long [`Sink::flush`] waits for a reader that does not read.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

thread_local! {
    static LOCAL: OnceCell<Arc<Mutex<Lines>>> = const { OnceCell::new() };
}

/// One thread's lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Whole lines only.
    pub(super) text: Vec<u8>,
    /// `2026-01-31T23:59:59` of the second that it was written in, so that it is formatted once a second.
    second: (u64, String),
    dropped: u64,
    is_announced_full: bool,
}

impl Lines {
    /// Appends `2026-01-31T23:59:59.123Z`.
    pub(super) fn push_time(&mut self, now: SystemTime) {
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.second.0 != since_epoch.as_secs() || self.second.1.is_empty() {
            self.second = (since_epoch.as_secs(), humantime::format_rfc3339_seconds(now).to_string());
        }
        self.text.extend_from_slice(self.second.1.trim_end_matches('Z').as_bytes());
        let millis = since_epoch.subsec_millis();
        let digit = |value: u32| b'0' + (value % 10) as u8;
        self.text.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
    }
}

/// Writes what all threads append. Clones are the same sink.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    buffers: Mutex<Vec<Arc<Mutex<Lines>>>>,
    wishes: Mutex<Wishes>,
    /// For the writer: there is something to do.
    wish: Condvar,
    /// For those who wait in `flush`.
    done: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Wishes {
    /// Some buffer is no longer empty.
    is_filled: bool,
    /// Some buffer is full.
    is_full: bool,
    flush_asked: u64,
    flush_done: u64,
}

impl Sink {
    /// Starts the writer thread. `on_drop` makes the line that tells how many lines were lost.
    pub(super) fn start(out: Box<dyn Write + Send>, on_drop: fn(&mut Lines, u64)) -> io::Result<Self> {
        let sink = Self { shared: Arc::default() };
        let shared = Arc::clone(&sink.shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || shared.write_out(out, on_drop))?;
        Ok(sink)
    }

    /// Lets `write` append whole lines to this thread's buffer; without effect where the buffer is at its limit.
    pub(super) fn append(&self, write: impl FnOnce(&mut Lines)) {
        // A thread that is being torn down has no buffer any more; its line is lost.
        let _ = LOCAL.try_with(|local| self.append_to(local.get_or_init(|| self.register()), write));
    }

    /// Waits until everything that was appended before is written, for a bounded time.
    pub(super) fn flush(&self) {
        let mut wishes = lock(&self.shared.wishes);
        wishes.flush_asked += 1;
        let asked = wishes.flush_asked;
        self.shared.wish.notify_one();
        let wait = self.shared.done.wait_timeout_while(wishes, FLUSH_TIMEOUT, |wishes| wishes.flush_done < asked);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }

    /// Lines lost so far, because the reader of the log was too slow or went away.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn register(&self) -> Arc<Mutex<Lines>> {
        let lines = Arc::default();
        lock(&self.shared.buffers).push(Arc::clone(&lines));
        lines
    }

    /// The lock is this thread's own: the writer takes it for as long as a swap takes, ten times a second.
    fn append_to(&self, lines: &Mutex<Lines>, write: impl FnOnce(&mut Lines)) {
        let mut lines = lock(lines);
        if lines.text.len() >= LIMIT {
            lines.dropped += 1;
            return;
        }
        let was_empty = lines.text.is_empty();
        write(&mut lines);
        let is_full = lines.text.len() >= FULL && !lines.is_announced_full;
        lines.is_announced_full |= is_full;
        drop(lines);
        if was_empty || is_full {
            let mut wishes = lock(&self.shared.wishes);
            wishes.is_filled = true;
            wishes.is_full |= is_full;
            drop(wishes);
            self.shared.wish.notify_one();
        }
    }
}

impl Shared {
    fn write_out(&self, mut out: Box<dyn Write + Send>, on_drop: fn(&mut Lines, u64)) {
        let mut spare = Vec::new();
        loop {
            let flushed = self.next_wish();
            let mut dropped = 0;
            // Cloned, so that a new thread can register while the reader of the log is slow.
            let buffers = lock(&self.buffers).clone();
            for buffer in &buffers {
                dropped += take(buffer, &mut spare);
                dropped += write_all(&mut out, &spare);
                spare.clear();
                // A burst does not keep its memory.
                spare.shrink_to(2 * FULL);
            }
            drop(buffers);
            if dropped > 0 {
                self.dropped.fetch_add(dropped, Ordering::Relaxed);
                let mut notice = Lines::default();
                on_drop(&mut notice, dropped);
                write_all(&mut out, &notice.text);
            }
            // A line appended to a buffer that only we hold is impossible, so an empty one can go.
            lock(&self.buffers).retain(|buffer| Arc::strong_count(buffer) > 1 || !lock(buffer).text.is_empty());
            lock(&self.wishes).flush_done = flushed;
            self.done.notify_all();
        }
    }

    /// Sleeps until there is a line, then until it has waited long enough or there is a hurry. Returns the flush that this
    /// round fulfils.
    fn next_wish(&self) -> u64 {
        let is_urgent = |wishes: &Wishes| wishes.is_full || wishes.flush_asked > wishes.flush_done;
        let wishes = self
            .wish
            .wait_while(lock(&self.wishes), |wishes| !wishes.is_filled && !is_urgent(wishes))
            .unwrap_or_else(PoisonError::into_inner);
        let (mut wishes, _) = self
            .wish
            .wait_timeout_while(wishes, LINGER, |wishes| !is_urgent(wishes))
            .unwrap_or_else(PoisonError::into_inner);
        wishes.is_filled = false;
        wishes.is_full = false;
        wishes.flush_asked
    }
}

/// Swaps the lines out; returns how many were dropped for want of room.
fn take(buffer: &Mutex<Lines>, spare: &mut Vec<u8>) -> u64 {
    let mut lines = lock(buffer);
    std::mem::swap(&mut lines.text, spare);
    lines.is_announced_full = false;
    std::mem::take(&mut lines.dropped)
}

/// Returns how many lines were lost because `out` is gone.
fn write_all(out: &mut dyn Write, mut bytes: &[u8]) -> u64 {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(written) if written > 0 => bytes = &bytes[written.min(bytes.len())..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever shares our terminal or pipe may have made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Ok(_) | Err(_) => return bytes.iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
    // What can't be flushed is told by the next write.
    let _ = out.flush();
    0
}

/// A panic between lines leaves whole lines behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Shows what was written; blocks in `write` while `gate` is held.
    #[derive(Clone, Default)]
    struct Reader {
        seen: Arc<Mutex<Vec<u8>>>,
        gate: Arc<Mutex<()>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = lock(&self.gate);
            lock(&self.seen).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn told(lines: &mut Lines, dropped: u64) {
        lines.text.extend_from_slice(format!("dropped {dropped}\n").as_bytes());
    }

    fn start(reader: &Reader) -> (Sink, Arc<Mutex<Lines>>) {
        let sink = Sink::start(Box::new(reader.clone()), told).unwrap();
        let lines = sink.register();
        (sink, lines)
    }

    fn line(text: &str) -> impl FnOnce(&mut Lines) {
        let line = format!("{text}\n");
        move |lines| lines.text.extend_from_slice(line.as_bytes())
    }

    #[test]
    fn lines_of_all_threads_are_there_after_a_flush_each_threads_in_order() {
        let reader = Reader::default();
        let (sink, _) = start(&reader);
        thread::scope(|scope| {
            for worker in 0..4 {
                let sink = sink.clone();
                scope.spawn(move || {
                    let lines = sink.register();
                    for number in 0..2_000 {
                        sink.append_to(&lines, line(&format!("{worker} {number} {}", "x".repeat(40))));
                    }
                });
            }
        });
        sink.flush();
        let seen = String::from_utf8(lock(&reader.seen).clone()).unwrap();
        assert_eq!(seen.lines().count(), 8_000);
        for worker in 0..4 {
            let mine = seen.lines().filter(|line| line.starts_with(&format!("{worker} ")));
            assert!(mine.enumerate().all(|(number, line)| line.starts_with(&format!("{worker} {number} x"))));
        }
        assert_eq!(sink.dropped(), 0);
        assert_eq!(lock(&sink.shared.buffers).len(), 0, "ended threads leave nothing behind");
    }

    #[test]
    fn lines_are_written_without_being_asked_for() {
        let (sender, receiver) = mpsc::channel();
        struct Tell(mpsc::Sender<Vec<u8>>);
        impl Write for Tell {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::start(Box::new(Tell(sender)), told).unwrap();
        let lines = sink.register();
        for text in ["one", "two"] {
            sink.append_to(&lines, line(text));
            assert_eq!(receiver.recv_timeout(Duration::from_secs(30)).unwrap(), format!("{text}\n").into_bytes());
        }
    }

    #[test]
    fn a_reader_that_stops_reading_delays_nobody_and_costs_bounded_memory() {
        let reader = Reader::default();
        let (sink, lines) = start(&reader);
        let closed = lock(&reader.gate);
        for _ in 0..50_000 {
            sink.append_to(&lines, line(&"x".repeat(99)));
            assert!(lock(&lines).text.len() < LIMIT + 100);
        }
        drop(closed);
        sink.flush();
        let seen = String::from_utf8(lock(&reader.seen).clone()).unwrap();
        let written = seen.lines().filter(|line| line.starts_with('x')).count() as u64;
        assert!(sink.dropped() > 0);
        assert_eq!(written + sink.dropped(), 50_000);
        // One notice for each round of the writer that found lines missing, and there may be several.
        let told = seen.lines().filter_map(|line| line.strip_prefix("dropped ")?.parse::<u64>().ok());
        assert_eq!(told.sum::<u64>(), sink.dropped());
    }

    #[test]
    fn lines_for_a_reader_that_went_away_are_counted() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::start(Box::new(Gone), told).unwrap();
        let lines = sink.register();
        sink.append_to(&lines, line("one"));
        sink.append_to(&lines, line("two"));
        sink.flush();
        assert_eq!(sink.dropped(), 2);
    }

    #[test]
    fn times_are_rfc_3339_with_milliseconds() {
        let mut lines = Lines::default();
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_007, "2000-02-28T23:59:59.007Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_050, "2000-02-29T00:00:00.050Z"),
        ] {
            lines.text.clear();
            lines.push_time(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
            assert_eq!(String::from_utf8_lossy(&lines.text), text);
        }
    }
}
