//! The one place where threads are made: with a name, a stack of a chosen size, and a way for a panic to reach the log.
//! What is spawned is handed back and must be joined by whoever asked for it.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::{Builder, JoinHandle};

/// Starts a thread that runs `body` on a stack of `stack_bytes` bytes (rounded up to whole pages by the system).
///
/// The whole name is used in panics and logs; `top` and `ps` show its first 15 bytes, because the kernel keeps no more.
///
/// A panic in `body` is logged as an error under the thread's name, and then goes on, so that
/// [`JoinHandle::join`] returns it.
///
/// # Errors
/// The system has no thread left to give, or no memory for its stack. `body` is dropped then.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    stack_bytes: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    // std panics over a zero byte in a name.
    let name = name.into().replace('\0', "?");
    let own_name = name.clone();
    Builder::new().name(name).stack_size(stack_bytes).spawn(move || {
        // Nobody looks at what `body` captured after the panic: it is dropped while unwinding.
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
            log::error!("thread {own_name} panicked: {}", panic_text(&*panic));
            resume_unwind(panic)
        })
    })
}

/// What a panic said, where it said it in text.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "(without a text)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK_BYTES: usize = 64 << 10;

    #[test]
    fn a_thread_has_its_name_and_hands_back_its_value() {
        let body = || std::thread::current().name().map(String::from);
        let name = spawn("storage\0x", STACK_BYTES, body).unwrap().join().unwrap();
        assert_eq!(name.as_deref(), Some("storage?x"));
    }

    #[test]
    fn a_panic_is_seen_by_join() {
        let plain: fn() = || panic!("plain");
        let formatted: fn() = || panic!("number {}", std::hint::black_box(7));
        for (body, text) in [(plain, "plain"), (formatted, "number 7")] {
            let doomed = spawn("doomed", STACK_BYTES, body).unwrap();
            assert_eq!(panic_text(&*doomed.join().unwrap_err()), text);
        }
    }

    #[test]
    fn no_thread_is_an_error_and_no_panic() {
        assert!(spawn("giant", usize::MAX / 2, || ()).is_err());
    }
}
