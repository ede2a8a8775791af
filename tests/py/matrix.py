"""Two rows of the matrix: the official Python SDK at every server and door that it is told of. See tests/js/visit.mjs.

    python matrix.py WAY REVISION CELL...

The steps are those of the story in stranger.py, which ends at the first that does not work.
"""

import asyncio

from stranger import Prefixed, fixture
from stranger_mcp import Adapter
from visit import connected, tell, visit_all


async def story(cell, _step):
    async with connected(cell) as connection:
        client = Adapter(connection, "modern" if cell.is_modern else "legacy")
        told = Prefixed(client, cell.prefix) if cell.prefix else client
        await fixture(told, lambda step: tell("works", step), authority(cell))


def authority(cell):
    """The name of the server, which its resources have in their addresses."""
    return f"{cell.prefix.removesuffix('__') or cell.url.rsplit('/', 1)[-1]}/"


asyncio.run(visit_all(story))
