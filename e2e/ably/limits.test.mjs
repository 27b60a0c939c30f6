// What is too much is refused, told, and survived: by the one who did it and by all others.

import assert from 'node:assert/strict';
import { keys } from './config.mjs';
import { eventually, figure, listen, reaches, refused, story, tale, unique } from './kit.mjs';
import { action } from './raw.mjs';

story('too many messages a second: the surplus is refused with 42911, the rest arrives, the connection lives', async (stage) => {
  const house = await stage.house({ ably: { messages_per_second: 20 } });
  const [anna, ben] = [await stage.arrive({ at: house.at }), await stage.arrive({ at: house.at })];
  const ear = await listen(ben.channels.get(stage.room));
  const channel = anna.channels.get(stage.room);
  const results = await Promise.allSettled(Array.from({ length: 200 }, (_, i) => channel.publish('n', String(i))));
  const accepted = results.flatMap((result, i) => (result.status === 'fulfilled' ? [`${i}`] : []));
  for (const { reason } of results.filter((r) => r.status === 'rejected')) assert.equal(reason.code, 42911);
  assert.ok(accepted.length >= 20 && accepted.length < 200, `${accepted.length} accepted`);
  await ear.has(accepted.length);
  assert.deepEqual(ear.data(), accepted, 'what was refused was not heard, what was accepted was');
  assert.equal(anna.connection.state, 'connected');
  // When the second is over, there is room again.
  await eventually('a publish is accepted again', () => channel.publish('again', '').then(() => true, () => false), 5000);
  await ear.hears('again');
});

tale('on the wire: ACKs and NACKs of a flood stand in order', async (stage) => {
  const house = await stage.house({ ably: { messages_per_second: 10 } });
  const anna = stage.raw({ at: house.at });
  await anna.want(action.CONNECTED);
  for (let i = 0; i < 100; i++) anna.publish(unique('r'), { data: 'x' });
  for (let next = 0; next < 100; ) {
    const frame = await anna.next();
    assert.equal(frame.msgSerial, next);
    if (frame.action === action.NACK) assert.equal(frame.error.code, 42911);
    next += frame.count;
  }
});

story('too large for this server: the SDK knows the limit; who ignores it is refused with 40009 and stays', async (stage) => {
  const house = await stage.house({ ably: { max_message_bytes: 1000 } });
  const anna = await stage.arrive({ at: house.at });
  await refused(anna.channels.get(stage.room).publish('n', 'x'.repeat(2000)), 40009);
  anna.options.maxMessageSize = 1 << 20; // now the SDK lets it pass
  const error = await refused(anna.channels.get(stage.room).publish('n', 'x'.repeat(2000)), 40009);
  assert.equal(error.statusCode, 400);
  await refused(anna.channels.get(stage.room).publish(Array.from({ length: 10 }, () => ({ name: 'n', data: 'x'.repeat(200) }))), 40009);
  assert.equal((await anna.channels.get(stage.room).publish('n', 'x'.repeat(900))).serials.length, 1);
  assert.equal(anna.connection.state, 'connected');
});

story('too many channels: the next one is refused, the others live, and a detach makes room', async (stage) => {
  const house = await stage.house({ ably: { max_channels_per_connection: 3 } });
  const anna = await stage.arrive({ at: house.at });
  const channels = ['a', 'b', 'c'].map((name) => anna.channels.get(name));
  for (const channel of channels) await channel.attach();
  const error = await refused(anna.channels.get('d').attach(), 90010);
  assert.ok(error.statusCode >= 400 && error.statusCode < 500);
  await channels[0].attach();
  const ear = await listen(channels[1]);
  await channels[1].publish('alive', '');
  await ear.hears('alive');
  await channels[0].detach();
  await anna.channels.get('e').attach();
  assert.equal(anna.connection.state, 'connected');
});

tale('a frame that is no protocol message harms nobody else', async (stage) => {
  const ear = await listen((await stage.arrive()).channels.get(stage.room));
  for (const format of ['json', 'msgpack']) {
    for (const junk of ['', 'nonsense', '[]', 'null', '{"action":"x"}', '{"action":15}', '{"action":15,"msgSerial":-1,"channel":7,"messages":{}}', '\xc1\xff\x00', '['.repeat(5000)]) {
      const eve = stage.raw({ format });
      await eve.want(action.CONNECTED);
      eve.socket.send(format === 'json' ? junk : Buffer.from(junk, 'latin1'));
      eve.send({ action: action.HEARTBEAT, id: 'still' });
      // Either the server passes over it, or it says what was wrong before it ends the connection.
      const answer = await eve.next();
      assert.ok([action.HEARTBEAT, action.ERROR, action.DISCONNECTED, action.NACK].includes(answer.action), JSON.stringify(answer));
      await eve.cut();
    }
  }
  const anna = await stage.arrive();
  await anna.channels.get(stage.room).publish('fine', '');
  await ear.hears('fine');
});

tale('a listener that does not read is cut off, not waited for; he may come back', async (stage) => {
  const house = await stage.house({ websocket: { max_queue_bytes: 500_000 } });
  const [anna, ben, stuck] = [await stage.arrive({ at: house.at }), await stage.arrive({ at: house.at }), stage.raw({ at: house.at })];
  const ear = await listen(ben.channels.get(stage.room));
  await stuck.want(action.CONNECTED);
  await stuck.attach(stage.room);
  stuck.socket.pause();
  const big = 'x'.repeat(50_000);
  for (let i = 0; i < 400; i++) await anna.channels.get(stage.room).publish('n', big);
  await ear.has(400);
  stuck.socket.resume();
  await stuck.closed;
  await stage.arrive({ at: house.at });
});

tale('/metrics counts the connections of both protocols', async (stage) => {
  const house = await stage.house();
  const clients = [await stage.arrive({ at: house.at }), await stage.arrive({ at: house.at, key: keys.read })];
  await eventually('two connections', async () => (await figure('active_connections', house.at)) === 2);
  clients[0].close();
  await eventually('one connection', async () => (await figure('active_connections', house.at)) === 1);
});

story('a server that is full says so, and its clients come in as soon as there is room', async (stage) => {
  const house = await stage.house({ websocket: { max_connections: 1 } });
  const first = await stage.arrive({ at: house.at });
  const second = stage.meet({ at: house.at });
  await reaches(second.connection, 'disconnected');
  assert.equal(second.connection.errorReason.code, 80003);
  first.close();
  await reaches(second.connection, 'connected');
  assert.equal((await second.channels.get(stage.room).publish('in', '')).serials.length, 1);
});
