//! What is said of a panic: where it was, and never what it broke on.
//!
//! SECURITY: the text of a panic may quote an argument, a header or a secret. Only a text that stands in the source as
//! it is printed is shown.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    panic::{self, PanicHookInfo},
    thread,
};

/// From here on, panics are told so.
pub(crate) fn install() {
    panic::set_hook(Box::new(tell));
}

fn tell(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let current = thread::current();
    let thread = current.name().unwrap_or("unnamed");
    let why = shown(info.payload());
    tracing::error!(target: "durward::panic", place, thread, why, "the gateway panicked; this is a fault of ours");
    // Names of functions and lines of source, as `RUST_BACKTRACE` asks for.
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        tracing::error!(target: "durward::panic", "{trace}");
    }
}

/// The text, if it was put together before anything could get into it.
fn shown(payload: &dyn Any) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(its text may quote a call and is not shown)")
}

#[cfg(test)]
mod tests {
    use super::{shown, tell};
    use std::{
        io,
        panic::{catch_unwind, set_hook, take_hook},
        sync::{Arc, Mutex},
    };
    use tracing_subscriber::fmt;

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_tells_its_place_and_quotes_nothing() {
        let canary = String::from("canary-panic-51c0ffee");
        let said = Said::default();
        let writer = said.clone();
        let subscriber = fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let before = take_hook();
        set_hook(Box::new(tell));
        tracing::subscriber::with_default(subscriber, || {
            assert!(catch_unwind(|| panic!("broke on {canary}")).is_err());
            assert!(catch_unwind(|| assert!(canary.is_empty(), "a text of the source")).is_err());
            assert!(catch_unwind(|| "é".split_at(1)).is_err());
        });
        set_hook(before);
        let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
        assert!(said.matches("panic.rs").count() >= 2, "{said}");
        assert!(said.contains("a text of the source"), "{said}");
        assert!(!said.contains("canary") && !said.contains('é'), "{said}");
        assert!(shown(&canary).contains("not shown"));
    }
}
