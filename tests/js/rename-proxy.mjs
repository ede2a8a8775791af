// Undoes the one thing that the aggregate must do: names and addresses that carry their server.
//
//   node rename-proxy.mjs --port N --target http://HOST:PORT/mcp --prefix fixture__
//
// Whoever dials it says and hears the bare names of tools and prompts, and the bare addresses of resources; the target says
// and hears them with the prefix.
// Everything else passes as it comes: other bytes, headers, statuses, streams as they flow, disconnects both ways.

import { createServer, request as dial } from 'node:http';
import { pipeline, Transform } from 'node:stream';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: { port: { type: 'string' }, target: { type: 'string' }, prefix: { type: 'string' } },
});
const target = new URL(options.target);
const NAMED = ['tools/call', 'prompts/get'];
const ADDRESSED = ['resources/read', 'resources/subscribe', 'resources/unsubscribe'];
/** What stands before the addresses of the one server. */
const AUTHORITY = `durward://${options.prefix.slice(0, -2)}/`;

createServer(async (incoming, outgoing) => {
  const chunks = [];
  for await (const chunk of incoming) chunks.push(chunk);
  const { body, headers } = prefixed(Buffer.concat(chunks), { ...incoming.headers });

  // A foreign Host is a test of the target; only the proxy's own address becomes the target's.
  const own = ['127.0.0.1', 'localhost'].map((host) => `${host}:${options.port}`);
  if (own.includes(headers.host)) headers.host = target.host;
  delete headers['transfer-encoding'];
  if (body.length > 0) headers['content-length'] = body.length;

  const onward = dial(target, { method: incoming.method, headers }, (answer) => {
    const passed = { ...answer.headers };
    delete passed['content-length'];
    delete passed['transfer-encoding'];
    outgoing.writeHead(answer.statusCode, passed);
    outgoing.flushHeaders();
    pipeline(answer, bare(), outgoing, () => {});
  });
  onward.on('error', () => outgoing.destroy());
  outgoing.on('close', () => onward.destroy());
  onward.end(body);
}).listen(Number(options.port), '127.0.0.1');

/** The request with the prefix on the names in it. A body that names nothing stays as it is, to the byte. */
function prefixed(body, headers) {
  let message;
  try {
    message = JSON.parse(body.toString('utf8'));
  } catch {
    return { body, headers };
  }
  const { method, params } = message ?? {};
  const followed = method === 'subscriptions/listen' ? params?.notifications?.resourceSubscriptions : undefined;
  if (Array.isArray(followed)) {
    params.notifications.resourceSubscriptions = followed.map((uri) => AUTHORITY + uri);
    return { body: Buffer.from(JSON.stringify(message)), headers };
  }
  const named = method === 'completion/complete' ? params?.ref : params;
  const [key, prefix] =
    ADDRESSED.includes(method) || named?.type === 'ref/resource' ? ['uri', AUTHORITY] : ['name', options.prefix];
  const isNamed = NAMED.includes(method) || ADDRESSED.includes(method) || method === 'completion/complete';
  if (!isNamed || typeof named?.[key] !== 'string') return { body, headers };
  named[key] = prefix + named[key];
  if (headers['mcp-name'] !== undefined) headers['mcp-name'] = prefixedHeader(headers['mcp-name'], prefix);
  return { body: Buffer.from(JSON.stringify(message)), headers };
}

/** What cannot travel in a header as it is travels as `=?base64?…?=`. */
function prefixedHeader(value, prefix) {
  const encoded = /^=\?base64\?(.*)\?=$/.exec(value);
  if (!encoded) return prefix + value;
  const name = prefix + Buffer.from(encoded[1], 'base64').toString('utf8');
  return `=?base64?${Buffer.from(name, 'utf8').toString('base64')}?=`;
}

/** Takes the prefix off names and addresses, byte for byte. What could be half a one at the end of a chunk waits. */
function bare() {
  const shown = `"name":"${options.prefix}`;
  let rest = '';
  return new Transform({
    transform(chunk, _, done) {
      const text = (rest + chunk.toString('latin1')).replaceAll(shown, '"name":"').replaceAll(AUTHORITY, '');
      const half = Math.max(halfOf(shown, text), halfOf(AUTHORITY, text));
      rest = text.slice(text.length - half);
      done(null, Buffer.from(text.slice(0, text.length - half), 'latin1'));
    },
    flush(done) {
      done(null, Buffer.from(rest, 'latin1'));
    },
  });
}

/** How much of the beginning of `word` stands at the end of `text`. */
function halfOf(word, text) {
  for (let length = Math.min(word.length - 1, text.length); length > 0; length -= 1) {
    if (text.endsWith(word.slice(0, length))) return length;
  }
  return 0;
}
