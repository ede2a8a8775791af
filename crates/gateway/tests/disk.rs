//! The log breaks while a call is at its server: the call has happened, so its client is told, and its end is not lost.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::ToolSettings;
use guard::{Detector, Guards, Match, Mode, Setting};
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use std::sync::Arc;
use testkit::{Answer, Ask, Upstream, soon};
use vocab::Class;

/// Finds what must not be released.
struct Word;

impl Detector for Word {
    fn family(&self) -> &'static str {
        "words"
    }

    fn find(&self, text: &str, found: &mut Vec<Match>) {
        found.extend(text.find("boom").map(|at| Match { kind: "word", span: at..at + 4 }));
    }
}

/// How the server answers, and how the call ends by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Whole,
    Streamed,
    Withheld,
    Failed,
}

impl How {
    const ALL: [Self; 4] = [Self::Whole, Self::Streamed, Self::Withheld, Self::Failed];

    fn answer(self) -> Answer {
        let result = |text: &str| json!({"content": [{"type": "text", "text": text}], "resultType": "complete"});
        match self {
            Self::Whole => Answer::result(&json!(1), &result("done")),
            Self::Streamed => {
                let message = json!({"jsonrpc": "2.0", "id": 1, "result": result("done")});
                Answer::event_text(format!("data: {message}\n\n"))
            }
            Self::Withheld => Answer::result(&json!(1), &result("boom")),
            Self::Failed => {
                Answer::json(json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "no"}}).to_string())
            }
        }
    }

    const fn outcome(self) -> &'static str {
        match self {
            Self::Whole | Self::Streamed => "answered",
            Self::Withheld => "withheld guard release",
            Self::Failed => "failed",
        }
    }

    fn is_told(self, answer: &Value) -> bool {
        match self {
            Self::Whole | Self::Streamed => answer["result"]["content"][0]["text"] == "done",
            Self::Withheld => answer["error"]["code"] == -31004,
            Self::Failed => answer["error"]["code"] == -32000,
        }
    }
}

async fn gateway(upstream: &Upstream, strict: bool, class: Class) -> Inside {
    let tools = vec![ToolSettings { tools: "*".to_owned(), class, labels: Vec::new(), danger_skip_schema: false }];
    let setting = Setting { results: Mode::Refuse, arguments: Mode::Off };
    let guards = Guards::none().with(Arc::new(Word), setting).unwrap();
    Inside::start(Plan { tools, guards, strict, ..Plan::of(upstream) }).await
}

/// A call by a client of either era.
async fn calls(inside: &Inside) -> [Ask; 2] {
    let call = |params| json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let modern = call(json!({"name": "echo", "arguments": {}, "_meta": testkit::meta()}));
    let legacy = call(json!({"name": "echo", "arguments": {}}));
    [
        inside.modern("/mcp/files", &inside.alice).ask("tools/call", &modern),
        inside.legacy("/mcp/files", &inside.alice).await.ask("tools/call", &legacy),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_left_before_the_disk_failed_is_answered_and_its_end_is_written_once_it_can() {
    for (strict, class) in [(false, Class::Write), (false, Class::Read), (true, Class::Write), (true, Class::Read)] {
        let upstream = Upstream::start().await;
        let inside = gateway(&upstream, strict, class).await;
        for ask in calls(&inside).await {
            for how in How::ALL {
                let case = format!("{strict} {class:?} {how:?}");
                let (records, intents) = (inside.records().await.len(), inside.intents().await.len());
                let (answer, release) = how.answer().held();
                upstream.next("tools/call", answer);
                let before = upstream.seen("tools/call").len();
                let under_way = tokio::spawn({
                    let ask = ask.clone();
                    async move { ask.send().await.json().await }
                });
                upstream.arrived("tools/call", before + 1).await;
                let broken = inside.break_log().await;
                // What comes now is stopped; what left is not.
                let stopped = soon(async { ask.clone().send().await.json().await }).await;
                assert_eq!(stopped["error"]["code"], -31005, "{case}: {stopped}");
                release.send(()).unwrap();
                let told = soon(under_way).await.unwrap();
                assert!(how.is_told(&told), "{case}: {told}");
                assert!(inside.state.journal.log().healthy().is_err(), "{case}: the log is still broken");
                broken.mend().await;
                assert_eq!(upstream.seen("tools/call").len(), before + 1, "{case}: sent once");
                let ends = inside.records().await.split_off(records);
                let [stopped, ended] = ends.as_slice() else { panic!("{case}: not two records: {ends:#?}") };
                assert_eq!(outcome(stopped), "faulted log intend", "{case}: {stopped:#}");
                assert_eq!(outcome(ended), how.outcome(), "{case}: {ended:#}");
                let written = inside.intents().await.split_off(intents);
                let intended = strict || class == Class::Write;
                assert_eq!(written.len(), usize::from(intended), "{case}: {written:#?}");
                assert!(written.iter().all(|intent| intent["call"] == ended["call"]), "{case}: {written:#?}");
                assert_eq!(ended["intent"].is_u64(), intended, "{case}: {ended:#}");
            }
        }
        assert_eq!(inside.state.journal.losses(), (0, 0));
    }
}
