// What the fixture server offers: the tools, prompts and resources whose names the conformance suite dictates.
//
// One factory serves both eras; where an era has its own way (a server asks its client in mid-call, or answers
// "input required"), the tool says so itself. Opens no socket.

import {
  McpServer,
  ResourceTemplate,
  acceptedContent,
  createRequestStateCodec,
  fromJsonSchema,
  inputRequired,
  inputResponse,
} from '@modelcontextprotocol/server';
import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { z } from 'zod';

import { said, text, tool, within } from './fixture-part.mjs';
import { visiting } from './fixture-visit.mjs';

const PIXEL = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==';
const SILENCE = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=';
const STEP = 50;

const object = (properties, required = Object.keys(properties)) => ({ type: 'object', properties, required });

const states = createRequestStateCodec({ key: randomBytes(32) });

// How often the trigger tools were called. What they change carries the count in its description, so that a "list
// changed" message from here always follows a real change.
const revision = { tools: 0, prompts: 0, resources: 0 };

/** Everything that the official SDK speaks of the legacy era. */
const LEGACY = ['2025-11-25', '2025-06-18', '2025-03-26', '2024-11-05'];

/**
 * One server for one session (legacy) or one request (modern). `notify` reaches the open subscription streams.
 *
 * With a `revision` it is a server of that revision: it speaks no newer one, and offers nothing that came later. With an
 * `authority` its resources have it in their addresses, so that several of these servers stand side by side.
 */
export function catalog({ era, notify, revision, authority }) {
  const supportedProtocolVersions =
    revision && (revision > LEGACY[0] ? [revision] : LEGACY.filter((version) => version <= revision));
  const at = (path) => `test://${authority ? `${authority}/` : ''}${path}`;
  const server = new McpServer(
    { name: 'durward-fixture', version: '1.0.0', title: 'Durward fixture' },
    {
      capabilities: {
        tools: { listChanged: true },
        prompts: { listChanged: true },
        resources: { subscribe: true, listChanged: true },
        completions: {},
        logging: {},
      },
      requestState: { verify: states.verify },
      ...(supportedProtocolVersions && { supportedProtocolVersions }),
    },
  );
  const isSince = (born) => !revision || revision >= born;
  const isOf2025June = isSince('2025-06-18');
  plain(server);
  if (isOf2025June) shaped(server, at);
  streaming(server);
  asking(server, era, isOf2025June);
  if (isSince('2025-11-25')) visiting(server, era);
  interrupted(server);
  annotated(server);
  const resource = resources(server, era, at);
  const prompt = prompts(server);
  changing(server, { notify, at, prompt, resource });
  return server;
}

function plain(server) {
  const fixed = (name, description, ...content) =>
    tool(server, name, description, undefined, () => ({ content }));
  fixed('test_simple_text', 'Answers with one text.', {
    type: 'text',
    text: 'This is a simple text response for testing.',
  });
  fixed('test_image_content', 'Answers with one image.', { type: 'image', data: PIXEL, mimeType: 'image/png' });
  fixed('test_audio_content', 'Answers with one sound.', { type: 'audio', data: SILENCE, mimeType: 'audio/wav' });
  fixed('test_embedded_resource', 'Answers with one embedded resource.', {
    type: 'resource',
    resource: {
      uri: 'test://embedded-resource',
      mimeType: 'text/plain',
      text: 'This is an embedded resource content.',
    },
  });
  fixed(
    'test_multiple_content_types',
    'Answers with text, image and resource together.',
    { type: 'text', text: 'Multiple content types test:' },
    { type: 'image', data: PIXEL, mimeType: 'image/png' },
    {
      type: 'resource',
      resource: {
        uri: 'test://mixed-content-resource',
        mimeType: 'application/json',
        text: '{"test":"data","value":123}',
      },
    },
  );
  tool(server, 'test_large_text', 'Answers with a text of that size.', z.object({ kilobytes: z.number().int().max(2048) }), ({ kilobytes }) =>
    text('Sixteen letters.'.repeat(64 * kilobytes)),
  );
  tool(server, 'test_error_handling', 'Fails, always.', undefined, () => {
    throw new Error('This tool intentionally returns an error for testing');
  });
}

// What came with 2025-06-18.
function shaped(server, at) {
  tool(server, 'test_resource_link', 'Answers with a link to a resource.', undefined, () => ({
    content: [{ type: 'resource_link', uri: at('static-text'), name: 'static-text', mimeType: 'text/plain' }],
  }));
  server.registerTool(
    'test_structured_content',
    { description: 'Answers with an object, and with its text.', outputSchema: z.object({ city: z.string(), celsius: z.number() }) },
    () => {
      const structuredContent = { city: 'Paris', celsius: 21.5 };
      return { ...text(JSON.stringify(structuredContent)), structuredContent };
    },
  );
}

// Calls that wait, and what lets them go on; and those that were cancelled.
const gates = new Map();
const cancelled = new Set();

function streaming(server) {
  const gate = z.object({ gate: z.string() });
  tool(server, 'test_gate_wait', 'Reports progress once, and answers when somebody opens the gate.', gate, async ({ gate }, context) => {
    const opened = new Promise((resolve) => gates.set(gate, resolve));
    const tooLate = pause(10_000, undefined, { ref: false }).then(() => {
      throw new Error('nobody opened the gate');
    });
    context.mcpReq.signal.addEventListener('abort', () => cancelled.add(gate));
    const progressToken = context.mcpReq._meta?.progressToken;
    await context.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress: 1 } });
    await Promise.race([opened, tooLate]).finally(() => gates.delete(gate));
    return text('The gate is open.');
  });
  tool(server, 'test_gate_open', 'Lets a waiting call go on.', gate, ({ gate }) => {
    if (cancelled.has(gate)) return text('Whoever waited was cancelled.');
    gates.get(gate)?.();
    return text('Opened.');
  });
  tool(server, 'test_gate_is_cancelled', 'Says whether the call that waits there was cancelled.', gate, ({ gate }) =>
    text(cancelled.has(gate) ? 'yes' : 'no'),
  );
  tool(server, 'test_tool_with_logging', 'Logs three times while it runs.', undefined, async (context) => {
    await context.mcpReq.log('info', 'Tool execution started');
    await pause(STEP);
    await context.mcpReq.log('info', 'Tool processing data');
    await pause(STEP);
    await context.mcpReq.log('info', 'Tool execution completed');
    return text('Logged three times.');
  });
  tool(server, 'test_logging_tool', 'Logs once, where the caller asked for logs.', undefined, async (context) => {
    await context.mcpReq.log('info', 'One entry');
    return text('Logged.');
  });
  tool(server, 'test_tool_with_progress', 'Reports progress in three steps.', undefined, async (context) => {
    const progressToken = context.mcpReq._meta?.progressToken;
    for (const progress of [0, 50, 100]) {
      if (progressToken !== undefined) {
        await context.mcpReq.notify({
          method: 'notifications/progress',
          params: { progressToken, progress, total: 100 },
        });
      }
      if (progress < 100) await pause(STEP);
    }
    return text('Progress is complete.');
  });
  const pieces = z.object({ pieces: z.number().int().max(256), kilobytes: z.number().int().max(2048) });
  tool(server, 'test_streamed_text', 'Reports each piece, and answers with a text of that size.', pieces, async ({ pieces, kilobytes }, context) => {
    const progressToken = context.mcpReq._meta?.progressToken;
    for (let progress = 1; progress <= pieces; progress += 1) {
      await context.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: pieces } });
    }
    return text('Sixteen letters.'.repeat(64 * kilobytes));
  });
  tool(server, 'test_reconnection', 'Hangs up on its own stream and answers on the resumed one.', undefined, async (context) => {
    context.http?.closeSSE?.();
    await pause(2 * STEP);
    return text('Answered after the stream was closed.');
  });
}

// What the suite of the legacy era asks for. There the server sends a request of its own while the call is open; in the
// modern one the same tool ends the call with the question.
function asking(server, era, canElicit) {
  const isModern = era === 'modern';
  const answer = (context) => inputResponse(context.mcpReq.inputResponses, 'asked');
  const elicit = async (context, message, requestedSchema, prefix) => {
    const given = isModern
      ? answer(context)
      : await context.mcpReq.elicitInput({ message, requestedSchema }, within(context));
    if (given.kind === 'missing') {
      return inputRequired({ inputRequests: { asked: inputRequired.elicit({ message, requestedSchema }) } });
    }
    return text(`${prefix}: action=${given.action}, content=${JSON.stringify(given.content ?? {})}`);
  };
  tool(server, 'test_sampling', 'Asks the client for a completion.', z.object({ prompt: z.string() }), async ({ prompt }, context) => {
    const wanted = { messages: [said(prompt)], maxTokens: 100 };
    const given = isModern ? answer(context) : { result: await context.mcpReq.requestSampling(wanted, within(context)) };
    return given.result
      ? text(`LLM response: ${given.result.content.text ?? ''}`)
      : inputRequired({ inputRequests: { asked: inputRequired.createMessage(wanted) } });
  });
  tool(server, 'test_roots', 'Asks the client for its roots.', undefined, async (context) => {
    const given = isModern ? answer(context) : await server.server.listRoots(undefined, within(context));
    return given.roots
      ? text(`Roots: ${given.roots.map((root) => root.uri).join(', ')}`)
      : inputRequired({ inputRequests: { asked: inputRequired.listRoots() } });
  });
  if (!canElicit) return;
  tool(server, 'test_elicitation', 'Asks the user for a name and an address.', z.object({ message: z.string() }), ({ message }, context) =>
    elicit(
      context,
      message,
      object({
        username: { type: 'string', description: "User's response" },
        email: { type: 'string', description: "User's email address" },
      }),
      'User response',
    ),
  );
  tool(server, 'test_elicitation_sep1034_defaults', 'Asks with a default for every primitive type.', undefined, (context) =>
    elicit(
      context,
      'Keep or change these defaults',
      object(
        {
          name: { type: 'string', default: 'John Doe' },
          age: { type: 'integer', default: 30 },
          score: { type: 'number', default: 95.5 },
          status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
          verified: { type: 'boolean', default: true },
        },
        [],
      ),
      'Elicitation completed',
    ),
  );
  tool(server, 'test_elicitation_sep1330_enums', 'Asks with every way to write an enumeration.', undefined, (context) =>
    elicit(
      context,
      'Choose',
      object(
        {
          untitledSingle: { type: 'string', enum: ['option1', 'option2', 'option3'] },
          titledSingle: { type: 'string', oneOf: titled('Option') },
          legacyEnum: {
            type: 'string',
            enum: ['opt1', 'opt2', 'opt3'],
            enumNames: ['Option One', 'Option Two', 'Option Three'],
          },
          untitledMulti: { type: 'array', items: { type: 'string', enum: ['option1', 'option2', 'option3'] } },
          titledMulti: { type: 'array', items: { anyOf: titled('Choice') } },
        },
        [],
      ),
      'Elicitation completed',
    ),
  );
}

const titled = (noun) =>
  ['First', 'Second', 'Third'].map((ordinal, index) => ({ const: `value${index + 1}`, title: `${ordinal} ${noun}` }));

const QUESTIONS = {
  name: () => inputRequired.elicit({ message: 'What is your name?', requestedSchema: object({ name: { type: 'string' } }) }),
  capital: () => inputRequired.createMessage({ messages: [said('What is the capital of France?')], maxTokens: 100 }),
  greeting: () => inputRequired.createMessage({ messages: [said('Generate a greeting')], maxTokens: 50 }),
  roots: () => inputRequired.listRoots(),
  confirm: () => inputRequired.elicit({ message: 'Please confirm', requestedSchema: object({ ok: { type: 'boolean' } }) }),
  context: () =>
    inputRequired.elicit({
      message: 'What context should the prompt use?',
      requestedSchema: object({ context: { type: 'string' } }),
    }),
  step1: () =>
    inputRequired.elicit({ message: 'Step 1: What is your name?', requestedSchema: object({ name: { type: 'string' } }) }),
  step2: () =>
    inputRequired.elicit({
      message: 'Step 2: What is your favorite color?',
      requestedSchema: object({ color: { type: 'string' } }),
    }),
};

// Modern era: the call ends with "input required" and comes again with the answers.
function interrupted(server) {
  const answers = (context) => context.mcpReq.inputResponses;
  const named = z.object({ name: z.string() });

  tool(server, 'test_input_required_result_elicitation', 'Needs a name.', undefined, (context) => {
    const given = acceptedContent(answers(context), 'user_name', named);
    return given ? text(`Hello, ${given.name}!`) : inputRequired({ inputRequests: { user_name: QUESTIONS.name() } });
  });
  tool(server, 'test_input_required_result_sampling', 'Needs a completion.', undefined, (context) => {
    const given = inputResponse(answers(context), 'capital_question');
    return given.kind === 'sampling'
      ? text(`The model said: ${given.result.content.text}`)
      : inputRequired({ inputRequests: { capital_question: QUESTIONS.capital() } });
  });
  tool(server, 'test_input_required_result_list_roots', 'Needs the roots.', undefined, (context) => {
    const given = inputResponse(answers(context), 'client_roots');
    return given.kind === 'roots'
      ? text(`Roots: ${given.roots.map((root) => root.uri).join(', ')}`)
      : inputRequired({ inputRequests: { client_roots: QUESTIONS.roots() } });
  });
  const confirmed = (name) =>
    tool(server, name, 'Needs a confirmation and its own state back.', undefined, async (context) => {
      const state = context.mcpReq.requestState();
      if (state?.asked === name && acceptedContent(answers(context), 'confirm')) return text('state-ok');
      const requestState = await states.mint({ asked: name });
      return inputRequired({ inputRequests: { confirm: QUESTIONS.confirm() }, requestState });
    });
  confirmed('test_input_required_result_request_state');
  confirmed('test_input_required_result_tampered_state');
  tool(server, 'test_input_required_result_multiple_inputs', 'Needs three answers at once.', undefined, async (context) => {
    const given = answers(context) ?? {};
    if (['user_name', 'greeting', 'client_roots'].every((key) => key in given) && context.mcpReq.requestState()) {
      return text('All three answers are here.');
    }
    return inputRequired({
      inputRequests: { user_name: QUESTIONS.name(), greeting: QUESTIONS.greeting(), client_roots: QUESTIONS.roots() },
      requestState: await states.mint({ round: 1 }),
    });
  });
  tool(server, 'test_input_required_result_multi_round', 'Needs two answers, one after the other.', undefined, async (context) => {
    const state = context.mcpReq.requestState();
    const first = acceptedContent(answers(context), 'step1', named);
    if (state?.round === 1 && first) {
      const requestState = await states.mint({ round: 2, name: first.name });
      return inputRequired({ inputRequests: { step2: QUESTIONS.step2() }, requestState });
    }
    const second = acceptedContent(answers(context), 'step2', z.object({ color: z.string() }));
    if (state?.round === 2 && second) return text(`${state.name} likes ${second.color}.`);
    return inputRequired({ inputRequests: { step1: QUESTIONS.step1() }, requestState: await states.mint({ round: 1 }) });
  });
  tool(server, 'test_input_required_result_capabilities', 'Asks only what the client can answer.', undefined, (context) => {
    if (answers(context)) return text('Thank you.');
    const can = clientCapabilities(context) ?? server.server.getClientCapabilities();
    return inputRequired({
      inputRequests: {
        ...(can.elicitation && { user_name: QUESTIONS.name() }),
        ...(can.sampling && { greeting: QUESTIONS.greeting() }),
        ...(can.roots && { client_roots: QUESTIONS.roots() }),
      },
    });
  });
  tool(server, 'test_streaming_elicitation', 'Reports progress, then needs a name.', undefined, async (context) => {
    const progressToken = context.mcpReq._meta?.progressToken;
    if (progressToken !== undefined) {
      await context.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress: 1 } });
    }
    const given = acceptedContent(answers(context), 'user_name', named);
    return given ? text(`Hello, ${given.name}!`) : inputRequired({ inputRequests: { user_name: QUESTIONS.name() } });
  });
  // The SDK refuses the question with -32021 where the client did not declare that it can answer it.
  tool(server, 'test_missing_capability', 'Needs a client that can sample.', undefined, (context) =>
    inputResponse(answers(context), 'greeting').kind === 'sampling'
      ? text('The client can sample.')
      : inputRequired({ inputRequests: { greeting: QUESTIONS.greeting() } }),
  );
}

const clientCapabilities = (context) =>
  context.mcpReq.envelope?.['io.modelcontextprotocol/clientCapabilities'];

const [SIMPLE, STATIC] = ['Has no arguments', 'The static-text resource'];
const numbered = (kind, what) => `${what} (revision ${revision[kind]}).`;

function changing(server, { notify, at, prompt, resource }) {
  const described = () => numbered('tools', 'Changes its own description');
  const tools = tool(server, 'test_trigger_tool_change', described(), undefined, () => {
    revision.tools += 1;
    tools.update({ description: described() });
    notify.toolsChanged();
    return text(`Tool list revision ${revision.tools}.`);
  });
  tool(server, 'test_trigger_prompt_change', 'Changes the description of a prompt.', undefined, () => {
    revision.prompts += 1;
    prompt.update({ description: numbered('prompts', SIMPLE) });
    notify.promptsChanged();
    return text(`Prompt list revision ${revision.prompts}.`);
  });
  tool(server, 'test_trigger_resource_change', 'Changes the description of a resource.', undefined, () => {
    revision.resources += 1;
    resource.update({ metadata: { ...resource.metadata, description: numbered('resources', STATIC) } });
    notify.resourcesChanged();
    return text(`Resource list revision ${revision.resources}.`);
  });
  tool(server, 'test_touch_resource', 'Says that the watched resource changed.', undefined, async () => {
    notify.resourceUpdated(at('watched-resource'));
    await server.server.sendResourceUpdated({ uri: at('watched-resource') }).catch(() => {});
    return text('Touched.');
  });
}

function annotated(server) {
  tool(
    server,
    'json_schema_2020_12_tool',
    'Has a schema of the 2020-12 dialect.',
    fromJsonSchema({
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      type: 'object',
      $defs: {
        address: {
          $anchor: 'addressDef',
          type: 'object',
          properties: { street: { type: 'string' }, city: { type: 'string' } },
        },
      },
      properties: {
        name: { type: 'string' },
        address: { $ref: '#/$defs/address' },
        contactMethod: { type: 'string', enum: ['phone', 'email'] },
        phone: { type: 'string' },
        email: { type: 'string' },
      },
      allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
      if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
      then: { required: ['phone'] },
      else: { required: ['email'] },
      additionalProperties: false,
    }),
    (given) => text(JSON.stringify(given)),
  );
  server.registerTool(
    'test_custom_headers',
    {
      title: 'Mirrored parameters',
      description: 'Mirrors three parameters into headers.',
      annotations: { readOnlyHint: true, idempotentHint: true },
      _meta: { 'dev.durward/fixture': { exact: 9007199254740991, list: [1, 2.5, null] } },
      inputSchema: fromJsonSchema({
        type: 'object',
        properties: {
          region: { type: 'string', 'x-mcp-header': 'Region' },
          priority: { type: 'integer', 'x-mcp-header': 'Priority' },
          urgent: { type: 'boolean', 'x-mcp-header': 'Urgent' },
          note: { type: 'string' },
        },
      }),
    },
    (given) => text(JSON.stringify(given)),
  );
}

function resources(server, era, at) {
  const fixed = (name, path, mimeType, body, description = `The ${name} resource.`) => {
    const uri = at(path);
    return server.registerResource(name, uri, { title: name, description, mimeType }, () => ({
      contents: [{ uri, mimeType, ...body }],
    }));
  };
  const body = { text: 'This is the content of the static text resource.' };
  const resource = fixed('static-text', 'static-text', 'text/plain', body, numbered('resources', STATIC));
  fixed('static-binary', 'static-binary', 'image/png', { blob: PIXEL });
  fixed('watched-resource', 'watched-resource', 'text/plain', { text: 'Watched.' });
  server.registerResource(
    'template',
    new ResourceTemplate(at('template/{id}/data'), { list: undefined }),
    { title: 'template', description: 'Fills its id in.', mimeType: 'application/json' },
    (uri, { id }) => ({
      contents: [
        {
          uri: uri.href,
          mimeType: 'application/json',
          text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }),
        },
      ],
    }),
  );
  if (era === 'legacy') {
    server.server.setRequestHandler('resources/subscribe', () => ({}));
    server.server.setRequestHandler('resources/unsubscribe', () => ({}));
  }
  return resource;
}

function prompts(server) {
  const prompt = (name, config, messages) => server.registerPrompt(name, config, messages);
  const simple = prompt('test_simple_prompt', { description: numbered('prompts', SIMPLE) }, () => ({
    messages: [said('This is a simple prompt for testing.')],
  }));
  prompt(
    'test_prompt_with_arguments',
    {
      description: 'Has two arguments.',
      argsSchema: z.object({ arg1: z.string().describe('First test argument'), arg2: z.string().describe('Second test argument') }),
    },
    ({ arg1, arg2 }) => ({ messages: [said(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)] }),
  );
  prompt(
    'test_prompt_with_embedded_resource',
    { description: 'Embeds a resource.', argsSchema: z.object({ resourceUri: z.string().describe('URI of the resource to embed') }) },
    ({ resourceUri }) => ({
      messages: [
        {
          role: 'user',
          content: {
            type: 'resource',
            resource: { uri: resourceUri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' },
          },
        },
        said('Please process the embedded resource above.'),
      ],
    }),
  );
  prompt('test_prompt_with_image', { description: 'Shows an image.' }, () => ({
    messages: [
      { role: 'user', content: { type: 'image', data: PIXEL, mimeType: 'image/png' } },
      said('Please analyze the image above.'),
    ],
  }));
  prompt('test_input_required_result_prompt', { description: 'Needs a context.' }, (context) => {
    const given = acceptedContent(context.mcpReq.inputResponses, 'user_context', z.object({ context: z.string() }));
    if (!given) return inputRequired({ inputRequests: { user_context: QUESTIONS.context() } });
    return { messages: [said(`The context is ${given.context}.`)] };
  });
  server.server.setRequestHandler('completion/complete', ({ params }) => {
    const values = ['paris', 'park', 'party'].filter((word) => word.startsWith(params.argument.value));
    return { completion: { values, total: values.length, hasMore: false } };
  });
  return simple;
}
