// The one house: a LetShare room and an Ably channel of the same name are the same room.

import assert from 'node:assert/strict';
import { eventually, figure, listen, refused, sdks, story, tale } from './kit.mjs';
import { action } from './raw.mjs';

story('both hear each other: a broadcast and a directed signal, as the app sends them, in both directions', async (stage) => {
  for (const useBinaryProtocol of [true, false]) {
    const room = `${stage.room}${useBinaryProtocol ? 'm' : 'j'}`;
    const [ming, li] = [await stage.join('小明:abc123', room), await stage.join('Li:x1y2z3', room)];
    const anna = await stage.arrive({ useBinaryProtocol, clientId: 'Anna🙂:c4r0l5' });
    const channel = anna.channels.get(room);
    const ear = await listen(channel);

    const discover = { type: 'discover', from: 'Anna🙂:c4r0l5', userType: 'desktop', 深: [1, 2.5, true, null, { a: 'b' }] };
    await channel.publish('signal:all', discover);
    await Promise.all([ming.has(1), li.has(1)]);
    for (const member of [ming, li]) assert.deepEqual(member.messages().map(({ channel, event, data }) => ({ channel, event, data })), [{ channel: room, event: 'signal:all', data: discover }]);

    const offer = { type: 'offer', from: 'Anna🙂:c4r0l5', to: ming.userId, offer: { type: 'offer', sdp: 'v=0\r\n…' } };
    await channel.publish(`signal:${ming.userId}`, offer);
    await channel.publish('signal:all', { type: 'end', from: 'Anna🙂:c4r0l5' });
    await Promise.all([ming.has(3), li.has(2)]);
    assert.deepEqual(ming.messages()[1].data, offer);
    assert.equal(ming.messages()[1].event, `signal:${ming.userId}`);
    assert.deepEqual(li.messages().map((m) => m.data.type), ['discover', 'end'], 'a directed signal reaches its addressee alone');

    await ming.publish('signal:all', { type: 'discover', from: ming.userId });
    await ming.publish('signal:Anna🙂:c4r0l5', { type: 'answer', from: ming.userId, to: 'Anna🙂:c4r0l5', 深: [1, 2.5] });
    await ear.has(5);
    assert.deepEqual(ear.messages.slice(3).map(({ name, data }) => ({ name, data })), [
      { name: 'signal:all', data: { type: 'discover', from: ming.userId } },
      { name: 'signal:Anna🙂:c4r0l5', data: { type: 'answer', from: ming.userId, to: 'Anna🙂:c4r0l5', 深: [1, 2.5] } },
    ]);
    await li.has(3);
    assert.deepEqual(li.messages().slice(2).map((m) => m.event), ['signal:all'], 'nor does Li hear what Ming tells Anna');
  }
});

story('the app\'s way: names as filters, so that a subscriber of signal:<id> and signal:all sees what is his', async (stage) => {
  const ming = await stage.join('ming:aaaaaa');
  const anna = await stage.arrive();
  const channel = anna.channels.get(stage.room);
  const heard = [];
  for (const name of ['signal:anna:bbbbbb', 'signal:all']) await channel.subscribe(name, (m) => heard.push([m.name, m.data]));
  await ming.publish('signal:all', { n: 1 });
  await ming.publish('signal:carl:cccccc', { n: 2 });
  await ming.publish('signal:anna:bbbbbb', { n: 3 });
  await ming.publish('signal:all', { n: 4 });
  await eventually('the last message', () => heard.length >= 3);
  assert.deepEqual(heard, [['signal:all', { from: 'ming:aaaaaa', n: 1 }], ['signal:anna:bbbbbb', { from: 'ming:aaaaaa', n: 3 }], ['signal:all', { from: 'ming:aaaaaa', n: 4 }]]);
});

tale('messages of a member have what the SDK wants of every message', async (stage) => {
  const ming = await stage.join('ming');
  for (const useBinaryProtocol of [true, false]) {
    const anna = await stage.arrive({ useBinaryProtocol });
    const ear = await listen(anna.channels.get(stage.room));
    await ming.publish('signal:all', { n: 1 });
    await ear.has(1);
    const [message] = ear.messages;
    assert.ok(message.id && message.timestamp && message.serial);
    assert.ok(Math.abs(message.timestamp - Date.now()) < 60_000);
    assert.ok(!message.encoding);
    await ming.publish('signal:all', { n: 2 });
    await ear.has(2);
    assert.ok(ear.messages[1].serial > message.serial);
    assert.notEqual(ear.messages[1].id, message.id);
  }
});

story('strings, arrays, bytes, secrets and nothing do not reach members; they are counted, and what follows arrives', async (stage) => {
  const ming = await stage.join('ming');
  const cipher = { key: await stage.sdk.Realtime.Crypto.generateRandomKey() };
  const before = await figure('not_representable');
  let sent = 0;
  for (const useBinaryProtocol of [true, false]) {
    const anna = await stage.arrive({ useBinaryProtocol });
    const channel = anna.channels.get(stage.room);
    for (const data of ['text', '{"looks":"like JSON"}', ['array'], Buffer.from('bytes'), undefined]) {
      await channel.publish('signal:all', data);
      sent++;
    }
    await anna.channels.get(stage.room, { cipher }).publish('signal:all', { type: 'secret' });
    sent++;
    anna.close();
  }
  await (await stage.arrive()).channels.get(stage.room).publish('signal:all', { type: 'end' });
  await ming.has(1);
  assert.deepEqual(ming.messages().map((m) => m.data.type), ['end']);
  assert.ok((await figure('not_representable')) >= before + sent);
});

story('a message without a name is for nobody who waits for an event', async (stage) => {
  const ming = await stage.join('ming');
  const anna = await stage.arrive();
  const channel = anna.channels.get(stage.room);
  const ear = await listen(channel);
  await channel.publish({ data: { type: 'nameless' } });
  await channel.publish('signal:all', { type: 'end' });
  await Promise.all([ming.has(1), ear.has(2)]);
  assert.deepEqual(ming.messages().map((m) => m.data.type), ['end']);
});

story('a batch reaches members one by one, in order, each to whom it is for', async (stage) => {
  const [ming, li] = [await stage.join('ming'), await stage.join('li')];
  const anna = await stage.arrive();
  await anna.channels.get(stage.room).publish([
    { name: 'signal:all', data: { n: 1 } }, { name: 'signal:li', data: { n: 2 } }, { name: 'signal:all', data: 'no object' },
    { name: 'signal:ming', data: { n: 3 } }, { name: 'signal:all', data: { n: 4 } },
  ]);
  await Promise.all([ming.has(3), li.has(3)]);
  assert.deepEqual(ming.messages().map((m) => m.data.n), [1, 3, 4]);
  assert.deepEqual(li.messages().map((m) => m.data.n), [1, 2, 4]);
});

tale('numbers and order of keys survive from member to client and back, as far as the SDK itself keeps them', async (stage) => {
  const ming = await stage.join('ming');
  const raw = stage.raw();
  await raw.until(action.CONNECTED);
  await raw.attach(stage.room);
  const text = '{"z":1e400,"a":12345678901234567890,"from":"ming", "m":[ 1.50 ]}';
  ming.socket.send(`{"type":"publish","channel":"${stage.room}","event":"signal:all","data":${text}}`);
  const frame = await raw.until(action.MESSAGE);
  assert.equal(frame.messages[0].encoding, 'json');
  assert.equal(frame.messages[0].data, text, 'byte for byte');
  const bytes = new Promise((resolve) => ming.socket.on('message', (m) => { if (String(m).includes('"type":"message"')) resolve(String(m)); }));
  raw.publish(stage.room, { name: 'signal:all', data: text, encoding: 'json' });
  assert.ok((await bytes).includes(`"data":${text}`));
});

tale('an event that no name of a room could carry is still delivered to Ably clients, and rooms keep their own rules', async (stage) => {
  // The LetShare rule for names binds the LetShare protocol alone.
  const anna = await stage.arrive();
  for (const name of ['a', 'a-name-that-is-much-longer-than-twelve', 'with:colon', '!']) {
    const ear = await listen(anna.channels.get(name));
    await anna.channels.get(name).publish('n', '');
    await ear.hears('n');
  }
  const ming = await stage.join('ming');
  ming.send({ type: 'subscribe', channel: 'with:colon', event: 'signal:all', id: 'x' });
  await eventually('the refusal', () => ming.frames.some((f) => f.type === 'error' && f.error.reason === 'bad_channel'));
});

tale('both kinds count when a member wants to join a room; Ably clients come in even where it is full', async (stage) => {
  const house = await stage.house({ websocket: { max_room_users: 3 } });
  const clients = await Promise.all([0, 1].map((i) => stage.arrive({ at: house.at, sdk: sdks[i] })));
  const ears = await Promise.all(clients.map((client) => listen(client.channels.get(stage.room))));
  const ming = await stage.join('ming', stage.room, house);
  await assert.rejects(stage.join('li', stage.room, house), /room_full/);
  ears.push(await listen((await stage.arrive({ at: house.at })).channels.get(stage.room)));
  await ming.publish('signal:all', { type: 'full' });
  await Promise.all(ears.map((ear) => ear.hears('signal:all')));
  await clients[0].channels.get(stage.room).publish('signal:all', { type: 'back' });
  await ming.has(1);
});

tale('what Ably attachments to one channel are bounded by is their own limit', async (stage) => {
  const house = await stage.house({ ably: { max_attachments_per_channel: 3 } });
  const clients = await Promise.all([0, 1, 2, 3].map(() => stage.arrive({ at: house.at })));
  for (const client of clients.slice(0, 3)) await client.channels.get(stage.room).attach();
  const error = await refused(clients[3].channels.get(stage.room).attach(), 90000);
  assert.ok(error.message);
  assert.equal(clients[3].connection.state, 'connected');
  await clients[3].channels.get(`${stage.room}x`).attach();
  await clients[0].channels.get(stage.room).detach();
  const channel = clients[3].channels.get(stage.room);
  await eventually('there is room again', () => channel.attach().then(() => true, () => false));
});

tale('twenty of each kind in one room, all talking: everybody hears all others, in each one\'s order', async (stage) => {
  const members = await Promise.all(Array.from({ length: 20 }, (_, i) => stage.join(`m${i}`)));
  const clients = await Promise.all(Array.from({ length: 20 }, (_, i) => stage.arrive({ sdk: sdks[i % 2], useBinaryProtocol: i % 4 < 2, clientId: `c${i}` })));
  const ears = await Promise.all(clients.map((client) => listen(client.channels.get(stage.room))));
  await Promise.all([
    ...members.map(async (member) => { for (let n = 0; n < 5; n++) await member.publish('signal:all', { from: member.userId, n }); }),
    ...clients.map(async (client) => { for (let n = 0; n < 5; n++) await client.channels.get(stage.room).publish('signal:all', { from: client.auth.clientId, n }); }),
  ]);
  await Promise.all([...ears.map((ear) => ear.has(200)), ...members.map((member) => member.has(195))]);
  const orders = (messages) => {
    const by = {};
    for (const { data } of messages) (by[data.from] ??= []).push(data.n);
    return by;
  };
  for (const ear of ears) {
    const by = orders(ear.messages);
    assert.equal(Object.keys(by).length, 40);
    for (const order of Object.values(by)) assert.deepEqual(order, [0, 1, 2, 3, 4]);
  }
  for (const member of members) {
    const by = orders(member.messages());
    assert.equal(Object.keys(by).length, 39, 'a member does not hear itself');
    for (const order of Object.values(by)) assert.deepEqual(order, [0, 1, 2, 3, 4]);
  }
});
