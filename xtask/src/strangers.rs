//! Clients and servers that others wrote, unmodified, through the gateway: each pair is a line in a table.

use crate::{
    install, ports,
    process::{self, program},
    world::{self, World},
};
use anyhow::{Context, Result, anyhow, bail};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    thread,
};

/// How a client reaches the gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Over HTTP.
    Http,
    /// Over TLS, trusting the authority that `durward tls init` made as such a client is told to.
    Tls,
    /// Over pipes, to `durward connect`.
    Pipes,
}

/// A client program: its name, its file, whether it is Python, and how it reaches the gateway.
const CLIENTS: [(&str, &str, bool, Way); 8] = [
    ("typescript-sdk-1", "tests/js/stranger-sdk1.mjs", false, Way::Http),
    ("typescript-sdk-2", "tests/js/stranger-sdk2.mjs", false, Way::Http),
    ("typescript-sdk-1-stdio", "tests/js/stranger-sdk1.mjs", false, Way::Pipes),
    ("typescript-sdk-2-stdio", "tests/js/stranger-sdk2.mjs", false, Way::Pipes),
    ("typescript-sdk-2-tls", "tests/js/stranger-sdk2.mjs", false, Way::Tls),
    ("python-mcp", "tests/py/stranger_mcp.py", true, Way::Http),
    ("python-mcp-tls", "tests/py/stranger_mcp.py", true, Way::Tls),
    ("python-fastmcp", "tests/py/stranger_fastmcp.py", true, Way::Http),
];

/// A path of the gateway, and the story that is told there. The aggregate is asked for one server by the prefix of its
/// names.
const SESSIONS: [(&str, &str); 9] = [
    ("/mcp/fixture", "fixture"),
    ("/mcp/fixture-http2", "fixture"),
    ("/mcp/fixture-stdio", "fixture"),
    ("/mcp/everything", "everything"),
    ("/mcp/everything-stdio", "everything"),
    ("/mcp/files", "files"),
    ("/mcp", "fixture__"),
    ("/mcp", "everything__"),
    ("/mcp", "files__"),
];

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only lines of the table that contain this
    #[arg(long)]
    only: Option<String>,
    /// Dials the HTTP servers themselves, without a gateway
    #[arg(long)]
    direct: bool,
}

/// One line of the table.
struct Row {
    name: String,
    /// What the client printed between the beginning and the end of the session.
    said: String,
    is_fine: bool,
    seconds: String,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    install::peers(root)?;
    let mut world = World::new(root, "strangers")?;
    let served = start(root, &mut world)?;
    let tls = world.folder().join("tls");
    let mut secure = World::new(root, "strangers-tls")?;
    secure.secure(&tls);
    for (path, url) in &served {
        secure.behind(path.trim_start_matches("/mcp/"), url)?;
    }
    let gateways = if options.direct { None } else { Some((world.gateway(root)?, secure.gateway(root)?)) };
    let url = |path: &str, way: Way| {
        let direct = served.iter().find(|(own, _)| *own == path).map(|(_, url)| url.clone());
        match (gateways, way) {
            (Some((gateway, _)), Way::Http | Way::Pipes) => Some(format!("http://{gateway}{path}")),
            (Some((_, gateway)), Way::Tls) => direct.map(|_| format!("https://{gateway}{path}")),
            (None, Way::Http | Way::Pipes) => direct,
            (None, Way::Tls) => None,
        }
    };

    let connect = world::built(root)?;

    // The clients know nothing of each other, so they run at once; each tells its sessions one after the other.
    let rows: Result<Vec<Vec<Row>>> = thread::scope(|scope| {
        let tellings: Vec<_> = CLIENTS
            .into_iter()
            .map(|(client, script, is_python, way)| {
                let sessions: Vec<_> = SESSIONS
                    .into_iter()
                    .map(|(path, what)| (format!("{client} {path} {what}"), path, what))
                    .filter(|(name, ..)| options.only.as_ref().is_none_or(|only| name.contains(only.as_str())))
                    .filter_map(|(name, path, what)| Some((name, what, url(path, way)?)))
                    .collect();
                let interpreter = if is_python { install::python_binary(root) } else { install::node(root) };
                let log = world.folder().join(format!("{client}.log"));
                let mut command = program(interpreter);
                command.arg(root.join(script));
                match way {
                    Way::Http => {}
                    Way::Tls => trust(&mut command, &tls.join("authority.pem")),
                    Way::Pipes => drop(command.env("DURWARD_CONNECT", &connect)),
                }
                scope.spawn(move || tell(command, &log, &sessions))
            })
            .collect();
        tellings.into_iter().map(|telling| telling.join().map_err(|_| anyhow!("a thread panicked"))?).collect()
    });
    print(&rows?.into_iter().flatten().collect::<Vec<_>>())
}

/// Tells Node and OpenSSL of an authority, in their own words.
fn trust(command: &mut Command, authority: &Path) {
    command.env("NODE_EXTRA_CA_CERTS", authority).env("SSL_CERT_FILE", authority);
}

/// Runs one client through its sessions: (name, what, URL).
fn tell(mut command: Command, log: &Path, sessions: &[(String, &str, String)]) -> Result<Vec<Row>> {
    if sessions.is_empty() {
        return Ok(Vec::new());
    }
    let file = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.args(sessions.iter().flat_map(|(_, what, url)| [*what, url.as_str()]));
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    // Its exit status only says that something failed; what it printed says what.
    let _tells_less =
        command.status().with_context(|| format!("{} does not start", command.get_program().display()))?;
    let said = fs::read_to_string(log)?;
    let mut told = said.split("begin ").skip(1);
    let rows = sessions.iter().map(|(name, ..)| {
        // A client that broke down tells nothing of the sessions after that.
        let said = told.next().unwrap_or("it never came so far");
        let took = said.lines().find_map(|line| line.strip_prefix("took "));
        let has_failed = said.lines().any(|line| line.starts_with("failed"));
        let is_fine = took.is_some() && !has_failed && steps(said) > 0;
        Row { name: name.clone(), said: said.to_owned(), is_fine, seconds: took.unwrap_or("?").to_owned() }
    });
    Ok(rows.collect())
}

fn steps(said: &str) -> usize {
    said.lines().filter(|line| line.starts_with("ok ")).count()
}

fn print(rows: &[Row]) -> Result<()> {
    if rows.is_empty() {
        bail!("nothing was run");
    }
    for Row { name, said, is_fine, seconds } in rows {
        let word = if *is_fine { "ok" } else { "FAILED" };
        eprintln!("{word:6} {name:50} {:3} steps {seconds:>6} s", steps(said));
    }
    let failed: Vec<_> = rows.iter().filter(|row| !row.is_fine).collect();
    for Row { name, said, .. } in &failed {
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
    http2(root, world, first)?;
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

/// The server at `target` once more, behind Node's HTTP/2 and TLS, with a certificate of an authority of our own.
fn http2(root: &Path, world: &mut World, target: SocketAddr) -> Result<()> {
    let tls = world.folder().join("tls");
    let mut command = program(world::built(root)?);
    process::output(command.args(["tls", "init", "127.0.0.1", "--folder"]).arg(&tls).stderr(Stdio::null()))?;
    let address = ports::free()?;
    let mut command = program(install::node(root));
    command.arg(root.join("tests/js/http2-front.mjs"));
    command.args(["--port", &address.port().to_string(), "--target", &format!("http://{target}")]);
    command.arg("--certificate").arg(tls.join("certificate.pem")).arg("--key").arg(tls.join("certificate.key"));
    world.https("fixture-http2", address, &mut command, &tls.join("authority.pem"))
}
