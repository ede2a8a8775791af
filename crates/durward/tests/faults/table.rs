//! What becomes of each flow when a fault comes at each of its moments: what the client gets, and what the records of its
//! calls say. The tests read it, and so may you.

use Fault::{Cut, Disabled, Flipped, Gone, Killed, Moved, Removed, Revoked, Silent, Unbridged};

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server dies, with all its connections or processes, and stays dead.
    Killed,
    /// The connection that the server answers on breaks.
    Cut,
    /// The server says nothing more.
    Silent,
    /// The client goes away, and does not come back.
    Gone,
    /// A reload takes the server out.
    Removed,
    /// A reload leads to another server by the same name.
    Moved,
    /// The client's key is revoked.
    Revoked,
    /// The client's agent is disabled.
    Disabled,
    /// The server speaks the other era from now on, and the gateway finds out. Of web servers over a bridge.
    Flipped,
    /// A reload forbids the bridge. Of servers over one.
    Unbridged,
}

pub(crate) const FAULTS: [Fault; 10] =
    [Killed, Cut, Silent, Gone, Removed, Moved, Revoked, Disabled, Flipped, Unbridged];

/// One flow.
pub(crate) struct Flow {
    pub(crate) name: &'static str,
    pub(crate) what: What,
    pub(crate) client: Client,
    pub(crate) door: Door,
    /// What the server speaks, or how it is reached.
    pub(crate) server: Speaks,
    /// The method whose records are looked at.
    pub(crate) method: &'static str,
    /// The moments at which a fault may come, in order.
    pub(crate) moments: &'static [&'static str],
    pub(crate) rows: &'static [Row],
    /// What is otherwise than these rows say, which may be another flow's.
    pub(crate) but: &'static [Row],
}

/// What the client is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A call that is answered in one piece.
    Plain,
    /// A call that is answered in several words.
    Streamed,
    /// A call that becomes a task.
    Task,
    /// A call in whose course the server asks something.
    Question,
    /// What it takes until a server can be called.
    Opening,
    Listening,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// Of 2024-11-05.
    Old,
    Legacy,
    Modern,
}

/// Where the client comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// At its server.
    One,
    /// At the address for all.
    All,
}

/// Which bridge lies between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bridge {
    None,
    /// From a legacy client to a modern server.
    Upward,
    /// From a modern client to a legacy server.
    Downward,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Both,
    Legacy,
    Modern,
    /// HTTP with SSE, of 2024-11-05.
    Lasting,
    /// A process, of one era or the other.
    Process(&'static str, Manner),
}

/// What kind of process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Of one session or one principal, and obedient.
    Own,
    /// One for everybody: whenever a fault comes somebody else has a call under way on it.
    Shared,
    /// It stays when its input ends and when it is told to, and also when it closes its output.
    Stubborn,
}

/// One fault at some moments (none named: at all of them): what the client gets, what the records say.
pub(crate) struct Row(
    pub(crate) Fault,
    pub(crate) &'static [&'static str],
    pub(crate) &'static str,
    pub(crate) &'static str,
);

/// One cell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) fault: Fault,
    pub(crate) moment: &'static str,
    /// What the client gets.
    pub(crate) sees: &'static str,
    /// What the records of the flow's method say, in the order in which they were closed.
    pub(crate) recorded: &'static str,
}

impl Case {
    /// What the client gets, each with what the records say then. Where one side has several and the other has one, that
    /// goes with each of them.
    pub(crate) fn outcomes(&self) -> Vec<(&'static str, &'static str)> {
        let (sees, recorded): (Vec<_>, Vec<_>) =
            (self.sees.split(" or ").collect(), self.recorded.split(" or ").collect());
        let count = sees.len().max(recorded.len());
        for side in [&sees, &recorded] {
            assert!([1, count].contains(&side.len()), "{self:?}: what goes with what?");
        }
        sees.into_iter().cycle().zip(recorded.into_iter().cycle()).take(count).collect()
    }
}

/// Whether that can be recorded of a request of which its client sees this.
fn agrees(sees: &str, recorded: &str) -> bool {
    // A call of several rounds ends as its last one.
    let last = recorded.rsplit(", ").next().unwrap_or_default();
    match sees {
        "the answer" => last == "answered",
        "stays open" => ["answered", "abandoned", ""].contains(&last),
        "error -31001" => ["refused denied authorize", "withheld denied authorize"].contains(&last),
        "error -31006" => {
            ["faulted upstream-down forward", "faulted upstream-cut forward", "faulted round forward"].contains(&last)
        }
        "error -31007" => last == "faulted upstream-timeout forward",
        "error -32022" => last == "refused era resolve",
        // Before it was sent, or after.
        "error -32600" => last.starts_with("refused ") || last == "withheld revoked authenticate",
        "error -32602" => last.starts_with("refused "),
        "error -32601" => last == "failed",
        // Whoever is gone sees nothing, and a stream has no word for the reason of its end.
        "gone" | "the end" => true,
        _ => false,
    }
}

impl Flow {
    pub(crate) fn bridge(&self) -> Bridge {
        match (self.client, self.server) {
            (Client::Legacy | Client::Old, Speaks::Modern | Speaks::Process("modern", _)) => Bridge::Upward,
            (Client::Modern, Speaks::Legacy | Speaks::Lasting | Speaks::Process("legacy", _)) => Bridge::Downward,
            _ => Bridge::None,
        }
    }

    /// Whether this can happen in the flow.
    fn can_have(&self, fault: Fault) -> bool {
        let is_bridged = self.bridge() != Bridge::None;
        match fault {
            Flipped => is_bridged && matches!(self.server, Speaks::Legacy | Speaks::Modern),
            Unbridged => is_bridged,
            Killed | Cut | Silent | Gone | Removed | Moved | Revoked | Disabled => true,
        }
    }

    /// Every cell of the flow.
    pub(crate) fn cells(&self) -> Vec<Case> {
        let mut cells = Vec::new();
        for fault in FAULTS.into_iter().filter(|fault| self.can_have(*fault)) {
            for moment in self.moments {
                let fits = |row: &&Row| row.0 == fault && (row.1.is_empty() || row.1.contains(moment));
                let fitting = |rows: &'static [Row]| rows.iter().filter(fits).collect::<Vec<_>>();
                let (but, rows) = (fitting(self.but), fitting(self.rows));
                let [row] = (if but.is_empty() { rows.as_slice() } else { but.as_slice() }) else {
                    panic!("{}: {} rows for {fault:?} at {moment:?}", self.name, rows.len())
                };
                let case = Case { fault, moment, sees: row.2, recorded: row.3 };
                for (sees, recorded) in case.outcomes() {
                    assert!(agrees(sees, recorded), "{}: {sees:?} cannot be {recorded:?}", self.name);
                }
                cells.push(case);
            }
        }
        cells
    }
}

#[test]
fn what_a_client_has_goes_with_what_is_recorded_and_with_nothing_else() {
    let case = |sees, recorded| Case { fault: Cut, moment: "sent", sees, recorded };
    let (down, cut) = ("faulted upstream-down forward", "faulted upstream-cut forward");
    let either = case("the answer or error -31006", "answered or faulted upstream-down forward");
    assert_eq!(either.outcomes(), [("the answer", "answered"), ("error -31006", down)]);
    let ends = case("error -31006", "faulted upstream-down forward or faulted upstream-cut forward");
    assert_eq!(ends.outcomes(), [("error -31006", down), ("error -31006", cut)]);
    for (sees, recorded) in
        [("the answer", down), ("error -31006", "answered"), ("error -31007", cut), ("", "answered")]
    {
        assert!(!agrees(sees, recorded), "{sees} is not {recorded}");
    }
}
