use super::*;
use clap::{CommandFactory as _, error::ErrorKind};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_tree_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_and_argument_has_help() {
    fn walk(command: &clap::Command, path: &str) {
        for argument in command.get_arguments() {
            let said = argument.get_help().is_some() || ["help", "version"].contains(&argument.get_id().as_str());
            assert!(said, "{path} {}", argument.get_id());
        }
        for inner in command.get_subcommands() {
            let path = format!("{path} {}", inner.get_name());
            assert!(inner.get_about().is_some(), "{path}");
            walk(inner, &path);
        }
    }
    walk(&Cli::command(), "durward");
}

#[test]
fn commands_read_as_people_write_them() {
    for line in [
        "durward demo --once",
        "durward up --config x.yaml --data /tmp/d",
        "durward --config x.yaml up",
        "durward connect",
        "durward connect https://gate.example/mcp/files --key-file key",
        "durward init",
        "durward check --output json",
        "durward check --servers",
        "durward config schema",
        "durward config show",
        "durward agent list",
        "durward agent key create ci --expires 90d --label build",
        "durward agent key revoke 1a2b3c4d",
        "durward agent disable ci",
        "durward server list",
        "durward secret set github-token",
        "durward secret import-fernet tokens.txt",
        "durward secret rotate-master",
        "durward policy check policies/a.json policies/b.json",
        "durward policy test",
        "durward policy explain --agent ci --tool files/read --class read --at 2026-11-21T09:00:00Z",
        "durward audit tail -n 5 -f",
        "durward audit search --call 4bf92f3577b34da6a3ce929d0e0e4736 --limit 5 --after 1200",
        "durward audit erase --day 2026-11-20",
        "durward audit erase --before 2026-11-20",
        "durward audit search --agent ci --outcome refused",
        "durward audit show 4bf92f3577b34da6a3ce929d0e0e4736",
        "durward audit verify --checkpoint x",
        "durward audit checkpoint",
        "durward admin key create --role viewer",
        "durward tls init",
        "durward tls init gate.lan 10.0.0.1 --folder certificates",
        "durward tls renew",
        "durward connect https://gate.lan:7420 --ca-file authority.pem",
        "durward connect --keyring https://gate.example/mcp",
        "durward connect --keyring=ci --save",
        "durward connect http://localhost/mcp/files --socket /run/durward/agents.sock --keyring --forget",
        "durward completions zsh",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).map(|_| ()).unwrap_err());
    }
}

#[test]
fn what_is_not_a_name_or_a_time_is_refused() {
    for line in [
        "durward agent key create a/b",
        "durward agent key create ci --expires soon",
        "durward policy explain --agent ci --tool files",
        "durward audit show 12",
        "durward secret set",
        "durward secret set name value",
        "durward connect gate.example/mcp",
        "durward connect https://me:secret@gate.example/mcp",
        "durward connect --key dwk_x",
        "durward connect --save",
        "durward connect unix:/run/durward/agents.sock",
        "durward connect --keyring=a/b",
    ] {
        let fault = parse(line).map(|_| ()).unwrap_err();
        assert!(
            matches!(
                fault.kind(),
                ErrorKind::ValueValidation | ErrorKind::MissingRequiredArgument | ErrorKind::UnknownArgument
            ),
            "{line}: {fault}"
        );
        assert_eq!(fault.exit_code(), Exit::Usage as i32);
    }
}

#[test]
fn the_help_states_every_exit_code() {
    for exit in [Exit::Done, Exit::Failed, Exit::Usage, Exit::Unreachable, Exit::Broken] {
        let line = format!("\n  {}  ", exit as u8);
        assert!(EXIT_CODES.contains(&line) && EXAMPLES.contains(&line), "{exit:?}");
    }
    assert!(EXAMPLES.ends_with(EXIT_CODES));
}
