"""One row of the matrix of tasks: a client of 2026-07-28 at every server with tasks, on the official Python SDK.

    python tasks.py WAY REVISION CELL...

How it is called and what it prints: tests/js/visit.mjs. The steps are those of tests/js/tasks.mjs.
"""

import asyncio
import re
import uuid
from typing import Any, Literal

import mcp.types as types
from mcp import MCPError
from mcp.client import ClientExtension, ResultClaim

from stranger import text_of
from visit import BEGIN, Lacking, Refused, connected, tell, visit_all

EXTENSION = "io.modelcontextprotocol/tasks"
# What the servers give their tasks for ids.
OWN = re.compile("[0-9a-f]{32}")


class Begun(types.Result):
    result_type: Literal["task"] = "task"
    task_id: str
    status: str


class Looked(types.Result):
    task_id: str
    status: str
    result: dict[str, Any] | None = None
    input_requests: dict[str, Any] | None = None


class Named(types.RequestParams):
    task_id: str


class Answered(Named):
    input_responses: dict[str, Any]


class Get(types.Request[Named, Literal["tasks/get"]]):
    method: Literal["tasks/get"] = "tasks/get"
    params: Named
    name_param = "taskId"


class Update(types.Request[Answered, Literal["tasks/update"]]):
    method: Literal["tasks/update"] = "tasks/update"
    params: Answered
    name_param = "taskId"


class Cancel(types.Request[Named, Literal["tasks/cancel"]]):
    method: Literal["tasks/cancel"] = "tasks/cancel"
    params: Named
    name_param = "taskId"


class Tasks(ClientExtension):
    """Says that the client knows what a task is."""

    identifier = EXTENSION

    def claims(self):
        async def resolve(_begun, _context):
            raise RuntimeError("tasks are followed by whoever began them")

        return [ResultClaim(result_type="task", model=Begun, resolve=resolve)]


class Follower:
    """A client that has tasks, with the names of one server."""

    def __init__(self, client, prefix):
        self.session, self.prefix = client.session, prefix

    async def call(self, name, given=None):
        return await self.session.call_tool(self.prefix + name, given or {}, allow_claimed=True)

    async def get(self, task):
        return await self.session.send_request(Get(params=Named(task_id=task)), Looked)

    async def update(self, task, answers):
        request = Update(params=Answered(task_id=task, input_responses=answers))
        return await self.session.send_request(request, types.Result)

    async def cancel(self, task):
        return await self.session.send_request(Cancel(params=Named(task_id=task)), types.Result)

    async def until(self, task, *wanted):
        while True:
            looked = await self.get(task)
            if looked.status in wanted:
                return looked
            await asyncio.sleep(0.05)


class Story:
    def __init__(self, follower):
        self.follower, self.short = follower, None

    def own(self):
        if self.short is None:
            raise Lacking("there is no task")
        return self.short

    async def begin(self, name, given=None):
        self.own()
        return (await self.follower.call(name, given)).task_id

    async def begins(self):
        answer = await self.follower.call("test_task_short")
        if isinstance(answer, types.CallToolResult):
            if answer.is_error:
                raise Refused(f"“{text_of(answer)}”")
            assert text_of(answer) == "It is done."
            return "the call waits for its result"
        self.short = answer.task_id
        # On the aggregate ids carry their server, sealed.
        assert bool(OWN.fullmatch(self.short)) == (not self.follower.prefix), self.short

    async def status(self):
        assert (await self.follower.get(self.own())).status in ("working", "completed")

    async def result(self):
        gate = str(uuid.uuid4())
        task = await self.begin("test_task_gate", {"gate": gate})
        assert (await self.follower.get(task)).status == "working"
        await self.follower.call("test_gate_open", {"gate": gate})
        looked = await self.follower.until(task, "completed")
        assert looked.result["content"][0]["text"] == "The gate is open."

    async def question(self):
        task = await self.begin("test_task_question")
        asked = (await self.follower.until(task, "input_required")).input_requests
        assert asked["who"]["method"] == "elicitation/create", asked
        await self.follower.update(task, {"who": {"action": "accept", "content": {"username": "Ada"}}})
        looked = await self.follower.until(task, "completed")
        assert looked.result["content"][0]["text"] == "Hello, Ada!"

    async def cancels(self):
        task = await self.begin("test_task_gate", {"gate": str(uuid.uuid4())})
        await self.follower.cancel(task)
        await self.follower.until(task, "cancelled")

    async def unknown(self):
        self.own()
        try:
            await self.follower.get("no-such-task")
        except MCPError as error:
            assert error.code == -32602, error
        else:
            raise AssertionError("it is known")

    def steps(self):
        return {
            "begin a task": self.begins,
            "status": self.status,
            "result": self.result,
            "question in a task": self.question,
            "cancelled task": self.cancels,
            "list of tasks": "the client’s revision has no such list",
            "news of a task": "the client’s SDK listens to no tasks",
            "unknown task": self.unknown,
        }


async def story(cell, step):
    async with connected(cell, extensions=[Tasks()]) as client:
        await step("session", client.list_tools, BEGIN)
        for name, run in Story(Follower(client, cell.prefix)).steps().items():
            if isinstance(run, str):
                tell("lacks", name, run)
            else:
                await step(name, run)


asyncio.run(visit_all(story))
