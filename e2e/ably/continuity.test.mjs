// Lines break, people come back, servers restart: nothing is lost, nothing comes twice, and where that cannot be
// kept it is said.

import assert from 'node:assert/strict';
import { changes, eventually, listen, numbers, pause, reaches, sdks, story, tale, unique } from './kit.mjs';
import { action, flag } from './raw.mjs';

// hasty makes a client come back at once, where the SDK alone would wait up to a second.
function hasty(client) {
  client.connection.on('disconnected', () => setImmediate(() => { if (client.connection.state === 'disconnected') client.connect(); }));
  return client;
}

story('a broken line: the same connection comes back with a new key, and what was said meanwhile arrives once', async (stage) => {
  for (const useBinaryProtocol of [true, false]) {
    const room = unique('r');
    const line = await stage.line();
    const [anna, ben] = [await stage.arrive(), hasty(await stage.arrive({ at: line.at, useBinaryProtocol }))];
    const ear = await listen(ben.channels.get(room));
    const seen = changes(ben.channels.get(room));
    const { id, key } = ben.connection;
    const says = (i) => anna.channels.get(room).publish('n', String(i));
    for (let i = 0; i < 5; i++) await says(i);
    line.break();
    await reaches(ben.connection, 'disconnected');
    for (let i = 5; i < 15; i++) await says(i);
    line.mend();
    await reaches(ben.connection, 'connected');
    assert.equal(ben.connection.id, id);
    assert.notEqual(ben.connection.key, key);
    assert.equal(ben.connection.errorReason, null);
    for (let i = 15; i < 20; i++) await says(i);
    await ear.has(20);
    assert.deepEqual(ear.data(), numbers(20));
    for (const { current, resumed } of seen) assert.ok(current === 'attaching' || resumed, current);
  }
});

story('what was published into a broken line is published once, and its promise settles', async (stage) => {
  const line = await stage.line();
  const [anna, ben] = [hasty(await stage.arrive({ at: line.at })), await stage.arrive()];
  const ear = await listen(ben.channels.get(stage.room));
  const channel = anna.channels.get(stage.room);
  await channel.publish('n', '0');
  const sent = [];
  for (let i = 1; i <= 30; i++) {
    sent.push(channel.publish('n', String(i)));
    if (i % 10 === 5) line.cut();
    await pause(i % 3);
  }
  for (const { serials } of await Promise.all(sent)) assert.equal(serials.length, 1);
  await ear.has(31);
  await channel.publish('end', '31');
  await ear.hears('end');
  assert.deepEqual(ear.data(), numbers(32));
});

tale('on the wire: a publish that is sent again after resuming is acknowledged again with the same serials, and heard once', async (stage) => {
  const ben = stage.raw();
  await ben.want(action.CONNECTED);
  await ben.attach(stage.room);
  const anna = stage.raw();
  const { connectionDetails } = await anna.want(action.CONNECTED);
  anna.publish(stage.room, { data: '0' });
  anna.publish(stage.room, { data: '1a' }, { data: '1b' });
  const acks = [await anna.want(action.ACK), await anna.want(action.ACK)];
  await anna.cut();
  const again = stage.raw({ resume: connectionDetails.connectionKey });
  await again.want(action.CONNECTED);
  again.publish(stage.room, { data: '0' });
  again.publish(stage.room, { data: '1a' }, { data: '1b' });
  again.publish(stage.room, { data: '2' });
  assert.deepEqual((await again.want(action.ACK)).res, acks[0].res);
  assert.deepEqual((await again.want(action.ACK)).res, acks[1].res);
  await again.want(action.ACK);
  const heard = [];
  while (heard.length < 4) heard.push(...(await ben.want(action.MESSAGE)).messages.map((m) => m.data));
  assert.deepEqual(heard, ['0', '1a', '1b', '2']);
});

tale('on the wire: attaching with a serial brings RESUMED and exactly what came after it', async (stage) => {
  for (const format of ['json', 'msgpack']) {
    const room = unique('r');
    const [anna, ben] = [stage.raw(), stage.raw({ format })];
    for (const client of [anna, ben]) await client.want(action.CONNECTED);
    const first = await ben.attach(room);
    assert.equal(first.flags & flag.RESUMED, 0);
    const serials = [first.channelSerial];
    for (let i = 0; i < 10; i++) {
      anna.publish(room, { data: `${i}` });
      serials.push((await ben.want(action.MESSAGE)).channelSerial);
    }
    for (const [from, serial] of serials.entries()) {
      const carl = stage.raw({ format });
      await carl.want(action.CONNECTED);
      carl.send({ action: action.ATTACH, channel: room, channelSerial: serial });
      const attached = await carl.want(action.ATTACHED);
      assert.equal(attached.flags & flag.RESUMED, flag.RESUMED);
      assert.ok(!('error' in attached));
      for (let i = from; i < 10; i++) assert.equal((await carl.want(action.MESSAGE)).messages[0].data, `${i}`);
      carl.send({ action: action.HEARTBEAT, id: 'fence' });
      assert.equal((await carl.want(action.HEARTBEAT)).id, 'fence', 'nothing more came');
      await carl.cut();
    }
  }
});

tale('on the wire: a serial that is unknown or damaged attaches afresh and says why, without a backlog', async (stage) => {
  const [anna, ben] = [stage.raw(), stage.raw()];
  for (const client of [anna, ben]) await client.want(action.CONNECTED);
  const { channelSerial } = await ben.attach(stage.room);
  anna.publish(stage.room, { data: 'before' });
  await anna.until(action.ACK);
  for (const serial of ['nonsense', `${channelSerial}x`, channelSerial.slice(0, -1), '0', '9'.repeat(5000)]) {
    const carl = stage.raw();
    await carl.want(action.CONNECTED);
    carl.send({ action: action.ATTACH, channel: stage.room, channelSerial: serial });
    const attached = await carl.want(action.ATTACHED);
    assert.equal(attached.flags & flag.RESUMED, 0, serial.slice(0, 30));
    assert.equal(attached.error?.code, 80012, JSON.stringify(attached));
    assert.ok(attached.channelSerial.length > 0);
    anna.publish(stage.room, { data: 'after' });
    assert.equal((await carl.want(action.MESSAGE)).messages[0].data, 'after');
    await carl.cut();
  }
});

tale('on the wire: a second socket with the key takes over, the first one ends', async (stage) => {
  const first = stage.raw();
  const { connectionId, connectionDetails } = await first.want(action.CONNECTED);
  await first.attach(stage.room);
  const second = stage.raw({ resume: connectionDetails.connectionKey });
  assert.equal((await second.want(action.CONNECTED)).connectionId, connectionId);
  await first.closed;
  const attached = await second.attach(stage.room);
  second.publish(stage.room, { data: 'x' });
  assert.ok(attached.channelSerial);
  assert.equal((await second.until(action.MESSAGE)).messages[0].data, 'x');
});

tale('on the wire: DISCONNECT is not CLOSE: the connection can be resumed', async (stage) => {
  const anna = stage.raw();
  const { connectionId, connectionDetails } = await anna.want(action.CONNECTED);
  anna.send({ action: action.DISCONNECT });
  await anna.cut();
  const again = stage.raw({ resume: connectionDetails.connectionKey });
  assert.equal((await again.want(action.CONNECTED)).connectionId, connectionId);
});

tale('on the wire: nobody resumes with the credentials of another', async (stage) => {
  const anna = stage.raw({ clientId: 'anna' });
  const { connectionDetails } = await anna.want(action.CONNECTED);
  const eve = stage.raw({ clientId: 'eve', resume: connectionDetails.connectionKey });
  const { error, channel } = await eve.want(action.ERROR);
  assert.deepEqual([error.code, channel], [40102, undefined]);
  anna.send({ action: action.HEARTBEAT, id: 'alive' });
  assert.equal((await anna.want(action.HEARTBEAT)).id, 'alive', 'anna is not thrown out by it');
});

story('a key that the server does not know: a new connection, said so with 80018, channels and publishes go on', async (stage) => {
  const line = await stage.line();
  const [anna, ben] = [hasty(await stage.arrive({ at: line.at })), await stage.arrive()];
  const [own, ear] = [await listen(anna.channels.get(stage.room)), await listen(ben.channels.get(stage.room))];
  for (let i = 0; i < 3; i++) await anna.channels.get(stage.room).publish('before', String(i));
  const { id } = anna.connection;
  anna.connection.connectionManager.connectionKey = 'nobody-knows-this-key';
  line.break();
  await reaches(anna.connection, 'disconnected');
  const pending = anna.channels.get(stage.room).publish('pending', '');
  const back = new Promise((resolve) => anna.connection.once('connected', resolve));
  line.mend();
  assert.equal((await back).reason?.code, 80018);
  assert.notEqual(anna.connection.id, id);
  assert.equal(anna.connection.errorReason.code, 80018);
  assert.equal((await pending).serials.length, 1);
  await anna.channels.get(stage.room).publish('end', '');
  await Promise.all([ear.hears('end'), own.hears('end')]);
  assert.deepEqual(ear.names(), ['before', 'before', 'before', 'pending', 'end']);
  assert.deepEqual(own.names(), ear.names());
});

story('away for longer than the server keeps a connection: a new one, and the channels attach again', async (stage) => {
  const house = await stage.house({ ably: { connection_state_seconds: 1 } });
  const line = await stage.line(house.at);
  const anna = await stage.arrive({ at: line.at });
  const ear = await listen(anna.channels.get(stage.room));
  const { id } = anna.connection;
  line.break();
  await reaches(anna.connection, 'suspended');
  await pause(500);
  line.mend();
  await reaches(anna.connection, 'connected');
  assert.notEqual(anna.connection.id, id);
  const reason = anna.connection.errorReason;
  assert.ok(reason === null || [80008, 80018, 80022].includes(reason.code), `${reason?.code}`);
  await reaches(anna.channels.get(stage.room), 'attached');
  await anna.channels.get(stage.room).publish('back', '');
  await ear.hears('back');
  assert.deepEqual(ear.names(), ['back']);
});

tale('on the wire: resuming too late is answered with a new connection and the reason', async (stage) => {
  const house = await stage.house({ ably: { connection_state_seconds: 1 } });
  const anna = stage.raw({ at: house.at });
  const { connectionId, connectionDetails } = await anna.want(action.CONNECTED);
  assert.equal(connectionDetails.connectionStateTtl, 1000);
  await anna.cut();
  await pause(3000);
  const again = stage.raw({ at: house.at, resume: connectionDetails.connectionKey });
  const answer = await again.want(action.CONNECTED);
  assert.notEqual(answer.connectionId, connectionId);
  assert.ok([80008, 80018, 80022].includes(answer.error.code));
  assert.ok(answer.error.statusCode);
});

story('a client that is gone is recovered by another: same connection, nothing lost, nothing twice', async (stage) => {
  const line = await stage.line();
  const [anna, old] = [await stage.arrive(), await stage.arrive({ at: line.at })];
  const ear = await listen(old.channels.get(stage.room));
  const says = (i) => anna.channels.get(stage.room).publish('n', String(i));
  for (let i = 0; i < 5; i++) await says(i);
  await old.channels.get(stage.room).publish('n', '5');
  await ear.has(6);
  const { id, key } = old.connection;
  const recover = old.connection.createRecoveryKey();
  line.break();
  for (let i = 6; i < 10; i++) await says(i);
  const young = await stage.arrive({ recover });
  assert.equal(young.connection.id, id);
  assert.notEqual(young.connection.key, key);
  assert.equal(young.connection.errorReason, null);
  const heard = await listen(young.channels.get(stage.room));
  await young.channels.get(stage.room).publish('n', '10');
  await heard.has(5);
  assert.deepEqual([...ear.data(), ...heard.data()], numbers(11));
});

story('recovering what nobody knows: a new connection with 80018, and everything works', async (stage) => {
  const recover = JSON.stringify({ connectionKey: 'nobody-knows-this-key', msgSerial: 7, channelSerials: { [stage.room]: 'nonsense' } });
  const client = await stage.arrive({ recover });
  assert.equal(client.connection.errorReason.code, 80018);
  const ear = await listen(client.channels.get(stage.room));
  assert.equal((await client.channels.get(stage.room).publish('n', '')).serials.length, 1);
  await ear.hears('n');
});

story('the server restarts: clients come back by themselves, told that their channels were not resumed', async (stage) => {
  const house = await stage.house();
  const [anna, ben] = [hasty(await stage.arrive({ at: house.at })), hasty(await stage.arrive({ at: house.at, useBinaryProtocol: false }))];
  const ear = await listen(ben.channels.get(stage.room));
  await anna.channels.get(stage.room).publish('before', '');
  await ear.hears('before');
  const { id } = ben.connection;
  const seen = changes(ben.channels.get(stage.room));
  await house.stop();
  await house.start();
  await Promise.all([reaches(anna.connection, 'connected'), reaches(ben.connection, 'connected')]);
  assert.notEqual(ben.connection.id, id);
  await eventually('the channel is attached anew', () => seen.some((c) => c.current === 'attached'));
  assert.equal(seen.findLast((c) => c.current === 'attached').resumed, false);
  assert.equal((await anna.channels.get(stage.room).publish('after', '')).serials.length, 1);
  await ear.hears('after');
  assert.deepEqual(ear.names(), ['before', 'after']);
});

story('a backlog that is too large to send again: attached, not resumed, 90004, and no more cuts', async (stage) => {
  const house = await stage.house({ websocket: { max_queue_bytes: 65_536 } });
  const line = await stage.line(house.at);
  const [anna, ben] = [await stage.arrive({ at: house.at }), hasty(await stage.arrive({ at: line.at }))];
  const channel = ben.channels.get(stage.room);
  const ear = await listen(channel);
  line.break();
  await reaches(ben.connection, 'disconnected');
  for (let i = 0; i < 60; i++) await anna.channels.get(stage.room).publish('much', 'x'.repeat(1000));
  const seen = changes(channel);
  const states = changes(ben.connection);
  line.mend();
  await eventually('the channel is told', () => seen.some((c) => c.reason?.code === 90004));
  assert.equal(seen.find((c) => c.reason?.code === 90004).resumed, false);
  await anna.channels.get(stage.room).publish('end', '');
  await ear.hears('end');
  assert.deepEqual(ear.names(), ['end']);
  assert.ok(!states.slice(states.findIndex((c) => c.current === 'connected') + 1).length, 'it stayed connected');
});

story('away for longer than messages are kept: the same connection, its channel not resumed, 90003', async (stage) => {
  const house = await stage.house({ ably: { history_seconds: 1 } });
  const line = await stage.line(house.at);
  const [anna, ben] = [await stage.arrive({ at: house.at }), hasty(await stage.arrive({ at: line.at }))];
  const [channel, says] = [ben.channels.get(stage.room), (name) => anna.channels.get(stage.room).publish(name, '')];
  const ear = await listen(channel);
  await says('heard');
  await ear.hears('heard');
  const { id } = ben.connection;
  line.break();
  await reaches(ben.connection, 'disconnected');
  await says('missed');
  await pause(3000);
  await says('also missed'); // the server forgets what is old when it looks there again
  const seen = changes(channel);
  line.mend();
  await eventually('the channel is told', () => seen.some((c) => c.reason?.code === 90003), 15_000, () => JSON.stringify(seen));
  assert.equal(seen.find((c) => c.reason?.code === 90003).resumed, false);
  assert.equal(ben.connection.id, id);
  await says('end');
  await ear.hears('end');
  assert.deepEqual(ear.names(), ['heard', 'end']);
});

tale('one hundred cuts under load: every listener ends with exactly what was published', async (stage) => {
  const cast = [
    { sdk: sdks[0], useBinaryProtocol: true }, { sdk: sdks[0], useBinaryProtocol: false },
    { sdk: sdks[1], useBinaryProtocol: true }, { sdk: sdks[1], useBinaryProtocol: false },
  ];
  const lines = await Promise.all(cast.map(() => stage.line()));
  const listeners = await Promise.all(cast.map(async (who, i) => hasty(await stage.arrive({ ...who, at: lines[i].at }))));
  const ears = await Promise.all(listeners.map((client) => listen(client.channels.get(stage.room))));
  const lost = listeners.map((client) => {
    const seen = changes(client.channels.get(stage.room));
    return () => seen.filter((c) => c.current === 'attached' && !c.resumed);
  });
  const line = await stage.line();
  const publisher = hasty(await stage.arrive({ at: line.at }));
  const channel = publisher.channels.get(stage.room);

  let published = 0;
  let cutting = true;
  const sent = [];
  const load = (async () => {
    while (cutting) {
      sent.push(channel.publish('n', String(published++)));
      await pause(3);
    }
  })();
  const all = [line, ...lines];
  const everyone = [publisher, ...listeners];
  for (let cut = 0; cut < 100; cut++) {
    // Every third time all lines at once, else one after the other; now and then before a client has settled.
    for (const [i, one] of all.entries()) if (cut % 3 === 0 || cut % all.length === i) one.cut();
    await pause((cut * 37) % 60);
    if (cut % 4 !== 0) await Promise.all(everyone.map((client) => reaches(client.connection, 'connected')));
    if (cut % 2 === 0) await pause(40);
  }
  cutting = false;
  await load;
  for (const { serials } of await Promise.all(sent)) assert.equal(serials.length, 1);
  const expected = numbers(published);
  assert.ok(published > 300, `a load, not ${published} messages`);
  for (const [i, ear] of ears.entries()) {
    await ear.has(published);
    await pause(50);
    assert.deepEqual(ear.data(), expected, `listener ${i}`);
    assert.deepEqual(lost[i](), [], `listener ${i} was never told of a loss`);
  }
});
