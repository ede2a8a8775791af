//! Clients and servers that others wrote, unmodified, through the gateway: each pair is a line in a table.

use crate::{install, ports, process::program, world::World};
use anyhow::{Context, Result, bail};
use std::{fs, path::Path, process::Stdio, time::Instant};

/// A client program: its name, its file, and whether it is Python.
const CLIENTS: [(&str, &str, bool); 4] = [
    ("typescript-sdk-1", "tests/js/stranger-sdk1.mjs", false),
    ("typescript-sdk-2", "tests/js/stranger-sdk2.mjs", false),
    ("python-mcp", "tests/py/stranger_mcp.py", true),
    ("python-fastmcp", "tests/py/stranger_fastmcp.py", true),
];

/// A path of the gateway, and which of its servers' programs the client expects there.
const SERVERS: [(&str, &str); 5] = [
    ("/mcp/fixture", "fixture"),
    ("/mcp/everything", "everything"),
    ("/mcp/everything-stdio", "everything"),
    ("/mcp/files", "files"),
    ("/mcp/fixture-stdio", "fixture"),
];

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only clients and servers whose names contain this
    #[arg(long)]
    only: Option<String>,
    /// Dials the HTTP servers themselves, without a gateway
    #[arg(long)]
    direct: bool,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let mut world = World::new(root, "strangers")?;
    let served = start(root, &mut world)?;
    let gateway = if options.direct { None } else { Some(world.gateway(root)?) };

    let mut rows = Vec::new();
    for (client, script, is_python) in CLIENTS {
        for (path, what) in SERVERS {
            let name = format!("{client} {path}");
            if options.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
                continue;
            }
            let url = match gateway {
                Some(gateway) => format!("http://{gateway}{path}"),
                None => match served.iter().find(|(own, _)| *own == path) {
                    Some((_, url)) => url.clone(),
                    None => continue,
                },
            };
            let begun = Instant::now();
            let log = world.folder().join(format!("{client}{}.log", path.replace('/', "-")));
            let interpreter = if is_python { install::python_binary(root) } else { install::node(root) };
            let file = fs::File::create(&log)?;
            let mut command = program(interpreter);
            command.arg(root.join(script)).args([&url, what]).stdin(Stdio::null());
            command.stdout(file.try_clone()?).stderr(file);
            let is_fine = command.status().with_context(|| format!("{client} does not start"))?.success();
            rows.push((name, is_fine, begun.elapsed().as_secs_f64(), fs::read_to_string(&log).unwrap_or_default()));
        }
    }
    print(&rows)
}

fn print(rows: &[(String, bool, f64, String)]) -> Result<()> {
    if rows.is_empty() {
        bail!("nothing was run");
    }
    for (name, is_fine, seconds, said) in rows {
        let steps = said.lines().filter(|line| line.starts_with("ok ")).count();
        eprintln!("{:6} {name:42} {steps:3} steps {seconds:6.1} s", if *is_fine { "ok" } else { "FAILED" });
    }
    let failed: Vec<_> = rows.iter().filter(|(_, is_fine, ..)| !is_fine).collect();
    for (name, _, _, said) in &failed {
        eprintln!("\n{name} said:\n{said}");
    }
    if failed.is_empty() { Ok(()) } else { bail!("{} of {} sessions failed", failed.len(), rows.len()) }
}

/// Starts the HTTP servers, names the others; gives the paths that can be dialled directly, with their URLs.
fn start(root: &Path, world: &mut World) -> Result<Vec<(&'static str, String)>> {
    let node = install::node(root);
    let fixture = root.join("tests/js/fixture-server.mjs");
    let modules = root.join("tests/js/node_modules/@modelcontextprotocol");
    let everything = modules.join("server-everything/dist/index.js");
    let shared = world.folder().join("shared");
    fs::create_dir_all(&shared)?;
    fs::write(shared.join("hello.txt"), "hello from a file\n")?;

    let (first, second) = (ports::free()?, ports::free()?);
    let mut command = program(&node);
    command.arg(&fixture).args(["--port", &first.port().to_string()]);
    let fixture_url = world.http("fixture", first, "/mcp", &mut command)?;
    let mut command = program(&node);
    command.arg(&everything).arg("streamableHttp").env("PORT", second.port().to_string());
    let everything_url = world.http("everything", second, "/mcp", &mut command)?;

    let node = node.to_string_lossy();
    world.stdio("fixture-stdio", &[&node, &fixture.to_string_lossy(), "--stdio"])?;
    world.stdio("everything-stdio", &[&node, &everything.to_string_lossy(), "stdio"])?;
    let files = modules.join("server-filesystem/dist/index.js");
    world.stdio("files", &[&node, &files.to_string_lossy(), &shared.to_string_lossy()])?;
    Ok(vec![("/mcp/fixture", fixture_url), ("/mcp/everything", everything_url)])
}
