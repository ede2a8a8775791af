// What every foreign client does to every foreign server: one session from hello to goodbye, told in steps.
//
// The clients differ in small ways; each brings an adapter, and this file never sees an SDK. Prints "ok STEP" per step.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';

const STORIES = { fixture, everything, files };
const PATIENCE = 60_000;

/** The program that carries a client's pipes to a URL, where the client is to have nothing but pipes. */
export const connector = process.env.DURWARD_CONNECT;

/**
 * Tells each story of the command line, `WHAT URL` after `WHAT URL`, with every client that `openers` can open for it;
 * ends the process. `fixture__` is the story of `fixture` where names carry that prefix and other servers answer too.
 */
export async function tell(openers) {
  const sessions = process.argv.slice(2);
  let failures = 0;
  for (let index = 0; index < sessions.length; index += 2) {
    const [what, url] = sessions.slice(index, index + 2);
    const [, story, prefix] = /^(.*?)((?:__)?)$/.exec(what);
    const begun = performance.now();
    console.log(`begin ${what} ${url}`);
    try {
      for (const [name, open] of Object.entries(openers)) {
        // Only the fixture speaks 2026-07-28.
        if (name === 'modern' && story !== 'fixture') continue;
        const client = await open(url);
        try {
          const told = prefix ? prefixed(client, what) : client;
          await inTime(STORIES[story](told, (step) => console.log(`ok ${name} ${step}`)), 'the story went on', PATIENCE);
        } finally {
          await client.close();
        }
      }
    } catch (error) {
      console.log('failed', error);
      failures += 1;
    }
    console.log(`took ${((performance.now() - begun) / 1000).toFixed(1)}`);
  }
  process.exit(failures === 0 ? 0 : 1);
}

/** The client of an aggregate, as if one server were behind it: its names and addresses say which one is meant. */
export function prefixed(client, prefix) {
  const own = (entries) =>
    entries
      .filter(({ name }) => name.startsWith(prefix))
      .map((entry) => ({ ...entry, name: entry.name.slice(prefix.length) }));
  const authority = `durward://${prefix.slice(0, -2)}/`;
  const found = (entries, key) =>
    entries
      .filter((entry) => entry[key].startsWith(authority))
      .map((entry) => ({ ...entry, [key]: entry[key].slice(authority.length) }));
  return {
    ...client,
    tools: async () => own(await client.tools()),
    prompts: async () => own(await client.prompts()),
    resources: async () => found(await client.resources(), 'uri'),
    templates: async () => found(await client.templates(), 'uriTemplate'),
    read: (uri) => client.read(authority + uri),
    follow: (uri) => client.follow(authority + uri),
    call: (name, ...rest) => client.call(prefix + name, ...rest),
    callLogged: (name) => client.callLogged(prefix + name),
    callAfterVisits: (name, ...rest) => client.callAfterVisits(prefix + name, ...rest),
    prompt: (name, ...rest) => client.prompt(prefix + name, ...rest),
    complete: (name, ...rest) => client.complete(prefix + name, ...rest),
  };
}

export const textOf = (result) => result.content.find((block) => block.type === 'text')?.text;

async function fixture(client, ok) {
  const tools = (await client.tools()).map((tool) => tool.name);
  assert.ok(tools.includes('test_simple_text') && tools.length > 20, `only ${tools}`);
  ok('lists tools');
  assert.equal(textOf(await client.call('test_simple_text')), 'This is a simple text response for testing.');
  ok('calls a tool');
  assert.equal((await client.call('test_error_handling')).isError, true);
  ok('gets a tool error as a result');
  await assert.rejects(client.call('no_such_tool'), ({ code }) => code === -32602);
  ok('is told that a tool does not exist');
  const image = await client.call('test_multiple_content_types');
  assert.deepEqual(image.content.map((block) => block.type), ['text', 'image', 'resource']);
  ok('gets mixed content');
  const large = textOf(await client.call('test_large_text', { kilobytes: 1024 }));
  assert.equal(large.length, 1024 * 1024);
  ok('gets a large result whole');
  await opensGate(client, ok);
  await cancels(client, 'test_gate_wait', { gate: randomUUID() }, ok);
  if (client.era === 'legacy') {
    const logs = await client.logs();
    await client.call('test_tool_with_logging');
    assert.ok(logs.length >= 3, `only ${logs.length} log messages`);
    ok('hears the log of a tool');
  }

  const { messages } = await client.prompt('test_prompt_with_arguments', { arg1: 'a', arg2: 'b' });
  assert.equal(messages[0].content.text, "Prompt with arguments: arg1='a', arg2='b'");
  ok('gets a prompt');
  assert.ok((await client.prompts()).length >= 4);
  ok('lists prompts');
  assert.deepEqual((await client.complete('test_prompt_with_arguments', 'arg1', 'pari')).completion.values, ['paris']);
  ok('completes an argument');
  assert.ok((await client.resources()).length >= 3);
  const templates = (await client.templates()).map(({ uriTemplate }) => uriTemplate);
  assert.ok(templates.includes('test://template/{id}/data'), `only ${templates}`);
  ok('lists resources and templates');
  const { contents } = await client.read('test://template/7/data');
  assert.equal(JSON.parse(contents[0].text).id, '7');
  ok('reads a templated resource');
  const wanted = { message: 'Who?' };
  const asked =
    client.era === 'modern'
      ? await client.call('test_input_required_result_elicitation')
      : await client.call('test_elicitation', wanted);
  assert.match(textOf(asked), /Ada/);
  ok('answers a question from the server');
  const { changed } = await client.listsChange('tools');
  await client.call('test_trigger_tool_change');
  await inTime(changed, 'no list_changed');
  ok('hears that the tools changed');
  const many = await Promise.all(Array.from({ length: 20 }, () => client.call('test_simple_text')));
  assert.equal(many.length, 20);
  ok('makes twenty calls at once');
}

async function everything(client, ok) {
  assert.ok((await client.tools()).some((tool) => tool.name === 'get-sum'));
  ok('lists tools');
  assert.match(textOf(await client.call('get-sum', { a: 2, b: 40 })), /42/);
  ok('calls a tool');
  const { structuredContent } = await client.call('get-structured-content', { location: 'Chicago' });
  assert.equal(typeof structuredContent.temperature, 'number');
  ok('gets structured content');
  await progresses(client, 'trigger-long-running-operation', { duration: 1, steps: 4 }, ok);
  await cancels(client, 'trigger-long-running-operation', { duration: 20, steps: 80 }, ok);
  assert.match(textOf(await client.call('trigger-sampling-request', { prompt: 'Hello?' })), /Yes, Ada/);
  ok('answers a sampling request');
  assert.ok((await client.prompt('args-prompt', { city: 'Paris' })).messages.length > 0);
  ok('gets a prompt');
  assert.match(textOf(await client.call('get-roots-list')), /file:\/\/\/srv\/ada/);
  ok('answers a request for roots');
  const resource = (await client.resources()).find(({ uri }) => uri.startsWith('demo://'));
  assert.ok((await client.read(resource.uri)).contents[0].text.length > 0);
  ok('reads a resource');
}

async function files(client, ok) {
  assert.ok((await client.tools()).some((tool) => tool.name === 'read_text_file'));
  ok('lists tools');
  const [, folder] = textOf(await client.call('list_allowed_directories')).split('\n');
  assert.match(textOf(await client.call('read_text_file', { path: `${folder}/hello.txt` })), /hello from a file/);
  ok('reads a file');
  const outside = await client.call('read_text_file', { path: '/etc/hostname' });
  assert.equal(outside.isError, true);
  ok('is refused outside its folder');
  const path = `${folder}/written-by-${process.pid}.txt`;
  await client.call('write_file', { path, content: 'ü ✓ "quoted" \\ 9007199254740993\n' });
  assert.match(textOf(await client.call('read_text_file', { path })), /ü ✓ "quoted" \\ 9007199254740993/);
  ok('writes a file and reads it back');
}

/** The call ends only after its first progress was heard, so nothing may hold that back until the result. */
async function opensGate(client, ok) {
  const gate = randomUUID();
  let opening;
  const waiting = client.call('test_gate_wait', { gate }, {
    onprogress: () => void (opening ??= client.call('test_gate_open', { gate })),
  });
  assert.equal(textOf(await waiting), 'The gate is open.');
  await opening;
  ok('hears progress before the result exists');
}

async function progresses(client, tool, given, ok) {
  const seen = [];
  await client.call(tool, given, { onprogress: ({ progress }) => seen.push([progress, performance.now()]) });
  const ended = performance.now();
  assert.ok(seen.length >= 2, `only ${seen.length} progress messages`);
  assert.ok(ended - seen[0][1] > 60, 'the first progress came only with the result');
  ok('sees progress while the call runs');
}

async function cancels(client, tool, given, ok) {
  const abort = new AbortController();
  const call = client.call(tool, given, { signal: abort.signal, onprogress: () => abort.abort(new Error('enough')) });
  await assert.rejects(inTime(call, 'the cancelled call went on'), /enough|abort|cancel/i);
  await client.tools();
  ok('cancels a call and goes on');
}

export function inTime(promise, complaint, patience = 8000) {
  const late = pause(patience, undefined, { ref: false }).then(() => {
    throw new Error(complaint);
  });
  return Promise.race([promise, late]);
}
