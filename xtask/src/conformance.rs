//! Loss, measured: the official suite must see the same rows through the gateway as without it.
//!
//! An exit status of zero hides losses, so rows of (scenario, check, status) are compared as multisets. The aggregate is
//! asked through `tests/js/rename-proxy.mjs`, which takes the server off the names; what differs then is listed in
//! `tests/conformance/aggregate-expected.txt`, row by row, with the reason. So is what differs where a bridge lies between the
//! suite and a server of the other era (`bridge-expected.txt`), or a client of the other era and the suite
//! (`bridge-client-expected.txt`).

mod rows;

use crate::{
    install, ports,
    process::{Running, program},
    world::{self, World},
};
use anyhow::{Context, Result, anyhow, bail};
use rows::Rows;
use std::{fs, path::Path, process::Command, thread};

const VERSIONS: [&str; 2] = ["2025-11-25", "2026-07-28"];
const AGGREGATE: &str = "tests/conformance/aggregate-expected.txt";
const BRIDGE: &str = "tests/conformance/bridge-expected.txt";
const BRIDGE_CLIENT: &str = "tests/conformance/bridge-client-expected.txt";
/// For each version, a server that speaks nothing but the other era: its name, and its revision.
const OTHERS: [(&str, &str); 2] = [("modern", "2026-07-28"), ("legacy", "2025-11-25")];

/// Client scenarios of a version that need no authorization server: those cannot pass through a changed URL.
const CLIENT_SCENARIOS: [(&str, &[&str]); 2] = [
    (
        "2025-11-25",
        &[
            "initialize",
            "tools_call",
            "elicitation-sep1034-client-defaults",
            "sse-retry",
            "json-schema-2020-12-preservation",
        ],
    ),
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
            "json-schema-2020-12-preservation",
        ],
    ),
];

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only the fixture server itself, without a gateway
    #[arg(long)]
    direct_only: bool,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    install::peers(root)?;
    let mut world = World::new(root, "conformance")?;
    let direct = fixture(root, &mut world, "fixture", &[])?;
    if options.direct_only {
        return VERSIONS
            .iter()
            .try_for_each(|version| Suite { root, folder: world.folder(), version }.fixture(&direct).map(drop));
    }
    let gateway = world.gateway(root)?;
    // A gateway of their own, or they would be members of the aggregate.
    let mut others = World::new(root, "conformance-bridges")?;
    for (name, revision) in OTHERS {
        fixture(root, &mut others, name, &["--revision", revision])?;
    }
    let bridges = others.gateway(root)?;
    let bare = bare_names(root, &mut world, &format!("http://{gateway}/mcp"))?;
    let folder = world.folder();
    let ways = Ways {
        direct: &direct,
        through: &format!("http://{gateway}/mcp/fixture"),
        aggregate: &bare,
        bridges: &format!("http://{bridges}/mcp"),
    };
    // The client's scenarios have servers of their own, so both halves run at once.
    let differing = thread::scope(|scope| {
        let clients = scope.spawn(|| clients(root, folder));
        let servers = servers(root, folder, &ways)?;
        let clients = clients.join().map_err(|_| anyhow!("the client scenarios panicked"))??;
        Ok::<_, anyhow::Error>(servers + clients)
    })?;
    if differing > 0 {
        bail!("{differing} rows differ");
    }
    Ok(())
}

/// How the suite reaches the fixture: its URLs.
struct Ways<'a> {
    direct: &'a str,
    through: &'a str,
    /// As the aggregate's only member.
    aggregate: &'a str,
    /// What the names of [`OTHERS`] follow.
    bridges: &'a str,
}

/// Server mode: the suite dials the fixture on every way.
fn servers(root: &Path, folder: &Path, ways: &Ways<'_>) -> Result<usize> {
    let mut differing = 0;
    let (mut aggregated, mut bridged) = (Vec::new(), Vec::new());
    for (version, (other, _)) in VERSIONS.into_iter().zip(OTHERS) {
        let suite = Suite { root, folder, version };
        let alone = suite.fixture(ways.direct)?;
        let through = suite.server("through", ways.through)?;
        differing += report(version, "/mcp/fixture", &alone.differences(&through));
        let dated = |rows: Rows| alone.differences(&rows).into_iter().map(|line| format!("{version} {line}"));
        aggregated.extend(dated(suite.server("aggregate", ways.aggregate)?));
        bridged.extend(dated(suite.server("bridge", &format!("{}/{other}", ways.bridges))?));
    }
    Ok(differing + listed(root, "/mcp", AGGREGATE, &aggregated)? + listed(root, "bridges", BRIDGE, &bridged)?)
}

/// Starts a fixture server under that name and gives its address.
fn fixture(root: &Path, world: &mut World, name: &str, told: &[&str]) -> Result<String> {
    let address = ports::free()?;
    let mut command = program(install::node(root));
    command.arg(root.join("tests/js/fixture-server.mjs")).args(["--port", &address.port().to_string()]).args(told);
    world.http(name, address, "/mcp", &mut command)
}

/// Starts what undoes the aggregate's renaming, and gives its address.
fn bare_names(root: &Path, world: &mut World, target: &str) -> Result<String> {
    let address = ports::free()?;
    let mut command = program(install::node(root));
    command.arg(root.join("tests/js/rename-proxy.mjs"));
    command.args(["--port", &address.port().to_string(), "--target", target, "--prefix", "fixture__"]);
    world.beside("rename-proxy", address, "/mcp", &mut command)
}

/// The suite at one version.
struct Suite<'a> {
    root: &'a Path,
    folder: &'a Path,
    version: &'a str,
}

impl Suite<'_> {
    /// The fixture alone, which must pass everything: what it fails, nobody could lose.
    fn fixture(&self, url: &str) -> Result<Rows> {
        let rows = self.server("direct", url)?;
        match rows.failed() {
            Some(failed) => bail!("{}: the fixture itself fails {failed}", self.version),
            None => Ok(rows),
        }
    }

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
        self.rows(command, &output, &format!("client {scenario} {name}"))
    }

    fn command(&self) -> Command {
        let mut command = program(install::node(self.root));
        command.arg(self.root.join("tests/js/node_modules/@modelcontextprotocol/conformance/dist/index.js"));
        command.current_dir(self.folder);
        command
    }

    /// Its exit status only says that something failed; the rows say what.
    fn rows(&self, mut command: Command, output: &Path, name: &str) -> Result<Rows> {
        let log = output.with_extension("log");
        command.args(["--spec-version", self.version, "--output-dir"]).arg(output);
        // It may leave clients behind that took too long, with their gateways: they end with their group.
        Running::start(&mut command, &log).context("the suite does not start")?.wait()?;
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

/// What differs on that way must be listed in the file, and everything listed must differ.
fn listed(root: &Path, way: &str, file: &str, found: &[String]) -> Result<usize> {
    let text = fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
    let expected: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let surprising: Vec<_> = found.iter().filter(|line| !expected.contains(&line.as_str())).collect();
    let missing: Vec<_> = expected.iter().filter(|line| !found.iter().any(|found| found == *line)).collect();
    for line in &surprising {
        eprintln!("  {way}, not expected: {line}");
    }
    for line in &missing {
        eprintln!("  {way}, expected but not seen: {line}");
    }
    eprintln!("{way}: {} rows differ, {} are listed in {file}", found.len(), expected.len());
    Ok(surprising.len() + missing.len())
}

/// Client mode: our client dials the suite's server, once directly, once through a gateway of its own, and once through one
/// while it speaks the era that the suite does not. Only judged rows count here: the others log each HTTP request, and a
/// gateway may make some of its own.
fn clients(root: &Path, folder: &Path) -> Result<usize> {
    let node = install::node(root);
    let script = root.join("tests/js/conformance-client.mjs");
    let plain = format!("{} {}", node.display(), script.display());
    let through = format!("{plain} --through {}", world::built(root)?.display());
    let bridge = format!("{through} --bridge");
    let (mut differing, mut bridged) = (0, Vec::new());
    for (version, scenarios) in CLIENT_SCENARIOS {
        let suite = Suite { root, folder, version };
        for scenario in scenarios {
            let alone = suite.client("direct", scenario, &plain)?;
            if let Some(failed) = alone.failed() {
                bail!("{version}: the client itself fails {failed}");
            }
            let differences = |rows: &Rows| alone.judged().differences(&rows.judged());
            let governed = suite.client("through", scenario, &through)?;
            differing += report(version, &format!("client {scenario}"), &differences(&governed));
            let crossed = suite.client("bridge", scenario, &bridge)?;
            bridged.extend(differences(&crossed).into_iter().map(|line| format!("{version} {line}")));
        }
    }
    Ok(differing + listed(root, "bridges to the suite", BRIDGE_CLIENT, &bridged)?)
}
