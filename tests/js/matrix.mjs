// One row of the matrix: a client of one revision, at every server and door that it is told of, step by step.
//
//   node matrix.mjs WAY REVISION CELL…
//
// WAY is http, sse or stdio (through the program in DURWARD_CONNECT), with the key in DURWARD_KEY. A CELL is `NAME,REVISION,PREFIX,URL`: what to call
// it, the revision of the server, what its names begin with at that door, and the door. Prints `cell NAME`, then for each
// step of the session one line: `works STEP`, `turned STEP: INTO WHAT`, `lacks STEP: WHY` where a revision has no such
// thing, `refused STEP: WHY` in the words of whoever refused, or `fails STEP: WHY`.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';

import { open as open1 } from './peer-sdk1.mjs';
import { open as open2 } from './peer-sdk2.mjs';
import { inTime, prefixed, textOf } from './stranger.mjs';

const MODERN = '2026-07-28';
/** What a session of a cell may take, and what one step of it may. */
const [SESSION, STEP] = [40_000, 10_000];
/** How often something that was heard of by nobody is done again: whoever listens may have begun a moment too late. */
const AGAIN = 700;

const [way, revision, ...cells] = process.argv.slice(2);
const { DURWARD_CONNECT: connector, DURWARD_KEY: key } = process.env;

async function visit(server) {
  let client;
  if (!(await step('session', async () => void (client = await opened(server))))) return;
  const steps = story(client.prefix ? prefixed(client, client.prefix) : client, server);
  try {
    for (const [name, run] of Object.entries(steps)) {
      if (typeof run === 'string') tell('lacks', name, run);
      else await step(name, run);
    }
  } finally {
    await inTime(client.close(), 'the client did not end', STEP).catch((error) => tell('fails', 'goodbye', error.message));
  }
}

async function opened({ spoken, prefix, url }) {
  const client =
    revision === MODERN
      ? await open2(url, { way, key, connector, mode: { pin: MODERN } })
      : await open1(url, { way, key, connector, revision });
  const newest = client.era === 'modern' || spoken === MODERN || spoken > revision ? revision : spoken;
  // An aggregate has an answer of its own.
  if (!prefix) assert.equal(client.revision, newest, 'another revision was agreed on');
  return { ...client, prefix };
}

/** Runs a step and says how it went. An error of the protocol is a refusal. */
async function step(name, run) {
  try {
    const otherwise = await inTime(run(), 'nothing came in time', STEP);
    tell(otherwise ? 'turned' : 'works', name, otherwise);
    return true;
  } catch (error) {
    tell(error instanceof Refused || Number.isInteger(error.code) ? 'refused' : 'fails', name, reason(error));
    return false;
  }
}

/** A result that says no. */
class Refused extends Error {}

function reason({ code, message }) {
  const bare = message.replace(/^MCP error -?\d+: /, '');
  return Number.isInteger(code) ? `${code} “${bare}”` : bare;
}

function tell(word, name, why) {
  console.log([word, name].join(' ') + (why === undefined ? '' : `: ${why.replaceAll(/\s+/g, ' ').trim()}`));
}

/** The steps of a session, in order. A string in a step's place says why there is none. */
function story(client, { spoken, prefix, url }) {
  const isBridged = (spoken === MODERN) !== (client.era === 'modern');
  const text = async (...call) => {
    const result = await client.call(...call);
    if (result.isError) throw new Refused(`“${textOf(result)}”`);
    return textOf(result);
  };
  const uri = (path) => `test://${authority({ prefix, url })}/${path}`;
  const before = (born) => (spoken < born ? 'the server’s revision has none' : undefined);

  return {
    'list tools': async () => {
      const names = (await client.tools()).map((tool) => tool.name);
      assert.ok(names.includes('test_simple_text') && names.length > 20, `only ${names.length} tools`);
    },
    'call a tool': async () => assert.match(await text('test_simple_text'), /simple text response/),
    'error of a tool': async () => assert.equal((await client.call('test_error_handling')).isError, true),
    'unknown tool': async () => assert.rejects(client.call('no_such_tool'), ({ code }) => code === -32602),
    'mixed content': async () => {
      const { content } = await client.call('test_multiple_content_types');
      assert.deepEqual(content.map((block) => block.type), ['text', 'image', 'resource']);
    },
    sound: before('2025-03-26') ?? (async () => {
      const { content } = await client.call('test_audio_content');
      if (isBridged && revision < '2025-03-26') {
        assert.equal(content[0].type, 'resource');
        return 'arrives as an embedded file: the client’s revision has no sound';
      }
      assert.deepEqual(content.map((block) => block.type), ['audio']);
    }),
    link: before('2025-06-18') ?? (async () => {
      const { content } = await client.call('test_resource_link');
      if (isBridged && revision < '2025-06-18') {
        assert.match(textOf({ content }), /static-text/);
        return 'arrives as text: the client’s revision has no links';
      }
      assert.deepEqual(content.map((block) => block.type), ['resource_link']);
    }),
    'structured result': before('2025-06-18') ?? (async () => {
      const { structuredContent } = await client.call('test_structured_content');
      assert.deepEqual(structuredContent, { city: 'Paris', celsius: 21.5 });
    }),
    'large result': async () => {
      assert.equal((await text('test_large_text', { kilobytes: 1024 })).length, 1024 * 1024);
    },
    'streamed progress': () => opensGate(client),
    cancellation: () => cancels(client),
    log: async () => {
      const logs = await client.logs();
      await client.callLogged('test_tool_with_logging');
      assert.equal(logs.length, 3, `${logs.length} log messages`);
    },
    prompts: async () => {
      assert.ok((await client.prompts()).length >= 4);
      const { messages } = await client.prompt('test_prompt_with_arguments', { arg1: 'a', arg2: 'b' });
      assert.equal(messages[0].content.text, "Prompt with arguments: arg1='a', arg2='b'");
    },
    completion: async () => {
      const { completion } = await client.complete('test_prompt_with_arguments', 'arg1', 'pari');
      assert.deepEqual(completion.values, ['paris']);
    },
    resources: async () => {
      const uris = (await client.resources()).map((resource) => resource.uri);
      assert.ok(uris.includes(uri('static-text')), `only ${uris}`);
      const templates = (await client.templates()).map(({ uriTemplate }) => uriTemplate);
      assert.ok(templates.includes(uri('template/{id}/data')), `only ${templates}`);
      const { contents } = await client.read(uri('template/7/data'));
      assert.equal(JSON.parse(contents[0].text).id, '7');
    },
    'unknown resource': async () => {
      // What a server says in its client's era is its own affair: this one has the modern code in both.
      const codes = client.era === 'modern' ? [-32602] : isBridged ? [-32002] : [-32002, -32602];
      await assert.rejects(client.read(uri('no-such')), ({ code }) => codes.includes(code));
    },
    elicitation: before('2025-06-18') ?? (async () => {
      assert.match(await text('test_elicitation', { message: 'Who?' }), /Ada/);
    }),
    sampling: async () => {
      assert.match(await text('test_sampling', { prompt: 'Hello?' }), /Yes, Ada/);
    },
    roots: async () => {
      assert.match(await text('test_roots'), /file:\/\/\/srv\/ada/);
    },
    'several questions': before('2025-06-18') ?? (async () => {
      assert.match(await text('test_input_required_result_multiple_inputs'), /All three/);
      assert.match(await text('test_input_required_result_multi_round'), /Ada likes Ada/);
    }),
    subscription: async () => {
      const { updated, stop } = await client.follow(uri('watched-resource'));
      await until(updated, () => text('test_touch_resource'));
      await stop();
    },
    'list changed': async () => {
      const { changed } = await client.listsChange('tools');
      await until(changed, () => text('test_trigger_tool_change'));
    },
    'twenty calls at once': async () => {
      const many = await Promise.all(Array.from({ length: 20 }, () => text('test_simple_text')));
      assert.equal(many.length, 20);
    },
  };
}

/** The name of the server, which its resources have in their addresses. */
const authority = ({ prefix, url }) => (prefix ? prefix.slice(0, -2) : new URL(url).pathname.split('/').pop());

/** The call ends only after its first progress was heard, so nothing may hold that back until the result. */
async function opensGate(client) {
  const gate = randomUUID();
  let opening;
  const waiting = client.call('test_gate_wait', { gate }, {
    onprogress: () => {
      opening ??= client.call('test_gate_open', { gate });
      opening.catch(() => {});
    },
  });
  assert.equal(textOf(await waiting), 'The gate is open.');
  await opening;
}

/** Whether a call that the client gives up ends at the server as well. */
async function cancels(client) {
  const gate = randomUUID();
  const abort = new AbortController();
  const call = client.call('test_gate_wait', { gate }, { signal: abort.signal, onprogress: () => abort.abort(new Error('enough')) });
  await assert.rejects(call, /enough|abort|cancel/i);
  for (let tries = 0; tries < 10; tries += 1) {
    if (textOf(await client.call('test_gate_is_cancelled', { gate })) === 'yes') return;
    await pause(AGAIN / 2);
  }
  assert.fail('the server went on');
}

/** Does it again until it was heard of. */
async function until(heard, act) {
  let isHeard = false;
  void heard.then(() => (isHeard = true));
  while (!isHeard) {
    await act();
    await Promise.race([heard, pause(AGAIN)]);
  }
}

for (const cell of cells) {
  const [name, spoken, prefix, url] = cell.split(',');
  console.log(`cell ${name}`);
  await inTime(visit({ spoken, prefix, url }), 'the session went on', SESSION).catch((error) =>
    tell('fails', 'session', error.message),
  );
}
process.exit(0);
