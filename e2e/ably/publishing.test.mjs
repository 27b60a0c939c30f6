// What is said in a channel arrives: whole, in order, once, whatever it is and whichever codec the listener speaks.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { keys } from './config.mjs';
import { listen, numbers, refused, sdks, story, tale, unique } from './kit.mjs';
import { action } from './raw.mjs';

// Each pair of codecs, publisher first: Node's default is msgpack.
const pairs = [[true, true], [true, false], [false, true], [false, false]];
const codec = (binary) => (binary ? 'msgpack' : 'JSON');

story('the very first publish of a connection resolves, with a serial', async (stage) => {
  for (const useBinaryProtocol of [true, false]) {
    const anna = await stage.arrive({ useBinaryProtocol });
    const result = await anna.channels.get(stage.room).publish('first', 'hello');
    assert.equal(result.serials.length, 1);
    assert.equal(typeof result.serials[0], 'string');
  }
});

for (const [from, to] of pairs) {
  story(`strings, objects, bytes and nothing go from ${codec(from)} to ${codec(to)} unchanged`, async (stage) => {
    const anna = await stage.arrive({ useBinaryProtocol: from, clientId: 'anna' });
    const ben = await stage.arrive({ useBinaryProtocol: to });
    const ear = await listen(ben.channels.get(stage.room));
    const all = [
      'plain', '', '中文 🙂 \u0000 \u2028 "quoted"', { a: [1, 2.5, -3, true, null, { 深: '🙂' }], 9007199254740991: 9007199254740991 },
      [], {}, Buffer.from([0, 1, 2, 253, 254, 255]), Buffer.alloc(0), randomBytes(20_000), undefined, null,
    ];
    const channel = anna.channels.get(stage.room);
    for (const data of all) await channel.publish('event', data);
    await ear.has(all.length);
    for (const [i, data] of all.entries()) {
      const got = ear.messages[i].data;
      if (Buffer.isBuffer(data)) assert.ok(Buffer.from(got).equals(data), `bytes no. ${i}`);
      else assert.deepEqual(got ?? null, data ?? null);
      assert.ok(!ear.messages[i].encoding, 'the SDK has decoded everything');
    }
    const { name, clientId, connectionId, timestamp, id } = ear.messages[0];
    assert.deepEqual([name, clientId, connectionId], ['event', 'anna', anna.connection.id]);
    assert.ok(Math.abs(timestamp - Date.now()) < 60_000);
    assert.ok(id.length > 0);
    assert.equal(new Set(ear.messages.map((m) => m.id)).size, all.length, 'every message has an id of its own');
  });

  story(`encrypted from ${codec(from)} to ${codec(to)}: who has the key reads it, who has not sees bytes`, async (stage) => {
    for (const length of [128, 256]) {
      const room = unique('r');
      const cipher = { key: await stage.sdk.Realtime.Crypto.generateRandomKey(length) };
      const [anna, ben, eve] = [await stage.arrive({ useBinaryProtocol: from }), await stage.arrive({ useBinaryProtocol: to }), await stage.arrive({ useBinaryProtocol: to })];
      const [reads, stares] = [await listen(ben.channels.get(room, { cipher })), await listen(eve.channels.get(room))];
      const channel = anna.channels.get(room, { cipher });
      const all = ['secret', { secret: ['深', 1] }, Buffer.from([1, 2, 3, 255])];
      for (const data of all) await channel.publish('s', data);
      await Promise.all([reads.has(3), stares.has(3)]);
      assert.deepEqual(reads.data().slice(0, 2), all.slice(0, 2));
      assert.ok(Buffer.from(reads.data()[2]).equals(all[2]));
      assert.deepEqual(stares.messages.map((m) => m.encoding), [`utf-8/cipher+aes-${length}-cbc`, `json/utf-8/cipher+aes-${length}-cbc`, `cipher+aes-${length}-cbc`]);
      for (const { data } of stares.messages) assert.ok(Buffer.isBuffer(data) && !data.includes('secret'));
    }
  });
}

tale('a thousand messages of three publishers: each one\'s order is kept, and all listeners hear the same', async (stage) => {
  const publishers = await Promise.all([0, 1, 2].map((i) => stage.arrive({ sdk: sdks[i % 2], useBinaryProtocol: i < 2 })));
  const ears = await Promise.all([0, 1, 2, 3].map(async (i) => listen((await stage.arrive({ sdk: sdks[i % 2], useBinaryProtocol: i < 2 })).channels.get(stage.room))));
  const sent = [];
  for (let i = 0; i < 1000; i++) sent.push(publishers[i % 3].channels.get(stage.room).publish(`p${i % 3}`, String(i)));
  await Promise.all(sent);
  for (const ear of ears) await ear.has(1000);
  for (const who of [0, 1, 2]) {
    const own = ears[0].messages.filter((m) => m.name === `p${who}`).map((m) => m.data);
    assert.deepEqual(own, numbers(1000).filter((i) => i % 3 === who));
  }
  for (const ear of ears) assert.deepEqual(ear.data(), ears[0].data());
});

story('promises of many publishes over many channels settle in order, each with its serials', async (stage) => {
  const anna = await stage.arrive();
  const order = [];
  const all = Array.from({ length: 300 }, async (_, i) => {
    const { serials } = await anna.channels.get(`${stage.room}-${i % 20}`).publish('n', String(i));
    order.push(i);
    return serials[0];
  });
  const serials = await Promise.all(all);
  assert.deepEqual(order, Array.from({ length: 300 }, (_, i) => i));
  assert.equal(new Set(serials.map((serial, i) => `${i % 20} ${serial}`)).size, 300);
});

story('who publishes hears himself, unless echo is off; others hear him either way', async (stage) => {
  const loud = await stage.arrive();
  const quiet = await stage.arrive({ echoMessages: false });
  const [a, b] = [await listen(loud.channels.get(stage.room)), await listen(quiet.channels.get(stage.room))];
  await loud.channels.get(stage.room).publish('from loud', '1');
  await quiet.channels.get(stage.room).publish('from quiet', '2');
  await loud.channels.get(stage.room).publish('end', '3');
  await Promise.all([a.hears('end'), b.hears('end')]);
  assert.deepEqual(a.names(), ['from loud', 'from quiet', 'end']);
  assert.deepEqual(b.names(), ['from loud', 'end']);
});

story('a batch arrives whole, in order, with one id base; its publisher gets one serial for each message', async (stage) => {
  const [anna, ben] = [await stage.arrive(), await stage.arrive({ useBinaryProtocol: false })];
  const ear = await listen(ben.channels.get(stage.room));
  const batch = Array.from({ length: 20 }, (_, i) => ({ name: `n${i}`, data: { i } }));
  const { serials } = await anna.channels.get(stage.room).publish(batch);
  assert.equal(serials.length, 20);
  await ear.has(20);
  assert.deepEqual(ear.messages.map(({ name, data }) => ({ name, data })), batch);
  assert.deepEqual(ear.messages.map((m) => m.serial), serials);
  assert.deepEqual(ear.messages.map((m) => m.id.split(':').at(-1)), batch.map((_, i) => String(i)));
});

story('a batch with one message that may not be sent is refused whole', async (stage) => {
  const [anna, ben] = [await stage.arrive({ clientId: 'anna' }), await stage.arrive()];
  const ear = await listen(ben.channels.get(stage.room));
  // The SDK itself refuses a foreign clientId only where it knows its own: a raw client asks the server.
  const eve = stage.raw({ clientId: 'eve' });
  await eve.want(action.CONNECTED);
  eve.publish(stage.room, { name: 'good' }, { name: 'bad', clientId: 'anna' });
  assert.equal((await eve.want(action.NACK)).error.code, 40012);
  await anna.channels.get(stage.room).publish('end', '');
  await ear.hears('end');
  assert.deepEqual(ear.names(), ['end']);
});

story('a message with an id that was used before is acknowledged with the same serial, and not heard again', async (stage) => {
  const [anna, ben] = [await stage.arrive(), await stage.arrive()];
  const ear = await listen(ben.channels.get(stage.room));
  const channel = anna.channels.get(stage.room);
  const first = await channel.publish({ id: 'mine', name: 'once', data: '1' });
  const second = await channel.publish({ id: 'mine', name: 'once', data: '1' });
  assert.deepEqual(second.serials, first.serials);
  const elsewhere = await ben.channels.get(stage.room).publish({ id: 'mine', name: 'once', data: '1' });
  assert.deepEqual(elsewhere.serials, first.serials, 'whoever repeats it');
  const batch = [{ id: 'many:0', name: 'a' }, { id: 'many:1', name: 'b' }];
  const third = await channel.publish(batch);
  assert.deepEqual((await channel.publish(batch)).serials, third.serials);
  await anna.channels.get(`${stage.room}-2`).publish({ id: 'mine', name: 'another channel' });
  await channel.publish('end', '');
  await ear.hears('end');
  assert.deepEqual(ear.names(), ['once', 'a', 'b', 'end']);
  assert.equal(ear.messages[0].id, 'mine');
});

story('extras pass through untouched, and names may be anything or nothing', async (stage) => {
  for (const useBinaryProtocol of [true, false]) {
    const room = unique('r');
    const [anna, ben] = [await stage.arrive({ useBinaryProtocol }), await stage.arrive({ useBinaryProtocol: !useBinaryProtocol })];
    const ear = await listen(ben.channels.get(room));
    const extras = { headers: { language: '中文', n: 1.5 }, ref: { type: 'reply', timeserial: 'x' }, deep: [[], {}, 'é'] };
    const channel = anna.channels.get(room);
    await channel.publish({ name: '事件/a b', data: 'x', extras });
    await channel.publish({ data: 'nameless' });
    await channel.publish('', 'empty');
    await ear.has(3);
    assert.deepEqual(ear.messages[0].extras, extras);
    assert.equal(ear.messages[0].name, '事件/a b');
    assert.ok(!ear.messages[1].name);
    assert.ok(!ear.messages[2].name);
  }
});

story('publishing needs no attachment: neither the publisher nor a mere writer listens', async (stage) => {
  const [anna, writer] = [await stage.arrive(), await stage.arrive({ key: keys.write })];
  const ear = await listen(anna.channels.get(stage.room));
  const channel = writer.channels.get(stage.room);
  await channel.publish('note', 'from outside');
  assert.equal(channel.state, 'initialized');
  await ear.hears('note');
});

story('messages go to their channel alone; names that differ in case are different channels', async (stage) => {
  const anna = await stage.arrive();
  const [lower, upper, odd] = ['x', 'X', '房间 / ünï:%20?&#'].map((end) => `${stage.room}${end}`);
  const ears = await Promise.all([lower, upper, odd].map((name) => listen(anna.channels.get(name))));
  await anna.channels.get(upper).publish('U', '');
  await anna.channels.get(odd).publish('O', '');
  await anna.channels.get(lower).publish('L', '');
  await Promise.all(ears.map((ear) => ear.has(1)));
  assert.deepEqual(ears.map((ear) => ear.names()), [['L'], ['U'], ['O']]);
});

story('a message over the limit is refused by the SDK, which knows it from the server', async (stage) => {
  const anna = await stage.arrive();
  await refused(anna.channels.get(stage.room).publish('big', 'x'.repeat(70_000)), 40009);
  const { serials } = await anna.channels.get(stage.room).publish('fits', 'x'.repeat(65_000));
  assert.equal(serials.length, 1);
});

story('who subscribes to one name hears that name alone; who unsubscribes hears nothing', async (stage) => {
  const [anna, ben] = [await stage.arrive(), await stage.arrive()];
  const channel = ben.channels.get(stage.room);
  const [wanted, dropped] = [[], []];
  const drop = (m) => dropped.push(m.name);
  await channel.subscribe('wanted', (m) => wanted.push(m.name));
  await channel.subscribe(drop);
  channel.unsubscribe(drop);
  const ear = await listen(channel);
  for (const name of ['other', 'wanted', 'end']) await anna.channels.get(stage.room).publish(name, '');
  await ear.hears('end');
  assert.deepEqual(wanted, ['wanted']);
  assert.deepEqual(dropped, []);
});
