// What the frames look like, where the SDK would hide it or break on it: told by clients that speak by hand.

import assert from 'node:assert/strict';
import { keys } from './config.mjs';
import { eventually, tale, unique } from './kit.mjs';
import { action, flag, kindsOf, nulls } from './raw.mjs';

tale('the first frame is CONNECTED, with all that the SDK needs to go on', async (stage) => {
  const anna = stage.raw();
  const { connectionId, connectionDetails, ...rest } = await anna.want(action.CONNECTED);
  assert.match(connectionId, /^[A-Za-z0-9]+$/);
  assert.ok(connectionDetails.connectionKey.replace(connectionId, '').length >= 16, 'a key that nobody guesses, not even from the public id');
  assert.equal(connectionDetails.maxIdleInterval, 15_000);
  assert.equal(connectionDetails.connectionStateTtl, 120_000);
  assert.equal(connectionDetails.maxMessageSize, 65_536);
  assert.equal(connectionDetails.clientId, '*', 'a key without a wish may be anybody');
  assert.ok(!('error' in rest) && !('channel' in rest));
});

tale('two connections share neither id nor key, and one that comes back gets a new key', async (stage) => {
  const [anna, ben] = [stage.raw(), stage.raw()];
  const [a, b] = [await anna.want(action.CONNECTED), await ben.want(action.CONNECTED)];
  assert.notEqual(a.connectionId, b.connectionId);
  assert.notEqual(a.connectionDetails.connectionKey, b.connectionDetails.connectionKey);
  await anna.cut();
  let key = a.connectionDetails.connectionKey;
  for (let i = 0; i < 3; i++) {
    const again = stage.raw({ resume: key });
    const c = await again.want(action.CONNECTED);
    assert.equal(c.connectionId, a.connectionId);
    assert.notEqual(c.connectionDetails.connectionKey, key);
    assert.ok(!('error' in c));
    key = c.connectionDetails.connectionKey;
    await again.cut();
  }
});

tale('action 0 and msgSerial 0 are written, in both codecs', async (stage) => {
  for (const format of ['json', 'msgpack']) {
    const anna = stage.raw({ format });
    await anna.want(action.CONNECTED);
    anna.send({ action: action.HEARTBEAT, id: 'are-you-there' });
    const pong = await anna.want(action.HEARTBEAT);
    assert.deepEqual([pong.action, pong.id], [0, 'are-you-there']);
    anna.publish(stage.room, { name: 'first', data: 'x' });
    const ack = await anna.want(action.ACK);
    assert.equal(ack.msgSerial, 0);
    assert.equal(ack.count, 1);
    assert.equal(ack.res.length, 1);
    assert.equal(ack.res[0].serials.length, 1);
    if (format === 'json') {
      assert.match(anna.wire.at(-2), /"action":0\b/);
      assert.match(anna.wire.at(-1), /"msgSerial":0\b/);
    }
  }
});

tale('absent is absent: no frame of an ordinary life holds a null, and msgpack nothing that the SDK cannot read', async (stage) => {
  for (const format of ['json', 'msgpack']) {
    const anna = stage.raw({ format });
    await anna.want(action.CONNECTED);
    await anna.attach(stage.room);
    anna.publish(stage.room, {}, { name: 'n' }, { data: 'd' }, { name: 'e', data: '{"a":null}', encoding: 'json', extras: { headers: { a: 'b' } } });
    await anna.until(action.MESSAGE);
    anna.publish('', { name: 'refused' });
    await anna.until(action.NACK);
    anna.send({ action: action.ATTACH, channel: ':bad' });
    await anna.until(action.ERROR);
    anna.send({ action: action.DETACH, channel: stage.room });
    await anna.until(action.DETACHED);
    anna.send({ action: action.CLOSE });
    await anna.until(action.CLOSED);
    for (const frame of anna.frames) assert.deepEqual(nulls(frame), [], JSON.stringify(frame));
    if (format === 'msgpack') for (const bytes of anna.wire) assert.ok(!kindsOf(bytes).has('nil'), bytes.toString('hex'));
  }
});

tale('an error of the whole connection names no channel, has a status, and the socket ends', async (stage) => {
  for (const format of ['json', 'msgpack']) {
    const eve = stage.raw({ key: 'app.nobody:nothing', format });
    const frame = await eve.want(action.ERROR);
    assert.ok(!('channel' in frame));
    assert.equal(frame.error.code, 40101);
    assert.equal(frame.error.statusCode, 401);
    assert.ok(frame.error.message.length > 0);
    await eve.closed;
    assert.equal(eve.frames.length, 1);
  }
});

tale('the protocol version: too old is told inside the socket, newer than known is welcome', async (stage) => {
  const old = stage.raw({ v: '1' });
  assert.equal((await old.want(action.ERROR)).error.code, 40025);
  await old.closed;
  for (const v of ['2', '3', '6', '99']) {
    const anna = stage.raw({ v });
    await anna.want(action.CONNECTED);
    await anna.cut();
  }
});

tale('unknown actions, fields and parameters change nothing', async (stage) => {
  const anna = stage.raw({ heartbeatInterval: '15000', remainPresentFor: '1000', somethingNew: '1', agent: 'story/1' });
  await anna.want(action.CONNECTED);
  anna.send({ action: 200, surprise: { deep: [1, 2, { three: 3 }] } });
  anna.send({ action: action.ATTACH, channel: stage.room, novelty: true });
  assert.equal((await anna.want(action.ATTACHED)).channel, stage.room);
  anna.send({ action: action.MESSAGE, channel: stage.room, msgSerial: 0, novelty: null, messages: [{ name: 'n', data: 'd', novelty: [1] }] });
  await anna.until(action.ACK);
});

tale('a quiet connection hears something within the interval it was promised', async (stage) => {
  const browser = stage.raw({ heartbeats: 'true' });
  const node = stage.raw({ heartbeats: 'false', format: 'msgpack' });
  const { connectionDetails } = await browser.want(action.CONNECTED);
  await node.want(action.CONNECTED);
  const interval = connectionDetails.maxIdleInterval;
  assert.ok(interval <= 15_000);
  const heartbeats = (client) => client.frames.filter((f) => f.action === action.HEARTBEAT);
  await Promise.all([
    eventually('a HEARTBEAT frame', () => heartbeats(browser).length > 0, interval + 1000),
    eventually('a HEARTBEAT frame or a ping', () => heartbeats(node).length + node.pings > 0, interval + 1000),
  ]);
  for (const beat of [...heartbeats(browser), ...heartbeats(node)]) assert.deepEqual(beat, { action: 0 }, 'only an answer has an id');
});

tale('pings are answered at once, each with its own id', async (stage) => {
  const anna = stage.raw();
  await anna.want(action.CONNECTED);
  for (const id of ['one', 'two', '三']) anna.send({ action: action.HEARTBEAT, id });
  for (const id of ['one', 'two', '三']) assert.deepEqual(await anna.want(action.HEARTBEAT), { action: 0, id });
});

tale('ATTACHED comes before anything else of its channel, and has a serial even where nothing was ever said', async (stage) => {
  const ben = stage.raw();
  await ben.want(action.CONNECTED);
  const quiet = await ben.attach(unique('q'));
  assert.ok(quiet.channelSerial.length > 0);

  const anna = stage.raw();
  await anna.want(action.CONNECTED);
  let talking = true;
  const talk = (async () => {
    while (talking) {
      anna.publish(stage.room, { name: 'talk', data: 'x' });
      await anna.until(action.ACK);
    }
  })();
  for (let i = 0; i < 20; i++) {
    const carl = stage.raw({ format: i % 2 ? 'msgpack' : 'json' });
    await carl.want(action.CONNECTED);
    carl.send({ action: action.ATTACH, channel: stage.room });
    const first = await carl.want(action.ATTACHED);
    assert.equal(first.channel, stage.room);
    assert.ok(first.channelSerial.length > 0);
    await carl.want(action.MESSAGE);
    await carl.cut();
  }
  talking = false;
  await talk;
});

tale('a message frame carries all from which the SDK fills its messages', async (stage) => {
  for (const format of ['json', 'msgpack']) {
    const room = unique('r');
    const [anna, ben] = [stage.raw({ clientId: 'anna' }), stage.raw({ format })];
    const { connectionId } = await anna.want(action.CONNECTED);
    await ben.want(action.CONNECTED);
    const attached = await ben.attach(room);
    anna.publish(room, { name: 'one', data: '1' }, { name: 'two', data: '2', extras: { headers: { k: 'v' } } });
    const before = Date.now();
    const { res } = await anna.until(action.ACK);
    const frame = await ben.want(action.MESSAGE);
    assert.equal(frame.channel, room);
    // id, connectionId and timestamp stand on the frame or on each message: from the frame's the SDK makes those of its messages.
    for (const [i, message] of frame.messages.entries()) {
      assert.equal(message.id ?? `${frame.id}:${i}`, `${connectionId}:0:${i}`);
      assert.equal(message.connectionId ?? frame.connectionId, connectionId);
      const timestamp = message.timestamp ?? frame.timestamp;
      assert.ok(Number.isInteger(timestamp) && Math.abs(timestamp - before) < 10_000);
    }
    assert.ok(frame.channelSerial.length > 0);
    assert.notEqual(frame.channelSerial, attached.channelSerial);
    assert.deepEqual(frame.messages.map((m) => [m.name, m.data, m.clientId]), [['one', '1', 'anna'], ['two', '2', 'anna']]);
    assert.deepEqual(frame.messages[1].extras, { headers: { k: 'v' } });
    assert.deepEqual(frame.messages.map((m) => m.serial), res[0].serials, 'the publisher learns the serials that the others see');
    assert.ok(res[0].serials[0] < res[0].serials[1], 'serials sort in the order of messages');
  }
});

tale('ACKs and NACKs come in the order of msgSerial, over many channels', async (stage) => {
  for (const format of ['json', 'msgpack']) {
    const anna = stage.raw({ format });
    await anna.want(action.CONNECTED);
    const rooms = Array.from({ length: 25 }, () => unique('r'));
    for (let i = 0; i < 500; i++) anna.publish(i % 50 === 49 ? '' : rooms[(i * 7) % 25], { name: 'n', data: String(i) });
    for (let next = 0; next < 500; ) {
      const frame = await anna.next();
      assert.equal(frame.msgSerial, next, JSON.stringify(frame));
      assert.ok(frame.count >= 1);
      for (let i = 0; i < frame.count; i++, next++) assert.equal(frame.action, next % 50 === 49 ? action.NACK : action.ACK);
      if (frame.action === action.ACK) assert.equal(frame.res.length, frame.count);
      else assert.equal(frame.error.code, 40010);
    }
  }
});

tale('the messages of one publish stay together: one frame, one serial of the channel', async (stage) => {
  const [anna, ben, carl] = [stage.raw(), stage.raw(), stage.raw()];
  for (const client of [anna, ben, carl]) await client.want(action.CONNECTED);
  await carl.attach(stage.room);
  for (let i = 0; i < 50; i++) {
    for (const [who, client] of [['anna', anna], ['ben', ben]]) client.publish(stage.room, ...[0, 1, 2, 3].map((j) => ({ name: who, data: `${i}.${j}` })));
  }
  const next = { anna: 0, ben: 0 };
  const serials = new Set();
  for (let i = 0; i < 100; i++) {
    const frame = await carl.want(action.MESSAGE);
    const who = frame.messages[0].name;
    assert.deepEqual(frame.messages.map((m) => [m.name, m.data]), [0, 1, 2, 3].map((j) => [who, `${next[who]}.${j}`]));
    next[who]++;
    serials.add(frame.channelSerial);
  }
  assert.equal(serials.size, 100);
});

tale('the modes: the default, the flags, the params, and the list that comes back', async (stage) => {
  const anna = stage.raw();
  await anna.want(action.CONNECTED);
  const modes = (frame) => frame.flags & (0x3ff << 16);
  const all = flag.PRESENCE | flag.PUBLISH | flag.SUBSCRIBE | flag.PRESENCE_SUBSCRIBE | flag.ANNOTATION_PUBLISH;
  const usual = await anna.attach(unique('r'));
  assert.equal(modes(usual), all);
  assert.equal(usual.flags & flag.RESUMED, 0);
  assert.equal(modes(await anna.attach(unique('r'), { flags: flag.SUBSCRIBE })), flag.SUBSCRIBE);
  const asked = await anna.attach(unique('r'), { flags: flag.SUBSCRIBE, params: { modes: 'publish,presence', nonsense: '1' } });
  assert.equal(modes(asked), flag.PUBLISH | flag.PRESENCE, 'params win over flags');
  assert.deepEqual(Object.keys(asked.params), ['modes'], 'what is not understood is dropped');
  assert.deepEqual(asked.params.modes.split(',').sort(), ['presence', 'publish']);
});

tale('granted is what is wanted and allowed; where nothing is left, the channel alone fails', async (stage) => {
  const reader = stage.raw({ key: keys.read });
  await reader.want(action.CONNECTED);
  const attached = await reader.attach(stage.room);
  assert.equal(attached.flags & (0x3ff << 16), flag.SUBSCRIBE | flag.PRESENCE_SUBSCRIBE);
  reader.send({ action: action.ATTACH, channel: unique('r'), flags: flag.PUBLISH });
  const { error, channel } = await reader.want(action.ERROR);
  assert.ok(channel);
  assert.deepEqual([error.code, error.statusCode], [40160, 401]);
  assert.ok((await reader.attach(unique('r'))).channelSerial, 'the connection lives');
});

tale('a channel that is attached twice is answered twice and heard once', async (stage) => {
  const [anna, ben] = [stage.raw(), stage.raw()];
  for (const client of [anna, ben]) await client.want(action.CONNECTED);
  for (let i = 0; i < 3; i++) {
    ben.send({ action: action.ATTACH, channel: stage.room });
    await ben.want(action.ATTACHED);
  }
  for (const data of ['1', '2', '3']) anna.publish(stage.room, { data });
  for (const data of ['1', '2', '3']) assert.equal((await ben.want(action.MESSAGE)).messages[0].data, data);
});

tale('whoever has detached is told so, and hears nothing more', async (stage) => {
  const [anna, ben] = [stage.raw(), stage.raw()];
  for (const client of [anna, ben]) await client.want(action.CONNECTED);
  await ben.attach(stage.room);
  ben.send({ action: action.DETACH, channel: stage.room });
  assert.equal((await ben.want(action.DETACHED)).channel, stage.room);
  anna.publish(stage.room, { data: 'unheard' });
  await anna.until(action.ACK);
  await ben.attach(stage.room);
  anna.publish(stage.room, { data: 'heard' });
  assert.equal((await ben.want(action.MESSAGE)).messages[0].data, 'heard');
});

tale('a DETACH of a channel that was never attached is answered too', async (stage) => {
  const anna = stage.raw();
  await anna.want(action.CONNECTED);
  anna.send({ action: action.DETACH, channel: stage.room });
  assert.equal((await anna.want(action.DETACHED)).channel, stage.room);
});

tale('names that are none are refused one by one; the connection survives them all', async (stage) => {
  for (const format of ['json', 'msgpack']) {
    const anna = stage.raw({ format });
    await anna.want(action.CONNECTED);
    for (const name of ['', ':led', 'new\nline', '[open', '[unknown=1]x']) {
      anna.send({ action: action.ATTACH, channel: name });
      const refusal = await anna.want(action.ERROR);
      assert.equal(refusal.channel, name, 'also the empty name is a name, not an absent one');
      assert.equal(refusal.error.code, 40010);
      const serial = anna.publish(name, { name: 'n' });
      const nack = await anna.want(action.NACK);
      assert.deepEqual([nack.msgSerial, nack.count, nack.error.code], [serial, 1, 40010]);
    }
    assert.ok(await anna.attach(stage.room));
  }
});

tale('CLOSE is answered with CLOSED and a normal end; the session is gone for good', async (stage) => {
  const anna = stage.raw();
  const { connectionId, connectionDetails } = await anna.want(action.CONNECTED);
  anna.send({ action: action.CLOSE });
  await anna.want(action.CLOSED);
  assert.equal(await anna.closed, 1000);
  const again = stage.raw({ resume: connectionDetails.connectionKey });
  const answer = await again.want(action.CONNECTED);
  assert.notEqual(answer.connectionId, connectionId);
  assert.ok([80018, 80008, 80022].includes(answer.error.code));
});

tale('binary changes its clothes between codecs, and only its last step', async (stage) => {
  const [json, pack] = [stage.raw(), stage.raw({ format: 'msgpack' })];
  for (const client of [json, pack]) {
    await client.want(action.CONNECTED);
    await client.attach(stage.room);
  }
  const bytes = Buffer.from([0, 1, 0xfe, 0xff, 0x80, 0x0a]);
  const both = async () => [(await json.until(action.MESSAGE)).messages[0], (await pack.until(action.MESSAGE)).messages[0]];
  for (const [publisher, data] of [[pack, bytes], [json, bytes.toString('base64')]]) {
    for (const left of [undefined, 'utf-8/cipher+aes-256-cbc', 'json/utf-8/cipher+aes-128-cbc']) {
      const encoding = publisher === json ? [left, 'base64'].filter(Boolean).join('/') : left;
      publisher.publish(stage.room, { name: 'b', data, encoding });
      const [text, binary] = await both();
      assert.deepEqual([text.data, text.encoding], [bytes.toString('base64'), left ? `${left}/base64` : 'base64']);
      if (typeof binary.data === 'string') assert.deepEqual([binary.data, binary.encoding], [text.data, text.encoding], 'base64 may also pass unchanged');
      else assert.deepEqual([Buffer.from(binary.data), binary.encoding], [bytes, left]);
    }
  }
  json.publish(stage.room, { name: 'b', data: 'this is !no base64', encoding: 'base64' });
  assert.equal((await pack.until(action.MESSAGE)).messages[0].data, 'this is !no base64', 'what does not decode passes untouched');
});

tale('a message in the name of another is refused, one in the own name passes', async (stage) => {
  const anna = stage.raw({ clientId: 'anna' });
  await anna.want(action.CONNECTED);
  anna.publish(stage.room, { name: 'n', clientId: 'ben' });
  assert.equal((await anna.want(action.NACK)).error.code, 40012);
  anna.publish(stage.room, { name: 'n', clientId: 'anna' });
  await anna.want(action.ACK);
});
