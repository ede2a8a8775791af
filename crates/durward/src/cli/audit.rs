//! `durward audit`

use super::EXIT_CODES;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use vocab::{AgentId, CallId, Day, IssuerName, Timestamp, UserId};

/// `durward audit`
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(crate) enum AuditCommand {
    /// Print the newest records.
    #[command(after_help = "Example:\n  durward audit tail --follow --output json")]
    Tail {
        /// How many.
        #[arg(long, short = 'n', default_value_t = 20)]
        lines: usize,
        /// Go on with records as they come.
        #[arg(long, short)]
        follow: bool,
        /// What happened to the gateway itself, and requests that nobody is known to have sent.
        #[arg(long)]
        system: bool,
    },
    /// Print the records that fit.
    #[command(
        after_help = "Example:\n  durward audit search --agent ci --outcome refused --since 2026-11-20T00:00:00Z"
    )]
    Search {
        /// What fits.
        #[command(flatten)]
        filter: Filter,
        /// The most to print.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on after this record: the index of the last one printed. It means the same for ever.
        #[arg(long, value_name = "INDEX")]
        after: Option<u64>,
        /// What happened to the gateway itself, and requests that nobody is known to have sent.
        #[arg(long)]
        system: bool,
    },
    /// Print everything that is recorded about one call, and its texts where they are kept.
    #[command(
        after_help = "Reading texts is on record, and each is checked against its digest in the log: a changed one\n\
        is named, with exit code 4."
    )]
    Show {
        /// The id of the call: clients receive it with each answer.
        call: CallId,
    },
    /// Destroy the texts of whole days, and what could tell them from their digests. The log still verifies.
    #[command(
        after_help = "Examples:\n  durward audit erase --day 2026-11-20\n  durward audit erase --before 2026-11-01"
    )]
    Erase {
        /// This day, in UTC.
        #[arg(long, value_name = "DAY", required_unless_present = "before", conflicts_with = "before")]
        day: Option<Day>,
        /// Every day before this one.
        #[arg(long, value_name = "DAY")]
        before: Option<Day>,
    },
    /// Check the whole log. Needs only its directory and the public key.
    #[command(
        after_help = "Names the first bad record for edit, delete, insert, reorder and truncation; exit code 4.\n\
        Against a checkpoint that was kept elsewhere, a rollback of the whole directory shows too.\n\n\
        With --proof only that proof is checked, with the public key: no log is needed.\n\n\
        Examples:\n  durward audit verify --checkpoint yesterday.checkpoint\n\
        \x20 durward audit verify --proof call.tlog-proof --key log.pub"
    )]
    Verify {
        /// The log's directory; the one in the data directory unless given.
        #[arg(long, value_name = "DIR")]
        log: Option<PathBuf>,
        /// A file with the public key; the one in the data directory unless given.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// A checkpoint of this log that was kept elsewhere.
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// Check this proof of one record instead, as `audit prove` printed it.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["log", "checkpoint"])]
        proof: Option<PathBuf>,
    },
    /// Print a proof that a call is in the log, for others to check offline.
    #[command(after_help = "Example:\n  durward audit prove 4bf92f3577b34da6a3ce929d0e0e4736 > call.tlog-proof")]
    Prove {
        /// The id of the call.
        call: CallId,
    },
    /// Print the newest signed checkpoint, to be kept elsewhere.
    Checkpoint,
    /// Print the public key of the log.
    Key,
}

/// Which records fit. Everything given must hold.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Filter {
    /// The agent that called.
    #[arg(long)]
    pub(crate) agent: Option<AgentId>,
    /// The user it acted for.
    #[arg(long)]
    pub(crate) user: Option<UserId>,
    /// The issuer of its token. The same user of two issuers is two.
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Option<IssuerName>,
    /// What was called, as a server or as server/name, written out: globs are not taken.
    #[arg(long, value_name = "SERVER[/NAME]")]
    pub(crate) target: Option<String>,
    /// How it ended.
    #[arg(long, value_enum)]
    pub(crate) outcome: Option<Outcome>,
    /// Not before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Timestamp>,
    /// Before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Timestamp>,
    /// The id of the call. It is looked for in both trees, unless --system or --after says which.
    #[arg(long, value_name = "CALL")]
    pub(crate) call: Option<CallId>,
    /// The W3C trace id.
    #[arg(long, value_name = "ID")]
    pub(crate) trace: Option<String>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Outcome {
    /// The server answered.
    Answered,
    /// The server answered with an error.
    Failed,
    /// It was refused, and nothing was forwarded.
    Refused,
    /// It was forwarded, and its answer was withheld.
    Withheld,
    /// The gateway or the way to the server failed.
    Faulted,
    /// It was given up before it ended.
    Abandoned,
    /// The gateway ended before it did.
    Unknown,
}
