// Tools that become tasks as 2025-11-25 has them, on version 1 of the official SDK: version 2 has no tasks. See
// tests/py/task_server.py for those of 2026-07-28, with the same tools. Opens no socket.

import { InMemoryTaskMessageQueue, InMemoryTaskStore } from '@modelcontextprotocol/sdk/experimental/tasks/index.js';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { ElicitResultSchema } from '@modelcontextprotocol/sdk/types.js';
import { setTimeout as pause } from 'node:timers/promises';
import { z } from 'zod';

const text = (value) => ({ content: [{ type: 'text', text: value }] });
const [LIFE, POLL, SHORT, PATIENCE] = [60_000, 50, 100, 10_000];

// Tasks that wait, and what lets them go on.
const gates = new Map();

/** One server for one session. */
export function tasks() {
  const server = new McpServer(
    { name: 'durward-fixture-tasks', version: '1.0.0' },
    {
      capabilities: { tools: {}, tasks: { list: {}, cancel: {}, requests: { tools: { call: {} } } } },
      taskStore: new InMemoryTaskStore(),
      taskMessageQueue: new InMemoryTaskMessageQueue(),
    },
  );
  const gate = { gate: z.string() };
  becoming(server, 'test_task_short', 'Ends by itself.', {}, async () => {
    await pause(SHORT);
    return 'It is done.';
  });
  becoming(server, 'test_task_gate', 'Ends when somebody opens the gate.', gate, async ({ gate }) => {
    const tooLate = pause(PATIENCE, 'Nobody opened the gate.', { ref: false });
    return Promise.race([new Promise((resolve) => gates.set(gate, () => resolve('The gate is open.'))), tooLate]);
  });
  becoming(server, 'test_task_question', 'Asks the user for a name.', {}, async (_given, extra, taskId) => {
    const requestedSchema = { type: 'object', properties: { username: { type: 'string' } }, required: ['username'] };
    const question = { method: 'elicitation/create', params: { mode: 'form', message: 'Who?', requestedSchema } };
    const { content } = await extra.sendRequest(question, ElicitResultSchema, { relatedTask: { taskId } });
    return `Hello, ${content?.username}!`;
  });
  server.registerTool('test_gate_open', { description: 'Lets a waiting task go on.', inputSchema: gate }, ({ gate }) => {
    gates.get(gate)?.();
    gates.delete(gate);
    return text('Opened.');
  });
  return server;
}

/** A tool that becomes a task where its caller wants one. `run` gives the text of the result. */
function becoming(server, name, description, inputSchema, run) {
  const createTask = async (given, extra) => {
    const task = await extra.taskStore.createTask({ ttl: LIFE, pollInterval: POLL });
    const end = (status, result) => extra.taskStore.storeTaskResult(task.taskId, status, result);
    run(given, extra, task.taskId)
      .then((value) => end('completed', text(value)))
      // It may have been cancelled meanwhile, and its result is nobody's.
      .catch((error) => end('failed', { ...text(error.message), isError: true }).catch(() => {}));
    return { task };
  };
  server.experimental.tasks.registerToolTask(
    name,
    { description, inputSchema, execution: { taskSupport: 'optional' } },
    {
      createTask,
      getTask: (_given, { taskStore, taskId }) => taskStore.getTask(taskId),
      getTaskResult: (_given, { taskStore, taskId }) => taskStore.getTaskResult(taskId),
    },
  );
}
