// Who is there: members come, change, go and come back, and everybody who looks sees the same.

import assert from 'node:assert/strict';
import { keys } from './config.mjs';
import { changes, eventually, jwt, listen, numbers, pause, reaches, refused, sdks, server, story, tale, unique, within } from './kit.mjs';
import { action, flag } from './raw.mjs';

// hasty makes a client come back at once, where the SDK alone would wait up to a second.
function hasty(client) {
  client.connection.on('disconnected', () => setImmediate(() => { if (client.connection.state === 'disconnected') client.connect(); }));
  return client;
}

// Watch keeps the presence events of a channel, in order.
class Watch {
  constructor() {
    this.events = [];
  }

  told() { return this.events.map(({ action, clientId }) => `${action} ${clientId}`); }

  tells(...wanted) {
    return eventually(`told of ${wanted}`, () => this.told().length >= wanted.length, 15_000, () => JSON.stringify(this.told()))
      .then(() => assert.deepEqual(this.told(), wanted));
  }

  hears(told, limit) {
    return eventually(told, () => this.told().includes(told), limit, () => JSON.stringify(this.told()));
  }
}

async function watch(channel, ...actions) {
  const eyes = new Watch();
  await within(channel.presence.subscribe(...actions, (event) => eyes.events.push(event)), `${channel.name} is attached`);
  return eyes;
}

const names = (members) => members.map(({ clientId }) => clientId).sort();
const present = async (channel, params) => names(await within(channel.presence.get(params), 'the members'));

story('enter, update and leave are told to all, the member included, with their data', async (stage) => {
  const anna = await stage.arrive({ clientId: 'anna' });
  for (const useBinaryProtocol of [true, false]) {
    const room = unique('r');
    const ben = await stage.arrive({ useBinaryProtocol });
    const channel = anna.channels.get(room);
    const [own, other] = [await watch(channel), await watch(ben.channels.get(room))];
    await channel.presence.enter('here');
    await channel.presence.update({ mood: '好' });
    await channel.presence.leave('bye');
    for (const eyes of [own, other]) {
      await eyes.tells('enter anna', 'update anna', 'leave anna');
      assert.deepEqual(eyes.events.map(({ data }) => data), ['here', { mood: '好' }, 'bye']);
      for (const { connectionId, timestamp, id } of eyes.events) {
        assert.equal(connectionId, anna.connection.id);
        assert.ok(Math.abs(timestamp - Date.now()) < 60_000 && id.startsWith(`${connectionId}:`));
      }
    }
    assert.deepEqual(await present(ben.channels.get(room)), []);
  }
});

story('who comes later is told who is there, and get() knows it', async (stage) => {
  const anna = await stage.arrive();
  const channel = anna.channels.get(stage.room);
  for (const name of ['a', 'b', 'c']) await channel.presence.enterClient(name, { name });
  const ben = await stage.arrive({ useBinaryProtocol: false });
  const eyes = await watch(ben.channels.get(stage.room));
  const members = await ben.channels.get(stage.room).presence.get();
  assert.deepEqual(members.map((m) => [m.action, m.clientId, m.data.name, m.connectionId]), ['a', 'b', 'c'].map((name) => ['present', name, name, anna.connection.id]));
  await eyes.tells('present a', 'present b', 'present c');
  assert.deepEqual(await present(ben.channels.get(stage.room), { clientId: 'b' }), ['b']);
  assert.deepEqual(await present(ben.channels.get(stage.room), { connectionId: 'nobody' }), []);
  assert.ok(ben.channels.get(stage.room).presence.syncComplete);
});

story('get() attaches by itself, and on an empty channel there is nobody', async (stage) => {
  const anna = await stage.arrive();
  assert.deepEqual(await present(anna.channels.get(stage.room)), []);
  assert.equal(anna.channels.get(stage.room).state, 'attached');
});

story('get() that does not wait has what is known so far', async (stage) => {
  const [anna, ben] = [await stage.arrive({ clientId: 'anna' }), await stage.arrive()];
  await anna.channels.get(stage.room).presence.enter();
  const channel = ben.channels.get(stage.room);
  await channel.attach();
  await present(channel);
  assert.deepEqual(await present(channel, { waitForSync: false }), ['anna']);
});

story('entering twice is an update, and updating without entering enters', async (stage) => {
  const anna = await stage.arrive({ clientId: 'anna' });
  const channel = anna.channels.get(stage.room);
  const eyes = await watch(channel);
  await channel.presence.update('1');
  await channel.presence.enter('2');
  await eyes.tells('enter anna', 'update anna');
  await channel.presence.leave();
  await channel.presence.enter('3');
  await eyes.tells('enter anna', 'update anna', 'leave anna', 'enter anna');
  assert.equal(eyes.events[2].data, '2', 'who leaves without a word leaves with the last one');
});

story('one may listen to one action alone', async (stage) => {
  const [anna, ben] = [await stage.arrive({ clientId: 'anna' }), await stage.arrive()];
  const [leaves, all] = [await watch(ben.channels.get(stage.room), 'leave'), await watch(ben.channels.get(stage.room), ['enter', 'leave'])];
  const { presence } = anna.channels.get(stage.room);
  await presence.enter();
  await presence.update('x');
  await presence.leave();
  await all.tells('enter anna', 'leave anna');
  await leaves.tells('leave anna');
});

story('a server enters, updates and leaves in the names of others', async (stage) => {
  const [bot, ben] = [await stage.arrive(), await stage.arrive()];
  const eyes = await watch(ben.channels.get(stage.room));
  const { presence } = bot.channels.get(stage.room);
  await presence.enterClient('a', '1');
  await Promise.all([presence.enterClient('b', '1'), presence.updateClient('a', '2'), presence.leaveClient('b')]);
  await eyes.tells('enter a', 'enter b', 'update a', 'leave b');
  assert.deepEqual(await present(ben.channels.get(stage.room)), ['a']);
});

story('what is entered before the connection and the channel are there goes out when they are', async (stage) => {
  const ben = await stage.arrive();
  const eyes = await watch(ben.channels.get(stage.room));
  const anna = stage.meet({ clientId: 'anna' });
  await within(anna.channels.get(stage.room).presence.enter('early'), 'entered');
  await eyes.tells('enter anna');
});

story('nobody enters without a name, or in the name of another', async (stage) => {
  const anonymous = await stage.arrive({ token: jwt() });
  await refused(anonymous.channels.get(stage.room).presence.enterClient('anna'), 40012, 91000);
  await refused((async () => anonymous.channels.get(stage.room).presence.enter())(), 40012, 91000);
  const anna = await stage.arrive({ token: jwt({ clientId: 'anna' }) });
  const { presence } = anna.channels.get(stage.room);
  await refused(presence.enterClient('ben'), 40012);
  await presence.enterClient('anna');
  await presence.leave();
});

story('entering needs the capability, and the mode; looking needs neither', async (stage) => {
  const anna = await stage.arrive({ clientId: 'anna' });
  await anna.channels.get(stage.room).presence.enter();
  const reader = await stage.arrive({ key: keys.read, clientId: 'reader' });
  await refused(reader.channels.get(stage.room).presence.enter(), 40160, 40165);
  assert.deepEqual(await present(reader.channels.get(stage.room)), ['anna']);
  const modest = await stage.arrive({ clientId: 'modest' });
  const channel = modest.channels.get(stage.room, { modes: ['SUBSCRIBE', 'PRESENCE_SUBSCRIBE'] });
  await refused(channel.presence.enter(), 40160, 40165);
  assert.deepEqual(await present(channel), ['anna']);
});

story('objects, bytes and what is encrypted cross between the codecs', async (stage) => {
  const cipher = { key: Buffer.alloc(32, 7).toString('base64') };
  const [anna, ben] = [await stage.arrive(), await stage.arrive({ useBinaryProtocol: false })];
  for (const options of [{}, { cipher }]) {
    const room = unique('r');
    const [one, other] = [anna.channels.get(room, options), ben.channels.get(room, options)];
    const eyes = await watch(other);
    const values = ['text 文', { deep: [1, null, '文'] }, Buffer.from([0, 255, 128])];
    for (const [i, value] of values.entries()) await one.presence.enterClient(`m${i}`, value);
    await other.presence.enterClient('back', Buffer.from([9, 9, 200]));
    await eyes.hears('enter back');
    assert.deepEqual(eyes.events.slice(0, 2).map(({ data }) => data), values.slice(0, 2));
    assert.ok(Buffer.from(eyes.events[2].data).equals(values[2]));
    let back = [];
    await eventually('the member with bytes', async () => (back = await one.presence.get({ clientId: 'back' })).length === 1);
    assert.ok(Buffer.from(back[0].data).equals(Buffer.from([9, 9, 200])));
  }
});

story('without echo a client still sees its own presence, and not its own messages', async (stage) => {
  const [anna, ben] = [await stage.arrive({ clientId: 'anna', echoMessages: false }), await stage.arrive()];
  const channel = anna.channels.get(stage.room);
  const [eyes, ear] = [await watch(channel), await listen(channel)];
  await channel.presence.enter();
  await channel.publish('own', '');
  await ben.channels.get(stage.room).publish('other', '');
  await ear.hears('other');
  assert.deepEqual(ear.names(), ['other']);
  await eyes.tells('enter anna');
});

story('two connections of one person are two members, and leave one by one', async (stage) => {
  const [phone, laptop, ben] = [await stage.arrive({ clientId: 'anna' }), await stage.arrive({ clientId: 'anna' }), await stage.arrive()];
  const eyes = await watch(ben.channels.get(stage.room));
  await phone.channels.get(stage.room).presence.enter('phone');
  await laptop.channels.get(stage.room).presence.enter('laptop');
  await eyes.tells('enter anna', 'enter anna');
  assert.equal((await ben.channels.get(stage.room).presence.get({ clientId: 'anna' })).length, 2);
  phone.close();
  await eyes.tells('enter anna', 'enter anna', 'leave anna');
  assert.equal(eyes.events[2].connectionId, eyes.events[0].connectionId);
  assert.deepEqual((await ben.channels.get(stage.room).presence.get()).map(({ data }) => data), ['laptop']);
});

story('who closes has left at once, from all channels', async (stage) => {
  const [anna, ben] = [await stage.arrive({ clientId: 'anna' }), await stage.arrive()];
  const rooms = [unique('r'), unique('r'), unique('r')];
  const all = await Promise.all(rooms.map((room) => watch(ben.channels.get(room))));
  for (const room of rooms) await anna.channels.get(room).presence.enter();
  const since = Date.now();
  anna.close();
  for (const eyes of all) await eyes.tells('enter anna', 'leave anna');
  assert.ok(Date.now() - since < 5000);
});

story('who detaches has left at once, and is not there when it attaches again', async (stage) => {
  const [anna, ben] = [await stage.arrive({ clientId: 'anna' }), await stage.arrive()];
  const eyes = await watch(ben.channels.get(stage.room));
  const channel = anna.channels.get(stage.room);
  await channel.presence.enter();
  await channel.detach();
  await eyes.tells('enter anna', 'leave anna');
  await channel.attach();
  assert.deepEqual(await present(channel), []);
  await channel.presence.enter();
  await eyes.tells('enter anna', 'leave anna', 'enter anna');
});

story('a short break is none: nobody hears of it, and everybody is still there', async (stage) => {
  const line = await stage.line();
  const [anna, ben] = [hasty(await stage.arrive({ at: line.at, clientId: 'anna' })), await stage.arrive()];
  const eyes = await watch(ben.channels.get(stage.room));
  const channel = anna.channels.get(stage.room);
  await channel.presence.enter('x');
  const own = await watch(channel);
  await present(channel);
  const { id } = anna.connection;
  for (let i = 0; i < 3; i++) {
    line.break();
    await reaches(anna.connection, 'disconnected');
    line.mend();
    await reaches(anna.connection, 'connected');
    await reaches(channel, 'attached');
    assert.deepEqual(await present(channel), ['anna']);
  }
  assert.equal(anna.connection.id, id);
  await channel.presence.update('y');
  await eyes.tells('enter anna', 'update anna');
  assert.ok(!own.told().includes('leave anna'));
});

story('away for longer than the grace: gone, and back by itself', async (stage) => {
  const line = await stage.line();
  const anna = hasty(await stage.arrive({ at: line.at, clientId: 'anna', transportParams: { remainPresentFor: 500 } }));
  const ben = await stage.arrive();
  const eyes = await watch(ben.channels.get(stage.room));
  await anna.channels.get(stage.room).presence.enter('x');
  const { id } = anna.connection;
  line.break();
  await eyes.tells('enter anna', 'leave anna');
  line.mend();
  await eyes.tells('enter anna', 'leave anna', 'enter anna');
  assert.equal(anna.connection.id, id);
  assert.equal(eyes.events[2].data, 'x');
  assert.deepEqual(await present(ben.channels.get(stage.room)), ['anna']);
});

tale('a lost line: the member stays for fifteen seconds, and then leaves', async (stage) => {
  const ben = await stage.arrive();
  const eyes = await watch(ben.channels.get(stage.room));
  const anna = stage.raw({ clientId: 'anna' });
  await anna.want(action.CONNECTED);
  await anna.attach(stage.room);
  anna.send({ action: action.PRESENCE, channel: stage.room, msgSerial: 0, presence: [{ action: 2, data: 'x' }] });
  await eyes.tells('enter anna');
  const since = Date.now();
  await anna.cut();
  await eyes.hears('leave anna', 25_000);
  const took = Date.now() - since;
  assert.ok(took > 14_000 && took < 22_000, `${took} ms`);
  assert.ok(!eyes.events[1].id.startsWith(eyes.events[1].connectionId), 'an id that clients do not take for old');
  assert.deepEqual(await present(ben.channels.get(stage.room)), []);
});

story('a new connection instead of the old: entered again at once, and the old member goes after its grace', async (stage) => {
  const line = await stage.line();
  const anna = await stage.arrive({ at: line.at, clientId: 'anna', transportParams: { remainPresentFor: 2000 }, disconnectedRetryTimeout: 500 });
  const ben = await stage.arrive();
  const eyes = await watch(ben.channels.get(stage.room));
  await anna.channels.get(stage.room).presence.enter('x');
  const { id } = anna.connection;
  line.break();
  await reaches(anna.connection, 'disconnected');
  await pause(100); // the first attempt to come back, which has the key, has failed
  anna.connection.connectionManager.connectionKey = 'nobody-knows-this-key';
  line.mend();
  await eyes.tells('enter anna', 'enter anna');
  assert.notEqual(anna.connection.id, id);
  assert.equal((await ben.channels.get(stage.room).presence.get()).length, 2);
  await eyes.tells('enter anna', 'enter anna', 'leave anna');
  assert.equal(eyes.events[2].connectionId, id);
  assert.equal((await ben.channels.get(stage.room).presence.get())[0].connectionId, anna.connection.id);
});

story('the server restarts: everybody who was there is there again', async (stage) => {
  const house = await stage.house();
  const people = await Promise.all(['anna', 'ben', 'carl'].map((clientId) => stage.arrive({ at: house.at, clientId })));
  for (const person of people) await hasty(person).channels.get(stage.room).presence.enter(person.auth.clientId);
  await house.stop();
  await house.start();
  for (const person of people) {
    await reaches(person.connection, 'connected', 30_000);
    await eventually('all three', async () => (await present(person.channels.get(stage.room))).join() === 'anna,ben,carl');
  }
});

story('a client that is gone is recovered by another, and its members have never left', async (stage) => {
  const line = await stage.line();
  const [ben, old] = [await stage.arrive(), await stage.arrive({ at: line.at, clientId: 'anna' })];
  const eyes = await watch(ben.channels.get(stage.room));
  await old.channels.get(stage.room).presence.enter('x');
  const recover = old.connection.createRecoveryKey();
  line.break();
  const young = await stage.arrive({ recover, clientId: 'anna' });
  assert.deepEqual(await present(young.channels.get(stage.room)), ['anna']);
  await young.channels.get(stage.room).presence.update('y');
  await eyes.tells('enter anna', 'update anna');
  young.close();
  await eyes.tells('enter anna', 'update anna', 'leave anna');
});

story('two hundred members are let in, and no more, until one leaves', async (stage) => {
  const [bot, ben] = [await stage.arrive(), await stage.arrive({ clientId: 'ben' })];
  const { presence } = bot.channels.get(stage.room);
  const all = numbers(200);
  await Promise.all(all.map((name) => presence.enterClient(name, `data of ${name}`)));
  await refused(presence.enterClient('one too many'), 91003);
  await refused(ben.channels.get(stage.room).presence.enter(), 91003);
  assert.deepEqual(await present(ben.channels.get(stage.room)), [...all].sort());
  await presence.leaveClient('7');
  await ben.channels.get(stage.room).presence.enter();
  await eventually('ben instead of 7', async () => (await present(bot.channels.get(stage.room))).join() === [...all.filter((name) => name !== '7'), 'ben'].sort().join());
});

story('two hundred and fifty members, where the limit is raised: all are told to whoever comes, in pages', async (stage) => {
  const house = await stage.house({ ably: { max_presence_members: 250 } });
  const bot = await stage.arrive({ at: house.at });
  const { presence } = bot.channels.get(stage.room);
  const all = numbers(250);
  await Promise.all(all.map((name) => presence.enterClient(name, `data of ${name}`)));
  await refused(presence.enterClient('one too many'), 91003);
  for (const useBinaryProtocol of [true, false]) {
    const ben = await stage.arrive({ at: house.at, useBinaryProtocol });
    const channel = ben.channels.get(stage.room);
    const eyes = await watch(channel, 'present');
    assert.deepEqual(await present(channel), [...all].sort());
    assert.equal(eyes.events.length, 250);
    ben.close();
  }
});

story('members with large data: told as the line takes it, nobody is cut off for it', async (stage) => {
  const house = await stage.house({ websocket: { max_queue_bytes: 131_072 } });
  const bot = await stage.arrive({ at: house.at });
  const { presence } = bot.channels.get(stage.room);
  const all = numbers(20);
  for (const name of all) await presence.enterClient(name, 'x'.repeat(30_000));
  const ben = await stage.arrive({ at: house.at });
  const states = changes(ben.connection);
  assert.deepEqual(names(await within(ben.channels.get(stage.room).presence.get(), 'all members', 60_000)), [...all].sort());
  bot.close();
  await eventually('all have left', async () => (await present(ben.channels.get(stage.room))).length === 0, 60_000);
  assert.deepEqual(states, []);
});

tale('on the wire: pages of a sync, and the sync that a client asks for', async (stage) => {
  const [bot, ben] = [stage.raw(), stage.raw({ format: 'msgpack' })];
  for (const client of [bot, ben]) await client.want(action.CONNECTED);
  const items = numbers(150).map((clientId) => ({ action: 2, clientId, data: clientId }));
  bot.send({ action: action.PRESENCE, channel: stage.room, msgSerial: 0, presence: items });
  const ack = await bot.want(action.ACK);
  assert.deepEqual([ack.msgSerial, ack.count], [0, 1], 'one may enter without having attached');
  const sync = async () => {
    const pages = [];
    do pages.push(await ben.want(action.SYNC)); while (!pages.at(-1).channelSerial.endsWith(':'));
    const ids = new Set(pages.map(({ channelSerial }) => channelSerial.split(':')[0]));
    assert.equal(ids.size, 1);
    assert.match([...ids][0], /^[\w-]+$/);
    assert.ok(pages.length > 1);
    const members = pages.flatMap((page) => page.presence);
    assert.deepEqual(members.map((m) => [m.action, m.clientId, m.data]), items.map((m) => [1, m.clientId, m.data]));
    for (const [i, m] of members.entries()) assert.ok(m.timestamp && m.connectionId && m.id === `${m.connectionId}:0:${i}`);
    return [...ids][0];
  };
  const attached = await ben.attach(stage.room);
  assert.equal(attached.flags & 1, 1, 'HAS_PRESENCE');
  const first = await sync();
  ben.send({ action: action.SYNC, channel: stage.room });
  assert.notEqual(await sync(), first);
  bot.send({ action: action.CLOSE });
  const left = [];
  while (left.length < 150) left.push(...(await ben.want(action.PRESENCE)).presence);
  assert.deepEqual(left.map((m) => [m.action, m.clientId]), items.map((m) => [3, m.clientId]));
  assert.equal((await ben.attach(stage.room)).flags & 1, 0);
  ben.send({ action: action.SYNC, channel: stage.room });
  assert.deepEqual((await ben.want(action.SYNC)).presence, []);
});

tale('on the wire: order after ATTACHED: what was missed, who is there, what is new', async (stage) => {
  const [anna, ben] = [stage.raw({ clientId: 'anna' }), stage.raw()];
  for (const client of [anna, ben]) await client.want(action.CONNECTED);
  const { channelSerial } = await ben.attach(stage.room);
  await anna.attach(stage.room);
  anna.publish(stage.room, { data: 'missed' });
  anna.send({ action: action.PRESENCE, channel: stage.room, msgSerial: anna.serial++, presence: [{ action: 2 }] });
  await anna.until(action.ACK);
  await anna.until(action.ACK);
  const carl = stage.raw();
  await carl.want(action.CONNECTED);
  carl.send({ action: action.ATTACH, channel: stage.room, channelSerial });
  const attached = await carl.want(action.ATTACHED);
  assert.equal(attached.flags & (flag.RESUMED | 1), flag.RESUMED | 1);
  assert.equal((await carl.want(action.MESSAGE)).messages[0].data, 'missed');
  assert.equal((await carl.want(action.SYNC)).presence.length, 1);
  anna.publish(stage.room, { data: 'new' });
  assert.equal((await carl.want(action.MESSAGE)).messages[0].data, 'new');
});

story('presence in between does not harm the continuity of messages', async (stage) => {
  const line = await stage.line();
  const [anna, ben] = [await stage.arrive({ clientId: 'anna' }), hasty(await stage.arrive({ at: line.at }))];
  const [one, other] = [anna.channels.get(stage.room), ben.channels.get(stage.room)];
  const [ear, eyes] = [await listen(other), await watch(other)];
  const seen = changes(other);
  for (let i = 0; i < 10; i++) {
    await one.publish('n', String(2 * i));
    await one.presence.update(String(i));
    await eventually('the update', () => eyes.events.at(-1)?.data === String(i));
    line.break();
    await reaches(ben.connection, 'disconnected');
    await one.publish('n', String(2 * i + 1));
    line.mend();
    await reaches(ben.connection, 'connected');
  }
  await ear.has(20);
  assert.deepEqual(ear.data(), numbers(20));
  for (const change of seen.filter(({ current }) => current === 'attached')) assert.equal(change.resumed, true);
});

story('a token that does not allow presence any more takes the member out', async (stage) => {
  let capability = { [stage.room]: ['presence', 'subscribe'] };
  const anna = await stage.arrive({ authCallback: (_, done) => done(null, jwt({ capability, clientId: 'anna' })) });
  const ben = await stage.arrive();
  const eyes = await watch(ben.channels.get(stage.room));
  await anna.channels.get(stage.room).presence.enter();
  capability = { [stage.room]: ['subscribe'] };
  await anna.auth.authorize();
  await eyes.tells('enter anna', 'leave anna');
  await refused(anna.channels.get(stage.room).presence.enter(), 40160, 40165);
});

story('the history of presence: what happened, newest first or oldest first, page by page', async (stage) => {
  const anna = await stage.arrive();
  const channel = anna.channels.get(stage.room);
  await channel.presence.enterClient('a', '1');
  await channel.presence.updateClient('a', '2');
  await channel.presence.enterClient('b', { deep: ['文'] });
  await channel.presence.leaveClient('a');
  const forwards = await channel.presence.history({ direction: 'forwards' });
  assert.deepEqual(forwards.items.map((m) => `${m.action} ${m.clientId}`), ['enter a', 'update a', 'enter b', 'leave a']);
  assert.deepEqual(forwards.items.map(({ data }) => data), ['1', '2', { deep: ['文'] }, '2']);
  let page = await channel.presence.history({ limit: 3 });
  assert.deepEqual(page.items.map((m) => `${m.action} ${m.clientId}`), ['leave a', 'enter b', 'update a']);
  page = await page.next();
  assert.deepEqual(page.items.map((m) => `${m.action} ${m.clientId}`), ['enter a']);
  assert.ok(page.isLast());
});

story('by REST: who is there, and how many', async (stage) => {
  const [anna, ben] = [await stage.arrive({ clientId: 'anna' }), await stage.arrive({ useBinaryProtocol: false })];
  await anna.channels.get(stage.room).presence.enter({ mood: '好' });
  await ben.channels.get(stage.room, { modes: ['SUBSCRIBE'] }).attach();
  for (const useBinaryProtocol of [true, false]) {
    const channel = stage.rest({ useBinaryProtocol }).channels.get(stage.room);
    const { items } = await channel.presence.get();
    assert.deepEqual(items.map((m) => [m.action, m.clientId, m.data.mood]), [['present', 'anna', '好']]);
    const { metrics } = (await channel.status()).status.occupancy;
    assert.deepEqual(
      [metrics.connections, metrics.publishers, metrics.subscribers, metrics.presenceConnections, metrics.presenceMembers, metrics.presenceSubscribers],
      [2, 1, 2, 1, 1, 1]);
  }
});

story('LetShare members are not disturbed by presence', async (stage) => {
  const ming = await stage.join('小明:bbbbbb');
  const anna = await stage.arrive({ clientId: 'anna' });
  const channel = anna.channels.get(stage.room);
  await channel.presence.enter('x');
  assert.deepEqual(await present(channel), ['anna'], 'a LetShare member is no member of the presence set');
  await channel.presence.leave();
  await channel.publish('signal:all', { type: 'discover', from: 'anna' });
  await ming.has(1);
  assert.equal(ming.frames.filter(({ type }) => type !== 'subscribed').length, 1, JSON.stringify(ming.frames));
});

tale('one hundred cuts: at the end everybody sees exactly those who are there', async (stage) => {
  const cast = [0, 1, 2, 3].map((i) => ({ sdk: sdks[i % 2], useBinaryProtocol: i < 2, clientId: `p${i}` }));
  const lines = await Promise.all(cast.map(() => stage.line()));
  const people = await Promise.all(cast.map(async (who, i) => hasty(await stage.arrive({ ...who, at: lines[i].at }))));
  const channels = people.map((person) => person.channels.get(stage.room));
  const [still, watcher] = [await stage.arrive({ clientId: 'still' }), await stage.arrive()];
  await still.channels.get(stage.room).presence.enter('still');
  const eyes = await watch(watcher.channels.get(stage.room));
  const wanted = cast.map(() => undefined); // data of each member, undefined: not there

  let cutting = true;
  let done = 0;
  const lives = channels.map(async (channel, i) => {
    for (let n = 0; cutting; n++) {
      try {
        if (n % 4 === 3) {
          await within(channel.presence.leave(), 'left');
          wanted[i] = undefined;
        } else {
          const data = `${i} ${n}`;
          await within(channel.presence.update(data), 'updated');
          wanted[i] = data;
        }
        done++;
      } catch (error) {
        if (error.code !== 90001 && error.code !== 80003) throw error; // the channel is not attached now: try again
        n--;
      }
      await pause(7 * i + 5);
    }
  });
  for (let cut = 0; cut < 100; cut++) {
    for (const [i, line] of lines.entries()) if (cut % 3 === 0 || cut % lines.length === i) line.cut();
    await pause((cut * 37) % 60);
    if (cut % 4 !== 0) await Promise.all(people.map((person) => reaches(person.connection, 'connected')));
    if (cut % 2 === 0) await pause(40);
  }
  cutting = false;
  await Promise.all(lives);
  assert.ok(done > 200, `a load, not ${done} changes`);
  const expected = [...wanted.flatMap((data, i) => (data === undefined ? [] : [`p${i} ${data}`])), 'still still'].sort();
  const late = await stage.arrive();
  for (const channel of [...channels, watcher.channels.get(stage.room), still.channels.get(stage.room), late.channels.get(stage.room)]) {
    let seen;
    await eventually('exactly those who are there', async () => {
      seen = (await channel.presence.get()).map((m) => `${m.clientId} ${m.data}`).sort();
      return seen.join() === expected.join();
    }, 15_000, () => JSON.stringify({ seen, expected }));
  }
  assert.ok(!eyes.told().includes('leave still'));
  for (const person of people) person.close();
  await eventually('only the one is left', async () => (await present(late.channels.get(stage.room))).join() === 'still');
});
