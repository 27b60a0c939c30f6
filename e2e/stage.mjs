// The stage of the stories: a real Chromium in which every person has an isolated context of their own,
// pages from an allowed origin, tokens minted by the real binary, and no way out to any other host.

import { chromium } from 'playwright-core';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import assert from 'node:assert/strict';

// What e2e/run has started, by environment.
export const server = env('E2E_SERVER'); // host:port of the letshare server
const pages = env('E2E_PAGES'); // origin of the pages, one that the server allows
const binary = env('E2E_LETSHARE'); // path of the letshare binary
const config = env('E2E_CONFIG'); // path of the configuration the server runs with

const waitLimit = 30_000; // ms for anything a story waits for, unless it says otherwise

function env(name) {
  assert.ok(process.env[name], `${name} is not set: start the stories with e2e/run`);
  return process.env[name];
}

export async function openStage() {
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: [
      '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      // Two pages on loopback need no STUN server when candidates carry plain addresses.
      '--disable-features=WebRtcHideLocalIpsWithMdns',
      // Also for what request interception does not see, such as WebSockets.
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
    ],
  });
  return new Stage(browser);
}

class Stage {
  constructor(browser) {
    this.browser = browser;
    this.people = [];
  }

  // enter opens a person's page. path is what stands behind host:port in the settings; webrtc: false is a
  // browser that cannot connect directly; origin is where the page comes from.
  async enter(userId, { path = '/', webrtc = true, origin = pages } = {}) {
    const context = await this.browser.newContext({ viewport: { width: 640, height: 720 } });
    await context.route('**/*', (route) => (new URL(route.request().url()).origin === origin ? route.continue() : route.abort()));
    if (!webrtc) await context.addInitScript(() => delete window.RTCPeerConnection);
    const page = await context.newPage();
    const person = new Person(userId, context, page);
    page.on('pageerror', (error) => person.errors.push(error.stack));
    this.people.push(person);
    await page.goto(`${origin}/`);
    const settings = { url: `ws://${server}${path}`, token: await mintToken(userId), userId };
    await page.evaluate((settings) => window.startApp(settings), settings);
    return person;
  }

  // picture puts several people's screens side by side into one PNG.
  async picture(file, people) {
    const screens = await Promise.all(people.map(({ page }) => page.screenshot()));
    const board = await this.browser.newPage({ viewport: { width: 640 * people.length, height: 720 } });
    const images = screens.map((png) => `<img src="data:image/png;base64,${png.toString('base64')}">`);
    await board.setContent(`<body style="margin:0;display:flex">${images.join('')}`);
    await board.screenshot({ path: file });
    await board.close();
  }

  // close also fails on any error that a page has thrown and nobody caught.
  async close() {
    await this.browser.close();
    for (const { userId, errors } of this.people) assert.deepEqual(errors, [], `errors on the page of ${userId}`);
  }
}

class Person {
  constructor(userId, context, page) {
    this.userId = userId;
    this.context = context;
    this.page = page;
    this.errors = [];
  }

  // does runs a function in the page with `app` and one argument, and returns its result.
  does(action, argument) {
    return this.page.evaluate(`(${action})(window.app, ${JSON.stringify(argument) ?? 'undefined'})`);
  }

  // sees waits until a function of `app` and one argument yields something true in the page.
  async sees(what, condition, argument, timeout = waitLimit) {
    const expression = `(${condition})(window.app, ${JSON.stringify(argument) ?? 'undefined'})`;
    try {
      await this.page.waitForFunction(expression, null, { timeout, polling: 50 });
    } catch (error) {
      const log = await this.page.locator('#log').innerText();
      throw new Error(`${this.userId} does not see ${what}: ${error.message}\nTheir log:\n${log}`);
    }
  }

  connect(room) {
    return this.does((app, room) => app.client.connect(room), room);
  }

  // messages are the signals that the socket has brought, whether the app cares for them or not.
  messages() {
    return this.does((app) => app.client.received.filter(({ type }) => type === 'message'));
  }

  toasts() {
    return this.does((app) => app.client.toasts);
  }

  // leave closes the page as a person does, with beforeunload and pagehide.
  async leave() {
    const closed = this.page.waitForEvent('close');
    await this.page.close({ runBeforeUnload: true });
    await closed;
    await this.context.close();
  }
}

export async function mintToken(userId) {
  const { stdout } = await promisify(execFile)(binary, ['token', '-user', userId, '-config', config]);
  return stdout.trim();
}

// connections is how many sockets the server holds now.
export async function connections() {
  const response = await fetch(`http://${server}/metrics`);
  return (await response.json()).websocket.active_connections;
}

// eventually waits until a function of the story's own side yields something true.
export async function eventually(what, condition, timeout = waitLimit) {
  for (const end = Date.now() + timeout; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 50))) {
    if (await condition()) return;
  }
  throw new Error(`not within ${timeout} ms: ${what}`);
}
