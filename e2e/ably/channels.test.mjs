// Channels: getting in and out of them, what may be done there, and what a refusal leaves alive.

import assert from 'node:assert/strict';
import { keys } from './config.mjs';
import { changes, eventually, listen, reaches, refused, story, unique } from './kit.mjs';

story('attach, detach and attach again: heard only in between', async (stage) => {
  const [anna, ben] = [await stage.arrive(), await stage.arrive()];
  const channel = ben.channels.get(stage.room);
  const seen = changes(channel);
  const ear = await listen(channel);
  const says = (name) => anna.channels.get(stage.room).publish(name, '');
  await says('one');
  await ear.hears('one');
  await channel.detach();
  assert.equal(channel.state, 'detached');
  await says('two');
  await channel.attach();
  await says('three');
  await ear.hears('three');
  assert.deepEqual(ear.names(), ['one', 'three']);
  assert.deepEqual(seen.map((c) => c.current), ['attaching', 'attached', 'detaching', 'detached', 'attaching', 'attached']);
  for (const change of seen.filter((c) => c.current === 'attached')) assert.equal(change.resumed, false);
});

story('a first attach is not resumed, has the whole list of modes in its order, and a serial', async (stage) => {
  for (const useBinaryProtocol of [true, false]) {
    const client = await stage.arrive({ useBinaryProtocol });
    const channel = client.channels.get(unique('r'));
    const change = await channel.attach();
    assert.equal(change.resumed, false);
    assert.equal(channel.errorReason, null);
    assert.deepEqual(channel.modes, ['presence', 'publish', 'subscribe', 'presence_subscribe', 'annotation_publish']);
    assert.ok(channel.properties.attachSerial.length > 0);
  }
});

story('the modes that a client asks for are the ones it gets', async (stage) => {
  const client = await stage.arrive();
  for (const modes of [['SUBSCRIBE'], ['PUBLISH', 'PRESENCE'], ['PUBLISH', 'SUBSCRIBE', 'PRESENCE_SUBSCRIBE']]) {
    const channel = client.channels.get(unique('r'), { modes });
    await channel.attach();
    assert.deepEqual(channel.modes.toSorted(), modes.map((mode) => mode.toLowerCase()).toSorted());
  }
  const both = client.channels.get(unique('r'), { modes: ['PUBLISH'], params: { modes: 'subscribe', unknown: 'x' } });
  await both.attach();
  assert.deepEqual(both.modes, ['subscribe']);
  assert.deepEqual(both.params, { modes: 'subscribe' });
});

story('a key that may only read gets the modes to read, and hears', async (stage) => {
  const [anna, reader] = [await stage.arrive(), await stage.arrive({ key: keys.read })];
  const channel = reader.channels.get(stage.room);
  const ear = await listen(channel);
  assert.deepEqual(channel.modes, ['subscribe', 'presence_subscribe']);
  await anna.channels.get(stage.room).publish('news', '');
  await ear.hears('news');
});

story('without the mode to publish a publish is refused; the channel stays, and nobody hears it', async (stage) => {
  const [anna, ben] = [await stage.arrive(), await stage.arrive()];
  const ear = await listen(ben.channels.get(stage.room));
  const channel = anna.channels.get(stage.room, { modes: ['SUBSCRIBE'] });
  await channel.attach();
  await refused(channel.publish('forbidden', ''), 40165, 40160);
  assert.equal(channel.state, 'attached');
  await ben.channels.get(stage.room).publish('end', '');
  await ear.hears('end');
  assert.deepEqual(ear.names(), ['end']);
});

story('without the mode to subscribe nothing is heard', async (stage) => {
  const anna = await stage.arrive();
  const channel = anna.channels.get(stage.room, { modes: ['PUBLISH'] });
  const heard = [];
  await channel.subscribe((m) => heard.push(m.name)).catch(() => {});
  await channel.attach();
  const ear = await listen((await stage.arrive()).channels.get(stage.room));
  await channel.publish('deaf', '');
  await ear.hears('deaf');
  await channel.setOptions({ modes: ['PUBLISH', 'SUBSCRIBE'] });
  await channel.publish('hearing', '');
  await eventually('the second message', () => heard.includes('hearing'));
  assert.deepEqual(heard, ['hearing']);
});

story('setOptions attaches anew with the new modes, and loses no message that follows', async (stage) => {
  const client = await stage.arrive();
  const channel = client.channels.get(stage.room);
  const ear = await listen(channel);
  await channel.setOptions({ modes: ['SUBSCRIBE'] });
  assert.deepEqual(channel.modes, ['subscribe']);
  await channel.setOptions({ modes: ['SUBSCRIBE', 'PUBLISH'] });
  await channel.publish('after', '');
  await ear.hears('after');
  assert.deepEqual(ear.names(), ['after']);
});

story('what a key may do, it may do in the channels it was given: the others fail with 40160', async (stage) => {
  const client = await stage.arrive({ key: keys.rooms });
  const allowed = client.channels.get('chat:lobby');
  const ear = await listen(allowed);
  await allowed.publish('n', '');
  await ear.hears('n');
  const news = client.channels.get('news');
  await news.attach();
  assert.deepEqual(news.modes, ['subscribe', 'presence_subscribe']);
  await refused(news.publish('n', ''), 40160, 40165);
  for (const name of ['chat', 'news:today', 'other', 'Chat:lobby']) {
    const channel = client.channels.get(name);
    const error = await refused(channel.attach(), 40160);
    assert.equal(error.statusCode, 401);
    assert.equal(channel.state, 'failed');
  }
  assert.equal(client.connection.state, 'connected');
  await allowed.publish('still here', '');
  await ear.hears('still here');
});

story('a publish without the right to it is refused, also where nothing is attached', async (stage) => {
  const [reader, rooms, ben] = [await stage.arrive({ key: keys.read }), await stage.arrive({ key: keys.rooms }), await stage.arrive()];
  const ear = await listen(ben.channels.get(stage.room));
  await refused(reader.channels.get(stage.room).publish('n', ''), 40160);
  await refused(rooms.channels.get(stage.room).publish('n', ''), 40160);
  await ben.channels.get(stage.room).publish('end', '');
  await ear.hears('end');
  assert.deepEqual(ear.names(), ['end']);
});

story('a mode that the key does not allow fails the channel; after that it may be attached rightly', async (stage) => {
  const reader = await stage.arrive({ key: keys.read });
  const channel = reader.channels.get(stage.room, { modes: ['PUBLISH'] });
  await refused(channel.attach(), 40160);
  await channel.setOptions({ modes: ['SUBSCRIBE'] });
  await channel.attach();
  assert.deepEqual(channel.modes, ['subscribe']);
});

story('names that are none are refused; the connection and its other channels live on', async (stage) => {
  for (const useBinaryProtocol of [true, false]) {
    const client = await stage.arrive({ useBinaryProtocol });
    const seen = changes(client.connection);
    const good = client.channels.get(stage.room);
    const ear = await listen(good);
    for (const name of ['', ':leading', 'line\nbreak', '[open']) {
      const channel = client.channels.get(name);
      await refused(channel.attach(), 40010);
      assert.equal(channel.state, 'failed');
      await refused(client.channels.get(`${name}`).publish('n', ''), 40010, 90001);
    }
    await good.publish('fine', '');
    await ear.hears('fine');
    assert.equal(client.connection.state, 'connected');
    assert.deepEqual(seen, []);
    client.close();
    await reaches(client.connection, 'closed');
  }
});

story('a publish to a name that is none is refused, and the next one counts on', async (stage) => {
  const client = await stage.arrive();
  for (let i = 0; i < 3; i++) {
    await refused(client.channels.get('').publish('n', ''), 40010);
    assert.equal((await client.channels.get(stage.room).publish('n', '')).serials.length, 1);
  }
});

story('released and taken again, a channel begins anew', async (stage) => {
  const client = await stage.arrive();
  const first = client.channels.get(stage.room);
  await first.attach();
  await first.detach();
  client.channels.release(stage.room);
  const second = client.channels.get(stage.room);
  assert.notEqual(second, first);
  const ear = await listen(second);
  await second.publish('n', '');
  await ear.hears('n');
});

story('attached and detached twenty times over, a channel is heard once when it is attached at last', async (stage) => {
  const client = await stage.arrive();
  const channel = client.channels.get(stage.room);
  for (let i = 0; i < 20; i++) {
    await channel.attach();
    await channel.detach();
  }
  const ear = await listen(channel);
  await channel.publish('end', '');
  await ear.hears('end');
  assert.equal(channel.state, 'attached');
  assert.equal(ear.messages.length, 1);
});
