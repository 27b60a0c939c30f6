// Coming and going: how a client gets in by host and port alone, how it stays, and how it leaves.

import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { keys } from './config.mjs';
import { changes, eventually, figure, listen, numbers, pause, reaches, sdks, server, story, tale, within } from './kit.mjs';
import { action } from './raw.mjs';

story('the SDK connects with a key, a host and a port, in Node\'s msgpack and in JSON', async (stage) => {
  for (const useBinaryProtocol of [undefined, true, false]) {
    const client = stage.meet(useBinaryProtocol === undefined ? {} : { useBinaryProtocol });
    const seen = changes(client.connection);
    await reaches(client.connection, 'connected');
    assert.deepEqual(seen.map((c) => c.current), ['connecting', 'connected']);
    assert.equal(client.connection.errorReason, null);
    assert.match(client.connection.id, /^[A-Za-z0-9]+$/);
    assert.ok(client.connection.key.length >= 16);
    assert.equal(client.connection.connectionManager.activeProtocol.transport.format, useBinaryProtocol === false ? 'json' : 'msgpack');
  }
});

story('the old way of naming the server works as well: restHost and realtimeHost', async (stage) => {
  const [host, port] = server.split(':');
  const client = new stage.sdk.Realtime({ key: keys.all, restHost: host, realtimeHost: host, port: Number(port), tls: false, logLevel: 0 });
  stage.ends.push(() => client.close());
  await reaches(client.connection, 'connected');
});

story('a ping is answered, and takes a sensible time', async (stage) => {
  for (const useBinaryProtocol of [true, false]) {
    const client = await stage.arrive({ useBinaryProtocol });
    const times = await Promise.all([client.connection.ping(), client.connection.ping(), client.connection.ping()]);
    for (const ms of times) assert.ok(ms >= 0 && ms < 10_000);
  }
});

story('a client that closes is closed, and the server lets go of it', async (stage) => {
  const client = await stage.arrive();
  const channel = client.channels.get(stage.room);
  await channel.attach();
  const { id, key } = client.connection;
  const there = await figure('active_connections');
  client.close();
  await reaches(client.connection, 'closed');
  assert.equal(channel.state, 'detached');
  // The SDK does not wait for the server, which may hear of it a moment later.
  await eventually('the socket is gone', async () => (await figure('active_connections')) < there);
  const late = stage.raw({ resume: key });
  assert.notEqual((await late.want(action.CONNECTED)).connectionId, id, 'nobody can go on with what was closed');
});

story('a closed client comes back when told to: with a new identity, and its channels on demand', async (stage) => {
  const client = await stage.arrive();
  const { id, key } = client.connection;
  client.close();
  await reaches(client.connection, 'closed');
  client.connect();
  await reaches(client.connection, 'connected');
  assert.notEqual(client.connection.id, id);
  assert.notEqual(client.connection.key, key);
  assert.equal((await client.channels.get(stage.room).publish('n', 'd')).serials.length, 1);
});

story('a client may close while it connects, and nothing is left over', async (stage) => {
  for (let i = 0; i < 10; i++) {
    const client = stage.meet();
    await pause(i);
    client.close();
    await reaches(client.connection, 'closed');
  }
});

story('what is published before the connection stands is sent when it does', async (stage) => {
  const ben = await stage.arrive();
  const ear = await listen(ben.channels.get(stage.room));
  const anna = stage.meet();
  const channel = anna.channels.get(stage.room);
  const sent = [0, 1, 2].map((i) => channel.publish('early', String(i)));
  assert.notEqual(anna.connection.state, 'connected');
  for (const { serials } of await Promise.all(sent)) assert.equal(serials.length, 1);
  await ear.has(3);
  assert.deepEqual(ear.data(), ['0', '1', '2']);
});

story('without queueing, a publish before the connection stands is refused by the SDK and never sent', async (stage) => {
  const anna = stage.meet({ queueMessages: false });
  await assert.rejects(anna.channels.get(stage.room).publish('early', '1'));
  await reaches(anna.connection, 'connected');
});

story('a key that nobody has, and a wrong secret, fail for good: one attempt, 40101, no more', async (stage) => {
  for (const key of ['app.nobody:geheim', 'elsewhere.all:geheim', `${keys.all}x`, keys.all.slice(0, -1)]) {
    const line = await stage.line();
    let attempts = 0;
    line.server.on('connection', () => attempts++);
    const eve = stage.meet({ key, at: line.at });
    const seen = changes(eve.connection);
    await eventually('the connection fails', () => eve.connection.state === 'failed');
    assert.equal(eve.connection.errorReason.code, 40101);
    assert.equal(eve.connection.errorReason.statusCode, 401);
    await pause(300); // longer than the SDK was told to wait before it tries again
    assert.deepEqual(seen.map((c) => c.current), ['connecting', 'failed']);
    assert.equal(attempts, 1);
    assert.ok(!eve.connection.errorReason.message.includes(key.split(':')[1]), 'no secret in the error');
  }
});

story('fifty clients of one process live side by side, and each hears all', async (stage) => {
  const clients = await Promise.all(Array.from({ length: 50 }, (_, i) => stage.arrive({ sdk: sdks[i % 2], useBinaryProtocol: i % 4 < 2 })));
  assert.equal(new Set(clients.map((c) => c.connection.id)).size, 50);
  const ears = await Promise.all(clients.map((c) => listen(c.channels.get(stage.room))));
  await Promise.all(clients.map((c, i) => c.channels.get(stage.room).publish('hello', String(i))));
  await Promise.all(ears.map((ear) => ear.has(50)));
  for (const ear of ears) {
    assert.deepEqual(ear.data(), ears[0].data());
    assert.deepEqual(ear.data().toSorted((a, b) => a - b), numbers(50));
  }
});

story('one connection carries two hundred channels', async (stage) => {
  const [anna, ben] = [await stage.arrive(), await stage.arrive()];
  const rooms = Array.from({ length: 200 }, (_, i) => `${stage.room}:${i}`);
  const ears = await Promise.all(rooms.map((room) => listen(ben.channels.get(room))));
  await Promise.all(rooms.map((room, i) => anna.channels.get(room).publish('n', String(i))));
  await Promise.all(ears.map((ear) => ear.has(1)));
  assert.deepEqual(ears.map((ear) => ear.data()), rooms.map((_, i) => [`${i}`]));
});

tale('the origins of cors.allowed_origins do not bind Ably clients', async (stage) => {
  const socket = new WebSocket(`ws://${server}/?key=${encodeURIComponent(keys.all)}&v=6`, { origin: 'https://elsewhere.example' });
  stage.ends.push(() => socket.terminate());
  const first = await within(new Promise((resolve, reject) => { socket.on('message', resolve); socket.on('error', reject); }), 'a frame');
  assert.equal(JSON.parse(first).action, action.CONNECTED);
});

tale('where ably.allowed_origins is set, a page from elsewhere is told so inside the socket', async (stage) => {
  const house = await stage.house({ ably: { allowed_origins: ['https://here.example'] } });
  const open = (origin) => {
    const socket = new WebSocket(`ws://${house.at}/?key=${encodeURIComponent(keys.all)}&v=6`, { origin });
    stage.ends.push(() => socket.terminate());
    return within(new Promise((resolve, reject) => { socket.on('message', (bytes) => resolve(JSON.parse(bytes))); socket.on('error', reject); }), 'a frame');
  };
  assert.equal((await open('https://here.example')).action, action.CONNECTED);
  const refusal = await open('https://elsewhere.example');
  assert.equal(refusal.action, action.ERROR);
  assert.deepEqual([refusal.error.code, refusal.error.statusCode], [40300, 403]);
  assert.ok(!('channel' in refusal));
});

tale('a server that is told to stop says DISCONNECTED first, and does not wait for anybody', async (stage) => {
  const house = await stage.house();
  const [raw, pack] = [stage.raw({ at: house.at }), stage.raw({ at: house.at, format: 'msgpack' })];
  for (const client of [raw, pack]) await client.want(action.CONNECTED);
  await house.stop();
  for (const client of [raw, pack]) {
    const { error, channel } = await client.until(action.DISCONNECTED);
    assert.ok(error.code && error.statusCode && channel === undefined);
    await client.closed;
  }
});

tale('where Ably is switched off, the server is one for the LetShare protocol alone', async (stage) => {
  const house = await stage.house({ ably: { enabled: false } });
  const anna = stage.raw({ at: house.at });
  await anna.closed;
  assert.match(anna.error.message, /401/);
  assert.deepEqual(anna.frames, []);
});
