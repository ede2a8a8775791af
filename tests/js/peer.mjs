// What is the same in both versions of the official TypeScript SDK, for peer-sdk1.mjs and peer-sdk2.mjs. Never sees an SDK.

/** What the user of a client says to whatever a server asks, and the pages that it was sent to. */
export function user() {
  const visits = [];
  return {
    visits,
    elicit: ({ params }) => {
      if (params.mode === 'url') {
        visits.push(params);
        return { action: 'accept' };
      }
      const fields = Object.keys(params.requestedSchema.properties);
      return { action: 'accept', content: Object.fromEntries(fields.map((name) => [name, 'Ada'])) };
    },
    sample: () => ({ model: 'none', role: 'assistant', content: { type: 'text', text: 'Yes, Ada' } }),
    roots: () => ({ roots: [{ uri: 'file:///srv/ada', name: 'home' }] }),
  };
}

/** What every client can do, and is called the same in both versions. */
export const alike = (client) => ({
  tools: async () => (await client.listTools()).tools,
  prompts: async () => (await client.listPrompts()).prompts,
  prompt: (name, given) => client.getPrompt({ name, arguments: given }),
  complete: (name, argument, value) =>
    client.complete({ ref: { type: 'ref/prompt', name }, argument: { name: argument, value } }),
  resources: async () => (await client.listResources()).resources,
  templates: async () => (await client.listResourceTemplates()).resourceTemplates,
  read: (uri) => client.readResource({ uri }),
});

/** A promise for the first message of each kind. `on` listens for one: on(KIND, RESOLVE). */
export const eachOf = (kinds, on) => Promise.all(kinds.map((kind) => new Promise((resolve) => on(kind, resolve))));

export const shown = (key) => ({ requestInit: { headers: key ? { authorization: `Bearer ${key}` } : {} } });

/** The program that carries the client's pipes to the URL. */
export const piped = (url, key, connector) => ({
  command: connector,
  args: ['connect', url],
  ...(key && { env: { DURWARD_KEY: key } }),
});
