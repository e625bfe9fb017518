//! What was made of the last request of a connection, for its next one: a client that keeps its connection sends the same
//! cookies again and again. It belongs to the connection, so that no two of them share anything, and ends with it.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One connection's; a clone is the same one. The lock is never contended: a connection is one worker's.
#[derive(Debug, Clone, Default)]
pub struct Recall(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Recall {
    /// Takes out what was put here last, if it is a `T`.
    pub fn take<T: Any>(&self) -> Option<Box<T>> {
        self.held().take()?.downcast().ok()
    }

    /// Puts something in the place of whatever is here.
    pub fn put<T: Any + Send>(&self, value: Box<T>) {
        *self.held() = Some(value);
    }

    /// Lets go of it.
    pub fn forget(&self) {
        *self.held() = None;
    }

    fn held(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        // It is whole at any time, or it is not there.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_taken_once_and_only_as_what_it_is() {
        let recall = Recall::default();
        recall.clone().put(Box::new(7_u32));
        assert_eq!(recall.take::<u32>().as_deref(), Some(&7));
        assert!(recall.take::<u32>().is_none());
        recall.put(Box::new(7_u32));
        assert!(recall.take::<u64>().is_none());
        recall.put(Box::new(7_u32));
        recall.forget();
        assert!(recall.take::<u32>().is_none());
    }
}
