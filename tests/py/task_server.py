"""A server with tasks as 2026-07-28 has them, an extension, on the official Python SDK, which has a place for extensions.

    python task_server.py --port N

It speaks no other revision. The same tools with the tasks of 2025-11-25: tests/js/fixture-task.mjs.
"""

import argparse
import asyncio
import uuid
from datetime import datetime, timezone

import mcp.types as types
from mcp import MCPError
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import MCPServer

LIFE, POLL, SHORT, PATIENCE = 60_000, 50, 0.1, 10
EXTENSION = "io.modelcontextprotocol/tasks"
ENDS = ("completed", "failed", "cancelled")

# Tasks that wait, and what lets them go on.
gates: dict[str, asyncio.Event] = {}


class Named(types.RequestParams):
    task_id: str


class Answered(Named):
    input_responses: dict


class Task:
    """A call that goes on by itself. `question` is what it waits for the client to answer."""

    def __init__(self, run):
        self.id, self.status, self.result = uuid.uuid4().hex, "working", None
        self.begun = datetime.now(timezone.utc).isoformat()
        self.question, self.answer = None, None
        self.running = asyncio.create_task(self.go_on(run))

    async def go_on(self, run):
        try:
            self.result = {"content": [{"type": "text", "text": await run(self)}]}
            self.status = "completed"
        except asyncio.CancelledError:
            self.status = "cancelled"

    async def ask(self, question):
        self.question, self.answer = question, asyncio.get_running_loop().create_future()
        self.status = "input_required"
        answer = await self.answer
        self.question, self.status = None, "working"
        return answer

    def shown(self):
        return {
            "taskId": self.id,
            "status": self.status,
            "createdAt": self.begun,
            "lastUpdatedAt": datetime.now(timezone.utc).isoformat(),
            "ttlMs": LIFE,
            "pollIntervalMs": POLL,
        }


async def short(_task, _given):
    await asyncio.sleep(SHORT)
    return "It is done."


async def gate(_task, given):
    await asyncio.wait_for(gates.setdefault(given["gate"], asyncio.Event()).wait(), PATIENCE)
    return "The gate is open."


async def question(task, _given):
    fields = {"type": "object", "properties": {"username": {"type": "string"}}, "required": ["username"]}
    asked = {"method": "elicitation/create", "params": {"mode": "form", "message": "Who?", "requestedSchema": fields}}
    answer = await task.ask(asked)
    return f"Hello, {answer['content']['username']}!"


BECOMING = {"test_task_short": short, "test_task_gate": gate, "test_task_question": question}


class Tasks(Extension):
    """Calls of clients that know tasks become some."""

    identifier = EXTENSION

    def __init__(self):
        self.tasks: dict[str, Task] = {}

    def methods(self):
        return [
            MethodBinding("tasks/get", Named, self.get),
            MethodBinding("tasks/update", Answered, self.update),
            MethodBinding("tasks/cancel", Named, self.cancel),
        ]

    async def intercept_tool_call(self, params, ctx, call_next):
        can = ctx.session.client_capabilities
        run = BECOMING.get(params.name)
        if run is None or not (can and can.extensions and EXTENSION in can.extensions):
            return await call_next(ctx)
        task = Task(lambda task: run(task, params.arguments or {}))
        self.tasks[task.id] = task
        return {"resultType": "task", **task.shown()}

    def known(self, params):
        task = self.tasks.get(params.task_id)
        if task is None:
            raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown task: {params.task_id}")
        return task

    async def get(self, _ctx, params):
        task = self.known(params)
        return {
            **task.shown(),
            **({"result": task.result} if task.result else {}),
            **({"inputRequests": {"who": task.question}} if task.question else {}),
        }

    async def update(self, _ctx, params):
        task = self.known(params)
        answer = params.input_responses.get("who")
        if answer and task.answer and not task.answer.done():
            task.answer.set_result(answer)
        return {}

    async def cancel(self, _ctx, params):
        task = self.known(params)
        if task.status not in ENDS:
            task.running.cancel()
            await asyncio.gather(task.running, return_exceptions=True)
        return {}


async def modern_alone(ctx, call_next):
    if ctx.method == "initialize":
        raise MCPError(code=types.METHOD_NOT_FOUND, message="Method not found")
    return await call_next(ctx)


def served():
    server = MCPServer("durward-fixture-tasks", version="1.0.0", extensions=[Tasks()], middleware=[modern_alone])

    @server.tool(description="Ends by itself.")
    async def test_task_short() -> str:
        return await short(None, {})

    @server.tool(description="Ends when somebody opens the gate.")
    async def test_task_gate(gate: str) -> str:
        return await BECOMING["test_task_gate"](None, {"gate": gate})

    @server.tool(description="Asks the user for a name.")
    async def test_task_question() -> str:
        raise ValueError("only as a task")

    @server.tool(description="Lets a waiting task go on.")
    async def test_gate_open(gate: str) -> str:
        gates.setdefault(gate, asyncio.Event()).set()
        return "Opened."

    return server


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    served().run("streamable-http", host="127.0.0.1", port=parser.parse_args().port)
