// Presence in real Chromium, together with clients in Node.

import { after, before } from 'node:test';
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';
import { keys } from './config.mjs';
import { eventually, numbers, pages, place, server, story } from './kit.mjs';

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

// open is a page with the SDK connected and looking at a room: it keeps `client`, `channel` and `told`.
async function open(stage, options) {
  const context = await browser.newContext();
  stage.ends.push(() => context.close());
  await context.route('**/*', (route) => (new URL(route.request().url()).origin === pages ? route.continue() : route.abort()));
  const page = await context.newPage();
  await page.goto(`${pages}/${stage.sdk.name}`);
  await look(page, stage.room, options);
  return page;
}

function look(page, room, options = {}) {
  return page.evaluate(async ({ options, room }) => {
    window.client = new Ably.Realtime({ logLevel: 0, disconnectedRetryTimeout: 100, ...options });
    await client.connection.whenState('connected');
    window.told = [];
    window.channel = client.channels.get(room);
    await channel.presence.subscribe((event) => told.push(`${event.action} ${event.clientId}`));
  }, { options: { key: keys.all, ...place(server), ...options }, room });
}

const members = (page) => page.evaluate(async () => (await channel.presence.get()).map(({ clientId, data }) => `${clientId} ${JSON.stringify(data)}`).sort());

const sees = (page, ...wanted) => eventually(`${wanted}`, async () => (await members(page)).join() === wanted.join());

story('in the browser: two pages and a client in Node see each other come, change and go', async (stage) => {
  const [anna, ben] = [await open(stage, { clientId: 'anna' }), await open(stage, { clientId: 'ben' })];
  const node = (await stage.arrive({ clientId: 'node' })).channels.get(stage.room);
  await node.presence.enter({ deep: ['文'] });
  await anna.evaluate(() => channel.presence.enter('a'));
  await ben.evaluate(() => channel.presence.enter('b'));
  await anna.evaluate(() => channel.presence.update({ mood: '好' }));
  for (const page of [anna, ben]) await sees(page, 'anna {"mood":"好"}', 'ben "b"', 'node {"deep":["文"]}');
  await eventually('Node sees them', async () => (await node.presence.get()).length === 3);
  await ben.evaluate(() => channel.presence.leave());
  await sees(anna, 'anna {"mood":"好"}', 'node {"deep":["文"]}');
  assert.deepEqual(await anna.evaluate(() => told), ['enter node', 'enter anna', 'enter ben', 'update anna', 'leave ben']);
});

story('in the browser: a page that is closed has left at once, and after a reload it may enter again', async (stage) => {
  const anna = await open(stage, { clientId: 'anna' });
  const node = (await stage.arrive()).channels.get(stage.room);
  await anna.evaluate(() => channel.presence.enter());
  await eventually('anna is there', async () => (await node.presence.get()).length === 1);
  await anna.reload();
  await eventually('anna has left', async () => (await node.presence.get()).length === 0, 10_000);
  await look(anna, stage.room, { clientId: 'anna' });
  await anna.evaluate(() => channel.presence.enter('again'));
  await sees(anna, 'anna "again"');
  await anna.close({ runBeforeUnload: true });
  await eventually('anna has left for good', async () => (await node.presence.get()).length === 0, 10_000);
});

story('in the browser: the line is cut five times, and nobody hears of it', async (stage) => {
  const line = await stage.line();
  const anna = await open(stage, { clientId: 'anna', ...place(line.at) });
  const ben = await open(stage, { clientId: 'ben' });
  await anna.evaluate(() => channel.presence.enter('x'));
  await sees(ben, 'anna "x"');
  for (let cut = 0; cut < 5; cut++) {
    const back = anna.evaluate(() => new Promise((resolve) => client.connection.once('connected', () => resolve(client.connection.id))));
    line.cut();
    await back;
    await sees(anna, 'anna "x"');
  }
  await anna.evaluate(() => channel.presence.update('y'));
  await sees(ben, 'anna "y"');
  assert.deepEqual(await ben.evaluate(() => told), ['enter anna', 'update anna']);
});

story('in the browser: two hundred members are seen by a page that has just come', async (stage) => {
  const bot = (await stage.arrive()).channels.get(stage.room);
  await Promise.all(numbers(200).map((name) => bot.presence.enterClient(name, { name })));
  const anna = await open(stage);
  assert.equal((await members(anna)).length, 200);
  assert.equal(await anna.evaluate(() => told.filter((event) => event.startsWith('present ')).length), 200);
});
