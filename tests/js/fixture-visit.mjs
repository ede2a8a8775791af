// Tools that send the user to a page, as 2025-11-25 and later have it: in the middle of a call, and before it.

import { UrlElicitationRequiredError, inputRequired, inputResponse } from '@modelcontextprotocol/server';
import { randomUUID } from 'node:crypto';
import { z } from 'zod';

import { text, tool, within } from './fixture-part.mjs';

/** Pages that a call wanted to have visited first; the call that comes again finds its own here. */
const wanted = new Set();

export function visiting(server, era) {
  const page = z.object({ address: z.string() });
  const message = 'Please go to this page.';
  const then = (given) => text(`The visit: ${given.action}.`);
  const asked = (context, address) => {
    const given = inputResponse(context.mcpReq.inputResponses, 'visit');
    if (given.kind !== 'missing') return then(given);
    return inputRequired({ inputRequests: { visit: inputRequired.elicitUrl({ message, url: address }) } });
  };

  tool(server, 'test_visit', 'Asks for a visit, and says when it is over.', page, async ({ address }, context) => {
    if (era === 'modern') return asked(context, address);
    const visit = { mode: 'url', message, url: address, elicitationId: randomUUID() };
    const given = await context.mcpReq.elicitInput(visit, within(context));
    await server.server.createElicitationCompletionNotifier(visit.elicitationId, within(context))();
    return then(given);
  });
  tool(server, 'test_visit_first', 'Goes on only after a visit.', page, ({ address }, context) => {
    if (era === 'modern') return asked(context, address);
    if (wanted.delete(address)) return text('The visit: before.');
    if (!server.server.getClientCapabilities()?.elicitation?.url) throw new Error('Client does not support url elicitation.');
    wanted.add(address);
    throw new UrlElicitationRequiredError([{ mode: 'url', message, url: address, elicitationId: randomUUID() }]);
  });
}
