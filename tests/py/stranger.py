"""What every foreign Python client does to every foreign server: one session, told in steps.

The clients differ in small ways; each brings an adapter, and this file never sees an SDK. Prints "ok STEP" per step.
"""

import asyncio
import json
import sys
import time
import traceback


def text_of(result):
    return next(block.text for block in result.content if block.type == "text")


async def fixture(client, ok):
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
    await progresses(client, "test_tool_with_progress", {}, ok)
    prompt = await client.prompt("test_prompt_with_arguments", {"arg1": "a", "arg2": "b"})
    assert prompt.messages[0].content.text == "Prompt with arguments: arg1='a', arg2='b'"
    ok("gets a prompt")
    assert len(await client.resources()) >= 3
    ok("lists resources")
    contents = await client.read("test://template/7/data")
    assert json.loads(contents[0].text)["id"] == "7"
    ok("reads a templated resource")
    if client.era == "modern":
        asked = await client.call("test_input_required_result_elicitation")
    else:
        asked = await client.call("test_elicitation", {"message": "Who?"})
    assert "Ada" in text_of(asked)
    ok("answers a question from the server")
    many = await asyncio.gather(*(client.call("test_simple_text") for _ in range(20)))
    assert len(many) == 20
    ok("makes twenty calls at once")
    await abandons(client, "test_tool_with_progress", {}, ok)


async def everything(client, ok):
    assert "get-sum" in [tool.name for tool in await client.tools()]
    ok("lists tools")
    assert "42" in text_of(await client.call("get-sum", {"a": 2, "b": 40}))
    ok("calls a tool")
    await progresses(client, "trigger-long-running-operation", {"duration": 0.4, "steps": 4}, ok)
    assert "Yes, Ada" in text_of(await client.call("trigger-sampling-request", {"prompt": "Hello?"}))
    ok("answers a sampling request")
    assert (await client.prompt("args-prompt", {"city": "Paris"})).messages
    ok("gets a prompt")
    first = (await client.resources())[0]
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


async def progresses(client, tool, given, ok):
    seen = []

    async def note(progress, _total=None, _message=None):
        seen.append((progress, time.monotonic()))

    await client.call(tool, given, progress=note)
    assert len(seen) >= 2, f"only {len(seen)} progress messages"
    assert time.monotonic() - seen[0][1] > 0.06, "the first progress came only with the result"
    ok("sees progress while the call runs")


async def abandons(client, tool, given, ok):
    call = asyncio.create_task(client.call(tool, given))
    await asyncio.sleep(0.03)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await client.tools()
    ok("abandons a call and goes on")


def tell(openers):
    """Runs the story named on the command line with every client that `openers` can open; ends the process."""
    url, what = sys.argv[1:3]

    async def run():
        for name, (applies, opener) in openers.items():
            if what not in applies:
                continue
            async with opener(url) as client:
                await asyncio.wait_for(STORIES[what](client, lambda step: print(f"ok {name} {step}", flush=True)), 60)

    try:
        asyncio.run(run())
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
