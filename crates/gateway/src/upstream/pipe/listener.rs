//! Who hears what a server says unasked, until it says nothing more.

use super::{Heard, Word, lock};
use bytes::Bytes;
use std::sync::{Arc, Mutex};

/// Takes what the server says unasked.
type Listener = dyn Fn(Word) -> Heard + Send + Sync;

/// All who listen; none once the server says nothing more.
pub(super) struct Listeners(Mutex<Option<Vec<Arc<Listener>>>>);

impl Default for Listeners {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl Listeners {
    /// Adds a listener. Those that are gone make room: a shared process that says nothing unasked outlives many sessions.
    ///
    /// INVARIANT: each is told once that it is over: by the end, which takes all there are, or here, after the end.
    pub(super) fn add(&self, listener: Arc<Listener>) {
        {
            let mut listeners = lock(&self.0);
            if let Some(listeners) = &mut *listeners {
                listeners.retain(|listener| listener(Word::Nothing) != Heard::Gone);
                listeners.push(listener);
                return;
            }
        }
        listener(Word::Over);
    }

    /// Says something to all of them, and gives what became of it with each.
    pub(super) fn tell(&self, text: &Bytes, mut heard: impl FnMut(Heard)) {
        if let Some(listeners) = &mut *lock(&self.0) {
            listeners.retain(|listener| {
                let became = listener(Word::Said(text.clone()));
                heard(became);
                became != Heard::Gone
            });
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        lock(&self.0).as_ref().map_or(0, Vec::len)
    }

    /// The server says nothing more.
    pub(super) fn end(&self) {
        let listeners = lock(&self.0).take();
        for listener in listeners.into_iter().flatten() {
            listener(Word::Over);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Heard, Listeners, Word};
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[test]
    fn listeners_that_are_gone_are_not_kept() {
        let listeners = Listeners::default();
        for heard in [Heard::Gone, Heard::Missed, Heard::Gone, Heard::Gone, Heard::Taken] {
            listeners.add(Arc::new(move |_| heard));
        }
        let mut kept = Vec::new();
        listeners.tell(&"x".into(), |heard| kept.push(heard));
        assert_eq!(kept, [Heard::Missed, Heard::Taken]);
    }

    #[test]
    fn whoever_comes_to_listen_is_told_once_that_it_is_over_before_the_end_and_after() {
        let listeners = Listeners::default();
        let told = Arc::new(AtomicUsize::new(0));
        let listen = || {
            let told = Arc::clone(&told);
            listeners.add(Arc::new(move |word| {
                if matches!(word, Word::Over) {
                    told.fetch_add(1, Ordering::SeqCst);
                }
                Heard::Missed
            }));
        };
        listen();
        assert_eq!(told.load(Ordering::SeqCst), 0);
        listeners.end();
        assert_eq!(told.load(Ordering::SeqCst), 1);
        listen();
        listeners.end();
        assert_eq!((told.load(Ordering::SeqCst), listeners.count()), (2, 0));
    }

    #[test]
    fn whoever_comes_while_it_ends_is_told_all_the_same() {
        for _ in 0..1000 {
            let listeners = Listeners::default();
            let told = Arc::new(AtomicUsize::new(0));
            std::thread::scope(|scope| {
                scope.spawn(|| listeners.end());
                let told = Arc::clone(&told);
                listeners.add(Arc::new(move |word| {
                    told.fetch_add(usize::from(matches!(word, Word::Over)), Ordering::SeqCst);
                    Heard::Missed
                }));
            });
            assert_eq!(told.load(Ordering::SeqCst), 1);
        }
    }
}
