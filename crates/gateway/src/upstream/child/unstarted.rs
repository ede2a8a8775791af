//! Why the system did not start a program, and what to do: what the system says names neither file nor folder.
//!
//! Looks at the files once something has failed, and decides nothing by them.

use std::{io, path::Path};

/// The system's number for a file that is no program (ENOEXEC), of which `io::ErrorKind` has no kind.
const NO_PROGRAM: i32 = 8;

/// Why `program` was not started in `folder`, if that is not our own.
pub(super) fn why(program: &str, folder: Option<&Path>, cause: &io::Error) -> String {
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return format!("its `directory` {} is no folder that can be entered", folder.display());
    }
    let file = program.contains('/').then(|| folder.unwrap_or(Path::new("")).join(program));
    let there = file.as_deref().is_some_and(Path::exists);
    match (cause.kind(), &file) {
        (io::ErrorKind::NotFound, None) => {
            "no folder of `PATH` has it, or it is there and the program that its first line names is not; install what is missing, or write its whole path".to_owned()
        }
        (io::ErrorKind::NotFound, Some(_)) if there => {
            "it is there, and the program that its first line names, or that loads it, is not".to_owned()
        }
        (io::ErrorKind::NotFound, Some(_)) => "there is no such file; correct the path".to_owned(),
        (io::ErrorKind::PermissionDenied, Some(file)) if file.is_dir() => {
            "it is a folder; name the program in it".to_owned()
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "the gateway's user may not run it; give it the right: `chmod +x`, and `x` on each folder above it"
                .to_owned()
        }
        (io::ErrorKind::NotADirectory, _) => "a part of its path is a file, no folder; correct the path".to_owned(),
        _ if cause.raw_os_error() == Some(NO_PROGRAM) => {
            "it is no program of this machine; a script begins with `#!` and the program that runs it".to_owned()
        }
        _ => cause.to_string(),
    }
}

/// Why a program that was started does not go on: its memory stays without a bound.
pub(super) fn unbounded(cause: &io::Error) -> String {
    format!(
        "its memory cannot be bounded: {cause}; `memory` is more than the gateway itself may have (`ulimit -Hd`, `LimitDATA=`), or the program runs as another user (setuid): write less, or name another program"
    )
}
