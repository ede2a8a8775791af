//! The gateway is killed and started again at each moment of a flow: whoever waits has an end at once, and goes on with the
//! next gateway.

use super::{Client, modern, request, world};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::{Answer, Ask, Feed, Reply, Upstream, free_port, soon};
use world::World;

/// A gateway that comes back where it was.
async fn started(upstream: &Upstream) -> World {
    let listen = format!("listen: 127.0.0.1:{}\n", free_port());
    World::with(&format!("{listen}servers:\n{}", world::http("files", upstream)), world::ALL).await
}

async fn again(world: World) -> World {
    let (alice, bob) = (world.alice.clone(), world.bob.clone());
    World::launch(world.kill(Signal::KILL).await, alice, bob).await
}

fn news() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}})
}

fn question() -> Value {
    let params = json!({"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}});
    json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": params})
}

/// The next call stays with its server, which says this first.
async fn says(upstream: &Upstream, feed: &Feed, calls: usize, moment: &str) {
    upstream.arrived("tools/call", calls).await;
    match moment {
        "one word" => drop(feed.message(&news()).await),
        "question" => drop(feed.message(&question()).await),
        _ => {}
    }
}

#[tokio::test]
async fn whoever_has_pipes_has_an_end_at_each_moment_at_which_the_gateway_goes() {
    let echo = || json!({"name": "echo", "arguments": {}});
    for (is_modern, moment) in
        [(false, "introduced"), (false, "sent"), (false, "one word"), (false, "question"), (true, "sent")]
    {
        let upstream = Upstream::start().await;
        let world = started(&upstream).await;
        let url = world.url("/mcp/files");
        let mut client = if is_modern {
            Client::start(&url, Some(&world.alice))
        } else {
            Client::legacy(&url, Some(&world.alice)).await
        };
        let (answer, feed) = Answer::events();
        if moment != "introduced" {
            upstream.next("tools/call", answer);
            client
                .send(&if is_modern { modern(3, "tools/call", echo()) } else { request(3, "tools/call", echo()) })
                .await;
            says(&upstream, &feed, 1, moment).await;
        }
        if ["one word", "question"].contains(&moment) {
            assert!(client.hear().await["method"].is_string(), "{moment}");
        }
        let world = again(world).await;
        if moment == "question" {
            // Nobody knows this question any more.
            client.send(&json!({"jsonrpc": "2.0", "id": "q", "result": {"action": "decline"}})).await;
        }
        let mut lost = Value::Null;
        while moment != "introduced" && lost["id"] != 3 {
            lost = client.hear().await;
        }
        assert!(moment == "introduced" || lost["error"]["data"]["mayHaveHappened"] == true, "{moment}: {lost}");
        // A request that met the gateway on its way down was not made, and says so: then the next one is answered.
        let mut answered = Value::Null;
        for id in [5, 6] {
            client
                .send(&if is_modern { modern(id, "tools/call", echo()) } else { request(id, "tools/call", echo()) })
                .await;
            while answered["id"] != id {
                answered = client.hear().await;
            }
            if answered["error"]["data"]["mayHaveHappened"] != false {
                break;
            }
        }
        assert!(answered.get("result").is_some(), "{moment}: {answered}");
        let (code, _, talk) = client.end().await;
        assert_eq!(code, Some(0), "{moment}: {talk}");
        world.stop().await;
    }
}

#[tokio::test]
async fn a_question_of_a_gateway_that_is_gone_is_taken_back() {
    let call = |id: u64| request(id, "tools/call", json!({"name": "echo", "arguments": {}}));
    for is_of_a_call in [true, false] {
        let upstream = Upstream::start().await;
        let [(listening, unasked), (answer, of_the_call)] = [Answer::events(), Answer::events()];
        if !is_of_a_call {
            upstream.next("GET", listening);
        }
        let world = started(&upstream).await;
        let mut client = Client::legacy(&world.url("/mcp/files"), Some(&world.alice)).await;
        if is_of_a_call {
            upstream.next("tools/call", answer);
            client.send(&call(3)).await;
            says(&upstream, &of_the_call, 1, "question").await;
        } else {
            upstream.arrived("GET", 1).await;
            unasked.message(&question()).await;
        }
        let asked = client.hear().await;
        assert_eq!(asked["method"], "elicitation/create", "{asked}");
        let world = again(world).await;
        let mut told = Vec::new();
        if is_of_a_call {
            // Before it hears that nothing comes of the call.
            told.extend(until_answered(&mut client, 3).await);
            assert_eq!(told, [asked["id"].clone()]);
        } else {
            while told.last() != Some(&asked["id"]) {
                told.extend(taken_back(&client.hear().await));
            }
        }
        client.send(&call(5)).await;
        told.extend(until_answered(&mut client, 5).await);
        let (code, rest, talk) = client.end().await;
        told.extend(rest.iter().filter_map(taken_back));
        assert_eq!((code, told), (Some(0), vec![asked["id"].clone()]), "once: {talk}");
        world.stop().await;
    }
}

/// Which question this message takes back.
fn taken_back(heard: &Value) -> Option<Value> {
    (heard["method"] == "notifications/cancelled").then(|| heard["params"]["requestId"].clone())
}

/// Which questions are taken back until the answer to a request comes.
async fn until_answered(client: &mut Client, id: u64) -> Vec<Value> {
    let mut told = Vec::new();
    loop {
        let heard = client.hear().await;
        if heard["id"] == id {
            return told;
        }
        told.extend(taken_back(&heard));
    }
}

/// A client of 2024-11-05: its stream, and where it says what it says.
struct Old {
    stream: Reply,
    to: String,
    key: String,
}

impl Old {
    async fn open(world: &World) -> Self {
        let ask = Ask::get(&world.url("/sse/files")).header("accept", "text/event-stream").bearer(&world.alice);
        let mut stream = soon(ask.send()).await;
        let to = world.url(&soon(stream.event()).await.expect("an address").data);
        Self { stream, to, key: world.alice.clone() }
    }

    async fn post(&self, message: Value) -> http::StatusCode {
        soon(Ask::post(&self.to, message.to_string()).bearer(&self.key).send()).await.status
    }

    async fn introduce(&mut self) {
        let client = json!({"name": "old", "version": "1"});
        let hello = json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": client});
        assert_eq!(self.post(request(1, "initialize", hello)).await, 202);
        self.answer(1).await;
        assert_eq!(self.post(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await, 202);
    }

    async fn answer(&mut self, id: u64) {
        loop {
            let heard = soon(self.stream.event()).await.expect("it goes on").json();
            if heard["id"] == id {
                assert!(heard.get("result").is_some(), "{heard}");
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_client_of_2024_has_an_end_at_each_moment_at_which_the_gateway_goes() {
    let call = |id: u64| request(id, "tools/call", json!({"name": "echo", "arguments": {}}));
    for moment in ["opened", "introduced", "sent", "one word"] {
        let upstream = Upstream::start().await;
        let world = started(&upstream).await;
        let mut client = Old::open(&world).await;
        if moment != "opened" {
            client.introduce().await;
        }
        let (answer, feed) = Answer::events();
        if ["sent", "one word"].contains(&moment) {
            upstream.next("tools/call", answer);
            assert_eq!(client.post(call(3)).await, 202);
            says(&upstream, &feed, 1, moment).await;
        }
        if moment == "one word" {
            assert_eq!(soon(client.stream.event()).await.unwrap().json()["method"], "notifications/message");
        }
        let world = again(world).await;
        assert!(soon(client.stream.event()).await.is_none(), "{moment}");
        // What it says beside a stream that is gone reaches nobody, and it is told.
        assert_eq!(client.post(call(4)).await, 404, "{moment}");
        let before = upstream.seen("tools/call").len();
        let mut next = Old::open(&world).await;
        next.introduce().await;
        assert_eq!(next.post(call(5)).await, 202);
        next.answer(5).await;
        assert_eq!(upstream.seen("tools/call").len(), before + 1, "{moment}");
        world.stop().await;
    }
}
