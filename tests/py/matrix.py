"""Two rows of the matrix: the official Python SDK at every server and door that it is told of. See tests/js/matrix.mjs.

    python matrix.py WAY REVISION CELL...

The steps are those of the story in stranger.py, which ends at the first that does not work.
"""

import asyncio
import os
import sys
from contextlib import AsyncExitStack

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from stranger import Prefixed, fixture
from stranger_mcp import Adapter, elicit, sample


async def main():
    way, revision, *cells = sys.argv[1:]
    for cell in cells:
        name, _spoken, prefix, url = cell.split(",")
        print(f"cell {name}", flush=True)
        try:
            await asyncio.wait_for(visit(way, revision, prefix, url), 40)
        except Exception as error:
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            code = getattr(getattr(error, "error", None), "code", None)
            words = " ".join(str(error).split())
            print(f"refused session: {code} “{words}”" if code else f"fails session: {words}", flush=True)


async def visit(way, revision, prefix, url):
    key = os.environ["DURWARD_KEY"]
    async with AsyncExitStack() as stack:
        if way == "stdio":
            program = os.environ["DURWARD_CONNECT"]
            server = StdioServerParameters(command=program, args=["connect", url], env={"DURWARD_KEY": key})
        else:
            bearer = {"authorization": f"Bearer {key}"}
            http = await stack.enter_async_context(httpx2.AsyncClient(headers=bearer, timeout=30))
            server = streamable_http_client(url, http_client=http)
        mode = revision if revision >= "2026" else "legacy"
        opened = Client(server, mode=mode, elicitation_callback=elicit, sampling_callback=sample)
        client = Adapter(await stack.enter_async_context(opened), "modern" if revision >= "2026" else "legacy")
        told = Prefixed(client, prefix) if prefix else client
        await fixture(told, lambda step: print(f"works {step}", flush=True), authority(prefix, url))


def authority(prefix, url):
    """The name of the server, which its resources have in their addresses."""
    return f"{prefix.removesuffix('__') or url.rsplit('/', 1)[-1]}/"


asyncio.run(main())
