// Two people in two browsers find each other through the server and exchange a file directly; a third one
// in the same room sees none of it; one leaves, and life goes on for the others.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { connections, eventually, openStage } from './stage.mjs';

const room = '测试 room_1';
const picture = fileURLToPath(new URL('out/webrtc.png', import.meta.url));

test('two browsers meet, exchange a file, and outlive each other', async (t) => {
  const stage = await openStage();
  t.after(() => stage.close());
  const ming = await stage.enter('小明🙂:abc123', { path: '' });
  const bob = await stage.enter('Bob:x1y2z3', { path: '/ws' });
  const carol = await stage.enter('Carol:c4r0l5', { path: '/ws/' });

  await t.test('each newcomer finds everybody who is there', async () => {
    await ming.connect(room);
    await bob.connect(room);
    // Both answers: then both of Bob's discovers are over before Carol comes.
    await bob.sees('two answers', (app) => app.client.received.filter(({ data }) => data?.isReply).length === 2);
    await bob.sees('小明', (app, id) => app.client.peers.get(id), ming.userId);
    await ming.sees('Bob', (app, id) => app.client.peers.get(id), bob.userId);
    await carol.connect(room);
    await carol.sees('both', (app, ids) => ids.every((id) => app.client.peers.get(id)), [ming.userId, bob.userId]);
  });

  await t.test('every discover is answered once, to the newcomer alone', async () => {
    await carol.sees('four answers', (app) => app.client.received.filter(({ data }) => data?.isReply).length === 4);
    const senders = async (person) => (await person.messages()).map(({ data }) => `${data.from}${data.isReply ? ' replies' : ''}`);
    assert.deepEqual(await senders(ming), [bob.userId, bob.userId, carol.userId, carol.userId]);
    assert.deepEqual(await senders(bob), [
      `${ming.userId} replies`, `${ming.userId} replies`, carol.userId, carol.userId,
    ]);
  });

  await t.test('a 1 MiB file goes over a data channel that the server signalled', async () => {
    await ming.does((app, to) => app.direct.connect(to), bob.userId);
    const sent = await ming.does(async (app, to) => {
      const { file, sha256 } = await app.randomFile('一.bin', 1 << 20);
      await app.direct.sendFile(to, file);
      return sha256;
    }, bob.userId);
    await bob.sees('the file', (app) => app.files.has('一.bin'));
    assert.deepEqual(await bob.does((app) => app.files.get('一.bin')), { from: ming.userId, size: 1 << 20, sha256: sent });
    assert.equal(await bob.does((app) => app.direct.droppedBatches), 0, 'no candidates overtook their offer');

    const signals = (await bob.messages()).filter(({ data }) => data.from === ming.userId).map(({ data }) => data.type);
    const attempts = await ming.does((app) => app.direct.attempts);
    assert.equal(signals.filter((type) => type === 'offer').length, attempts);
    assert.ok(signals.includes('candidate'), 'candidates came through the server');
    assert.ok((await ming.messages()).some(({ data }) => data.type === 'answer'), 'so did the answer');
    await mkdir(new URL('out/', import.meta.url), { recursive: true });
    await stage.picture(picture, [ming, bob]);
  });

  await t.test('texts to one person arrive in the order they were sent', async () => {
    const texts = Array.from({ length: 50 }, (_, i) => `第${i}条 "quoted" \u2028 🙂`);
    await ming.does((app, { to, texts }) => texts.forEach((text) => app.client.sendText(to, text)), { to: bob.userId, texts });
    await bob.sees('all texts', (app) => app.client.received.filter(({ data }) => data?.type === 'text').length === 50);
    const got = (await bob.messages()).filter(({ data }) => data.type === 'text').map(({ data }) => data.message);
    assert.deepEqual(got, texts);
  });

  await t.test('the third person in the room saw nothing of it', async () => {
    // A text to Carol stands behind everything that was sent before it: what she has now is all she gets.
    await ming.does((app, to) => app.client.sendText(to, 'last'), carol.userId);
    await bob.does((app, to) => app.client.sendText(to, 'last'), carol.userId);
    await carol.sees('both texts', (app) => app.client.received.filter(({ data }) => data?.message === 'last').length === 2);
    for (const { event, data } of await carol.messages()) {
      assert.equal(event, `signal:${carol.userId}`, `a frame for somebody else: ${JSON.stringify(data)}`);
      assert.ok(data.isReply || data.message === 'last', `not hers: ${JSON.stringify(data)}`);
    }
  });

  await t.test('one leaves: the others are told and the room works on', async () => {
    await ming.leave();
    await bob.sees('小明 gone', (app, id) => !app.client.peers.has(id), ming.userId);
    await carol.sees('小明 gone', (app, id) => !app.client.peers.has(id), ming.userId);
    await eventually('the server lets go of the socket', async () => (await connections()) === 2);

    const dana = await stage.enter('Dana:d4n4d4');
    await dana.connect(room);
    await dana.sees('Bob', (app, id) => app.client.peers.get(id), bob.userId);
    await bob.sees('Dana', (app, id) => app.client.peers.get(id), dana.userId);
    await bob.does((app, to) => app.client.sendSecret(to, '密: 42'), dana.userId);
    await dana.does((app, to) => app.client.sendSecret(to, 'got it'), bob.userId);
    await dana.sees('the secret', (app) => app.secrets.length === 1);
    await bob.sees('the answer', (app) => app.secrets.length === 1);
    assert.deepEqual(await dana.does((app) => app.secrets), [{ from: bob.userId, message: '密: 42' }]);
    assert.deepEqual(await bob.does((app) => app.secrets), [{ from: dana.userId, message: 'got it' }]);
    await dana.leave();
    await bob.sees('Dana gone', (app, id) => !app.client.peers.has(id), dana.userId);
  });

  await t.test('a renamed room is another room', async () => {
    await bob.does((app) => app.client.rename('B公ro'));
    await carol.sees('Bob gone', (app, id) => !app.client.peers.has(id), bob.userId);
    const before = (await carol.messages()).length;
    await bob.does((app) => app.client.search());
    await carol.does((app) => app.client.rename('B公ro'));
    await carol.sees('Bob again', (app, id) => app.client.peers.get(id), bob.userId);
    await bob.sees('Carol again', (app, id) => app.client.peers.get(id), carol.userId);
    const since = (await carol.messages()).slice(before);
    assert.ok(since.every(({ channel }) => channel === 'B公ro'), 'nothing of the old room, nothing from before she came');
  });

  await t.test('nobody was shown an error', async () => {
    for (const person of [bob, carol]) assert.deepEqual(await person.toasts(), []);
  });

  await t.test('when all have gone the server holds nobody', async () => {
    await bob.leave();
    await carol.leave();
    await eventually('no connection is left', async () => (await connections()) === 0);
  });
});

test('a page connects by every path the app may be given', async (t) => {
  const stage = await openStage();
  t.after(() => stage.close());
  const host = await stage.enter('host:h0h0h0');
  await host.connect('paths');
  for (const path of ['', '/', '/ws', '/ws/']) {
    const guest = await stage.enter('guest:g1g1g1', { path });
    await guest.connect('paths');
    await guest.sees(`the host by “${path}”`, (app, id) => app.client.peers.get(id), host.userId);
    await guest.leave();
    await host.sees('the guest gone', (app) => app.client.peers.size === 0);
  }
});

test('a page from an origin that is not allowed is refused, and dials no second time', async (t) => {
  const stage = await openStage();
  t.after(() => stage.close());
  const origin = process.env.E2E_PAGES.replace('localhost', '127.0.0.1');
  const mallory = await stage.enter('Mallory:m4l0ry', { origin });
  await assert.rejects(mallory.connect('room'), /the server refused the connection/);
  await assert.rejects(mallory.connect('room'), /refused before/);
  assert.equal(await connections(), 0);
});
