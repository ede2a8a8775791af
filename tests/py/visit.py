"""How a Python client of the matrix visits its cells. What it is told and what it prints: tests/js/visit.mjs."""

import asyncio
import os
import sys
import traceback
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
from mcp import Client, Implementation, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from stranger_mcp import elicit, sample

# What a session of a cell may take, and its beginning, before which a process may have to start, and one step of it.
SESSION, BEGIN, STEP = 60, 30, 10

# The errors by which somebody says no: those that the page has. Any other is a failure.
REFUSALS = {-32600, -32602}


class Refused(Exception):
    """A result that says no."""


class Lacking(Exception):
    """There is no such thing."""


@dataclass
class Cell:
    name: str
    prefix: str
    url: str
    way: str
    revision: str

    @property
    def is_modern(self):
        return self.revision >= "2026"


def tell(word, name, why=None):
    print(f"{word} {name}" + ("" if why is None else f": {' '.join(str(why).split())}"), flush=True)


async def visit_all(story):
    """Visits each cell of the command line: `story(CELL, step)`."""
    way, revision, *cells = sys.argv[1:]
    for cell in cells:
        name, _spoken, prefix, url = cell.split(",")
        print(f"cell {name}", flush=True)
        try:
            await asyncio.wait_for(story(Cell(name, prefix, url, way, revision), step), SESSION)
        except Exception as error:
            traceback.print_exception(error)
            tell(*judged(error, "session"))


async def step(name, run, patience=STEP):
    """Runs a step and says how it went."""
    try:
        otherwise = await asyncio.wait_for(run(), patience)
        if isinstance(otherwise, str):
            tell("turned", name, otherwise)
        else:
            tell("works", name)
    except Exception as error:
        tell(*judged(error, name))


def judged(error, name):
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Lacking):
        return "lacks", name, error
    code = getattr(getattr(error, "error", None), "code", None)
    if code:
        return ("refused" if code in REFUSALS else "fails"), name, f"{code} “{error}”"
    if isinstance(error, TimeoutError):
        return "fails", name, "nothing came in time"
    # Some errors have no words, but a name.
    return ("refused" if isinstance(error, Refused) else "fails"), name, str(error) or type(error).__name__


@asynccontextmanager
async def connected(cell, **more):
    """A client at the cell's door."""
    key = os.environ["DURWARD_KEY"]
    if cell.way == "stdio":
        program = os.environ["DURWARD_CONNECT"]
        server = StdioServerParameters(command=program, args=["connect", cell.url], env={"DURWARD_KEY": key})
        http = None
    else:
        http = httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=30)
        server = streamable_http_client(cell.url, http_client=http)
    mode = cell.revision if cell.is_modern else "legacy"
    more["client_info"] = Implementation(name=os.environ["DURWARD_CLIENT"], version="1.0.0")
    try:
        async with Client(server, mode=mode, elicitation_callback=elicit, sampling_callback=sample, **more) as client:
            yield client
    finally:
        if http:
            await http.aclose()
