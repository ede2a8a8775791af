//! Loss, measured: the official suite must see the same rows through the gateway as without it.
//!
//! An exit status of zero hides losses, so rows of (scenario, check, status) are compared as multisets. What the
//! aggregate must rename is listed in `tests/conformance/aggregate-expected.txt`, row by row.

mod rows;

use crate::{
    install, ports,
    process::program,
    world::{self, World},
};
use anyhow::{Context, Result, bail};
use rows::Rows;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

const VERSIONS: [&str; 2] = ["2025-11-25", "2026-07-28"];
const EXPECTED: &str = "tests/conformance/aggregate-expected.txt";

/// Client scenarios of a version that need no authorization server: those cannot pass through a changed URL.
const CLIENT_SCENARIOS: [(&str, &[&str]); 2] = [
    ("2025-11-25", &["initialize", "tools_call", "elicitation-sep1034-client-defaults", "sse-retry"]),
    (
        "2026-07-28",
        &[
            "tools_call",
            "request-metadata",
            "sep-2322-client-request-state",
            "http-standard-headers",
            "http-custom-headers",
            "http-invalid-tool-headers",
            "json-schema-ref-no-deref",
        ],
    ),
];

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only the fixture server itself, without a gateway
    #[arg(long)]
    direct_only: bool,
    /// Writes the rows that differ through the aggregate into the list of expected ones, to be read before committing
    #[arg(long)]
    bless: bool,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let mut world = World::new(root, "conformance")?;
    let direct = fixture(root, &mut world)?;
    let gateway = if options.direct_only { None } else { Some(world.gateway(root)?) };

    let mut differing = 0;
    let mut renamed = Vec::new();
    for version in VERSIONS {
        let suite = Suite { root, folder: world.folder(), version };
        let alone = suite.server("direct", &direct)?;
        if let Some(failed) = alone.failed() {
            bail!("{version}: the fixture itself fails {failed}");
        }
        let Some(gateway) = gateway else { continue };
        let through = suite.server("through", &format!("http://{gateway}/mcp/fixture"))?;
        differing += report(version, "/mcp/fixture", &alone.differences(&through));
        let aggregate = suite.server("aggregate", &format!("http://{gateway}/mcp"))?;
        renamed.extend(alone.differences(&aggregate).into_iter().map(|line| format!("{version} {line}")));
    }
    if gateway.is_some() {
        differing += aggregate(root, &renamed, options.bless)?;
        differing += clients(root, world.folder())?;
    }
    if differing > 0 {
        bail!("{differing} rows differ");
    }
    Ok(())
}

/// Starts the dual-era fixture server as `fixture` and gives its address.
fn fixture(root: &Path, world: &mut World) -> Result<String> {
    let address = ports::free()?;
    let mut command = program(install::node(root));
    command.arg(root.join("tests/js/fixture-server.mjs")).args(["--port", &address.port().to_string()]);
    world.http("fixture", address, "/mcp", &mut command)
}

/// The suite at one version.
struct Suite<'a> {
    root: &'a Path,
    folder: &'a Path,
    version: &'a str,
}

impl Suite<'_> {
    /// The suite is the client, `url` the server.
    fn server(&self, name: &str, url: &str) -> Result<Rows> {
        let output = self.folder.join(format!("{}-{name}", self.version));
        let mut command = self.command();
        command.args(["server", "--suite", "all", "--url", url]);
        self.rows(command, &output, name)
    }

    /// The suite is the server, `client` the client.
    fn client(&self, name: &str, scenario: &str, client: &str) -> Result<Rows> {
        let output = self.folder.join(format!("{}-client-{scenario}-{name}", self.version));
        let mut command = self.command();
        command.args(["client", "--scenario", scenario, "--command", client]);
        self.rows(command, &output, name)
    }

    fn command(&self) -> Command {
        let mut command = program(install::node(self.root));
        command.arg(self.root.join("tests/js/node_modules/@modelcontextprotocol/conformance/dist/index.js"));
        command.current_dir(self.folder).stdin(Stdio::null());
        command
    }

    /// Its exit status only says that something failed; the rows say what.
    fn rows(&self, mut command: Command, output: &Path, name: &str) -> Result<Rows> {
        let log = output.with_extension("log");
        let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.args(["--spec-version", self.version, "--output-dir"]).arg(output);
        command.stdout(file.try_clone()?).stderr(file);
        let _tells_less = command.status().context("the suite does not start")?;
        let rows = Rows::read(output)?;
        if rows.is_empty() {
            bail!("the suite gave no result; it said:\n{}", fs::read_to_string(&log).unwrap_or_default());
        }
        eprintln!("{} {name}: {}", self.version, rows.summary());
        Ok(rows)
    }
}

fn report(version: &str, way: &str, differences: &[String]) -> usize {
    for line in differences {
        eprintln!("  {version} {way}: {line}");
    }
    differences.len()
}

/// The aggregate may differ only in the rows that are listed, and must differ in each of them.
fn aggregate(root: &Path, found: &[String], bless: bool) -> Result<usize> {
    let path = root.join(EXPECTED);
    if bless {
        let head = "# Rows of the conformance suite that differ through /mcp, because it renames tools, prompts and resources.\n\
                    # version, direct (-) or aggregate (+) × count, scenario, check, status.\n";
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(&path, format!("{head}{}\n", found.join("\n")))?;
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {EXPECTED}"))?;
    let expected: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let surprising = found.iter().filter(|line| !expected.contains(&line.as_str()));
    let missing = expected.iter().filter(|line| !found.iter().any(|found| found == *line));
    let mut count = 0;
    for line in surprising {
        eprintln!("  /mcp, not expected: {line}");
        count += 1;
    }
    for line in missing {
        eprintln!("  /mcp, expected but not seen: {line}");
        count += 1;
    }
    eprintln!("/mcp: {} rows differ, {} of them as listed", found.len(), expected.len());
    Ok(count)
}

/// Client mode: our client dials the suite's server, once directly and once through a gateway of its own.
/// Only judged rows count here: the others log each HTTP request, and a gateway may make some of its own.
fn clients(root: &Path, folder: &Path) -> Result<usize> {
    let node = install::node(root);
    let script = root.join("tests/js/conformance-client.mjs");
    let plain = format!("{} {}", node.display(), script.display());
    let through = format!("{plain} --through {}", world::binary(root).display());
    let mut differing = 0;
    for (version, scenarios) in CLIENT_SCENARIOS {
        let suite = Suite { root, folder, version };
        for scenario in scenarios {
            let alone = suite.client("direct", scenario, &plain)?;
            if let Some(failed) = alone.failed() {
                bail!("{version}: the client itself fails {failed}");
            }
            let governed = suite.client("through", scenario, &through)?;
            differing +=
                report(version, &format!("client {scenario}"), &alone.judged().differences(&governed.judged()));
        }
    }
    Ok(differing)
}
