"""What every foreign Python client does to every foreign server: one session, told in steps.

The clients differ in small ways; each brings an adapter, and this file never sees an SDK. Prints "ok STEP" per step.
"""

import asyncio
import json
import sys
import time
import traceback
import uuid


def text_of(result):
    return next(block.text for block in result.content if block.type == "text")


async def fixture(client, ok, authority=""):
    names = [tool.name for tool in await client.tools()]
    assert "test_simple_text" in names and len(names) > 20, names
    ok("lists tools")
    assert text_of(await client.call("test_simple_text")) == "This is a simple text response for testing."
    ok("calls a tool")
    assert (await client.call("test_error_handling")).is_error
    ok("gets a tool error as a result")
    mixed = await client.call("test_multiple_content_types")
    assert [block.type for block in mixed.content] == ["text", "image", "resource"]
    ok("gets mixed content")
    large = text_of(await client.call("test_large_text", {"kilobytes": 512}))
    assert len(large) == 512 * 1024
    ok("gets a large result whole")
    await opens_gate(client, ok)
    prompt = await client.prompt("test_prompt_with_arguments", {"arg1": "a", "arg2": "b"})
    assert prompt.messages[0].content.text == "Prompt with arguments: arg1='a', arg2='b'"
    ok("gets a prompt")
    assert len(await client.resources()) >= 3
    ok("lists resources")
    contents = await client.read(f"test://{authority}template/7/data")
    assert json.loads(contents[0].text)["id"] == "7"
    ok("reads a templated resource")
    if "test_elicitation" in names:
        assert "Ada" in text_of(await client.call("test_elicitation", {"message": "Who?"}))
        ok("answers a question from the server")
    many = await asyncio.gather(*(client.call("test_simple_text") for _ in range(20)))
    assert len(many) == 20
    ok("makes twenty calls at once")
    await abandons_heard(client, ok)


async def everything(client, ok):
    assert "get-sum" in [tool.name for tool in await client.tools()]
    ok("lists tools")
    assert "42" in text_of(await client.call("get-sum", {"a": 2, "b": 40}))
    ok("calls a tool")
    await progresses(client, "trigger-long-running-operation", {"duration": 1, "steps": 4}, ok)
    assert "Yes, Ada" in text_of(await client.call("trigger-sampling-request", {"prompt": "Hello?"}))
    ok("answers a sampling request")
    assert (await client.prompt("args-prompt", {"city": "Paris"})).messages
    ok("gets a prompt")
    first = next(resource for resource in await client.resources() if str(resource.uri).startswith("demo://"))
    assert (await client.read(str(first.uri)))[0].text
    ok("reads a resource")
    await abandons(client, "trigger-long-running-operation", {"duration": 20, "steps": 80}, ok)


async def files(client, ok):
    assert "read_text_file" in [tool.name for tool in await client.tools()]
    ok("lists tools")
    folder = text_of(await client.call("list_allowed_directories")).splitlines()[1]
    assert "hello from a file" in text_of(await client.call("read_text_file", {"path": f"{folder}/hello.txt"}))
    ok("reads a file")
    assert (await client.call("read_text_file", {"path": "/etc/hostname"})).is_error
    ok("is refused outside its folder")


STORIES = {"fixture": fixture, "everything": everything, "files": files}


async def opens_gate(client, ok):
    """The call ends only after its first progress was heard, so nothing may hold that back until the result."""
    gate = str(uuid.uuid4())
    opening = []

    async def note(_progress, _total=None, _message=None):
        opening.append(asyncio.create_task(client.call("test_gate_open", {"gate": gate})))

    assert text_of(await client.call("test_gate_wait", {"gate": gate}, progress=note)) == "The gate is open."
    await asyncio.gather(*opening)
    ok("hears progress before the result exists")


async def progresses(client, tool, given, ok):
    seen = []

    async def note(progress, _total=None, _message=None):
        seen.append((progress, time.monotonic()))

    await client.call(tool, given, progress=note)
    assert len(seen) >= 2, f"only {len(seen)} progress messages"
    assert time.monotonic() - seen[0][1] > 0.06, "the first progress came only with the result"
    ok("sees progress while the call runs")


async def abandons_heard(client, ok):
    """The call would wait longer than its client stays: an answer that crosses the end of a session breaks the SDK (2.3.0)."""
    gate = str(uuid.uuid4())
    begun = asyncio.Event()

    async def note(_progress, _total=None, _message=None):
        begun.set()

    call = asyncio.create_task(client.call("test_gate_wait", {"gate": gate}, progress=note))
    await begun.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    while text_of(await client.call("test_gate_is_cancelled", {"gate": gate})) != "yes":
        await asyncio.sleep(0.02)
    ok("abandons a call, and its server hears of it")


async def abandons(client, tool, given, ok):
    call = asyncio.create_task(client.call(tool, given))
    await asyncio.sleep(0.03)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await client.tools()
    ok("abandons a call and goes on")


class Prefixed:
    """The client of an aggregate, as if one server were behind it: its names and addresses say which one is meant."""

    def __init__(self, client, prefix):
        self.client, self.prefix, self.era = client, prefix, client.era
        self.authority = f"durward://{prefix.removesuffix('__')}/"

    async def tools(self):
        own = [tool for tool in await self.client.tools() if tool.name.startswith(self.prefix)]
        return [tool.model_copy(update={"name": tool.name.removeprefix(self.prefix)}) for tool in own]

    async def call(self, name, given=None, progress=None):
        return await self.client.call(self.prefix + name, given, progress)

    async def prompt(self, name, given):
        return await self.client.prompt(self.prefix + name, given)

    async def resources(self):
        own = [found for found in await self.client.resources() if str(found.uri).startswith(self.authority)]
        return [found.model_copy(update={"uri": str(found.uri).removeprefix(self.authority)}) for found in own]

    async def read(self, uri):
        return await self.client.read(self.authority + uri)


async def session(what, url, openers):
    story = what.removesuffix("__")
    for name, opener in openers.items():
        # Only the fixture speaks 2026-07-28.
        if name != "legacy" and story != "fixture":
            continue
        async with opener(url) as client:
            told = client if story == what else Prefixed(client, what)
            await asyncio.wait_for(STORIES[story](told, lambda step: print(f"ok {name} {step}", flush=True)), 60)


def tell(openers):
    """Tells each story of the command line, `WHAT URL` after `WHAT URL`, with every client that `openers` can open for it;
    ends the process. `fixture__` is the story of `fixture` where names carry that prefix and other servers answer too.
    """
    rest = sys.argv[1:]
    failures = 0
    for what, url in zip(rest[::2], rest[1::2]):
        begun = time.monotonic()
        print(f"begin {what} {url}", flush=True)
        try:
            asyncio.run(session(what, url, openers))
        except BaseException:
            print("failed", flush=True)
            traceback.print_exc()
            failures += 1
        print(f"took {time.monotonic() - begun:.1f}", flush=True)
    sys.exit(1 if failures else 0)
