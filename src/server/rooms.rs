//! Room for requests in flight. One takes kilobytes: an idle connection should not hold them, which hyper would have it do, and a
//! busy one should not ask the allocator for them each time.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio_util::sync::ReusableBoxFuture;

/// The most that a worker keeps empty.
const KEPT: usize = 64;

/// The rooms that are empty; a worker's own, so its lock is always free.
pub(super) struct Rooms<T>(Mutex<Vec<ReusableBoxFuture<'static, T>>>);

impl<T> Default for Rooms<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> fmt::Debug for Rooms<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms").finish_non_exhaustive()
    }
}

impl<T: 'static> Rooms<T> {
    /// The same future in a room, which is given back when it has ended. All of one worker are alike, so rooms fit.
    pub(super) fn admit(self: &Arc<Self>, future: impl Future<Output = T> + Send + 'static) -> Admitted<T> {
        let empty = self.empty().pop();
        let room = match empty {
            Some(mut room) => {
                room.set(future);
                room
            }
            None => ReusableBoxFuture::new(future),
        };
        Admitted { room: Some(room), rooms: Arc::clone(self) }
    }

    fn empty(&self) -> MutexGuard<'_, Vec<ReusableBoxFuture<'static, T>>> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in flight.
pub(super) struct Admitted<T> {
    /// `None` once it has ended.
    room: Option<ReusableBoxFuture<'static, T>>,
    rooms: Arc<Rooms<T>>,
}

impl<T: 'static> Future for Admitted<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(room) = &mut self.room else { return Poll::Pending };
        let output = ready!(room.poll(cx));
        let room = self.room.take();
        let mut empty = self.rooms.empty();
        if empty.len() < KEPT {
            empty.extend(room);
        }
        drop(empty);
        Poll::Ready(output)
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[test]
    fn a_room_is_used_again_and_no_more_are_kept_than_that() {
        let rooms = Arc::new(Rooms::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut run = |mut admitted: Admitted<u32>| match Pin::new(&mut admitted).poll(&mut cx) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it was ready"),
        };
        assert_eq!([run(rooms.admit(ready(1))), run(rooms.admit(ready(2)))], [1, 2]);
        assert_eq!(rooms.empty().len(), 1);
        let many: Vec<_> = (0..100).map(|number| rooms.admit(ready(number))).collect();
        assert_eq!(rooms.empty().len(), 0);
        assert_eq!(many.into_iter().map(run).sum::<u32>(), 4950);
        assert_eq!(rooms.empty().len(), KEPT);
        // One that was given up leaves nothing behind.
        drop(rooms.admit(std::future::pending()));
        assert_eq!(rooms.empty().len(), KEPT - 1);
    }
}
