use super::{Serving, Steadfast};
use crate::reply::{Reply, ReplyBody};
use futures_util::FutureExt;
use std::{
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::timeout,
};

/// What became of a call, in order.
type Story = Arc<Mutex<Vec<&'static str>>>;

/// As a trail does: whatever ends the call, this is said once.
struct Record(Story);

impl Drop for Record {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("recorded");
    }
}

/// A call that comes to its end when it is told to, or panics then.
fn call(story: &Story, told: oneshot::Receiver<&'static str>) -> Serving {
    let record = Record(Arc::clone(story));
    Box::pin(async move {
        let _record = record;
        match told.await {
            Ok("panic") => panic!("it breaks, as the test wants"),
            Ok(_) | Err(_) => Reply::new(ReplyBody::empty()),
        }
    })
}

fn steadfast(story: &Story, serving: Serving) -> Steadfast<impl FnOnce(Reply) + Send + Unpin + 'static> {
    let story = Arc::clone(story);
    Steadfast { serving: Some((serving, move |_| story.lock().unwrap().push("unheard"))) }
}

fn told(story: &Story) -> Vec<&'static str> {
    story.lock().unwrap().clone()
}

async fn until(story: &Story, what: &[&str]) {
    let so = async {
        while told(story) != what {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), so).await.unwrap_or_else(|_| panic!("{:?}", told(story)));
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

#[tokio::test]
async fn a_call_that_is_let_go_comes_to_its_end_elsewhere() {
    let story = Story::default();
    let (tell, heard) = oneshot::channel();
    let mut waiting = steadfast(&story, call(&story, heard));
    assert!((&mut waiting).now_or_never().is_none());
    drop(waiting);
    tokio::task::yield_now().await;
    assert_eq!(told(&story), [""; 0], "it goes on");
    tell.send("end").unwrap();
    until(&story, &["recorded", "unheard"]).await;
}

#[tokio::test]
async fn a_call_that_panics_is_over_and_goes_on_nowhere() {
    let story = Story::default();
    let (tell, heard) = oneshot::channel();
    let mut waiting = steadfast(&story, call(&story, heard));
    assert!((&mut waiting).now_or_never().is_none());
    tell.send("panic").unwrap();
    let fell = AssertUnwindSafe(&mut waiting).catch_unwind().await;
    assert!(fell.is_err());
    assert_eq!(told(&story), ["recorded"]);
    // What is left of it does nothing: it is neither asked again nor moved to a task, where it would panic.
    assert!((&mut waiting).now_or_never().is_none());
    drop(waiting);
    tokio::task::yield_now().await;
    assert_eq!(told(&story), ["recorded"]);
}

#[tokio::test]
async fn a_call_that_panics_after_it_was_let_go_harms_nobody() {
    let story = Story::default();
    let (tell, heard) = oneshot::channel();
    drop(steadfast(&story, call(&story, heard)));
    tell.send("panic").unwrap();
    until(&story, &["recorded"]).await;
}

#[tokio::test]
async fn a_connection_that_panics_lets_go_of_its_call() {
    let story = Story::default();
    let (tell, heard) = oneshot::channel();
    let waiting = steadfast(&story, call(&story, heard));
    let fell = catch_unwind(AssertUnwindSafe(|| {
        let _waiting = waiting;
        panic!("the connection breaks, as the test wants");
    }));
    assert!(fell.is_err());
    tell.send("end").unwrap();
    until(&story, &["recorded", "unheard"]).await;
}

#[test]
fn a_call_without_a_runtime_is_recorded_and_ends() {
    let (story, runtime) = (Story::default(), runtime());
    let (_tell, heard) = oneshot::channel();
    let mut waiting = steadfast(&story, call(&story, heard));
    assert!(runtime.block_on(async { (&mut waiting).now_or_never() }).is_none());
    drop(runtime);
    assert_eq!(told(&story), [""; 0]);
    drop(waiting);
    assert_eq!(told(&story), ["recorded"]);
}

#[test]
fn a_call_whose_runtime_ends_is_recorded_with_it() {
    let (story, runtime) = (Story::default(), runtime());
    let (_tell, on_connection) = oneshot::channel();
    let (_tell_other, let_go) = oneshot::channel();
    let waiting = steadfast(&story, call(&story, on_connection));
    let other = steadfast(&story, call(&story, let_go));
    runtime.block_on(async {
        // One is on its connection still, which the end of the runtime takes from it; one goes on without.
        tokio::spawn(async move {
            let _waiting = waiting;
            pending::<()>().await;
        });
        drop(other);
        tokio::task::yield_now().await;
    });
    assert_eq!(told(&story), [""; 0]);
    drop(runtime);
    assert_eq!(told(&story), ["recorded"; 2]);
}
