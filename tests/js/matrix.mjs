// One row of the matrix: a client of one revision, at every server and door that it is told of. How it is called and
// what it prints: visit.mjs.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';

import { open as open1 } from './peer-sdk1.mjs';
import { open as open2 } from './peer-sdk2.mjs';
import { prefixed, textOf } from './stranger.mjs';
import { Refused, revision, visitAll } from './visit.mjs';

const MODERN = '2026-07-28';
/** How often something that was heard of by nobody is done again: whoever listens may have begun a moment too late. */
const AGAIN = 700;
/** Messages of progress before a streamed result. */
const PIECES = 50;

async function opened({ spoken, prefix, url, ...how }) {
  const client =
    revision === MODERN
      ? await open2(url, { ...how, mode: { pin: MODERN } })
      : await open1(url, { ...how, revision });
  const newest = client.era === 'modern' || spoken === MODERN || spoken > revision ? revision : spoken;
  // An aggregate has an answer of its own.
  if (!prefix) assert.equal(client.revision, newest, 'another revision was agreed on');
  return prefix ? prefixed(client, prefix) : client;
}

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
    'streamed result': async () => {
      const seen = [];
      const onprogress = ({ progress }) => void seen.push(progress);
      const { content } = await client.call('test_streamed_text', { pieces: PIECES, kilobytes: 1024 }, { onprogress });
      assert.equal(content[0].text.length, 1024 * 1024);
      assert.deepEqual(seen, Array.from({ length: PIECES }, (_, index) => index + 1));
    },
    'stream that is cut': before('2025-11-25') ?? (async () => {
      assert.match(await text('test_reconnection'), /after the stream was closed/);
    }),
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
    'page to visit': before('2025-11-25') ?? (async () => {
      const address = page();
      assert.match(await text('test_visit', { address }), /visit: accept/);
      assert.equal(client.visits.at(-1)?.url, address, 'nobody was sent there');
    }),
    'end of a visit': before('2025-11-25') ?? ends(client, spoken, async () => {
      await text('test_visit', { address: page() });
      // It may come on another stream than the answer of the call, and after it.
      const isOver = () => client.over.includes(client.visits.at(-1).elicitationId);
      for (let turn = 0; turn < 100 && !isOver(); turn += 1) await pause(50);
      assert.ok(isOver(), 'nobody heard of it');
    }),
    'page to visit first': before('2025-11-25') ?? (async () => {
      const address = page();
      const result = await client.callAfterVisits('test_visit_first', { address });
      if (result.isError) throw new Refused(`“${textOf(result)}”`);
      assert.match(textOf(result), /visit: (before|accept)/);
      assert.equal(client.visits.at(-1)?.url, address, 'nobody was sent there');
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
    'lists changed': async () => {
      const { changed } = await client.listsChange('tools', 'prompts', 'resources');
      await until(changed, () =>
        Promise.all(['tool', 'prompt', 'resource'].map((kind) => text(`test_trigger_${kind}_change`))),
      );
    },
    'twenty calls at once': async () => {
      const many = await Promise.all(Array.from({ length: 20 }, () => text('test_simple_text')));
      assert.equal(many.length, 20);
    },
  };
}

const page = () => `https://example.com/${randomUUID()}`;

/** A step of clients that are told when a visit is over. */
function ends({ era }, spoken, run) {
  if (era === 'modern' || spoken === MODERN) return 'the modern era has no word for it';
  return revision < '2025-11-25' ? 'the client’s revision has none' : run;
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

await visitAll({ opened, story });
