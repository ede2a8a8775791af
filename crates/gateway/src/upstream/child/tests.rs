//! Real processes: what they get, what they say, and how they end.

use super::{Child, ChildFault, ChildSpec, Exit, Line, Room};
use crate::upstream::pipe::Program;
use bytes::Bytes;
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, time::Duration};
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::mpsc};
use vocab::{AgentId, PrincipalId, Secret, ServerName, TenantId};

fn room(most: usize) -> Room {
    let path = ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into());
    Room::new(most, most, vec![path]).patience(Duration::from_millis(100))
}

fn shell(script: &str) -> Program {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    Program { command, env: BTreeMap::new(), dir: None, shared: false, memory: None }
}

fn server() -> ServerName {
    ServerName::new("files").unwrap()
}

/// The lines that come whole.
struct Lines(mpsc::Receiver<Line>);

impl Lines {
    async fn recv(&mut self) -> Option<Bytes> {
        loop {
            if let Line::Whole(line) = self.0.recv().await? {
                return Some(line);
            }
        }
    }
}

fn spawn(program: &Program, room: &Room) -> Result<(Child, Lines), ChildFault> {
    let secrets = vec![("TOKEN".to_owned(), Secret::new("canary".to_owned()))];
    let (child, lines) = Child::spawn(ChildSpec::new(server(), program, secrets, 1000)?, room, None)?;
    Ok((child, Lines(lines)))
}

#[tokio::test]
async fn lines_go_in_and_come_out() {
    let room = room(1);
    let (child, mut lines) = spawn(&shell("cat"), &room).unwrap();
    for line in ["{\"id\":1}", "{\"id\":2}"] {
        child.send(Bytes::from(line)).await.unwrap();
        assert_eq!(lines.recv().await.unwrap(), line);
    }
}

#[tokio::test]
async fn a_line_that_is_too_long_is_dropped_and_the_next_one_is_not() {
    let room = room(1);
    let (child, mut lines) = spawn(&shell("cat"), &room).unwrap();
    child.send(Bytes::from(vec![b'x'; 100_000])).await.unwrap();
    child.send(Bytes::from("next")).await.unwrap();
    assert_eq!(lines.recv().await.unwrap(), "next");
}

#[tokio::test]
async fn the_environment_is_what_was_given() {
    let room = room(1);
    let mut program = shell("env | grep -v '^PWD=\\|^SHLVL=\\|^_=\\|^OLDPWD=' | sort");
    program.env.insert("MODE".to_owned(), "dev".to_owned());
    let (_child, mut lines) = spawn(&program, &room).unwrap();
    let mut got = Vec::new();
    while let Some(line) = lines.recv().await {
        got.push(String::from_utf8(line.to_vec()).unwrap());
    }
    assert_eq!(got, ["MODE=dev", "PATH=/usr/local/bin:/usr/bin:/bin", "TOKEN=canary"]);
}

#[tokio::test]
async fn the_last_words_of_a_process_are_heard() {
    let room = room(1);
    let (child, mut lines) = spawn(&shell("echo one; echo two; exit 3"), &room).unwrap();
    assert_eq!(lines.recv().await.unwrap(), "one");
    assert_eq!(lines.recv().await.unwrap(), "two");
    assert_eq!(lines.recv().await, None);
    let Exit::ByItself(Some(status)) = child.exited().await else { panic!("it ended by itself") };
    assert_eq!(status.code(), Some(3));
    assert!(matches!(child.send(Bytes::from("late")).await, Err(ChildFault::Ended)));
}

#[tokio::test]
async fn a_process_that_closes_its_output_and_stays_is_over_at_once_and_ended() {
    let room = room(1);
    let (child, mut lines) = spawn(&shell("trap '' TERM; echo one; exec >&-; sleep 1000"), &room).unwrap();
    assert_eq!(lines.recv().await.unwrap(), "one");
    let over = tokio::time::timeout(Duration::from_secs(10), lines.recv()).await;
    assert_eq!(over.expect("whoever waits for it waits for ever"), None);
    assert_eq!(child.exited().await, Exit::Mute);
    assert_eq!(room.running(), 0);
}

#[tokio::test]
async fn a_dropped_handle_stops_even_a_stubborn_group() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    let script = format!(
        "trap '' TERM; mkfifo {0}; echo ready; (trap '' TERM; echo up; sleep 1000) > {0} & wait; wait",
        fifo.display()
    );
    let room = room(1);
    let (child, mut lines) = spawn(&shell(&script), &room).unwrap();
    assert_eq!(lines.recv().await.unwrap(), "ready");
    // The grandchild holds this open as long as it lives.
    let mut alive = pipe::OpenOptions::new().open_receiver(&fifo).unwrap();
    alive.readable().await.unwrap();
    let mut up = [0; 3];
    alive.read_exact(&mut up).await.unwrap();
    drop(child);
    let mut nothing = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), alive.read_to_end(&mut nothing)).await;
    assert_eq!(ended.expect("the grandchild lives on").unwrap(), 0);
    fs::remove_file(&fifo).unwrap();
    assert_eq!(lines.recv().await, None);
    room.close().await;
    assert_eq!(room.running(), 0);
}

#[test]
fn a_runtime_that_goes_takes_its_groups_with_it() {
    let begin = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (going, staying) = (begin(), begin());
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    let script = format!("mkfifo {0}; echo ready; (echo up; sleep 1000) > {0} & wait", fifo.display());
    let room = room(1);
    let (child, mut lines) = going.block_on(async { spawn(&shell(&script), &room) }).unwrap();
    assert_eq!(going.block_on(lines.recv()).unwrap(), "ready");
    // The grandchild holds this open as long as it lives.
    let mut alive = staying.block_on(async { pipe::OpenOptions::new().open_receiver(&fifo) }).unwrap();
    let mut up = [0; 3];
    staying.block_on(alive.read_exact(&mut up)).unwrap();
    // Nobody let go of the process, and nobody is left who could stop it step by step.
    drop(going);
    let (mut nothing, soon) = (Vec::new(), Duration::from_secs(10));
    let ended = staying.block_on(async { tokio::time::timeout(soon, alive.read_to_end(&mut nothing)).await });
    assert_eq!(ended.expect("the grandchild lives on").unwrap(), 0);
    drop((child, lines));
}

#[tokio::test]
async fn what_a_process_leaves_behind_ends_with_it() {
    let room = room(1);
    // The grandchild holds standard output open; only its end lets the reader see one.
    let (child, mut lines) = spawn(&shell("sleep 1000 & echo bye"), &room).unwrap();
    assert_eq!(lines.recv().await.unwrap(), "bye");
    assert_eq!(lines.recv().await, None);
    assert!(matches!(child.exited().await, Exit::ByItself(_)));
}

#[tokio::test]
async fn dropping_the_receiver_stops_the_process() {
    let room = room(1);
    let (child, lines) = spawn(&shell("cat"), &room).unwrap();
    drop(lines);
    assert_eq!(child.exited().await, Exit::Stopped);
}

#[tokio::test]
async fn a_closed_room_is_empty_and_stays_so() {
    let room = room(3);
    let running: Vec<_> = (0..3).map(|_| spawn(&shell("cat"), &room).unwrap()).collect();
    assert!(matches!(spawn(&shell("cat"), &room), Err(ChildFault::Full(3))));
    assert_eq!(room.running(), 3);
    room.close().await;
    for (child, _lines) in &running {
        assert_eq!(child.exited().await, Exit::Stopped);
    }
    assert!(matches!(spawn(&shell("cat"), &room), Err(ChildFault::Ended)));
}

#[tokio::test]
async fn a_place_is_free_again_after_the_end() {
    let room = room(1);
    for _ in 0..3 {
        let (child, lines) = spawn(&shell("cat"), &room).unwrap();
        drop(lines);
        child.exited().await;
    }
}

#[tokio::test]
async fn a_process_that_ends_by_itself_is_not_started_at_once() {
    let room = room(1);
    let (child, _lines) = spawn(&shell("echo hello"), &room).unwrap();
    child.exited().await;
    let fault = spawn(&shell("cat"), &room).map(drop).unwrap_err();
    assert!(matches!(fault, ChildFault::Backoff { crashes: 1, .. }), "{fault:?}");
}

#[tokio::test]
async fn who_never_speaks_waits_ever_longer_and_who_worked_does_not() {
    let room = room(1);
    let place = room.enter(&server(), None).unwrap();
    let wait = |spoke| {
        place.crashed(&server(), spoke);
        match room.enter(&server(), None) {
            Err(ChildFault::Backoff { retry_in, .. }) => retry_in.as_millis(),
            _ => panic!("started too soon"),
        }
    };
    let waits: Vec<_> = (0..12).map(|_| wait(false)).collect();
    assert!((51..=100).contains(&waits[0]) && (151..=200).contains(&waits[1]), "{waits:?}");
    assert!((1551..=1600).contains(&waits[4]) && (29_951..=30_000).contains(&waits[11]), "{waits:?}");
    assert!((51..=100).contains(&wait(true)));
    assert!(
        room.enter(&ServerName::new("other").unwrap(), None).is_err_and(|fault| matches!(fault, ChildFault::Full(1)))
    );
}

#[test]
fn nobody_has_more_than_a_share_of_the_room() {
    let room = Room::new(3, 2, Vec::new());
    let who = |agent: &str| PrincipalId {
        tenant: TenantId::default_tenant(),
        agent: AgentId::new(agent).unwrap(),
        user: None,
        issuer: None,
    };
    let (greedy, other) = (who("greedy"), who("other"));
    let one = room.enter(&server(), Some(&greedy)).ok().unwrap();
    let two = room.enter(&ServerName::new("other").unwrap(), Some(&greedy)).ok().unwrap();
    assert!(matches!(room.enter(&server(), Some(&greedy)), Err(ChildFault::Share(2))));
    let of_another = room.enter(&server(), Some(&other)).ok().unwrap();
    // Who finds the room full has taken nothing of its share.
    drop(one);
    let shared = room.enter(&server(), None).ok().unwrap();
    for _ in 0..3 {
        assert!(matches!(room.enter(&server(), Some(&greedy)), Err(ChildFault::Full(3))));
    }
    drop((shared, of_another));
    let again = room.enter(&server(), Some(&greedy)).ok().unwrap();
    assert!(matches!(room.enter(&server(), Some(&greedy)), Err(ChildFault::Share(2))));
    drop((two, again));
    assert_eq!(room.running(), 0);
}

#[tokio::test]
async fn memory_is_bounded() {
    let room = room(1);
    // The bound is set once the process exists; reading first makes sure that it is.
    let mut program = shell("read line; ulimit -d");
    program.memory = Some(512 << 20);
    let (child, mut lines) = spawn(&program, &room).unwrap();
    child.send(Bytes::from("go")).await.unwrap();
    assert_eq!(lines.recv().await.unwrap(), "524288");
}

#[tokio::test]
async fn a_process_that_wants_more_memory_than_it_may_have_does_not_get_it() {
    let room = room(1);
    // `tail` keeps a line until its end, which does not come.
    let mut program = shell("read line; head -c 200000000 /dev/zero | tail -n 1 2>&1 | head -c 1000");
    program.memory = Some(64 << 20);
    let (child, mut lines) = spawn(&program, &room).unwrap();
    child.send(Bytes::from("go")).await.unwrap();
    let said = String::from_utf8(lines.recv().await.unwrap().to_vec()).unwrap();
    assert!(said.contains("memory"), "{said}");
}

#[tokio::test]
async fn a_group_that_takes_too_much_together_is_ended() {
    let room = room(1);
    // Each keeps 40 MB of one line. The bound leaves room for one of them, not for three.
    let greedy = "(head -c 40000000 /dev/zero; sleep 1000) | tail -n 1";
    let mut program = shell(&format!("read line; {greedy} & {greedy} & {greedy} & wait"));
    program.memory = Some(64 << 20);
    let (child, mut lines) = spawn(&program, &room).unwrap();
    child.send(Bytes::from("go")).await.unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(30), child.exited()).await.unwrap();
    let Exit::Greedy { used, most } = exit else { panic!("{exit:?}") };
    assert!(used > most && most == 64 << 20, "{exit:?}");
    // Nobody of the group is left to hold its output open.
    assert_eq!(lines.recv().await, None);
    let fault = spawn(&shell("cat"), &room).map(drop).unwrap_err();
    assert!(matches!(fault, ChildFault::Backoff { crashes: 1, .. }), "{fault:?}");
}

#[tokio::test]
async fn who_lost_its_parent_still_counts() {
    let room = room(1);
    let greedy = "(head -c 40000000 /dev/zero; sleep 1000) | tail -n 1";
    let mut program = shell(&format!("read line; for each in 1 2 3; do sh -c '{greedy} & exit'; done; read more"));
    program.memory = Some(64 << 20);
    let (child, _lines) = spawn(&program, &room).unwrap();
    child.send(Bytes::from("go")).await.unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(30), child.exited()).await.unwrap();
    let Exit::Greedy { used, most } = exit else { panic!("{exit:?}") };
    assert!(used > most && most == 64 << 20, "{exit:?}");
}

#[tokio::test]
async fn what_cannot_start_is_named() {
    let room = room(1);
    let refused = |program: &Program| spawn(program, &room).map(drop).unwrap_err().to_string();
    let mut program = shell("true");
    program.command = vec!["/nowhere/server".to_owned()];
    assert_eq!(refused(&program), "cannot start `/nowhere/server`: there is no such file; correct the path");
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str, text: &str, mode: u32| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    made("plain", "true", 0o600);
    made("orphan", "#!/nowhere/shell\n", 0o700);
    made("words", "\u{1}\u{2}", 0o700);
    for (name, expected) in [
        ("no-such-program", "no folder of `PATH` has it"),
        ("orphan", "or it is there and the program that its first line names is not"),
        ("./plain", "may not run it; give it the right: `chmod +x`"),
        ("./plain/server", "a part of its path is a file"),
        ("./orphan", "it is there, and the program that its first line names"),
        ("./words", "it is no program of this machine"),
        ("./", "it is a folder"),
    ] {
        program.command = vec![name.to_owned()];
        program.dir = Some(folder.path().to_owned());
        program.env.insert("PATH".to_owned(), folder.path().display().to_string());
        let told = refused(&program);
        assert!(told.starts_with(&format!("cannot start `{name}`: ")) && told.contains(expected), "{told}");
    }
    program.dir = Some(folder.path().join("gone"));
    let told = refused(&program);
    assert!(told.contains(&format!("its `directory` {}", folder.path().join("gone").display())), "{told}");
    program.dir = None;
    program.command.clear();
    assert_eq!(refused(&program), "the command is empty; name a program");
    program = shell("true");
    program.env.insert("A=B".to_owned(), String::new());
    assert_eq!(refused(&program), "`A=B` cannot be the name of an environment variable");
    assert_eq!(room.running(), 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_memory_that_cannot_be_bounded_is_named() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const MORE: u64 = 2 << 40;
    // More than any test takes, and less than the program may have.
    let most = getrlimit(Resource::Data).maximum.unwrap_or(MORE / 2).min(MORE / 2);
    setrlimit(Resource::Data, Rlimit { current: Some(most), maximum: Some(most) }).unwrap();
    let mut program = shell("cat");
    program.memory = Some(MORE);
    let room = room(1);
    let Err(fault) = spawn(&program, &room).map(drop) else {
        // Right for whoever may raise limits, and for nobody else.
        let raised = Rlimit { current: Some(MORE), maximum: Some(MORE) };
        assert!(setrlimit(Resource::Data, raised).is_ok(), "it runs without its bound");
        return;
    };
    let told = fault.to_string();
    assert!(told.starts_with("cannot start `sh`: its memory cannot be bounded: "), "{told}");
    assert!(told.contains("ulimit -Hd") && !told.contains("chmod"), "{told}");
    assert_eq!(room.running(), 0);
}
