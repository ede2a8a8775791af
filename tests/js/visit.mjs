// How a client of the matrix visits its cells: step by step, each with what came of it. What the steps are, it is told.
//
//   node PROGRAM WAY REVISION CELL…
//
// WAY is http, sse or stdio (through the program in DURWARD_CONNECT), with the key in DURWARD_KEY; DURWARD_CLIENT is what
// the client calls itself. A CELL is `NAME,REVISION,PREFIX,URL`: what to call it, the revision of the server, what its names
// begin with at that door, and the door. Prints `cell NAME`, then for each step of the session one line: `works STEP`,
// `turned STEP: INTO WHAT`, `lacks STEP: WHY` where there is no such thing, `refused STEP: WHY` in the words of whoever
// refused, or `fails STEP: WHY`.

import { inTime } from './stranger.mjs';

/** What a session of a cell may take, and its beginning, before which a process may have to start, and one step of it. */
const [SESSION, BEGIN, STEP] = [60_000, 30_000, 10_000];

const [way, told, ...cells] = process.argv.slice(2);
const { DURWARD_CONNECT: connector, DURWARD_KEY: key, DURWARD_CLIENT: called } = process.env;

/** The errors by which somebody says no: those that the page has. Any other is a failure. */
const REFUSALS = new Set([-32600, -32602]);

/** The revision that the client speaks. */
export const revision = told;

/** A result that says no. */
export class Refused extends Error {}

/** There is no such thing. */
export class Lacking extends Error {}

/**
 * Visits each cell of the command line; ends the process. `opened(CELL)` gives a client, and `story(CLIENT, CELL)` its
 * steps in order; a string in a step's place says why there is none. A step that gives a string says what became of it.
 */
export async function visitAll({ opened, story }) {
  for (const cell of cells) {
    const [name, spoken, prefix, url] = cell.split(',');
    console.log(`cell ${name}`);
    await inTime(visit({ spoken, prefix, url, way, key, connector, name: called }, opened, story), 'the session went on', SESSION).catch((error) =>
      tell('fails', 'session', error.message),
    );
  }
  process.exit(0);
}

async function visit(cell, opened, story) {
  let client;
  if (!(await step('session', async () => void (client = await opened(cell)), BEGIN))) return;
  try {
    for (const [name, run] of Object.entries(story(client, cell))) {
      if (typeof run === 'string') tell('lacks', name, run);
      else await step(name, run);
    }
  } finally {
    await inTime(client.close(), 'the client did not end', STEP).catch((error) => tell('fails', 'goodbye', error.message));
  }
}

/** Runs a step and says how it went. */
async function step(name, run, patience = STEP) {
  try {
    const otherwise = await inTime(run(), 'nothing came in time', patience);
    tell(otherwise ? 'turned' : 'works', name, otherwise);
    return true;
  } catch (error) {
    tell(word(error), name, reason(error));
    return false;
  }
}

function word(error) {
  if (error instanceof Lacking) return 'lacks';
  return error instanceof Refused || REFUSALS.has(error.code) ? 'refused' : 'fails';
}

function reason({ code, message }) {
  const bare = message.replace(/^MCP error -?\d+: /, '');
  return Number.isInteger(code) ? `${code} “${bare}”` : bare;
}

function tell(word, name, why) {
  console.log([word, name].join(' ') + (why === undefined ? '' : `: ${why.replaceAll(/\s+/g, ' ').trim()}`));
}
