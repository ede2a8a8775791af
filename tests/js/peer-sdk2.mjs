// The official TypeScript SDK, version 2, as stories and the matrix want a client: one shape for both SDKs.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

import { alike, eachOf, piped, shown, user } from './peer.mjs';

/** `mode` is how the SDK finds the revision; `way` is `http`, or `stdio` through the program `connector`. */
export async function open(url, { mode, way = 'http', key, connector, name = 'stranger-sdk2' } = {}) {
  const client = new Client(
    { name, version: '1.0.0' },
    {
      capabilities: { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} },
      versionNegotiation: { mode },
    },
  );
  const { visits, elicit, sample, roots } = user();
  client.setRequestHandler('elicitation/create', elicit);
  client.setRequestHandler('sampling/createMessage', sample);
  client.setRequestHandler('roots/list', roots);
  const transport =
    way === 'stdio'
      ? new StdioClientTransport(piped(url, key, connector))
      : new StreamableHTTPClientTransport(new URL(url), shown(key));
  await client.connect(transport);
  const era = client.getProtocolEra();
  const call = (name, given = {}, options) => client.callTool({ name, arguments: given }, options);
  return {
    ...alike(client),
    era,
    revision: client.getNegotiatedProtocolVersion(),
    visits,
    call,
    /** The SDK itself makes the call again with the answers. */
    callAfterVisits: call,
    logs: async () => {
      const logs = [];
      client.setNotificationHandler('notifications/message', ({ params }) => void logs.push(params));
      if (era === 'legacy') await client.setLoggingLevel('debug');
      return logs;
    },
    /** A call whose own metadata asks for log messages, where the era has no other way. */
    callLogged: (name) =>
      client.callTool({
        name,
        arguments: {},
        ...(era === 'modern' && { _meta: { 'io.modelcontextprotocol/logLevel': 'debug' } }),
      }),
    listsChange: async (...kinds) => {
      const changed = eachOf(kinds, (kind, heard) => client.setNotificationHandler(`notifications/${kind}/list_changed`, heard));
      if (era === 'modern') await client.listen(Object.fromEntries(kinds.map((kind) => [`${kind}ListChanged`, true])));
      // Wrapped, or whoever awaits this would wait for the change itself.
      return { changed };
    },
    follow: async (uri) => {
      const updated = new Promise((resolve) =>
        client.setNotificationHandler('notifications/resources/updated', ({ params }) => {
          if (params.uri === uri) resolve();
        }),
      );
      if (era === 'modern') {
        const subscription = await client.listen({ resourceSubscriptions: [uri] });
        return { updated, stop: () => subscription.close() };
      }
      await client.subscribeResource({ uri });
      return { updated, stop: () => client.unsubscribeResource({ uri }) };
    },
    close: async () => {
      if (era === 'legacy') await transport.terminateSession?.();
      await client.close();
    },
  };
}
