//! `durward demo-server`: the demo's server on stdio, started by the gateway as any other program.

use super::server::FILES;
use anyhow::Result;
use serde_json::Value;
use std::io::{self, BufRead, Write};

/// Answers one message a line until its input ends.
pub(crate) fn serve() -> Result<()> {
    converse(io::stdin().lock(), io::stdout().lock())?;
    Ok(())
}

fn converse(input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    for line in input.lines() {
        // What is no JSON has no id that an answer could carry.
        let Ok(message) = serde_json::from_str::<Value>(&line?) else { continue };
        if let Some(answer) = FILES.answer(&message, None) {
            writeln!(output, "{answer}")?;
            output.flush()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::converse;

    #[test]
    fn each_request_gets_a_line_and_nothing_else_does() {
        let said = "nonsense\n{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n\
                    {\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}\n";
        let mut heard = Vec::new();
        converse(said.as_bytes(), &mut heard).unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), "{\"id\":7,\"jsonrpc\":\"2.0\",\"result\":{}}\n");
    }
}
