// What the tools of the fixture server are made of.

export const text = (value) => ({ content: [{ type: 'text', text: value }] });
export const said = (value) => ({ role: 'user', content: { type: 'text', text: value } });

export function tool(server, name, description, inputSchema, run) {
  return server.registerTool(name, { description, ...(inputSchema && { inputSchema }) }, run);
}

// On the stream of the call: the listening stream may not be open yet, and what is sent there then is lost.
export const within = (context) => ({ relatedRequestId: context.mcpReq.id });
