//! Stands between two programs that speak through pipes. What comes on one side goes out on the other as it came, once
//! the judge was told of it; the end of the input ends the program's, and its end ends this one.

use crate::{
    plan::{Direction, Leg, Plan},
    seen::{End, Exchange, Seen},
};
use anyhow::{Context, Result, bail};
use std::{
    io::{self, Read, Write, stdin, stdout},
    net::{Ipv4Addr, SocketAddr, TcpStream as Socket},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// The largest piece, in bytes.
const PIECE: usize = 64 << 10;
/// How long it takes at most until somebody who has connected is seen.
const LATE: Duration = Duration::from_millis(200);
const UP: u8 = b'>';
const DOWN: u8 = b'<';

/// Runs `program`; what it says and is told is told to the judge at `to`.
pub(crate) fn run(to: SocketAddr, leg: &str, program: &[String]) -> Result<ExitCode> {
    let told = Told::dial(to, leg)?;
    let mut child = start(program)?;
    let (mut input, mut output) = (child.stdin.take().context("no input")?, child.stdout.take().context("no output")?);
    let of_input = told.clone();
    // It waits for input until this program ends.
    thread::spawn(move || of_input.pass(UP, &mut stdin().lock(), &mut input));
    told.pass(DOWN, &mut output, &mut stdout().lock())?;
    let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[expect(clippy::disallowed_methods, reason = "the program between whose pipes it stands")]
fn start(program: &[String]) -> Result<Child> {
    let (name, words) = program.split_first().context("no program")?;
    let mut command = Command::new(name);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().with_context(|| format!("cannot start {name}"))
}

/// The way to the judge.
#[derive(Clone)]
struct Told(Arc<Mutex<Socket>>);

impl Told {
    #[expect(clippy::disallowed_methods, reason = "the judge is at an address that this was started with")]
    fn dial(to: SocketAddr, leg: &str) -> Result<Self> {
        let mut socket = Socket::connect(to).context("the judge cannot be reached")?;
        socket.set_nodelay(true)?;
        writeln!(socket, "{leg}")?;
        Ok(Self(Arc::new(Mutex::new(socket))))
    }

    /// Whatever comes in goes out; what the judge cannot be told of does not.
    fn pass(&self, direction: u8, from: &mut impl Read, into: &mut impl Write) -> Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let length = from.read(&mut piece)?;
            let Some(piece) = piece.get(..length).filter(|piece| !piece.is_empty()) else { return Ok(()) };
            self.tell(direction, piece)?;
            into.write_all(piece)?;
            into.flush()?;
        }
    }

    fn tell(&self, direction: u8, piece: &[u8]) -> Result<()> {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frame = vec![direction];
        frame.extend(u32::try_from(piece.len())?.to_be_bytes());
        frame.extend(piece);
        Ok(socket.write_all(&frame)?)
    }
}

/// Hears what pipes tell.
pub(crate) struct Listener {
    incoming: TcpListener,
    address: SocketAddr,
    seen: Sender<Seen>,
    plan: Plan,
    telling: JoinSet<Result<()>>,
}

impl Listener {
    pub(crate) async fn open(seen: Sender<Seen>, plan: &Plan) -> Result<Self> {
        let incoming = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = incoming.local_addr()?;
        Ok(Self { incoming, address, seen, plan: plan.clone(), telling: JoinSet::new() })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs until something breaks. `doors` are the relays before the gateway.
    pub(crate) async fn accept(&mut self, doors: &[SocketAddr]) -> Result<()> {
        loop {
            tokio::select! {
                accepted = self.incoming.accept() => self.attend(accepted?.0, doors),
                Some(ended) = self.telling.join_next() => ended??,
            }
        }
    }

    /// Waits for the end of what is being told, also by those who came last.
    pub(crate) async fn finish(&mut self, doors: &[SocketAddr]) -> Result<()> {
        loop {
            tokio::select! {
                biased;
                accepted = self.incoming.accept() => self.attend(accepted?.0, doors),
                ended = self.telling.join_next() => match ended {
                    Some(ended) => ended??,
                    // Nobody speaks, and whoever is on the way here is at the door.
                    None => match tokio::time::timeout(LATE, self.incoming.accept()).await {
                        Ok(accepted) => self.attend(accepted?.0, doors),
                        Err(_) => return Ok(()),
                    },
                }
            }
        }
    }

    fn attend(&mut self, stream: TcpStream, doors: &[SocketAddr]) {
        let (seen, plan, doors) = (self.seen.clone(), self.plan.clone(), doors.to_vec());
        self.telling.spawn(async move { hear(stream, &seen, &plan, &doors).await });
    }
}

async fn hear(stream: TcpStream, seen: &Sender<Seen>, plan: &Plan, doors: &[SocketAddr]) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut name = String::new();
    stream.read_line(&mut name).await?;
    let exchange = Exchange::new();
    let leg = leg(name.trim_end(), plan, doors).with_context(|| format!("there is no leg {name}"))?;
    seen.send(Seen::Started { exchange, leg })?;
    // What breaks off was not passed on, and both programs are gone.
    while let Ok((direction, bytes)) = piece(&mut stream).await {
        let direction = match direction {
            UP => Direction::Up,
            DOWN => Direction::Down,
            _ => bail!("a piece without a direction"),
        };
        seen.send(Seen::Spoken { exchange, direction, bytes: bytes.into() })?;
    }
    Ok(seen.send(Seen::Ended { exchange, end: End::Whole })?)
}

async fn piece(stream: &mut BufReader<TcpStream>) -> io::Result<(u8, Vec<u8>)> {
    let direction = stream.read_u8().await?;
    let length = stream.read_u32().await?;
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    stream.read_exact(&mut bytes).await?;
    Ok((direction, bytes))
}

/// A server by its name, or a client by the door that it wants: an address of a relay.
fn leg(name: &str, plan: &Plan, doors: &[SocketAddr]) -> Option<Leg> {
    if let Some(number) = plan.server(name) {
        return Some(Leg::Server(number));
    }
    let authority = name.strip_prefix("http://")?.split('/').next()?;
    doors.iter().position(|door| door.to_string() == authority).map(Leg::Client)
}
