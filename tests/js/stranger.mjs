// What every foreign client does to every foreign server: one session from hello to goodbye, told in steps.
//
// The clients differ in small ways; each brings an adapter, and this file never sees an SDK. Prints "ok STEP" per step.

import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';

/** Runs the story of `what` with every client that `openers` can open, one after the other; ends the process. */
export async function tell(openers, what) {
  try {
    for (const [name, open] of Object.entries(openers)) {
      const client = await open();
      try {
        await STORIES[what](client, (step) => console.log(`ok ${name} ${step}`));
      } finally {
        await client.close();
      }
    }
    process.exit(0);
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
}

const STORIES = { fixture, everything, files };

const textOf = (result) => result.content.find((block) => block.type === 'text')?.text;

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
  await progresses(client, 'test_tool_with_progress', {}, ok);
  await cancels(client, 'test_tool_with_progress', {}, ok);

  const { messages } = await client.prompt('test_prompt_with_arguments', { arg1: 'a', arg2: 'b' });
  assert.equal(messages[0].content.text, "Prompt with arguments: arg1='a', arg2='b'");
  ok('gets a prompt');
  assert.ok((await client.prompts()).length >= 4);
  ok('lists prompts');
  assert.deepEqual((await client.complete('test_prompt_with_arguments', 'arg1', 'pari')).completion.values, ['paris']);
  ok('completes an argument');
  assert.ok((await client.resources()).length >= 3);
  assert.equal((await client.templates())[0].uriTemplate, 'test://template/{id}/data');
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
  const { changed } = await client.toolsChange();
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
  await progresses(client, 'trigger-long-running-operation', { duration: 0.4, steps: 4 }, ok);
  await cancels(client, 'trigger-long-running-operation', { duration: 20, steps: 80 }, ok);
  assert.match(textOf(await client.call('trigger-sampling-request', { prompt: 'Hello?' })), /Yes, Ada/);
  ok('answers a sampling request');
  assert.ok((await client.prompt('args-prompt', { city: 'Paris' })).messages.length > 0);
  ok('gets a prompt');
  const [resource] = await client.resources();
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

function inTime(promise, complaint) {
  const late = pause(8000, undefined, { ref: false }).then(() => {
    throw new Error(complaint);
  });
  return Promise.race([promise, late]);
}
