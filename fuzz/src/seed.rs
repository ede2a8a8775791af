//! Inputs to begin with, and the changes that make others of them. The same seed makes the same inputs.

/// What a target begins with.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let texts: &[&str] = match target {
        "envelope" => &[
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"a":[1,2.5,-0,1e3,null,true,"\ud83d\ude00"]},"_meta":{"progressToken":"x"}}}"#,
            r#"{"jsonrpc":"2.0","id":"a","method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#,
            r#"[{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":2}},{"jsonrpc":"2.0","id":9007199254740993,"result":{}}]"#,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}"#,
        ],
        "event_stream" => &[
            "\u{1}id: 1\nretry: 500\ndata:\n\n: keep-alive\n\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":1,\"result\":{}}\n\n",
            "\u{2}data: a\r\n\r\ndata: b\r\rdata: c\n\n\u{feff}data: d",
        ],
        "headers" => &[
            "mcp-protocol-version: 2026-07-28\nmcp-method: tools/call\nmcp-name: echo\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{}}}}",
            "mcp-protocol-version: 2026-07-28\nmcp-method: tools/call\nmcp-name: =?base64?ZWNobw==?=\nmcp-param-a: x\nmcp-param-n: 42\nmcp-param-b: true\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\"arguments\":{\"a\":\"x\",\"n\":42,\"o\":{\"b\":true}},\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{}}}}",
            "mcp-protocol-version: 2026-07-28\nmcp-method: resources/read\nmcp-name: x:1\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"resources/read\",\"params\":{\"uri\":\"x:1\",\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{}}}}",
            "mcp-name: =?base64?SGVsbG8=?=\nmcp-method: x\nmcp-method: y\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"}",
        ],
        "bridge" => &[
            concat!(
                "\u{3}",
                r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"elicitation":{},"roots":{"listChanged":true},"extensions":{"a/b":{}}},"clientInfo":{"name":"c","version":"1"}}}"#,
                "\n",
                r#"{"jsonrpc":"2.0","id":"\u0061","method":"tools/call","params":{"name":"echo","arguments":{"a":[1.0,{"b":null}]},"_meta":{"progressToken":1,"io.modelcontextprotocol/logLevel":"info"},"task":{"ttl":1}}}"#,
                "\n",
                r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":{"who":{"method":"elicitation/create","params":{"mode":"form","message":"Who?","requestedSchema":{"type":"object","properties":{"name":{"type":"string","oneOf":[{"const":"a","title":"A"}]}}}}},"r":{"method":"roots/list"}},"requestState":"s\u00e9"}}"#,
            ),
            concat!(
                "\u{1}",
                r#"{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","ttlMs":5,"cacheScope":"public","content":[{"type":"resource_link","uri":"file:///a","name":"A"},{"type":"audio","data":"AA==","mimeType":"audio/wav"}],"structuredContent":[1],"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}}}"#,
                "\n",
                r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"Resource not found","data":{"uri":"file:///a"}}}"#,
                "\n",
                r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32042,"message":"visit","data":{"elicitations":[{"mode":"url","elicitationId":"e","url":"https://a.example/","message":"m"}]}}}"#,
            ),
            concat!(
                "\u{0}",
                r#"{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"sampling":{}}},"notifications":{"toolsListChanged":true,"resourceSubscriptions":["file:///a"]}}}"#,
                "\n",
                r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"file:///a","_meta":{"io.modelcontextprotocol/subscriptionId":"l","x":1}}}"#,
                "\n",
                r#"{"jsonrpc":"2.0","id":2,"method":"sampling/createMessage","params":{"messages":[{"role":"user","content":{"type":"text","text":"x"}}],"maxTokens":5}}"#,
                "\n",
                r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},"tasks":{}},"serverInfo":{"name":"s","version":"1"},"supportedVersions":["2026-07-28"]}}"#,
            ),
        ],
        "configuration" => &[
            "listen: 127.0.0.1:0\nservers:\n  a: { url: \"http://127.0.0.1:1/mcp\", internal: true }\nagents:\n  ci: { roles: [dev] }\nlimits:\n  - { for: { agent: \"*\" }, rate: 10/min, burst: 10 }\n",
            "issuers:\n  - { url: https://idp.example, audience: [a], agent: \"claim:azp\" }\nlog: { durability: strict }\nbounds: { body: 4MiB, deadline: 60s }\n",
        ],
        "policy" => &[
            r#"{"policy":"p","rules":[{"action":"tool.execute","target":"db/select_*","effect":"allow","agents":["ci-*"]},{"action":"*","target":"*/*","effect":"deny","when":"has(args.table) && args.table == 'x'"}]}"#,
            "policy: p\nrules:\n  - { action: tool.execute, target: 'a/*', effect: allow, when: \"now.getHours() > 8 && size(args.ids) < 5\" }\ntests:\n  - { agent: x, target: a/b, args: { ids: [1] }, expect: allow }\n",
        ],
        "log" => &["\u{0}\u{0}\u{9}\u{1}\u{3}\u{0}\u{40}\u{7f}", "c2sp.org/tlog-proof@v1\nindex 3\n"],
        _ => &[],
    };
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Pieces that mean something to one parser or another.
const WORDS: [&str; 22] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\n\n",
    "\r\n",
    "\\ud800",
    "\\u0000",
    "null",
    "-0",
    "1e999",
    "9007199254740993",
    "data: ",
    "id: ",
    "*",
    "/",
    "=?base64?",
    "io.modelcontextprotocol/protocolVersion",
    "\u{feff}",
];

/// Changes inputs, in an order that its seed decides.
#[derive(Debug)]
pub struct Mutator(u64);

impl Mutator {
    /// Begins at this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % bound.max(1)
    }

    /// One of the inputs, changed in a few places.
    pub fn next(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = inputs.get(self.below(inputs.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(4) {
            self.change(&mut input, inputs);
        }
        input.truncate(8 << 10);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let place = self.below(input.len() + 1);
        let end = (place + 1 + self.below(16)).min(input.len()).max(place);
        match self.below(6) {
            0 => {
                let bit = 1 << self.below(8);
                if let Some(byte) = input.get_mut(place) {
                    *byte ^= bit;
                }
            }
            1 => drop(input.drain(place..end)),
            2 => {
                let piece = input.get(place..end).unwrap_or_default().to_vec();
                input.splice(place..place, piece.repeat(1 + self.below(40)));
            }
            3 => {
                let word = WORDS.get(self.below(WORDS.len())).copied().unwrap_or_default();
                input.splice(place..place, word.bytes());
            }
            4 => {
                let byte = u8::try_from(self.below(256)).unwrap_or(0);
                input.splice(place..end, [byte]);
            }
            _ => {
                let other = inputs.get(self.below(inputs.len())).cloned().unwrap_or_default();
                let from = self.below(other.len());
                input.splice(place..end, other.into_iter().skip(from));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Mutator, seeds};
    use crate::TARGETS;

    #[test]
    fn every_target_has_seeds_and_one_seed_makes_one_run() {
        for (name, _) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name}");
            let run = |seed| {
                let mut mutator = Mutator::new(seed);
                (0..50).map(|_| mutator.next(&seeds)).collect::<Vec<_>>()
            };
            assert_eq!(run(5), run(5));
            assert_ne!(run(5), run(7));
        }
    }
}
