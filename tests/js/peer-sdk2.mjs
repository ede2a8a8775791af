// The official TypeScript SDK, version 2, as stories and the matrix want a client: one shape for both SDKs.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

/** `mode` is how the SDK finds the revision; `way` is `http`, or `stdio` through the program `connector`. */
export async function open(url, { mode, way = 'http', key, connector } = {}) {
  const client = new Client(
    { name: 'stranger-sdk2', version: '1.0.0' },
    {
      capabilities: { elicitation: { form: {} }, sampling: {}, roots: {} },
      versionNegotiation: { mode },
    },
  );
  client.setRequestHandler('elicitation/create', ({ params }) => ({
    action: 'accept',
    content: Object.fromEntries(Object.keys(params.requestedSchema.properties).map((name) => [name, 'Ada'])),
  }));
  client.setRequestHandler('sampling/createMessage', () => ({
    model: 'none',
    role: 'assistant',
    content: { type: 'text', text: 'Yes, Ada' },
  }));
  client.setRequestHandler('roots/list', () => ({ roots: [{ uri: 'file:///srv/ada', name: 'home' }] }));
  const transport =
    way === 'stdio'
      ? new StdioClientTransport({ command: connector, args: ['connect', url], ...(key && { env: { DURWARD_KEY: key } }) })
      : new StreamableHTTPClientTransport(new URL(url), key && { requestInit: { headers: { authorization: `Bearer ${key}` } } });
  await client.connect(transport);
  const era = client.getProtocolEra();
  return {
    era,
    revision: client.getNegotiatedProtocolVersion(),
    tools: async () => (await client.listTools()).tools,
    call: (name, given = {}, options) => client.callTool({ name, arguments: given }, options),
    prompts: async () => (await client.listPrompts()).prompts,
    prompt: (name, given) => client.getPrompt({ name, arguments: given }),
    complete: (name, argument, value) =>
      client.complete({ ref: { type: 'ref/prompt', name }, argument: { name: argument, value } }),
    resources: async () => (await client.listResources()).resources,
    templates: async () => (await client.listResourceTemplates()).resourceTemplates,
    read: (uri) => client.readResource({ uri }),
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
    toolsChange: async () => {
      const changed = new Promise((resolve) =>
        client.setNotificationHandler('notifications/tools/list_changed', resolve),
      );
      if (era === 'modern') await client.listen({ toolsListChanged: true });
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
