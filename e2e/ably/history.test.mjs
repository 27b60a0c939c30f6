// What was said stays for a while: in order, in pages, each message once; and on persisted channels beyond the process.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, listen, numbers, pause, story, tale, unique, within } from './kit.mjs';

// walk takes all pages of a list.
async function walk(first) {
  const items = [];
  for (let page = await first; page; page = page.hasNext() ? await page.next() : null) items.push(...page.items);
  return items;
}

// journal is a folder for a server of the story's own.
async function journal(stage) {
  const folder = await mkdtemp(join(tmpdir(), 'letshare-journal-'));
  stage.ends.push(() => rm(folder, { recursive: true }));
  return { journal: folder, namespaces: [{ id: 'kept', persisted: true }] };
}

// kill ends a house as a crash does.
async function kill(house) {
  house.process.kill('SIGKILL');
  await within(house.ended, 'the server is dead');
  house.process = undefined;
}

for (const useBinaryProtocol of [true, false]) {
  const codec = useBinaryProtocol ? 'msgpack' : 'JSON';

  story(`history in ${codec}: in pages, both ways, each message once, while others speak`, async (stage) => {
    const anna = await stage.arrive({ useBinaryProtocol });
    const channel = anna.channels.get(stage.room);
    for (const i of numbers(25)) await channel.publish('n', i);
    for (const direction of ['backwards', 'forwards']) {
      const seen = [];
      let page = await channel.history({ limit: 4, direction });
      for (; page; page = page.hasNext() ? await page.next() : null) {
        assert.ok(page.items.length <= 4);
        seen.push(...page.items.filter((m) => m.name === 'n').map((m) => m.data));
        await channel.publish('meanwhile', direction);
      }
      const want = numbers(25);
      assert.deepEqual(seen, direction === 'forwards' ? want : want.reverse());
    }
  });

  story(`history in ${codec}: first and current lead back, next ends`, async (stage) => {
    const channel = stage.rest({ useBinaryProtocol }).channels.get(stage.room);
    for (const i of numbers(5)) await channel.publish('n', i);
    const first = await channel.history({ limit: 2 });
    const second = await first.next();
    assert.deepEqual((await second.current()).items.map((m) => m.data), ['2', '1']);
    assert.deepEqual((await second.first()).items.map((m) => m.data), ['4', '3']);
    const third = await second.next();
    assert.deepEqual([third.items.map((m) => m.data), third.hasNext(), third.isLast()], [['0'], false, true]);
  });

  story(`history in ${codec}: start and end, both included`, async (stage) => {
    const channel = stage.rest({ useBinaryProtocol }).channels.get(stage.room);
    for (const i of numbers(4)) {
      await channel.publish('n', i);
      await pause(15);
    }
    const all = (await channel.history({ direction: 'forwards' })).items;
    const [start, end] = [all[1].timestamp, all[2].timestamp];
    assert.deepEqual((await channel.history({ start, end })).items.map((m) => m.data), ['2', '1']);
    assert.deepEqual((await channel.history({ start, direction: 'forwards' })).items.map((m) => m.data), ['1', '2', '3']);
    assert.deepEqual((await channel.history({ end: all[0].timestamp - 1 })).items, []);
  });

  story(`history in ${codec}: a publish of several is one after the other, and pages may end within`, async (stage) => {
    const channel = stage.rest({ useBinaryProtocol }).channels.get(stage.room);
    for (let i = 0; i < 12; i += 4) await channel.publish(numbers(12).slice(i, i + 4).map((data) => ({ name: 'n', data })));
    assert.deepEqual((await walk(channel.history({ limit: 3, direction: 'forwards' }))).map((m) => m.data), numbers(12));
    assert.deepEqual((await walk(channel.history({ limit: 5 }))).map((m) => m.data), numbers(12).reverse());
  });

  story(`untilAttach in ${codec}: history and the live channel meet without a gap and without a twin`, async (stage) => {
    const publisher = (await stage.arrive()).channels.get(stage.room);
    for (const i of numbers(10)) await publisher.publish('n', i);
    const ben = await stage.arrive({ useBinaryProtocol });
    const channel = ben.channels.get(stage.room);
    const ear = await listen(channel);
    for (const i of numbers(20).slice(10)) await publisher.publish('n', i);
    await ear.has(10);
    const before = await walk(channel.history({ untilAttach: true, limit: 3 }));
    assert.deepEqual([...before.reverse().map((m) => m.data), ...ear.data()], numbers(20));
  });

  story(`rewind in ${codec}: by count and by time, once, with what was missed in order`, async (stage) => {
    const publisher = (await stage.arrive()).channels.get(stage.room);
    for (const i of numbers(10)) await publisher.publish('n', i);
    for (const [rewind, want] of [['3', 3], ['1m', 10], ['100', 10]]) {
      const ben = await stage.arrive({ useBinaryProtocol });
      const channel = ben.channels.get(stage.room, { params: { rewind } });
      const ear = await listen(channel);
      await ear.has(want);
      assert.deepEqual(ear.data(), numbers(10).slice(-want));
      await channel.attach();
      await channel.detach();
      await channel.attach();
      await ear.has(2 * want);
      assert.deepEqual(ear.data().slice(want), numbers(10).slice(-want), 'detached and attached: again');
    }
  });
}

story('history of an encrypted channel is decrypted by who has the key', async (stage) => {
  const cipher = { key: await stage.sdk.Realtime.Crypto.generateRandomKey(256) };
  const rest = stage.rest();
  await rest.channels.get(stage.room, { cipher }).publish('s', { secret: '密' });
  assert.deepEqual((await rest.channels.get(stage.room).history()).items[0].data, { secret: '密' });
  const eve = (await stage.rest().channels.get(stage.room).history()).items[0];
  assert.ok(Buffer.isBuffer(eve.data) && eve.encoding.includes('cipher'));
});

story('history ends where messages have grown old, and forwards pages do not skip over a hole', async (stage) => {
  const house = await stage.house({ ably: { history_seconds: 1 } });
  const channel = stage.rest({ at: house.at }).channels.get(stage.room);
  for (const i of numbers(6)) await channel.publish('n', i);
  const page = await channel.history({ limit: 2, direction: 'forwards' });
  await eventually('the messages are gone', async () => (await channel.history()).items.length === 0);
  await channel.publish('n', 'new');
  await assert.rejects(page.next(), (error) => error.code === 90003 || error.code === 40000);
  assert.deepEqual((await walk(channel.history())).map((m) => m.data), ['new']);
});

story('a persisted channel outlives a restart: history, ids, and who was cut off misses nothing', async (stage) => {
  const house = await stage.house({ ably: await journal(stage) });
  const name = `kept:${stage.room}`;
  const ben = await stage.arrive({ at: house.at });
  const ear = await listen(ben.channels.get(name));
  const updates = [];
  ben.channels.get(name).on((change) => updates.push(change));
  const channel = stage.rest({ at: house.at }).channels.get(name);
  for (const i of numbers(10)) await channel.publish({ id: `own${i}`, name: 'n', data: i });
  await channel.publish('bytes', Buffer.from([1, 255]));
  await ear.has(11);
  await house.stop();
  await house.start();
  await channel.publish({ id: 'own9', name: 'n', data: '9' });
  await channel.publish('after', 'restart');
  await ear.hears('after');
  assert.deepEqual(ear.names(), [...Array(10).fill('n'), 'bytes', 'after']);
  const last = updates.findLast((change) => change.current === 'attached');
  assert.equal(last.resumed, true, 'nothing was missed, and the client knows');
  const items = await walk(channel.history({ limit: 5, direction: 'forwards' }));
  assert.deepEqual(items.map((m) => m.name), ear.names());
  assert.ok(Buffer.from(items[10].data).equals(Buffer.from([1, 255])));
});

tale('a persisted channel after kill -9 at any moment: what is there is a beginning, whole and in order, and nobody is told that nothing is missing', async (stage) => {
  const house = await stage.house({ ably: await journal(stage) });
  const name = `kept:${stage.room}`;
  let sent = 0;
  let heard = 0;
  for (let round = 0; round < 5; round++) {
    const client = await stage.arrive({ at: house.at });
    const channel = client.channels.get(name);
    const seen = [];
    await listen(channel);
    const rest = stage.rest({ at: house.at }).channels.get(name);
    channel.on((change) => seen.push(change));
    let acknowledged = 0;
    const load = (async () => {
      for (;;) {
        await channel.publish('n', String(sent));
        acknowledged = ++sent;
      }
    })().catch(() => {});
    await eventually('some are acknowledged', () => acknowledged > heard + 50);
    await pause(Math.random() * 200);
    await kill(house);
    const before = sent;
    client.connection.close();
    await load;
    await house.start();
    const items = await walk(rest.history({ direction: 'forwards', limit: 500 }));
    const data = items.map((m) => Number(m.data));
    assert.ok(data.every((n, i) => i === 0 || n === data[i - 1] + 1), `round ${round}: a hole or a twin in ${data}`);
    assert.ok(data.length >= before - 200 && data.length >= heard, `round ${round}: ${data.length} of ${before} are there`);
    heard = data.length;
    sent = data.at(-1) + 1;
  }
});

tale('a client that was attached through a kill -9 is told that messages may be missing', async (stage) => {
  const house = await stage.house({ ably: await journal(stage) });
  const name = `kept:${stage.room}`;
  const ben = await stage.arrive({ at: house.at });
  const channel = ben.channels.get(name);
  const ear = await listen(channel);
  await stage.rest({ at: house.at }).channels.get(name).publish('before');
  await ear.hears('before');
  const changes = [];
  channel.on((change) => changes.push(change));
  await kill(house);
  await house.start();
  await stage.rest({ at: house.at }).channels.get(name).publish('wake');
  await eventually('the channel is attached again', () => changes.some((c) => c.current === 'attached' && c.resumed === false));
  assert.deepEqual((await walk(channel.history())).map((m) => m.name).filter((n) => n === 'before'), ['before']);
});

tale('channels that are not persisted are new after a restart, and say so', async (stage) => {
  const house = await stage.house({ ably: await journal(stage) });
  const name = unique('plain');
  const channel = stage.rest({ at: house.at }).channels.get(name);
  await channel.publish('before');
  await house.stop();
  await house.start();
  assert.deepEqual((await channel.history()).items, []);
});
