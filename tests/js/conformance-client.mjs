// The client of the conformance suite's client mode: does whatever the suite's server offers, as a host would.
//
//   node conformance-client.mjs URL                        dials the suite's server
//   node conformance-client.mjs --through DURWARD URL      starts a gateway of its own in front of it, and dials that
//   node conformance-client.mjs --through DURWARD --bridge URL     the same, and speaks the era that the suite does not
//
// The suite appends the URL and says in the environment which scenario and which revision it means.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';

const MODERN = '2026-07-28';

const { values: options, positionals } = parseArgs({
  options: { through: { type: 'string' }, bridge: { type: 'boolean' } },
  allowPositionals: true,
});
const suite = (process.env.MCP_CONFORMANCE_PROTOCOL_VERSION ?? MODERN) === MODERN ? 'modern' : 'legacy';
// Pinned, a modern client does not try the other era, which would be no bridge any more.
const mode = options.bridge ? { modern: 'legacy', legacy: { pin: MODERN } }[suite] : { modern: 'auto', legacy: 'legacy' }[suite];
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');

const gateway = options.through && (await startGateway(options.through, positionals[0]));
try {
  await visit(gateway?.url ?? positionals[0]);
} finally {
  gateway?.stop();
}

async function visit(url) {
  const client = new Client(
    { name: 'durward-conformance-client', version: '1.0.0' },
    {
      capabilities: { elicitation: { form: { applyDefaults: true } }, sampling: {}, roots: {} },
      versionNegotiation: { mode },
    },
  );
  client.setRequestHandler('elicitation/create', () => ({ action: 'accept', content: {} }));
  client.setRequestHandler('sampling/createMessage', () => ({
    model: 'none',
    role: 'assistant',
    content: { type: 'text', text: 'Yes.' },
  }));
  client.setRequestHandler('roots/list', () => ({ roots: [] }));
  await client.connect(new StreamableHTTPClientTransport(new URL(url)));

  const { tools } = await client.listTools();
  const calls = context.toolCalls ?? tools.map((tool) => ({ name: tool.name, arguments: fitting(tool, tools) }));
  for (const call of calls) await client.callTool(call).catch((error) => console.error(call.name, error));
  const offered = client.getServerCapabilities() ?? {};
  if (offered.resources) {
    const { resources } = await client.listResources();
    await client.listResourceTemplates();
    for (const { uri } of resources) await client.readResource({ uri });
  }
  if (offered.prompts) {
    const { prompts } = await client.listPrompts();
    for (const { name } of prompts) await client.getPrompt({ name });
  }
  await client.close();
}

/** What a tool is to be called with. One of the suite's wants to be given the schema of another as it arrived. */
function fitting({ name, inputSchema }, tools) {
  const other = name === 'json_schema_echo' && tools.find((tool) => tool.name === 'json_schema_2020_12_tool');
  return other ? { schema: other.inputSchema } : invented(inputSchema);
}

/** Arguments that a schema without surprises accepts. */
function invented(schema) {
  const sample = { string: 'text', integer: 3, number: 5, boolean: true, array: [], object: {} };
  const properties = Object.entries(schema.properties ?? {});
  return Object.fromEntries(properties.map(([name, property]) => [name, sample[property.type] ?? 'text']));
}

async function startGateway(binary, upstream) {
  const folder = mkdtempSync(join(tmpdir(), 'durward-conformance-'));
  const [listen, admin] = [await freePort(), await freePort()];
  const policy = { policy: 'all', rules: [{ action: '*', target: '*/*', effect: 'allow' }] };
  writeFileSync(join(folder, 'policy.json'), JSON.stringify(policy));
  writeFileSync(
    join(folder, 'durward.yaml'),
    [
      `listen: 127.0.0.1:${listen}`,
      `admin: { listen: "127.0.0.1:${admin}" }`,
      'danger_allow_anonymous: trial',
      'agents: { trial: {} }',
      'policies: [policy.json]',
      'servers:',
      '  suite:',
      `    url: "${upstream}"`,
      '    internal: true',
      // Told its era, the gateway does not try the other one, which the suite would take for the client's doing.
      `    era: ${suite}`,
      // The suite calls this tool with a null that the tool's own schema forbids; the gateway would refuse.
      '    tools: { test_custom_headers_null: { danger_skip_schema: true } }',
    ].join('\n'),
  );
  const child = spawn(binary, ['up', '--config', 'durward.yaml', '--data', 'data'], { cwd: folder, stdio: 'inherit' });
  const stop = () => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  };
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const ready = await fetch(`http://127.0.0.1:${admin}/readyz`).catch(() => undefined);
    if (ready?.ok) return { url: `http://127.0.0.1:${listen}/mcp/suite`, stop };
    if (child.exitCode !== null) break;
    await pause(50);
  }
  stop();
  throw new Error('the gateway did not come up');
}

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer().on('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}
