// The official TypeScript SDK, version 1, which knows sessions only.
//
//   node stranger-sdk1.mjs WHAT URL [WHAT URL …]     WHAT as in stranger.mjs

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CallToolResultSchema,
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
  ToolListChangedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';

import { connector, tell } from './stranger.mjs';

async function open(url) {
  const client = new Client(
    { name: 'stranger-sdk1', version: '1.0.0' },
    { capabilities: { elicitation: {}, sampling: {}, roots: {} } },
  );
  client.setRequestHandler(ElicitRequestSchema, ({ params }) => ({
    action: 'accept',
    content: Object.fromEntries(Object.keys(params.requestedSchema.properties).map((name) => [name, 'Ada'])),
  }));
  client.setRequestHandler(CreateMessageRequestSchema, () => ({
    model: 'none',
    role: 'assistant',
    content: { type: 'text', text: 'Yes, Ada' },
  }));
  client.setRequestHandler(ListRootsRequestSchema, () => ({ roots: [{ uri: 'file:///srv/ada', name: 'home' }] }));
  const transport = connector
    ? new StdioClientTransport({ command: connector, args: ['connect', url] })
    : new StreamableHTTPClientTransport(new URL(url));
  await client.connect(transport);
  return {
    era: 'legacy',
    tools: async () => (await client.listTools()).tools,
    call: (name, given = {}, options) => client.callTool({ name, arguments: given }, CallToolResultSchema, options),
    prompts: async () => (await client.listPrompts()).prompts,
    prompt: (name, given) => client.getPrompt({ name, arguments: given }),
    complete: (name, argument, value) =>
      client.complete({ ref: { type: 'ref/prompt', name }, argument: { name: argument, value } }),
    resources: async () => (await client.listResources()).resources,
    templates: async () => (await client.listResourceTemplates()).resourceTemplates,
    read: (uri) => client.readResource({ uri }),
    logs: async () => {
      const logs = [];
      client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => void logs.push(params));
      await client.setLoggingLevel('debug');
      return logs;
    },
    toolsChange: async () => ({
      changed: new Promise((resolve) => client.setNotificationHandler(ToolListChangedNotificationSchema, resolve)),
    }),
    close: async () => {
      await transport.terminateSession?.();
      await client.close();
    },
  };
}

await tell({ legacy: open });
