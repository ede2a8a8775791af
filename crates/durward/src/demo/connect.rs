//! Lines to copy and paste: how clients connect to a running demo.

use super::screen::Screen;
use serde_json::json;

/// The name under which clients know the demo.
const NAME: &str = "durward-demo";

/// How each client is told of a gateway at `url`, with an agent's key.
pub(super) fn lines(url: &str, key: &str) -> Vec<(&'static str, String)> {
    let authorization = format!("Bearer {key}");
    let headers = json!({ "Authorization": authorization });
    let cursor = json!({ "mcpServers": { NAME: { "url": url, "headers": headers } } });
    let code = json!({ "name": NAME, "type": "http", "url": url, "headers": headers });
    let list = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/list",
        "params": { "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        } },
    });
    vec![
        (
            "Claude Code",
            format!("claude mcp add --transport http {NAME} {url} --header \"Authorization: {authorization}\""),
        ),
        ("Cursor, in ~/.cursor/mcp.json or .cursor/mcp.json", cursor.to_string()),
        ("VS Code", format!("code --add-mcp '{code}'")),
        (
            "curl",
            format!(
                "curl -s {url} -H \"Authorization: {authorization}\" -H \"Content-Type: application/json\" \
                 -H \"Accept: application/json, text/event-stream\" -H \"MCP-Protocol-Version: 2026-07-28\" \
                 -H \"Mcp-Method: tools/list\" -d '{list}'"
            ),
        ),
    ]
}

/// Prints them.
pub(super) fn print(screen: &Screen, url: &str, key: &str) {
    for (client, line) in lines(url, key) {
        screen.line(format!("  {}", screen.dim(client)));
        screen.line(format!("    {line}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::lines;
    use serde_json::Value;

    /// Formats of the vendors' documentation, autumn 2026.
    #[test]
    fn each_client_gets_what_it_reads() {
        let lines = lines("http://127.0.0.1:7420/mcp", "dwk_key");
        let line = |client: &str| lines.iter().find(|(known, _)| known.starts_with(client)).unwrap().1.as_str();

        assert_eq!(
            line("Claude"),
            "claude mcp add --transport http durward-demo http://127.0.0.1:7420/mcp \
             --header \"Authorization: Bearer dwk_key\""
        );
        let cursor: Value = serde_json::from_str(line("Cursor")).unwrap();
        let entry = &cursor["mcpServers"]["durward-demo"];
        assert_eq!(entry["url"], "http://127.0.0.1:7420/mcp");
        assert_eq!(entry["headers"]["Authorization"], "Bearer dwk_key");

        let code = line("VS Code").strip_prefix("code --add-mcp '").unwrap().strip_suffix('\'').unwrap();
        let code: Value = serde_json::from_str(code).unwrap();
        assert_eq!((&code["name"], &code["type"]), (&"durward-demo".into(), &"http".into()));
        assert_eq!(code["headers"]["Authorization"], "Bearer dwk_key");
        assert!(line("curl").contains("Bearer dwk_key"));
    }
}
