// The official TypeScript SDK, version 1, as stories and the matrix want a client: one shape for both SDKs.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CallToolResultSchema,
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ElicitationCompleteNotificationSchema,
  InitializeResultSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
  PromptListChangedNotificationSchema,
  ResourceListChangedNotificationSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
  UrlElicitationRequiredError,
} from '@modelcontextprotocol/sdk/types.js';

import { alike, eachOf, piped, shown, user } from './peer.mjs';

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

const TRANSPORTS = {
  http: (url, key) => new StreamableHTTPClientTransport(new URL(url), shown(key)),
  sse: (url, key) => new SSEClientTransport(new URL(url), shown(key)),
  stdio: (url, key, connector) => new StdioClientTransport(piped(url, key, connector)),
};

const CHANGES = {
  tools: ToolListChangedNotificationSchema,
  prompts: PromptListChangedNotificationSchema,
  resources: ResourceListChangedNotificationSchema,
};

/** What a client of a revision can be asked. */
function capabilities(revision) {
  const isSince = (born) => !revision || revision >= born;
  const elicitation = isSince('2025-11-25') ? { form: {}, url: {} } : {};
  return { ...(isSince('2025-06-18') && { elicitation }), sampling: {}, roots: {} };
}

/** `way` is a key of TRANSPORTS; without a `revision` the SDK asks for the one that it likes best. */
export async function open(url, { way = 'http', key, connector, revision, name = 'stranger-sdk1' } = {}) {
  const declared = capabilities(revision);
  const client = new Dated({ name, version: '1.0.0' }, { capabilities: declared });
  client.revision = revision;
  const { visits, elicit, sample, roots } = user();
  const over = [];
  if (declared.elicitation) client.setRequestHandler(ElicitRequestSchema, elicit);
  client.setRequestHandler(CreateMessageRequestSchema, sample);
  client.setRequestHandler(ListRootsRequestSchema, roots);
  client.setNotificationHandler(ElicitationCompleteNotificationSchema, ({ params }) => void over.push(params.elicitationId));
  const transport = TRANSPORTS[way](url, key, connector);
  await client.connect(transport);
  const call = (name, given = {}, options) => client.callTool({ name, arguments: given }, CallToolResultSchema, options);
  return {
    ...alike(client),
    client,
    era: 'legacy',
    revision: client.agreed,
    visits,
    over,
    call,
    /** A call that comes again once the pages were visited that it wants visited first. */
    callAfterVisits: (name, given) =>
      call(name, given).catch((error) => {
        if (!(error instanceof UrlElicitationRequiredError)) throw error;
        visits.push(...error.elicitations);
        return call(name, given);
      }),
    logs: async () => {
      const logs = [];
      client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => void logs.push(params));
      await client.setLoggingLevel('debug');
      return logs;
    },
    callLogged: (name) => client.callTool({ name, arguments: {} }),
    listsChange: async (...kinds) => ({
      changed: eachOf(kinds, (kind, heard) => client.setNotificationHandler(CHANGES[kind], heard)),
    }),
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
