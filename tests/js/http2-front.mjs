// HTTP/2 over TLS as Node speaks it, and nothing older, before a server that speaks HTTP/1.1.
//
//   node http2-front.mjs --port N --target http://HOST:PORT --certificate FILE --key FILE
//
// Everything passes as it comes: bytes, headers, statuses, streams as they flow, disconnects both ways.

import { readFileSync } from 'node:fs';
import { request as dial } from 'node:http';
import { createSecureServer } from 'node:http2';
import { pipeline } from 'node:stream';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    port: { type: 'string' },
    target: { type: 'string' },
    certificate: { type: 'string' },
    key: { type: 'string' },
  },
});
const target = new URL(options.target);
const shown = { cert: readFileSync(options.certificate), key: readFileSync(options.key), allowHTTP1: false };

createSecureServer(shown, (incoming, outgoing) => {
  // What begins with a colon is HTTP/2's own.
  const headers = Object.entries(incoming.headers).filter(([name]) => !name.startsWith(':'));
  const onward = dial(
    target,
    { method: incoming.method, path: incoming.url, headers: { ...Object.fromEntries(headers), host: target.host } },
    (answer) => {
      outgoing.writeHead(answer.statusCode, withoutConnection(answer.headers));
      outgoing.flushHeaders();
      pipeline(answer, outgoing, () => {});
    },
  );
  onward.on('error', () => outgoing.stream?.close());
  outgoing.on('close', () => onward.destroy());
  pipeline(incoming, onward, () => {});
}).listen(Number(options.port), '127.0.0.1');

/** The headers of an answer, without those that belong to one connection of HTTP/1.1. */
function withoutConnection(headers) {
  const { connection, 'keep-alive': _keepAlive, 'transfer-encoding': _encoding, ...others } = headers;
  return others;
}
