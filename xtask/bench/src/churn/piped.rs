//! A client that has only pipes, and `durward connect` at their other end.

use crate::setup::program;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{path::Path, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// A client that has started `durward connect`.
pub(super) struct Piped {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    last: u64,
}

impl Piped {
    pub(super) fn start(binary: &Path, url: &str) -> Result<Self> {
        let mut command = Command::from(program(binary));
        command.args(["connect", url]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.kill_on_drop(true).spawn()?;
        let output = BufReader::new(process.stdout.take().context("its output")?).lines();
        Ok(Self { input: process.stdin.take(), output, process, last: 0 })
    }

    pub(super) async fn send(&mut self, message: &Value) -> Result<()> {
        let input = self.input.as_mut().context("its input")?;
        input.write_all(format!("{message}\n").as_bytes()).await?;
        Ok(input.flush().await?)
    }

    /// A request, which must have a result.
    pub(super) async fn ask(&mut self, method: &str, params: Value) -> Result<()> {
        self.last += 1;
        let id = self.last;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await?;
        loop {
            let line = self.output.next_line().await?.context("the program ended")?;
            let heard: Value = serde_json::from_str(&line)?;
            if heard.get("id") == Some(&json!(id)) && heard.get("method").is_none() {
                ensure!(heard.get("result").is_some(), "{method} through pipes: {heard}");
                return Ok(());
            }
        }
    }

    pub(super) async fn end(mut self, is_killed: bool) -> Result<()> {
        if is_killed {
            self.process.kill().await?;
            return Ok(());
        }
        drop(self.input.take());
        let status = self.process.wait().await?;
        ensure!(status.success(), "the program ended with {status}");
        Ok(())
    }
}
