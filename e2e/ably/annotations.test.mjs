// What is said of messages: annotations as they are heard, what they come to, and how they are taken back.

import { after, before } from 'node:test';
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';
import { keys } from './config.mjs';
import { eventually, jwt, listen, pages, place, reaches, refused, server, story } from './kit.mjs';

const modes = ['publish', 'subscribe', 'annotation_publish', 'annotation_subscribe'];

// summaries are the summaries that an ear has heard.
function summaries(ear) {
  return ear.messages.filter((m) => m.action === 'message.summary').map((m) => m.annotations.summary);
}

// annotated is a channel with one message, and an ear on it.
async function annotated(stage, options = {}) {
  const name = `mutable:${stage.room}`;
  const channel = (await stage.arrive({ clientId: 'anna', ...options })).channels.get(name, { modes });
  const ear = await listen(channel);
  const { serials: [serial] } = await channel.publish('hello', 'world');
  await ear.has(1);
  return { name, channel, ear, serial };
}

for (const useBinaryProtocol of [true, false]) {
  const codec = useBinaryProtocol ? 'msgpack' : 'JSON';

  story(`annotations in ${codec}: heard one by one by who wants that, and as a summary by every subscriber`, async (stage) => {
    const { name, channel, ear, serial } = await annotated(stage, { useBinaryProtocol });
    const heard = [];
    await channel.annotations.subscribe((a) => heard.push(a));
    const ben = (await stage.arrive({ clientId: 'ben', useBinaryProtocol })).channels.get(name);
    const plain = await listen(ben);
    await ben.annotations.publish(ear.messages[0], { type: 'emoji:distinct.v1', name: '👍', data: { why: ['nice'] } });
    await eventually('the annotation', () => heard.length === 1);
    const [a] = heard;
    assert.deepEqual(
      [a.action, a.type, a.name, a.clientId, a.messageSerial, a.data],
      ['annotation.create', 'emoji:distinct.v1', '👍', 'ben', serial, { why: ['nice'] }],
    );
    assert.ok(a.serial > serial && a.timestamp > 0 && a.id && a.connectionId);
    const thumbs = { 'emoji:distinct.v1': { '👍': { total: 1, clientIds: ['ben'], clipped: false } } };
    for (const one of [ear, plain]) {
      await eventually('the summary', () => summaries(one).length === 1);
      assert.deepEqual(summaries(one), [thumbs]);
      const told = one.messages.find((m) => m.action === 'message.summary');
      assert.deepEqual([told.serial, told.name], [serial, 'hello']);
    }
    await ben.annotations.delete(serial, a); // as it was received
    await eventually('the delete', () => heard.length === 2 && summaries(plain).length === 2);
    assert.deepEqual([heard[1].action, heard[1].clientId], ['annotation.delete', 'ben']);
    assert.deepEqual(summaries(plain)[1], {});
  });

  story(`annotations in ${codec}: every way of counting`, async (stage) => {
    const { name, channel, ear, serial } = await annotated(stage, { useBinaryProtocol });
    const ben = (await stage.arrive({ clientId: 'ben', useBinaryProtocol })).channels.get(name);
    const nobody = (await stage.arrive({ useBinaryProtocol })).channels.get(name);
    const say = (who, type, more = {}) => who.annotations.publish(serial, { type, ...more });
    await say(channel, 'seen:total.v1');
    await say(nobody, 'seen:total.v1');
    await say(channel, 'like:flag.v1');
    await say(channel, 'like:flag.v1');
    await say(ben, 'like:flag.v1');
    await say(channel, 'tag:distinct.v1', { name: 'a' });
    await say(channel, 'tag:distinct.v1', { name: 'b' });
    await say(ben, 'tag:distinct.v1', { name: 'a' });
    await say(channel, 'mood:unique.v1', { name: 'good' });
    await say(ben, 'mood:unique.v1', { name: 'good' });
    await say(channel, 'mood:unique.v1', { name: 'bad' });
    await say(channel, 'vote:multiple.v1', { name: 'a', count: 3 });
    await say(ben, 'vote:multiple.v1', { name: 'a' });
    await say(nobody, 'vote:multiple.v1', { name: 'a', count: 2 });
    await say(ben, 'comment', { data: 'not counted' });
    const want = {
      'seen:total.v1': { total: 2 },
      'like:flag.v1': { total: 2, clientIds: ['anna', 'ben'], clipped: false },
      'tag:distinct.v1': { a: { total: 2, clientIds: ['anna', 'ben'], clipped: false }, b: { total: 1, clientIds: ['anna'], clipped: false } },
      'mood:unique.v1': { good: { total: 1, clientIds: ['ben'], clipped: false }, bad: { total: 1, clientIds: ['anna'], clipped: false } },
      'vote:multiple.v1': { a: { total: 6, clientIds: { anna: 3, ben: 1 }, totalUnidentified: 2, clipped: false, totalClientIds: 2 } },
    };
    await eventually('14 summaries', () => summaries(ear).length === 14);
    assert.deepEqual(summaries(ear).at(-1), want);
    assert.deepEqual((await channel.getMessage(serial)).annotations.summary, want);
    assert.deepEqual((await channel.history()).items.map((m) => [m.action, m.data, m.annotations.summary]), [['message.create', 'world', want]]);
    const late = await listen((await stage.arrive({ useBinaryProtocol })).channels.get(name, { params: { rewind: '1' } }));
    await late.has(1);
    assert.deepEqual(late.messages[0].annotations.summary, want);

    await channel.annotations.delete(serial, { type: 'vote:multiple.v1', name: 'a' });
    await nobody.annotations.delete(serial, { type: 'seen:total.v1' });
    await ben.annotations.delete(serial, { type: 'mood:unique.v1', name: 'good' });
    await eventually('17 summaries', () => summaries(ear).length === 17);
    const left = summaries(ear).at(-1);
    assert.deepEqual(left['vote:multiple.v1'].a, { total: 3, clientIds: { ben: 1 }, totalUnidentified: 2, clipped: false, totalClientIds: 1 });
    assert.deepEqual([left['seen:total.v1'], left['mood:unique.v1']], [{ total: 1 }, { bad: { total: 1, clientIds: ['anna'], clipped: false } }]);
  });

  story(`annotations in ${codec}: over REST, and all of a message in pages`, async (stage) => {
    const { name, channel, ear, serial } = await annotated(stage, { useBinaryProtocol });
    const rest = stage.rest({ useBinaryProtocol, clientId: 'rest' }).channels.get(name);
    for (const emoji of ['👍', '😕', '👎']) await rest.annotations.publish(serial, { type: 'emoji:distinct.v1', name: emoji });
    await rest.annotations.delete({ serial }, { type: 'emoji:distinct.v1', name: '😕' });
    await rest.annotations.publish(serial, { type: 'comment', data: Buffer.from([0, 255]) });
    for (const here of [rest, channel]) {
      const all = [];
      for (let page = await here.annotations.get(serial, { limit: 2 }); page; page = page.hasNext() ? await page.next() : null) all.push(...page.items);
      assert.deepEqual(all.map((a) => [a.action.slice(11), a.name]), [['create', '👍'], ['create', '😕'], ['create', '👎'], ['delete', '😕'], ['create', undefined]]);
      assert.ok(Buffer.from(all[4].data).equals(Buffer.from([0, 255])));
      assert.ok(all.every((a, i) => a.clientId === 'rest' && a.messageSerial === serial && (i === 0 || a.serial > all[i - 1].serial)));
    }
    await eventually('4 summaries', () => summaries(ear).length === 4);
    assert.deepEqual(Object.keys(summaries(ear).at(-1)['emoji:distinct.v1']).sort(), ['👍', '👎'].sort());
  });
}

story('annotations: a changed message keeps its summary', async (stage) => {
  const { channel, serial } = await annotated(stage);
  await channel.annotations.publish(serial, { type: 'like:flag.v1' });
  await channel.updateMessage({ serial, data: 'new' });
  const { data, action, annotations } = await channel.getMessage(serial);
  assert.deepEqual([data, action, annotations.summary['like:flag.v1'].clientIds], ['new', 'message.update', ['anna']]);
});

story('annotations: who was cut off gets each that it missed, and the newest summary', async (stage) => {
  const { name, channel, serial } = await annotated(stage);
  const line = await stage.line();
  const ben = await stage.arrive({ at: line.at });
  const away = ben.channels.get(name, { modes });
  const ear = await listen(away);
  const heard = [];
  await away.annotations.subscribe((a) => heard.push(a.name));
  line.break();
  for (const tag of ['a', 'b', 'c']) await channel.annotations.publish(serial, { type: 'tag:distinct.v1', name: tag });
  line.mend();
  await reaches(ben.connection, 'connected');
  await eventually('the summary', () => summaries(ear).length === 1 && heard.length === 3);
  assert.deepEqual(heard, ['a', 'b', 'c']);
  assert.deepEqual(Object.keys(summaries(ear)[0]['tag:distinct.v1']), ['a', 'b', 'c']);
});

story('annotations: an annotation whose acknowledgement was lost is counted once', async (stage) => {
  const { name, channel, serial } = await annotated(stage);
  const line = await stage.line();
  const ben = await stage.arrive({ at: line.at });
  for (let i = 0; i < 10; i++) {
    const done = ben.channels.get(name).annotations.publish(serial, { type: 'seen:total.v1' });
    line.cut();
    await done;
    await reaches(ben.connection, 'connected');
  }
  assert.deepEqual((await channel.getMessage(serial)).annotations.summary, { 'seen:total.v1': { total: 10 } });
});

story('annotations: refused without the right, the mode, a clientId, the message or the namespace', async (stage) => {
  const { name, channel, serial } = await annotated(stage);
  const flag = { type: 'like:flag.v1' };
  const token = jwt({ clientId: 'ben', capability: { '*': ['publish', 'subscribe', 'history'] } });
  const poor = (await stage.arrive({ token })).channels.get(name, { modes });
  await refused(poor.annotations.publish(serial, flag), 40160);
  await refused(poor.annotations.subscribe(() => {}), 93001);
  assert.deepEqual(poor.modes, ['publish', 'subscribe']);
  const silent = (await stage.arrive({ clientId: 'cleo' })).channels.get(name, { modes: ['subscribe'] });
  await silent.attach();
  await refused(silent.annotations.publish(serial, flag), 40165);
  await refused((await stage.arrive()).channels.get(name).annotations.publish(serial, flag), 40000);
  await refused(channel.annotations.publish(serial, { type: 'x:median.v1' }), 40000);
  await refused(channel.annotations.publish(serial, { type: 'x:unique.v1' }), 40000);
  await refused(channel.annotations.publish('nonsense', flag), 40400);
  await refused(stage.rest({ clientId: 'ben' }).channels.get(name).annotations.get('nonsense', null), 40400);
  const elsewhere = (await stage.arrive({ clientId: 'ben' })).channels.get(stage.room);
  const { serials: [other] } = await elsewhere.publish('n', '');
  await refused(elsewhere.annotations.publish(other, flag), 93002);
  await refused(elsewhere.annotations.get(other, null), 93002);
  await refused((await stage.arrive()).channels.get(stage.room, { modes }).attach(), 93002);
});

let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: [
      '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
    ],
  });
});
after(() => browser.close());

story('in the browser: changes, annotations and summaries cross between a page and Node', async (stage) => {
  const { channel, ear, name, serial } = await annotated(stage);
  const context = await browser.newContext();
  stage.ends.push(() => context.close());
  const page = await context.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.stack));
  await page.goto(`${pages}/${stage.sdk.name}`);
  const seen = await page.evaluate(async ({ options, name, modes, serial }) => {
    window.client = new Ably.Realtime({ logLevel: 0, clientId: 'page', ...options });
    window.channel = client.channels.get(name, { modes });
    window.heard = [];
    await channel.subscribe((m) => heard.push([m.action, m.data, m.annotations.summary]));
    window.said = [];
    await channel.annotations.subscribe((a) => said.push([a.clientId, a.name]));
    const { versionSerial } = await channel.updateMessage({ serial, data: { from: 'page' } }, { description: 'why' });
    await channel.annotations.publish(serial, { type: 'emoji:distinct.v1', name: '🙂' });
    const latest = await channel.getMessage(serial);
    const versions = (await channel.getMessageVersions(serial, { limit: 1 })).hasNext();
    const list = (await channel.annotations.get(serial, { limit: 10 })).items.map((a) => a.name);
    return { version: latest.version.serial === versionSerial, data: latest.data, versions, list };
  }, { options: { key: keys.all, ...place(server) }, name, modes, serial });
  assert.deepEqual(seen, { version: true, data: { from: 'page' }, versions: true, list: ['🙂'] });
  await channel.annotations.publish(serial, { type: 'emoji:distinct.v1', name: '🙂' });
  await channel.appendMessage({ serial, data: 'x' }).then(() => assert.fail('an object has no end'), (error) => assert.equal(error.code, 40000));
  await eventually('both summaries', () => page.evaluate(() => heard.filter(([action]) => action === 'message.summary').length === 2 && said.length === 2));
  assert.deepEqual(await page.evaluate(() => said), [['page', '🙂'], ['anna', '🙂']]);
  assert.deepEqual(await page.evaluate(() => heard.at(-1)[2]), { 'emoji:distinct.v1': { '🙂': { total: 2, clientIds: ['page', 'anna'], clipped: false } } });
  await eventually('Node has them too', () => summaries(ear).length === 2);
  assert.deepEqual(ear.messages[1].data, { from: 'page' });
  assert.deepEqual(errors, []);
});
