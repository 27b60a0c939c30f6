// Files get through the server when two browsers cannot connect directly: whole, also when the receiver's
// connection breaks half-way, and both sides always learn how it ended.

import { describe, test } from 'node:test';
import assert from 'node:assert/strict';
import { openStage } from './stage.mjs';

const freeLimit = 50 << 20; // bytes: the largest file the app relays without PRO
const small = 3_000_000; // bytes

let rooms = 0; // so far: each story has one of its own, and several are played at once

// meet lets people without WebRTC enter a room and waits until everybody has found everybody.
async function meet(t, ...userIds) {
  const room = `中转 relay ${++rooms}`;
  const stage = await openStage();
  t.after(() => stage.close());
  const people = [];
  for (const userId of userIds) {
    const person = await stage.enter(userId, { webrtc: false });
    await person.connect(room);
    person.room = room;
    people.push(person);
  }
  for (const person of people) {
    const others = userIds.filter((id) => id !== person.userId);
    await person.sees('all the others', (app, ids) => ids.every((id) => app.client.peers.has(id)), others);
  }
  return people;
}

// sending begins a transfer and returns {sha256, outcome}: outcome is a promise of '' or of why it failed.
async function sending(person, to, name, size) {
  const sha256 = await person.does(async (app, { to, name, size }) => {
    const { file, sha256 } = await app.randomFile(name, size);
    app.outcomes ??= {};
    app.outcomes[name] = app.relay.sendFile(to, file).then(() => '', (error) => error.message);
    return sha256;
  }, { to: to.userId, name, size });
  return { sha256, outcome: person.does((app, name) => app.outcomes[name], name) };
}

async function arrives(receiver, sender, name, size, sha256) {
  await receiver.sees(name, (app, name) => app.files.has(name), name, 180_000);
  assert.deepEqual(await receiver.does((app, name) => app.files.get(name), name), { from: sender.userId, size, sha256 });
}

// resends is how often a page had to ask for chunks again: its 30 s stall timer, or gaps at the end.
function resends(person) {
  return person.page.locator('#log', { hasText: 'asking again' }).count();
}

// Most stories wait for the app's own timers, so several share the time. The long ones come first.
describe('files through the server', { concurrency: 4 }, () => {
  test('a file of exactly the limit survives the loss of the receiver’s socket', async (t) => {
    const [anna, bo] = await meet(t, 'Anna:a1a1a1', '博🙂:b2b2b2');
    // Four chunks past an acknowledgement: those four, and what was on its way, come again.
    await bo.does((app) => {
      app.client.on('chunk', ({ count }) => count === 404 && app.client.socket.close());
    });
    const { sha256, outcome } = await sending(anna, bo, 'limit.bin', freeLimit);
    await bo.sees('the break', (app) => app.client.socket === null, undefined, 60_000);
    await bo.connect(bo.room); // the Search button
    await arrives(bo, anna, 'limit.bin', freeLimit, sha256);
    assert.equal(await outcome, '');
    assert.equal(await resends(bo), 0, 'the server sends what was lost, before the receiver has to ask');
  });

  test('the last acknowledgement is lost with the socket, and the sender still learns of its success', async (t) => {
    const [anna, bo] = await meet(t, 'Anna:a1a1a1', '博🙂:b2b2b2');
    await bo.does((app) => {
      const send = app.client.send;
      app.client.on('chunk', ({ count, request }) => {
        if (count === request.total_chunks - 1) app.client.send = () => {}; // what a dying socket swallows
        if (count < request.total_chunks) return;
        app.client.send = send;
        app.client.socket.close();
      });
    });
    const { sha256, outcome } = await sending(anna, bo, 'tail.bin', 100_000);
    await bo.sees('the break', (app) => app.client.socket === null);
    await bo.connect(bo.room);
    // The receiver lacks nothing and hears no `end`, for which the sender waits for an acknowledgement: after
    // the receiver's 30 s it says `complete`, and from that the server must get the sender to its end.
    await arrives(bo, anna, 'tail.bin', 100_000, sha256);
    assert.equal(await outcome, '');
  });

  test('a receiver who never comes back is reported to the sender', async (t) => {
    const [anna, bo] = await meet(t, 'Anna:a1a1a1', '博🙂:b2b2b2');
    const { outcome } = await sending(anna, bo, 'alone.bin', 4 * small);
    await bo.sees('ten chunks', (app) => [...app.relay.incoming.values()].some(({ count }) => count >= 10));
    await bo.leave();
    const reason = await outcome;
    assert.deepEqual(await anna.toasts(), [reason], 'the server’s own words, before the sender’s two-minute timer');
  });

  test('a 3 MB file arrives whole, and signals pass meanwhile', async (t) => {
    const [anna, bo] = await meet(t, 'Anna:a1a1a1', '博🙂:b2b2b2');
    const { sha256, outcome } = await sending(anna, bo, 'three.bin', small);
    await bo.sees('the first chunks', (app) => [...app.relay.incoming.values()].some(({ count }) => count > 0));
    await anna.does((app, to) => app.client.sendText(to, 'meanwhile'), bo.userId);
    await bo.sees('the text', (app) => app.client.received.some(({ data }) => data?.message === 'meanwhile'));
    await arrives(bo, anna, 'three.bin', small, sha256);
    assert.equal(await outcome, '');
    assert.deepEqual(await anna.toasts(), []);
  });

  test('an empty file is a file', async (t) => {
    const [anna, bo] = await meet(t, 'Anna:a1a1a1', '博🙂:b2b2b2');
    const { sha256, outcome } = await sending(anna, bo, 'empty.txt', 0);
    await arrives(bo, anna, 'empty.txt', 0, sha256);
    assert.equal(await outcome, '');
  });

  test('two people send to one receiver at once', async (t) => {
    const [anna, cai, bo] = await meet(t, 'Anna:a1a1a1', '蔡:c3c3c3', '博🙂:b2b2b2');
    const first = await sending(anna, bo, 'first.bin', small);
    const second = await sending(cai, bo, 'second.bin', small + 1);
    await bo.sees('both under way', (app) => app.relay.incoming.size === 2);
    await arrives(bo, anna, 'first.bin', small, first.sha256);
    await arrives(bo, cai, 'second.bin', small + 1, second.sha256);
    assert.deepEqual([await first.outcome, await second.outcome], ['', '']);
  });

  test('a rejected file is never sent', async (t) => {
    const [anna, bo] = await meet(t, 'Anna:a1a1a1', '博🙂:b2b2b2');
    await bo.does((app) => {
      app.relay.rejectReason = '内存不足';
      app.frames = 0;
      app.client.on('binary', () => app.frames++);
    });
    const { outcome } = await sending(anna, bo, 'unwanted.bin', small);
    assert.equal(await outcome, 'rejected: 内存不足');
    assert.equal(await bo.does((app) => app.frames), 0);
  });

  for (const [who, act] of [['sender', (anna) => anna], ['receiver', (anna, bo) => bo]]) {
    test(`the ${who} cancels and the other side is told, then the next file goes through`, async (t) => {
      const [anna, bo] = await meet(t, 'Anna:a1a1a1', '博🙂:b2b2b2');
      const { outcome } = await sending(anna, bo, 'cancelled.bin', 4 * small);
      await bo.sees('ten chunks', (app) => [...app.relay.incoming.values()].some(({ count }) => count >= 10));
      await act(anna, bo).does((app) => app.relay.cancel('changed my mind'));
      assert.equal(await outcome, 'cancelled: changed my mind');
      await bo.sees('the end', (app) => app.relay.failures.length === 1 && app.relay.incoming.size === 0);
      assert.equal(await bo.does((app) => app.relay.failures[0].reason), 'cancelled: changed my mind');

      const next = await sending(anna, bo, 'next.bin', 200_000);
      await arrives(bo, anna, 'next.bin', 200_000, next.sha256);
      assert.equal(await next.outcome, '');
    });
  }

  test('a sender who goes away is reported to the receiver, who does not wait for the stall timer', async (t) => {
    const [anna, bo] = await meet(t, 'Anna:a1a1a1', '博🙂:b2b2b2');
    const { outcome } = await sending(anna, bo, 'half.bin', 4 * small);
    outcome.catch(() => {}); // goes away with its page
    await bo.sees('ten chunks', (app) => [...app.relay.incoming.values()].some(({ count }) => count >= 10));
    await anna.leave();
    await bo.sees('the end', (app) => app.relay.failures.length === 1 && app.relay.incoming.size === 0);
    assert.equal(await resends(bo), 0);
  });
});
