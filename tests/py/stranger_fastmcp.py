"""The FastMCP client: with a session, and as it decides by itself which era to speak.

    python stranger_fastmcp.py WHAT URL [WHAT URL ...]     WHAT as in stranger.py
"""

import dataclasses
from contextlib import asynccontextmanager

from fastmcp import Client

from stranger import tell


async def elicit(_message, response_type, _params, _context):
    return response_type(**{field.name: "Ada" for field in dataclasses.fields(response_type)})


async def sample(_messages, _params, _context):
    return "Yes, Ada"


class Adapter:
    def __init__(self, client):
        self.client = client
        self.era = "modern" if client.protocol_version >= "2026" else "legacy"

    async def tools(self):
        return await self.client.list_tools()

    async def call(self, name, given=None, progress=None):
        return await self.client.call_tool(name, given or {}, progress_handler=progress, raise_on_error=False)

    async def prompt(self, name, given):
        return await self.client.get_prompt(name, given)

    async def resources(self):
        return await self.client.list_resources()

    async def read(self, uri):
        return await self.client.read_resource(uri)


def opener(mode):
    @asynccontextmanager
    async def opened(url):
        async with Client(url, mode=mode, elicitation_handler=elicit, sampling_handler=sample) as client:
            yield Adapter(client)

    return opened


tell({"legacy": opener("legacy"), "auto": opener("auto")})
