//! What waits for a storage thread: bounded in number and bytes, and closed from outside, however many may still push.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What an item counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Size {
    fn plus(self, other: Size) -> Size {
        Size { rows: self.rows.saturating_add(other.rows), bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn fits(self, bound: Size) -> bool {
        self.rows <= bound.rows && self.bytes <= bound.bytes
    }
}

/// What is not taken, handed back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full<T> {
    /// Too much waits.
    Now(T),
    /// It is closed.
    Forever(T),
}

/// What came of waiting.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken<T> {
    /// In the order in which they were pushed; at least one.
    Some(Vec<T>),
    /// The time is over.
    Nothing,
    /// It is closed and empty.
    Closed,
}

#[derive(Debug)]
pub(super) struct Queue<T> {
    /// Held to push or to take, never while anything waits for a disk.
    state: Mutex<State<T>>,
    filled: Condvar,
    bound: Size,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<(T, Size)>,
    /// The sum of the items'.
    size: Size,
    closed: bool,
}

impl<T> State<T> {
    fn push(&mut self, item: T, size: Size, bound: Size) -> Result<(), Full<T>> {
        if self.closed {
            return Err(Full::Forever(item));
        }
        let sum = self.size.plus(size);
        if !self.items.is_empty() && !sum.fits(bound) {
            return Err(Full::Now(item));
        }
        self.size = sum;
        self.items.push_back((item, size));
        Ok(())
    }
}

impl<T> Queue<T> {
    pub(super) fn new(bound: Size) -> Self {
        let state = State { items: VecDeque::new(), size: Size::default(), closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), bound }
    }

    /// Never waits. An empty queue takes anything, however large it is.
    pub(super) fn push(&self, item: T, size: Size) -> Result<(), Full<T>> {
        self.state().push(item, size, self.bound)?;
        self.filled.notify_one();
        Ok(())
    }

    /// Pushes them in this order; gives back what is not taken.
    pub(super) fn push_all(&self, items: impl Iterator<Item = (T, Size)>) -> Vec<T> {
        let mut state = self.state();
        let mut refused = Vec::new();
        for (item, size) in items {
            if let Err(Full::Now(item) | Full::Forever(item)) = state.push(item, size, self.bound) {
                refused.push(item);
            }
        }
        drop(state);
        self.filled.notify_one();
        refused
    }

    /// Takes the first that waits, and what follows as long as it does not go over `bound` together; waits for the first one
    /// until `deadline`.
    pub(super) fn take(&self, bound: Size, deadline: Option<Instant>) -> Taken<T> {
        let mut state = self.state();
        while state.items.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            state = match deadline {
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Taken::Nothing;
                    }
                    self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let mut taken = Vec::new();
        let mut sum = Size::default();
        while let Some((_, size)) = state.items.front() {
            sum = sum.plus(*size);
            if !taken.is_empty() && !sum.fits(bound) {
                break;
            }
            if let Some((item, size)) = state.items.pop_front() {
                state.size.rows = state.size.rows.saturating_sub(size.rows);
                state.size.bytes = state.size.bytes.saturating_sub(size.bytes);
                taken.push(item);
            }
        }
        Taken::Some(taken)
    }

    /// Takes nothing any more; what waits can still be taken out.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Whoever panicked with it had not yet changed it, or had done so completely.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
