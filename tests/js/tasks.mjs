// One row of the matrix of tasks: a client of 2025-11-25 at every server with tasks. How it is called and what it prints:
// visit.mjs. Clients of 2026-07-28 with tasks are in tests/py/tasks.py, with the same steps.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';

import { CallToolResultSchema, ResultSchema, TaskStatusNotificationSchema } from '@modelcontextprotocol/sdk/types.js';

import { open } from './peer-sdk1.mjs';
import { textOf } from './stranger.mjs';
import { Lacking, revision, visitAll } from './visit.mjs';

/** What the servers give their tasks for ids. */
const OWN = /^[0-9a-f]{32}$/;

async function opened({ prefix, url, ...how }) {
  const { client, call, close } = await open(url, { ...how, revision });
  const named = (name) => prefix + name;
  const tasks = client.experimental.tasks;
  const news = [];
  client.setNotificationHandler(TaskStatusNotificationSchema, ({ params }) => void news.push(params));
  return {
    news,
    close,
    call: (name, given) => call(named(name), given),
    /** The answer to a call that asks for a task. */
    ask: (name, given = {}) => {
      const params = { name: named(name), arguments: given, task: { ttl: 60_000 } };
      return client.request({ method: 'tools/call', params }, ResultSchema);
    },
    get: (id) => tasks.getTask(id),
    result: (id) => tasks.getTaskResult(id, CallToolResultSchema),
    cancel: (id) => tasks.cancelTask(id),
    list: async () => (await tasks.listTasks()).tasks.map(({ taskId }) => taskId),
  };
}

function story(client, { prefix }) {
  let short;
  const own = () => {
    if (!short) throw new Lacking('there is no task');
    return short.taskId;
  };
  const begin = async (name, given) => {
    own();
    return (await client.ask(name, given)).task.taskId;
  };
  return {
    'begin a task': async () => {
      // Where the gateway refuses tasks, nothing else would reach the server, and nobody could hear what it says.
      assert.equal(textOf(await client.call('test_gate_open', { gate: randomUUID() })), 'Opened.');
      const answer = await client.ask('test_task_short');
      short = answer.task;
      if (!short) {
        assert.equal(textOf(answer), 'It is done.');
        return 'the call waits for its result';
      }
      // On the aggregate ids carry their server, sealed.
      assert.equal(OWN.test(own()), !prefix, own());
    },
    status: async () => assert.match((await client.get(own())).status, /^(working|completed)$/),
    result: async () => {
      const gate = randomUUID();
      const task = await begin('test_task_gate', { gate });
      const result = client.result(task);
      result.catch(() => {});
      assert.equal((await client.get(task)).status, 'working');
      await client.call('test_gate_open', { gate });
      assert.equal(textOf(await result), 'The gate is open.');
      assert.equal((await client.get(task)).status, 'completed');
    },
    'question in a task': async () => {
      assert.equal(textOf(await client.result(await begin('test_task_question'))), 'Hello, Ada!');
    },
    'cancelled task': async () => {
      const task = await begin('test_task_gate', { gate: randomUUID() });
      assert.equal((await client.cancel(task)).status, 'cancelled');
      assert.equal((await client.get(task)).status, 'cancelled');
    },
    'list of tasks': async () => {
      const task = own();
      assert.ok((await client.list()).includes(task));
    },
    'news of a task': async () => {
      const task = await begin('test_task_short');
      await client.result(task);
      while (!client.news.some(({ taskId, status }) => taskId === task && status === 'completed')) await pause(20);
    },
    'unknown task': async () => {
      own();
      await assert.rejects(client.get('no-such-task'), ({ code }) => code === -32602);
    },
  };
}

await visitAll({ opened, story });
