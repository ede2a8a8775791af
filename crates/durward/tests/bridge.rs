//! A client and a server of different eras, and where an operator sees that they are.

mod world;

use serde_json::{Value, json};
use testkit::{Ask, Upstream};
use world::World;

#[tokio::test]
async fn what_crosses_a_bridge_is_seen_in_record_metric_and_log() {
    let (old, new) = (Upstream::with_tools(["read"]).await, Upstream::with_tools(["read"]).await);
    let servers = format!(
        "servers:\n  new: {{ url: \"{}\", internal: true, era: modern }}\n  old: {{ url: \"{}\", internal: true, era: legacy }}\n",
        new.url(),
        old.url()
    );
    let world = World::with(&servers, world::ALL).await;
    let alice = world.legacy("/mcp").await;
    assert_eq!(alice.tools().await, ["new__read", "old__read"]);
    for tool in ["new__read", "old__read"] {
        assert!(alice.call(tool, json!({})).await["result"].is_object());
    }
    assert_eq!((new.seen("initialize").len(), old.seen("server/discover").len()), (0, 0));
    // The list before it says so, too.
    world.says("method=\"tools/call\" era=\"legacy\" bridge=\"modern\"").await;
    let management = world.says("management").await;
    let (_, rest) = management.split_once("http://").unwrap();
    let metrics = Ask::get(&format!("http://{}/metrics", rest.split_whitespace().next().unwrap())).send().await;
    let metrics = metrics.text().await;
    assert!(metrics.contains("durward_bridged_calls_total{server=\"new\",era=\"legacy\"} 1\n"), "{metrics}");
    let data = world.data();
    let (_, _folder) = world.stop().await;
    let records = world::records(&data.join("log"));
    let calls = records.iter().filter(|record| record["action"] == "tool.execute");
    let bridges: Vec<_> =
        calls.filter(|call| call["outcome"].is_object()).map(|call| (&call["server"], &call["bridge"])).collect();
    assert_eq!(bridges, [(&json!("new"), &json!("modern")), (&json!("old"), &Value::Null)]);
    let list = records.iter().find(|record| record["method"] == "tools/list").unwrap();
    assert_eq!(list["bridge"], "modern", "some of its servers lie behind one: {list:#}");
}
