// The official TypeScript SDK, version 1, as stories and the matrix want a client: one shape for both SDKs.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CallToolResultSchema,
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  InitializeResultSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';

/** Speaks a revision and those before it, as this SDK did when that revision was the newest. */
class Dated extends Client {
  revision;
  agreed;

  async request(request, schema, ...rest) {
    if (request.method !== 'initialize' || !this.revision) return super.request(request, schema, ...rest);
    const dated = { ...request, params: { ...request.params, protocolVersion: this.revision } };
    const answer = await super.request(dated, InitializeResultSchema, ...rest);
    this.agreed = answer.protocolVersion;
    return answer;
  }
}

const shown = (key) => ({ requestInit: { headers: key ? { authorization: `Bearer ${key}` } : {} } });

const TRANSPORTS = {
  http: (url, key) => new StreamableHTTPClientTransport(new URL(url), shown(key)),
  sse: (url, key) => new SSEClientTransport(new URL(url), shown(key)),
  stdio: (url, key, connector) =>
    new StdioClientTransport({ command: connector, args: ['connect', url], ...(key && { env: { DURWARD_KEY: key } }) }),
};

/** `way` is a key of TRANSPORTS; without a `revision` the SDK asks for the one that it likes best. */
export async function open(url, { way = 'http', key, connector, revision } = {}) {
  const canBeAsked = !revision || revision >= '2025-06-18';
  const client = new Dated(
    { name: 'stranger-sdk1', version: '1.0.0' },
    { capabilities: { ...(canBeAsked && { elicitation: {} }), sampling: {}, roots: {} } },
  );
  client.revision = revision;
  if (canBeAsked) {
    client.setRequestHandler(ElicitRequestSchema, ({ params }) => ({
      action: 'accept',
      content: Object.fromEntries(Object.keys(params.requestedSchema.properties).map((name) => [name, 'Ada'])),
    }));
  }
  client.setRequestHandler(CreateMessageRequestSchema, () => ({
    model: 'none',
    role: 'assistant',
    content: { type: 'text', text: 'Yes, Ada' },
  }));
  client.setRequestHandler(ListRootsRequestSchema, () => ({ roots: [{ uri: 'file:///srv/ada', name: 'home' }] }));
  const transport = TRANSPORTS[way](url, key, connector);
  await client.connect(transport);
  return {
    era: 'legacy',
    revision: client.agreed,
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
    callLogged: (name) => client.callTool({ name, arguments: {} }),
    toolsChange: async () => {
      const changed = new Promise((resolve) => client.setNotificationHandler(ToolListChangedNotificationSchema, resolve));
      return { changed };
    },
    follow: async (uri) => {
      const updated = new Promise((resolve) =>
        client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => {
          if (params.uri === uri) resolve();
        }),
      );
      await client.subscribeResource({ uri });
      return { updated, stop: () => client.unsubscribeResource({ uri }) };
    },
    close: async () => {
      await transport.terminateSession?.();
      await client.close();
    },
  };
}
