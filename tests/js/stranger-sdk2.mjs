// The official TypeScript SDK, version 2, in both eras where the server has both.
//
//   node stranger-sdk2.mjs WHAT URL [WHAT URL …]     WHAT as in stranger.mjs

import { open } from './peer-sdk2.mjs';
import { connector, tell } from './stranger.mjs';

const way = connector ? 'stdio' : 'http';
await tell({
  legacy: (url) => open(url, { way, connector, mode: 'legacy' }),
  modern: (url) => open(url, { way, connector, mode: { pin: '2026-07-28' } }),
});
