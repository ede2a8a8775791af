// The official TypeScript SDK, version 1, which speaks the era of sessions only.
//
//   node stranger-sdk1.mjs WHAT URL [WHAT URL …]     WHAT as in stranger.mjs

import { open } from './peer-sdk1.mjs';
import { connector, tell } from './stranger.mjs';

const way = connector ? 'stdio' : 'http';
await tell({ legacy: (url) => open(url, { way, connector }) });
