// The official TypeScript SDK, version 2, in both eras where the server has both.
//
//   node stranger-sdk2.mjs WHAT URL [WHAT URL …]     WHAT as in stranger.mjs

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

import { connector, tell } from './stranger.mjs';

async function open(url, mode) {
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
  const transport = connector
    ? new StdioClientTransport({ command: connector, args: ['connect', url] })
    : new StreamableHTTPClientTransport(new URL(url));
  await client.connect(transport);
  const era = client.getProtocolEra();
  return {
    era,
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
      await client.setLoggingLevel('debug');
      return logs;
    },
    toolsChange: async () => {
      const changed = new Promise((resolve) =>
        client.setNotificationHandler('notifications/tools/list_changed', resolve),
      );
      if (era === 'modern') await client.listen({ toolsListChanged: true });
      // Wrapped, or whoever awaits this would wait for the change itself.
      return { changed };
    },
    close: async () => {
      if (era === 'legacy') await transport.terminateSession?.();
      await client.close();
    },
  };
}

await tell({ legacy: (url) => open(url, 'legacy'), modern: (url) => open(url, { pin: '2026-07-28' }) });
