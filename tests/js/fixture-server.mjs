// A server of both eras on one URL: sessions for 2025-11-25 and earlier, stateless requests for 2026-07-28.
//
//   node fixture-server.mjs --port N      prints "ready http://127.0.0.1:N/mcp" on stderr; 0 picks a free port
//   node fixture-server.mjs --stdio       the same server on stdin and stdout
//
//   node fixture-server.mjs --sse --port N --revision 2024-11-05      as that revision has it: http://127.0.0.1:N/sse
//
//   --revision V      only one era: this revision and, in the legacy one, those before it
//   --authority A     resources are test://A/…, not test://…
//   --tasks           what it offers becomes tasks, as 2025-11-25 has them
//
// What it offers is in fixture-catalog.mjs and fixture-task.mjs.

import {
  NodeStreamableHTTPServerTransport,
  localhostHostValidation,
  localhostOriginValidation,
  toNodeHandler,
  toWebRequest,
} from '@modelcontextprotocol/node';
import { createMcpHandler, isInitializeRequest, isLegacyRequest } from '@modelcontextprotocol/server';
import { StdioServerTransport, serveStdio } from '@modelcontextprotocol/server/stdio';
import { SSEServerTransport } from '@modelcontextprotocol/sdk/server/sse.js';
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

import { catalog } from './fixture-catalog.mjs';
import { tasks } from './fixture-task.mjs';

const BODY_LIMIT = 4 * 1024 * 1024;

const { values: options } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    stdio: { type: 'boolean', default: false },
    sse: { type: 'boolean', default: false },
    revision: { type: 'string' },
    authority: { type: 'string' },
    tasks: { type: 'boolean', default: false },
  },
});
const { authority } = options;
const revision = options.tasks ? '2025-11-25' : options.revision;
const speaks = { legacy: !revision || revision < '2026', modern: !revision || revision >= '2026' };
const offered = ({ era, notify }) => (options.tasks ? tasks() : catalog({ era, notify, revision, authority }));

const silent = { toolsChanged() {}, promptsChanged() {}, resourcesChanged() {}, resourceUpdated() {} };

if (options.stdio) {
  if (speaks.modern) serveStdio(({ era }) => offered({ era, notify: silent }), { legacy: speaks.legacy ? 'serve' : 'reject' });
  else offered({ era: 'legacy', notify: silent }).connect(new StdioServerTransport());
} else if (options.sse) {
  serveSse(Number(options.port));
} else {
  serveHttp(Number(options.port));
}

/** A session is a stream from one address, with messages to another; only version 1 of the SDK still has that. */
function serveSse(port) {
  const sessions = new Map();
  const hostIsLocal = localhostHostValidation();
  const listener = createServer(async (request, response) => {
    try {
      if (!hostIsLocal(request, response)) return;
      const { pathname, searchParams } = new URL(request.url, 'http://127.0.0.1');
      if (request.method === 'GET' && pathname === '/sse') {
        const transport = new SSEServerTransport('/messages', response);
        sessions.set(transport.sessionId, transport);
        response.on('close', () => sessions.delete(transport.sessionId));
        return await offered({ era: 'legacy', notify: silent }).connect(transport);
      }
      const session = pathname === '/messages' && sessions.get(searchParams.get('sessionId'));
      if (!session) return void response.writeHead(404).end();
      await session.handlePostMessage(request, response, (await readBody(request)).json);
    } catch (cause) {
      console.error(cause);
      response.destroy();
    }
  });
  listener.listen(port, '127.0.0.1', () => console.error(`ready http://127.0.0.1:${listener.address().port}/sse`));
  process.on('SIGTERM', () => process.exit(0));
}

function serveHttp(port) {
  const modern = createMcpHandler(({ era }) => offered({ era, notify: modern.notify }), { legacy: 'reject' });
  const answerModern = toNodeHandler(modern);
  const sessions = new Map();
  const hostIsLocal = localhostHostValidation();
  const originIsLocal = localhostOriginValidation();

  const listener = createServer(async (request, response) => {
    try {
      if (!hostIsLocal(request, response) || !originIsLocal(request, response)) return;
      if (request.url?.split('?')[0] !== '/mcp') return void response.writeHead(404).end();
      const body = await readBody(request);
      const web = await toWebRequest(request, body.json);
      if (speaks.legacy && (!speaks.modern || (await isLegacyRequest(web, body.json)))) await answerLegacy(request, response, body, { sessions, modern });
      else await answerModern(request, response, body.json);
    } catch (cause) {
      console.error(cause);
      if (response.headersSent) response.destroy();
      else fail(response, 500, -32603, 'internal error');
    }
  });
  listener.listen(port, '127.0.0.1', () => console.error(`ready http://127.0.0.1:${listener.address().port}/mcp`));
  process.on('SIGTERM', () => process.exit(0));
}

async function answerLegacy(request, response, body, { sessions, modern }) {
  const id = request.headers['mcp-session-id'];
  const session = sessions.get(id);
  if (session) return session.handleRequest(request, response, body.json);
  if (id !== undefined) return fail(response, 404, -32001, 'session not found', body);
  if (request.method !== 'POST' || !opensSession(body.json)) return fail(response, 400, -32000, 'a session id is required', body);

  const transport = new NodeStreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    eventStore: new EventLog(),
    retryInterval: 500,
    onsessioninitialized: (opened) => void sessions.set(opened, transport),
    onsessionclosed: (closed) => void sessions.delete(closed),
  });
  await offered({ era: 'legacy', notify: modern.notify }).connect(transport);
  await transport.handleRequest(request, response, body.json);
}

const opensSession = (json) => (Array.isArray(json) ? json : [json]).some((message) => isInitializeRequest(message));

/** Names the request that it answers, where there is one. */
function fail(response, status, code, message, body) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ jsonrpc: '2.0', id: body?.json?.id, error: { code, message } }));
}

/** The request's body: `json` stays undefined where there is none or it does not parse, for the SDK to refuse. */
async function readBody(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > BODY_LIMIT) throw new Error('the body is too large');
    chunks.push(chunk);
  }
  if (size === 0) return {};
  try {
    return { json: JSON.parse(Buffer.concat(chunks).toString('utf8')) };
  } catch {
    return { json: 'not JSON' };
  }
}

/** Events of one session in order, so that a stream can be taken up again after any of them. */
class EventLog {
  #events = [];

  async storeEvent(stream, message) {
    this.#events.push({ stream, message });
    return String(this.#events.length);
  }

  async getStreamIdForEventId(id) {
    return this.#events[Number(id) - 1]?.stream;
  }

  async replayEventsAfter(id, { send }) {
    const stream = await this.getStreamIdForEventId(id);
    if (stream === undefined) throw new Error('unknown event id');
    for (const [index, event] of [...this.#events.entries()].slice(Number(id))) {
      const isPriming = Object.keys(event.message).length === 0;
      if (event.stream === stream && !isPriming) await send(String(index + 1), event.message);
    }
    return stream;
  }
}
