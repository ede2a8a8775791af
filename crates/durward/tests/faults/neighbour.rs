//! Somebody else whose call is under way on the same process when the fault comes.

use crate::{
    cell::Cell,
    flow::answer,
    hear::Hearing,
    process::BESIDE,
    script::Script,
    stage::{AT_ONCE, Stage},
    table::Fault,
};
use serde_json::{Value, json};
use testkit::{Agent, meta};

pub(crate) struct Neighbour {
    agent: Agent,
    hearing: Hearing,
    /// What its call is to the server, and how that answers it.
    id: Value,
    script: Script,
}

impl Neighbour {
    /// Begins its call, where the process of this cell is everybody's.
    pub(crate) async fn of(stage: &Stage, cell: &Cell) -> Option<Self> {
        if !cell.server.is_shared() {
            return None;
        }
        let agent = stage.other(cell).await.expect("the process is well");
        let mut params = json!({"name": "echo", "arguments": {"beside": true}});
        if agent.session().is_none() {
            params["_meta"] = meta();
        }
        // The client of the cell has a request with the same id.
        let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
        let hearing = Hearing::begin(agent.ask("tools/call", &call), json!(7));
        let (id, script) = cell.asked(BESIDE, 1, None).await;
        Some(Self { agent, hearing, id, script })
    }

    /// It has its answer, whatever becomes of others, unless the process itself is gone.
    pub(crate) async fn ends(there: Option<Self>, fault: Fault) -> Result<(), String> {
        let Some(Self { agent, hearing, id, mut script }) = there else { return Ok(()) };
        let wanted = if matches!(fault, Fault::Killed | Fault::Cut) {
            "error -31006"
        } else {
            script.say(&answer(&id)).await;
            "the answer"
        };
        hearing.ends(AT_ONCE).await;
        let words = hearing.words();
        if agent.session().is_some() {
            agent.leave().await;
        }
        if words == wanted {
            Ok(())
        } else {
            Err(format!("somebody else on the same process has {words}, not {wanted}"))
        }
    }
}
