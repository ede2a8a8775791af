//! What is called: one thing on one server, or a set of servers.
//!
//! Names become identities here: from this stage on everybody speaks of (tenant, server, name). What the caller may
//! not see is answered exactly like what does not exist.

mod refusal;

use crate::{
    aggregate,
    authenticate::Caller,
    bridge::Crossing,
    call::{Call, Operation, Route},
    catalog::Tool,
    clock::Moment,
    label::Label,
    pipeline::Line,
    question::Taken,
    server::{Carriage, Server},
    session::{
        Session,
        replay::{Found, Place},
    },
    stop::{About, Stage, Stop},
    task,
    trail::{Facts, Noted},
    upstream::UpstreamFault,
};
use http::{HeaderValue, StatusCode};
use mcp::{Era, Kind, Message, Span, error};
use policy::Question;
pub(crate) use refusal::{contradiction, missing, no_such_event, no_such_question, no_such_session, other_era};
use refusal::{no_session_named, no_such_server};
use serde_json::Value;
use std::sync::Arc;
use vocab::{Action, Digest, RuleId, ServerName};

/// What a call is about.
pub(crate) enum Target {
    /// One thing on one server.
    One(Box<One>),
    /// What the gateway answers for a set of servers.
    Many(Many),
}

/// One thing on one server.
pub(crate) struct One {
    pub(crate) server: Arc<Server>,
    /// What lies between the two eras, where client and server differ.
    pub(crate) crossing: Crossing,
    pub(crate) session: Option<Arc<Session>>,
    /// None for what needs no rule: handshakes, lists, notifications, streams.
    pub(crate) action: Option<Action>,
    pub(crate) resource: policy::Resource,
    pub(crate) tool: Option<Arc<Tool>>,
    /// The operator waived the schema of the tool.
    pub(crate) skips_schema: bool,
    /// `Mcp-Name` where the server's name is not the caller's, or the caller may have left it out.
    pub(crate) name_header: Option<HeaderValue>,
    /// The event of this server after which a broken stream of the aggregate goes on.
    pub(crate) after: Option<HeaderValue>,
    /// The place in a stream of ours from which it goes on.
    pub(crate) resumes: Option<Place>,
    /// The question this message answers.
    pub(crate) answers: Option<Box<Taken>>,
    /// The name that the caller used in the aggregate.
    pub(crate) shown: Option<Box<str>>,
    /// The server's id of the task that the call is about.
    pub(crate) task: Option<Box<str>>,
    /// The client says that it knows tasks, and has as many as it may have: the call is made, and must not become another.
    pub(crate) lacks_room: bool,
}

/// A set of servers, and the session that spans them.
pub(crate) struct Many {
    pub(crate) members: Vec<Arc<Server>>,
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) method: Box<str>,
    /// Servers left out, with the reason that the caller may know.
    pub(crate) unavailable: Vec<(ServerName, String)>,
    /// The same of those to which nothing leads from the client's era. Unlike the others, they will not come.
    pub(crate) apart: Vec<(ServerName, String)>,
}

impl Target {
    pub(crate) fn one(&self) -> Option<&One> {
        match self {
            Self::One(one) => Some(one),
            Self::Many(_) => None,
        }
    }

    /// The servers that the call goes to, in the order of what they are given.
    pub(crate) fn servers(&self) -> &[Arc<Server>] {
        match self {
            Self::One(one) => std::slice::from_ref(&one.server),
            Self::Many(many) => &many.members,
        }
    }

    /// What lies between a client of `era` and the server, or some of the servers: all are crossed in one direction.
    fn crossing(&self, era: Era) -> Crossing {
        match self {
            Self::One(one) => one.crossing,
            Self::Many(many) => {
                let mut crossings = many.members.iter().map(|server| Crossing::between(era, server));
                crossings.find(|crossing| *crossing != Crossing::None).unwrap_or(Crossing::None)
            }
        }
    }

    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        match self {
            Self::One(one) => one.session.as_ref(),
            Self::Many(many) => many.session.as_ref(),
        }
    }
}

impl One {
    /// What the server is told in another way than was judged: the id of a question of its own, and that the client could have
    /// tasks, where a bridge leads to it from the aggregate or the client has too many. What the caller names was put into
    /// the server's own words before anything was judged (`shown`). Read from the very message that is sent, for a mask moves what comes after it.
    pub(crate) fn edits(&self, message: &Message) -> Vec<(Span, Vec<u8>)> {
        let mut edits = Vec::new();
        if let (Some(question), Some(id)) = (&self.answers, message.id_member()) {
            edits.push((id.span, question.id.as_bytes().to_vec()));
        }
        let is_bridged = self.crossing != Crossing::None;
        if (is_bridged && self.shown.is_some()) || (!is_bridged && self.lacks_room) {
            edits.extend(task::without_tasks(message));
        }
        edits
    }

    /// Whether the call may change something: what a tool does unless the operator says it reads, and what nobody knows.
    pub(crate) fn changes_state(&self) -> bool {
        match self.action {
            Some(Action::ToolExecute) => self.resource.class.changes_state(),
            Some(Action::MethodCall | Action::TaskManage) => true,
            Some(
                Action::ResourceRead
                | Action::ResourceSubscribe
                | Action::PromptGet
                | Action::CompletionComplete
                | Action::ServerSample
                | Action::ServerElicit
                | Action::ServerRoots,
            )
            | None => false,
        }
    }
}

/// Refuses to open a stream of ours to a client whose `Accept` takes none. SPEC: it must list `text/event-stream`. A server that is
/// asked itself says so itself, and who has no `Accept` takes anything (RFC 9110, 12.5.1).
fn takes_stream(target: &Target, call: &Call) -> Result<(), Stop> {
    let is_ours = match target {
        Target::Many(_) => true,
        Target::One(one) => {
            one.crossing != Crossing::None || one.resumes.is_some() || one.server.carriage() != Carriage::Requests
        }
    };
    if is_ours { takes_ours(call) } else { Ok(()) }
}

/// The same where the stream is ours in any case.
pub(crate) fn takes_ours(call: &Call) -> Result<(), Stop> {
    if call.contradicts_itself() { Err(not_taken(Stage::Resolve)) } else { Ok(()) }
}

/// The answer would be a stream of ours, and the client takes none.
pub(crate) fn not_taken(stage: Stage) -> Stop {
    let why = "the answer is a stream of events, and `Accept` has no `text/event-stream`";
    Stop::refused(stage, "accept", error::INVALID_REQUEST, why).status(StatusCode::NOT_ACCEPTABLE)
}

impl Noted for Target {
    const STAGE: Stage = Stage::Resolve;

    fn note(&self, facts: &mut Facts) {
        facts.session = self.session().map(|session| session.digest);
        facts.bridged = self.crossing(facts.era).into_era();
        if let Self::One(one) = self {
            facts.server = Some(one.server.name.clone());
            facts.target = Some(Label::of(&one.resource.id.name, one.action));
            facts.action = one.action;
            if one.action == Some(Action::ToolExecute) {
                facts.class = Some(one.resource.class);
            }
        }
    }
}

impl Line {
    /// Finds what a call is about, within what the caller may see. From here on the call says what that one server will
    /// get: names, addresses and tasks of the aggregate are the server's own.
    pub(crate) async fn resolve(&self, caller: &Caller, call: &mut Call, now: Moment) -> Result<Target, Stop> {
        self.attempt(caller, now)?;
        self.attend(caller, call)?;
        let target = self.target(caller, call).await?;
        self.attend_at(caller, &target, call)?;
        takes_stream(&target, call)?;
        if let Target::One(one) = &target {
            self.to_own(caller, one, call)?;
        }
        Ok(target)
    }

    async fn target(&self, caller: &Caller, call: &Call) -> Result<Target, Stop> {
        match &call.route {
            Route::All => {
                let session = self.session(caller, call, true)?;
                Box::pin(aggregate::resolve(self, caller, call, session)).await
            }
            Route::One(name) => {
                // SECURITY: first of all, so that nothing else can tell a hidden server from none.
                let server = self.door(caller, name)?;
                let crossing = self.fit(server, caller, call).await?;
                let alone = server.carriage() == Carriage::Requests && crossing == Crossing::None;
                // A web server of the client's era knows by itself which session a message belongs to.
                let session = self.session(caller, call, !alone)?;
                if let Some(session) = session.as_ref().filter(|_| !alone)
                    && let Some(one) = self.resumed(caller, call, session, std::slice::from_ref(server))?
                {
                    return Ok(Target::One(Box::new(one)));
                }
                self.on_server(server, session, caller, call).await.map(Target::One)
            }
        }
    }

    /// The stream of a call that was cut, where the client asks for its rest. `None`: it asks for no such thing.
    pub(crate) fn resumed(
        &self,
        caller: &Caller,
        call: &Call,
        session: &Arc<Session>,
        servers: &[Arc<Server>],
    ) -> Result<Option<One>, Stop> {
        let Some(id) = call.last_event() else { return Ok(None) };
        let (place, about) = match session.find_event(id) {
            Found::Listening(_) => return Ok(None),
            Found::Call(place, about) => (place, about),
            Found::Nothing => return Err(no_such_event()),
        };
        let server = servers.iter().find(|server| server.name == about.server).ok_or_else(no_such_event)?;
        // SECURITY: what the caller may not see any more is not given again, and answers like what is not known.
        let subject = &caller.subject;
        let resource = server.resource(&about.name);
        if !about.actions.iter().all(|action| self.snapshot.policies.visible(subject, *action, &resource)) {
            return Err(no_such_event());
        }
        let mut one = One::open(server, Some(Arc::clone(session)), call.era, call.method());
        one.resumes = Some(place);
        Ok(Some(one))
    }

    /// The server behind a door, if the caller may see anything of it.
    pub(crate) fn door(&self, caller: &Caller, name: &ServerName) -> Result<&Arc<Server>, Stop> {
        let server = self.snapshot.servers.get(name).ok_or_else(no_such_server)?;
        if self.snapshot.policies.reaches(&caller.subject, server.root()) {
            Ok(server)
        } else {
            Err(no_such_server().decided(&self.snapshot.policies, Vec::new()))
        }
    }

    /// The session that the caller names, if it is the caller's.
    fn session(&self, caller: &Caller, call: &Call, needed: bool) -> Result<Option<Arc<Session>>, Stop> {
        if call.era == Era::Modern || call.message().is_some_and(|message| message.method() == "initialize") {
            return Ok(None);
        }
        let Some(handle) = call.session_handle() else {
            return if needed { Err(no_session_named()) } else { Ok(None) };
        };
        // Read anew: a look at the server may have been waited for.
        let now = self.state.clock.ticks();
        match self.state.sessions.find(handle, &caller.principal, &call.route, now) {
            Some(session) => contradiction(&session, &call.headers).map_or(Ok(Some(session)), Err),
            None => Err(no_such_session()),
        }
    }

    /// Refuses a server of another era to which no bridge leads, naming both. One of which nobody knows yet whether it speaks
    /// this era, for it was down when it was looked at, is looked at first: by one look for all who wait, soon after each other.
    async fn fit(&self, server: &Arc<Server>, caller: &Caller, call: &Call) -> Result<Crossing, Stop> {
        // Whoever calls a tool of a web server looks for the tool anyway, and is told what became of that.
        let looks_later = call.method() == "tools/call" && !server.is_unknown(call.era);
        if server.is_unseen(call.era) && !looks_later {
            // The fault is kept with the server; whoever needs the server will meet it. A web server that cannot be looked at
            // may still answer this client.
            let _ = self.catalog(server).await;
        }
        Crossing::to(call.era, server).ok_or_else(|| {
            let session = self.session(caller, call, false).ok().flatten();
            other_era(server, call, session.as_deref())
        })
    }

    /// Reads what a message wants of one server.
    pub(crate) async fn on_server(
        &self,
        server: &Arc<Server>,
        session: Option<Arc<Session>>,
        caller: &Caller,
        call: &Call,
    ) -> Result<Box<One>, Stop> {
        let Operation::Message(message) = &call.operation else {
            return Ok(Box::new(One::open(server, session, call.era, call.method())));
        };
        match message.kind() {
            Kind::Response => self.one_answering(server, session, message),
            Kind::Request | Kind::Notification => {
                let method = message.method();
                if mcp::method::is_open(method) {
                    return Ok(Box::new(One::open(server, session, call.era, method)));
                }
                let action = client_action(message);
                let name = name_of(action, message)?;
                self.named(server, session, caller, call, action, &name).await
            }
        }
    }

    /// A named thing on a server, if the caller may see it.
    pub(crate) async fn named(
        &self,
        server: &Arc<Server>,
        session: Option<Arc<Session>>,
        caller: &Caller,
        call: &Call,
        action: Action,
        name: &str,
    ) -> Result<Box<One>, Stop> {
        let (resource, skips_schema) = server.resource_and_waiver(name);
        let about =
            || Some(About { server: server.name.clone(), name: Arc::clone(&resource.id.name), action: Some(action) });
        // SECURITY: names that the caller may not see are not looked up in the catalog, and cause the look that a missing
        // one causes: neither time nor traffic tells those that exist from those that do not, or the hidden from the missing.
        let visible = |action| self.snapshot.policies.visible(&caller.subject, action, &resource);
        let unseen = |fault: &UpstreamFault| fault.stop(&server.name).at(Stage::Resolve);
        // Completions tell of what they complete.
        let completed = call.message().filter(|_| action == Action::CompletionComplete).and_then(reference);
        let needed = [Some(action), completed.map(|(action, _)| action)];
        if let Some(lacking) = needed.into_iter().flatten().find(|action| !visible(*action)) {
            if action == Action::ToolExecute {
                self.miss(server).await.map_err(|fault| unseen(&fault).about(about()))?;
                let asked = self.tool_apart(server, session.as_ref(), (caller, call), None).await;
                asked.map_err(|fault| unseen(&fault).about(about()))?;
            }
            return Err(missing(action, name, call.era, "hidden")
                .decided(&self.snapshot.policies, self.hiding(caller, lacking, &resource))
                .about(about()));
        }
        let (mut tool, mut task, mut lacks_room) = (None, None, false);
        match action {
            Action::ToolExecute => {
                let mut found =
                    self.tool(server, call.era, name).await.map_err(|fault| unseen(&fault).about(about()))?;
                if found.is_none() {
                    let apart = self.tool_apart(server, session.as_ref(), (caller, call), Some(name)).await;
                    found = apart.map_err(|fault| unseen(&fault).about(about()))?;
                }
                tool = Some(found.ok_or_else(|| missing(action, name, call.era, "unknown").about(about()))?);
                lacks_room = !self.room_for_task(caller, server, call).map_err(|stop| stop.about(about()))?;
            }
            Action::TaskManage => {
                task = self.own_task(caller, server, call).map_err(|stop| stop.about(about()))?;
            }
            _ => {}
        }
        // What was looked up on the way may have said which era the server speaks.
        let Some(crossing) = Crossing::to(call.era, server) else {
            return Err(other_era(server, call, session.as_deref()).about(about()));
        };
        // SPEC: it names the task as the body does (2026-07-28, tasks). On the client's hop nobody is refused for leaving it out.
        let name_header = task.as_deref().filter(|_| call.era == Era::Modern).map(mcp::name_value);
        Ok(Box::new(One {
            server: Arc::clone(server),
            crossing,
            session,
            action: Some(action),
            resource,
            tool,
            skips_schema,
            name_header,
            after: None,
            resumes: None,
            answers: None,
            shown: None,
            task,
            lacks_room,
        }))
    }
}

impl One {
    fn open(server: &Arc<Server>, session: Option<Arc<Session>>, era: Era, method: &str) -> Self {
        Self {
            server: Arc::clone(server),
            crossing: Crossing::between(era, server),
            session,
            action: None,
            resource: server.resource(method),
            tool: None,
            skips_schema: false,
            name_header: None,
            after: None,
            resumes: None,
            answers: None,
            shown: None,
            task: None,
            lacks_room: false,
        }
    }
}

impl Line {
    /// The rules that hide a thing, for the log alone.
    fn hiding(&self, caller: &Caller, action: Action, resource: &policy::Resource) -> Vec<RuleId> {
        let question = Question {
            subject: &caller.subject,
            action,
            resource,
            arguments: &Value::Null,
            digest: Digest::of(&[]),
            findings: &[],
            now: self.state.clock.now(),
        };
        self.snapshot.policies.authorize(&question).err().map(|refusal| refusal.rules).unwrap_or_default()
    }
}

impl Line {
    /// A client's answer is matched to the question and never routed as a call.
    pub(crate) fn one_answering(
        &self,
        server: &Arc<Server>,
        session: Option<Arc<Session>>,
        message: &Message,
    ) -> Result<Box<One>, Stop> {
        let asked = session.as_ref().zip(message.id());
        let Some(taken) = asked.and_then(|(session, id)| Taken::take(self, session, &server.name, id)) else {
            return Err(no_such_question());
        };
        let action = mcp::method::action(taken.method()).unwrap_or(Action::MethodCall);
        let mut one = Box::new(One::open(server, session, Era::Legacy, taken.method()));
        one.action = Some(action);
        one.answers = Some(Box::new(taken));
        Ok(one)
    }
}

/// What a client's method asks for. What only servers may ask is an unknown method here.
pub(crate) fn client_action(message: &Message) -> Action {
    match mcp::method::action(message.method()) {
        Some(Action::ServerSample | Action::ServerElicit | Action::ServerRoots) | None => Action::MethodCall,
        // SPEC: the modern era follows resources in `subscriptions/listen`; there these methods do not exist.
        Some(Action::ResourceSubscribe) if message.era() == Era::Modern => Action::MethodCall,
        Some(action) => action,
    }
}

/// The name that policy judges.
pub(crate) fn name_of(action: Action, message: &Message) -> Result<String, Stop> {
    let named = match action {
        Action::ToolExecute | Action::PromptGet | Action::ResourceRead | Action::ResourceSubscribe => {
            message.subject().map(std::borrow::Cow::into_owned)
        }
        Action::CompletionComplete => reference(message).map(|(_, name)| name),
        Action::TaskManage | Action::MethodCall | Action::ServerSample | Action::ServerElicit | Action::ServerRoots => {
            Some(message.method().to_owned())
        }
    };
    named.ok_or_else(|| {
        Stop::refused(
            Stage::Resolve,
            "no-name",
            error::INVALID_PARAMS,
            format!("`{}` must name what it acts on, as text", message.method()),
        )
    })
}

/// Where a message names what it is about: itself, or what it wants completed.
pub(crate) fn named_member(message: &Message) -> Option<mcp::Member<'_>> {
    message.subject_member().or_else(|| message.param(&["ref", "name"])).or_else(|| message.param(&["ref", "uri"]))
}

/// What a completion is for, and the right without which it is hidden. One that names two things names nothing.
pub(crate) fn reference(message: &Message) -> Option<(Action, String)> {
    let kind = message.param(&["ref", "type"])?;
    let (action, member, other) = match kind.text()?.as_ref() {
        "ref/prompt" => (Action::PromptGet, "name", "uri"),
        "ref/resource" => (Action::ResourceRead, "uri", "name"),
        _ => return None,
    };
    if message.param(&["ref", other]).is_some() {
        return None;
    }
    Some((action, message.param(&["ref", member])?.text()?.into_owned()))
}

/// The digest that binds a permit to what was asked.
pub(crate) fn digest_of(message: Option<&Message>) -> Digest {
    let params = message.and_then(|message| message.params().or_else(|| message.result()));
    Digest::of(params.unwrap_or_default())
}
