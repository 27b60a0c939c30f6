// Messages that are changed after they were published: what subscribers hear, what history shows, who may do it.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, figure, jwt, listen, numbers, reaches, refused, story, tale } from './kit.mjs';

// rights is a client's token with some operations on the mutable channels.
function rights(clientId, ...operations) {
  return { token: jwt({ clientId, capability: { 'mutable:*': ['publish', 'subscribe', 'history', ...operations] } }) };
}

for (const useBinaryProtocol of [true, false]) {
  const codec = useBinaryProtocol ? 'msgpack' : 'JSON';

  story(`mutable in ${codec}: an update reaches subscribers, says who and why, and keeps what it does not name`, async (stage) => {
    const channel = (await stage.arrive({ useBinaryProtocol })).channels.get(`mutable:${stage.room}`);
    const ear = await listen(channel);
    const { serials: [serial] } = await channel.publish('greeting', { text: 'helo' });
    const operation = { clientId: 'editor', description: 'a typo', metadata: { reason: 'spelling' } };
    const { versionSerial } = await channel.updateMessage({ serial, data: { text: 'hello' } }, operation);
    await ear.has(2);
    const [first, second] = ear.messages;
    assert.deepEqual([first.action, first.serial, first.version.serial], ['message.create', serial, serial]);
    assert.deepEqual([second.action, second.serial, second.name, second.data], ['message.update', serial, 'greeting', { text: 'hello' }]);
    assert.equal(second.version.serial, versionSerial);
    assert.ok(versionSerial > serial);
    assert.deepEqual(
      [second.version.clientId, second.version.description, second.version.metadata],
      ['editor', 'a typo', { reason: 'spelling' }],
    );
    assert.equal(second.timestamp, first.timestamp);
    const latest = await channel.getMessage(serial);
    assert.deepEqual([latest.action, latest.data, latest.version.serial], ['message.update', { text: 'hello' }, versionSerial]);
  });

  story(`mutable in ${codec}: a delete marks the message; its versions stay, the first one first, in pages`, async (stage) => {
    const channel = (await stage.arrive({ useBinaryProtocol, clientId: 'anna' })).channels.get(`mutable:${stage.room}`);
    const ear = await listen(channel);
    await channel.publish('note', 'secret');
    await ear.has(1);
    await channel.updateMessage({ ...ear.messages[0], data: 'less secret' });
    await ear.has(2);
    await channel.deleteMessage({ ...ear.messages[1], data: {} }, { description: 'gone' });
    await ear.has(3);
    assert.deepEqual(ear.messages.map((m) => m.action), ['message.create', 'message.update', 'message.delete']);
    assert.deepEqual([ear.messages[2].data, ear.messages[2].name, ear.messages[2].version.clientId], [{}, 'note', 'anna']);
    const history = (await channel.history()).items;
    assert.deepEqual(history.map((m) => [m.action, m.version.description]), [['message.delete', 'gone']]);
    const versions = [];
    for (let page = await channel.getMessageVersions(ear.messages[0], { limit: 2 }); page; page = page.hasNext() ? await page.next() : null) versions.push(...page.items);
    assert.deepEqual(versions.map((m) => m.data), ['secret', 'less secret', {}]);
    assert.ok(versions.every((m) => m.serial === ear.messages[0].serial));
  });

  story(`mutable in ${codec}: appends arrive piece by piece, and whole for those who come later`, async (stage) => {
    const channel = (await stage.arrive({ useBinaryProtocol })).channels.get(`mutable:${stage.room}`);
    const ear = await listen(channel);
    const { serials: [serial] } = await channel.publish('answer', 'Hello');
    for (const piece of [',', ' ', 'World']) await channel.appendMessage({ serial, data: piece });
    await ear.has(4);
    assert.deepEqual(ear.messages.map((m) => [m.action, m.name, m.data]), [
      ['message.create', 'answer', 'Hello'], ['message.append', 'answer', ','], ['message.append', 'answer', ' '], ['message.append', 'answer', 'World'],
    ]);
    const late = (await stage.arrive({ useBinaryProtocol })).channels.get(`mutable:${stage.room}`, { params: { rewind: '1' } });
    const whole = await listen(late);
    await whole.has(1);
    assert.deepEqual([whole.messages[0].action, whole.messages[0].serial, whole.messages[0].data], ['message.update', serial, 'Hello, World']);
    await refused(channel.appendMessage({ serial, data: { no: 'text' } }), 40000);
  });

  story(`mutable in ${codec}: over REST`, async (stage) => {
    const channel = stage.rest({ useBinaryProtocol }).channels.get(`mutable:${stage.room}/ü`);
    const { serials: [serial] } = await channel.publish('bytes', Buffer.from([1, 2]));
    const { versionSerial } = await channel.updateMessage({ serial, name: 'renamed' }, { clientId: 'rest', metadata: { a: 'b' } });
    await channel.appendMessage({ serial, data: Buffer.from([255]) });
    const latest = await channel.getMessage({ serial });
    assert.equal(latest.name, 'renamed');
    assert.ok(Buffer.from(latest.data).equals(Buffer.from([1, 2, 255])));
    await channel.deleteMessage({ serial });
    const versions = (await channel.getMessageVersions(serial)).items;
    assert.deepEqual(versions.map((m) => m.action), ['message.create', 'message.update', 'message.append', 'message.delete']);
    assert.equal(versions[1].version.serial, versionSerial);
    assert.deepEqual([versions[1].version.clientId, versions[1].version.metadata], ['rest', { a: 'b' }]);
  });
}

story('mutable: history shows each message once, in its place, as it has become', async (stage) => {
  const channel = (await stage.arrive()).channels.get(`mutable:${stage.room}`);
  const serials = [];
  for (const i of numbers(6)) serials.push((await channel.publish('n', i)).serials[0]);
  for (const i of [4, 1, 1]) await channel.appendMessage({ serial: serials[i], data: '!' });
  const seen = [];
  for (let page = await channel.history({ limit: 2, direction: 'forwards' }); page; page = page.hasNext() ? await page.next() : null) seen.push(...page.items.map((m) => m.data));
  assert.deepEqual(seen, ['0', '1!!', '2', '3', '4!', '5']);
});

story('mutable: who was cut off gets the changes that it missed, each once and in order', async (stage) => {
  const line = await stage.line();
  const ben = await stage.arrive({ at: line.at });
  const ear = await listen(ben.channels.get(`mutable:${stage.room}`));
  const channel = (await stage.arrive()).channels.get(`mutable:${stage.room}`);
  const { serials: [serial] } = await channel.publish('n', 'a');
  await ear.has(1);
  line.break();
  await channel.appendMessage({ serial, data: 'b' });
  await channel.updateMessage({ serial, data: 'c' });
  await channel.publish('n', 'new');
  line.mend();
  await reaches(ben.connection, 'connected');
  await channel.deleteMessage({ serial });
  await ear.has(5);
  assert.deepEqual(ear.messages.map((m) => [m.action.slice(8), m.data]), [['create', 'a'], ['append', 'b'], ['update', 'c'], ['create', 'new'], ['delete', 'c']]);
});

story('mutable: an append whose acknowledgement was lost is made once', async (stage) => {
  const line = await stage.line();
  const anna = await stage.arrive({ at: line.at });
  const channel = anna.channels.get(`mutable:${stage.room}`);
  const { serials: [serial] } = await channel.publish('n', '');
  for (const i of numbers(10)) {
    const done = channel.appendMessage({ serial, data: i });
    line.cut();
    await done;
    await reaches(anna.connection, 'connected');
  }
  assert.equal((await channel.getMessage(serial)).data, numbers(10).join(''));
});

story('mutable: own messages and any', async (stage) => {
  const at = (client) => client.channels.get(`mutable:${stage.room}`);
  const admin = at(await stage.arrive(rights('admin', 'message-update-any', 'message-delete-any')));
  const anna = at(await stage.arrive(rights('anna', 'message-update-own', 'message-delete-own')));
  const ben = at(await stage.arrive(rights('ben', 'message-update-own')));
  const guest = at(await stage.arrive(rights('guest')));
  const { serials: [serial] } = await anna.publish('n', 'of anna');
  await anna.updateMessage({ serial, data: 'still of anna' });
  await refused(ben.updateMessage({ serial, data: 'of ben' }), 40160);
  await refused(ben.deleteMessage({ serial }), 40160);
  await refused(guest.appendMessage({ serial, data: '!' }), 40160);
  await refused(anna.updateMessage({ serial, data: '' }, { clientId: 'ben' }), 40012);
  await admin.deleteMessage({ serial });
  const [{ action, clientId, version, data }] = (await admin.history()).items;
  assert.deepEqual([action, clientId, version.clientId, data], ['message.delete', 'anna', 'admin', 'still of anna']);
});

story('mutable: refused elsewhere, with the code that Ably gives', async (stage) => {
  const channel = (await stage.arrive()).channels.get(stage.room);
  const { serials: [serial] } = await channel.publish('n', '');
  const rest = stage.rest().channels.get(stage.room);
  for (const here of [channel, rest]) {
    await refused(here.updateMessage({ serial, data: '' }), 93002);
    await refused(here.deleteMessage({ serial }), 93002);
    await refused(here.appendMessage({ serial, data: '' }), 93002);
    await refused(here.getMessageVersions(serial), 93002);
  }
  const mutable = stage.rest().channels.get(`mutable:${stage.room}`);
  await refused(mutable.updateMessage({ serial, data: '' }), 40400);
  await refused(mutable.getMessage('nonsense'), 40400);
});

tale('mutable: LetShare members are spared changes, and they are counted', async (stage) => {
  const house = await stage.house({ ably: { namespaces: [{ id: stage.room, mutableMessages: true }] } });
  const before = await figure('not_representable', house.at);
  const channel = (await stage.arrive({ at: house.at })).channels.get(stage.room);
  const ear = await listen(channel);
  const { serials: [serial] } = await channel.publish('signal:all', { n: 1 });
  await channel.updateMessage({ serial, data: { n: 2 } });
  await ear.has(2);
  assert.equal(await figure('not_representable', house.at), before, 'nobody listens');
});

tale('mutable: changes outlive the process on persisted channels', async (stage) => {
  const journal = await mkdtemp(join(tmpdir(), 'letshare-journal-'));
  stage.ends.push(() => rm(journal, { recursive: true }));
  const house = await stage.house({ ably: { journal, namespaces: [{ id: 'kept', persisted: true, mutableMessages: true }] } });
  const at = () => stage.rest({ at: house.at }).channels.get('kept:room');
  const { serials: [serial] } = await at().publish('n', 'a');
  await at().appendMessage({ serial, data: 'b' });
  await at().annotations.publish(serial, { type: 'seen:total.v1' });
  await house.stop();
  await house.start();
  await at().appendMessage({ serial, data: 'c' });
  await at().annotations.publish(serial, { type: 'seen:total.v1' });
  await eventually('the message is whole', async () => (await at().getMessage(serial)).data === 'abc');
  assert.deepEqual((await at().history()).items[0].annotations.summary, { 'seen:total.v1': { total: 2 } });
});
