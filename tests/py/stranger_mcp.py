"""The official Python SDK, in both eras where the server has both.

    python stranger_mcp.py WHAT URL [WHAT URL ...]     WHAT as in stranger.py
"""

from contextlib import asynccontextmanager

import mcp.types as types
from mcp import Client

from stranger import tell


async def elicit(_context, params):
    names = params.requested_schema["properties"]
    return types.ElicitResult(action="accept", content={name: "Ada" for name in names})


async def sample(_context, _params):
    content = types.TextContent(type="text", text="Yes, Ada")
    return types.CreateMessageResult(role="assistant", model="none", content=content)


class Adapter:
    def __init__(self, client, era):
        self.client, self.era = client, era

    async def tools(self):
        return (await self.client.list_tools()).tools

    async def call(self, name, given=None, progress=None):
        return await self.client.call_tool(name, given or {}, progress_callback=progress)

    async def prompt(self, name, given):
        return await self.client.get_prompt(name, given)

    async def resources(self):
        return (await self.client.list_resources()).resources

    async def read(self, uri):
        return (await self.client.read_resource(uri)).contents


def opener(mode, era):
    @asynccontextmanager
    async def opened(url):
        async with Client(url, mode=mode, elicitation_callback=elicit, sampling_callback=sample) as client:
            yield Adapter(client, era)

    return opened


if __name__ == "__main__":
    tell({"legacy": opener("legacy", "legacy"), "modern": opener("2026-07-28", "modern")})
