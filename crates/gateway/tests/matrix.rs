//! Fail closed, as a table: every stage of the line with everything that can go wrong in it.
//!
//! Each cell is made to happen, in both eras where both can meet it, or says why it cannot. Whatever happens, nothing reaches the server that
//! was not sent already, what it said is kept back, and exactly one closed record tells how the call ended.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what the test stands on must be there, or the test has failed"
)]

mod inside;
mod scene;

use futures_util::future::join_all;
use gateway::stop::Stage;
use inside::outcome;
use scene::{Case, Door, Era, SAID, Scene};
use serde_json::{Value, json};

/// What goes wrong in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It says no.
    Refusal,
    /// What it stands on fails.
    Error,
    /// What it waits for does not come.
    Timeout,
    /// It breaks.
    Panic,
}

const FAULTS: [Fault; 4] = [Fault::Refusal, Fault::Error, Fault::Timeout, Fault::Panic];

/// One stage with one fault.
enum Cell {
    /// What happens, each with how the record ends.
    Ends(&'static [(Case, &'static str)]),
    /// Why it cannot happen.
    Never(&'static str),
}

use Cell::{Ends, Never};

#[rustfmt::skip]
const TABLE: [(Stage, [Cell; 4]); 12] = [
    (Stage::Receive, [
        Ends(&[(Case::BodyIsNoJson, "refused body receive")]),
        Ends(&[(Case::BodyIsCut, "faulted cut receive")]),
        Ends(&[(Case::BodyIsSlow, "refused slow receive")]),
        Ends(&[(Case::ClockBreaksAt(Stage::Receive), "faulted panic receive")]),
    ]),
    (Stage::Authenticate, [
        Ends(&[(Case::NoCredential, "refused missing authenticate")]),
        Ends(&[(Case::IssuerFails, "refused unavailable authenticate")]),
        Ends(&[(Case::IssuerHangs, "refused unavailable authenticate")]),
        Ends(&[(Case::ClockBreaksAt(Stage::Authenticate), "faulted panic authenticate")]),
    ]),
    (Stage::Resolve, [
        Ends(&[(Case::UnknownTool, "refused unknown resolve"), (Case::HiddenTool, "refused hidden resolve")]),
        Ends(&[(Case::ServerIsDown, "faulted upstream-down resolve")]),
        Ends(&[(Case::ServerIsMute, "faulted upstream-timeout resolve")]),
        Ends(&[(Case::ClockBreaksAt(Stage::Resolve), "faulted panic resolve")]),
    ]),
    (Stage::Limit, [
        Ends(&[(Case::TooMany, "refused rate limit")]),
        Never("counts in memory: there is nothing that could fail"),
        Never("takes or refuses at once, and waits for nothing"),
        Ends(&[(Case::ClockBreaksAt(Stage::Limit), "faulted panic limit")]),
    ]),
    (Stage::Validate, [
        Ends(&[(Case::WrongArguments, "refused arguments validate")]),
        Ends(&[(Case::BrokenSchema, "refused schema-unusable validate")]),
        Never("pure and without waiting, on schemas that were compiled before; patterns are linear in the text"),
        Ends(&[(Case::ClockBreaksAt(Stage::Validate), "faulted panic validate")]),
    ]),
    (Stage::Screen, [
        Ends(&[(Case::DetectorRefuses, "refused guard screen")]),
        Ends(&[(Case::DetectorMangles, "faulted mask screen")]),
        Never("pure and linear; what is too large to be looked into is refused"),
        Ends(&[(Case::DetectorPanics, "faulted panic screen"), (Case::ClockBreaksAt(Stage::Screen), "faulted panic screen")]),
    ]),
    (Stage::Authorize, [
        Ends(&[(Case::Denied, "refused denied authorize")]),
        Ends(&[(Case::ConditionFails, "refused denied authorize")]),
        Never("pure; what conditions may cost is bounded when they are loaded, and again by what a call brings"),
        Ends(&[(Case::ClockBreaksAt(Stage::Authorize), "faulted panic authorize")]),
    ]),
    (Stage::Settle, [
        Never("nobody is asked yet: a policy that asks does not load, and a permit has nothing left open"),
        Never("does nothing that could fail while nobody is asked"),
        Never("waits for nobody while nobody is asked"),
        Ends(&[(Case::ClockBreaksAt(Stage::Settle), "faulted panic settle")]),
    ]),
    (Stage::Intend, [
        Never("the log decides nothing: it takes the word or cannot"),
        Ends(&[(Case::LogCannotBeWritten, "faulted log intend")]),
        Ends(&[(Case::LogHangs, "faulted log intend")]),
        Ends(&[(Case::ClockBreaksAt(Stage::Intend), "faulted panic intend")]),
    ]),
    (Stage::Inject, [
        Never("decides nothing; a permit for another call, which only `authorize` could make, would be an error"),
        Ends(&[(Case::SecretIsGone, "faulted credential inject")]),
        Never("the vault is in memory; a key from a command is asked for when it opens"),
        Ends(&[(Case::ClockBreaksAt(Stage::Inject), "faulted panic inject")]),
    ]),
    (Stage::Forward, [
        Ends(&[(Case::StateIsForged, "refused request-state forward")]),
        Ends(&[(Case::AnswerIsCut, "faulted upstream-cut forward"), (Case::StreamIsCut, "faulted upstream-cut forward")]),
        Ends(&[(Case::AnswerHangs, "faulted upstream-timeout forward")]),
        Ends(&[(Case::ClockBreaksAt(Stage::Forward), "faulted panic forward")]),
    ]),
    (Stage::Release, [
        Ends(&[(Case::ResultIsRefused, "withheld guard release"), (Case::EventIsRefused, "withheld guard release")]),
        Ends(&[(Case::ResultIsNoMessage, "withheld upstream-protocol release")]),
        Ends(&[(Case::StreamFallsSilent, "faulted upstream-timeout forward")]),
        Ends(&[
            (Case::ResultPanics, "withheld panic release"),
            (Case::EventPanics, "withheld panic release"),
            (Case::ClockBreaksAt(Stage::Release), "withheld panic release"),
        ]),
    ]),
];

#[test]
fn no_cell_of_the_table_is_missing() {
    let mut stage = Stage::Receive;
    for (place, (named, cells)) in TABLE.iter().enumerate() {
        assert_eq!(*named, stage, "row {place}");
        for (fault, cell) in FAULTS.iter().zip(cells) {
            match cell {
                Ends(cases) => assert!(!cases.is_empty(), "{named:?} x {fault:?} has no case"),
                Never(why) => assert!(why.len() > 20, "{named:?} x {fault:?} says no reason"),
            }
        }
        stage = stage.next();
    }
    assert_eq!(TABLE.last().map(|(last, _)| *last), Some(stage), "the table ends where the line ends");
    // What the rows of `settle` and of `inject` stand on.
    let asks = json!({"policy": "p", "rules": [{"id": "r", "action": "*", "target": "*/*", "effect": "ask"}]});
    let source = policy::Source { name: "ask.json".to_owned(), text: asks.to_string() };
    assert!(policy::Policies::compile(&[source]).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stage_fails_closed_whatever_goes_wrong() {
    play_all(Door::One).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stage_fails_closed_on_the_path_of_all_servers_too() {
    play_all(Door::All).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stage_before_a_process_fails_closed_too() {
    play_all(Door::Process).await;
}

/// The table, as far as the door knows it.
async fn play_all(door: Door) {
    let mut slow = Vec::new();
    for (stage, cells) in TABLE {
        for (fault, cell) in FAULTS.into_iter().zip(cells) {
            let Ends(cases) = cell else { continue };
            for (case, expected) in cases.iter().filter(|(case, _)| door.knows(stage, *case)) {
                for era in case.eras().iter().copied() {
                    let check = async move {
                        println!("{stage:?} x {fault:?} ({case:?}, {era:?}, {door:?}): {expected}");
                        check(stage, *case, (era, door), expected).await;
                    };
                    // What waits for half a minute waits beside the others.
                    if matches!(case, Case::BodyIsSlow | Case::IssuerHangs) {
                        slow.push(tokio::spawn(check));
                    } else {
                        check.await;
                    }
                }
            }
        }
    }
    for ended in join_all(slow).await {
        ended.expect("it fails closed");
    }
}

/// One case, from an untouched gateway to the one record it leaves.
async fn check(stage: Stage, case: Case, (era, door): (Era, Door), expected: &str) {
    let scene = Scene::set(case, door).await;
    let mut reading = 0;
    loop {
        let (before, sent_before) = (scene.closed().await, scene.sent());
        if let Case::ClockBreaksAt(_) = case {
            reading += 1;
            assert!(reading < 60, "the clock is never read in {stage:?}");
            scene.inside.clock.fail_at(reading);
        }
        let answer = scene.play(case, era).await;
        scene.inside.clock.disarm();
        let records: Vec<Value> = scene.closed().await.into_iter().filter(|record| !before.contains(record)).collect();
        let [record] = records.as_slice() else { panic!("{case:?}, {era:?}: not one record: {records:#?} {answer:?}") };
        let ended = outcome(record);
        // A reading of another stage: whatever it was, it was recorded, and the next one is tried.
        if matches!(case, Case::ClockBreaksAt(_)) && ended != expected {
            continue;
        }
        assert_eq!(ended, expected, "{case:?}, {era:?}: {record:#} {answer:?}");
        let sent = scene.sent() - sent_before;
        match stage {
            // What a bridge cannot carry is refused before its server hears of it.
            Stage::Forward if record["outcome"]["is"] == "refused" => assert_eq!(sent, 0, "{case:?}: {record:#}"),
            Stage::Forward | Stage::Release => {
                assert_eq!(sent, 1, "{case:?}, {era:?}: sent once");
                assert!(record["intent"].is_u64(), "{case:?}, {era:?}: what was sent was intended: {record:#}");
            }
            _ => assert_eq!(sent, 0, "{case:?}, {era:?}: nothing may reach the server"),
        }
        if let Some(answer) = answer {
            assert!(!answer.contains(SAID), "{case:?}, {era:?}: {answer}");
            let error: Value = serde_json::from_str(&answer).unwrap_or_default();
            assert!(error["error"]["code"].is_i64(), "{case:?}, {era:?}: {answer}");
            assert_eq!(error["error"]["data"]["call"], record["call"], "{case:?}, {era:?}: {answer}");
        }
        return;
    }
}
