// What the console's stories need: servers of their own, proxies that misbehave, browsers, and a person's eyes: contrast, overflow.

import { chromium } from 'playwright-core';
import { execFile, spawn } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, request as ask } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const binary = process.env.E2E_LETSHARE;
if (!binary) throw new Error('E2E_LETSHARE is not set: start the stories with e2e/run');

const patience = 15_000; // ms for what must come

export const secret = randomBytes(32).toString('hex');

// startServer starts letshare with these settings on a free loopback port, on all addresses if asked.
export async function startServer(settings = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'letshare-console-'));
  const config = {
    mode: 'local', jwt: { secret }, ...settings,
    server: { host: '127.0.0.1', port: '0', drain_seconds: 1, ...settings.server }, log: { level: 'error', file: '' },
  };
  const path = join(folder, 'config.json');
  await writeFile(path, JSON.stringify(config));
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => name !== 'MODE' && !name.startsWith('LETSHARE_')));
  const child = spawn(binary, ['-config', path], { stdio: ['ignore', 'pipe', 'inherit'], env: environment });
  const port = await new Promise((resolve, reject) => {
    let said = '';
    child.stdout.on('data', (text) => {
      const found = (said += text).match(/listens on http:\/\/\S*:(\d+)/);
      if (found) resolve(Number(found[1]));
    });
    child.on('exit', (code) => reject(new Error(`the server ended with ${code}: ${said}`)));
  });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  return {
    port,
    url: `http://127.0.0.1:${port}/`,
    signal: (name) => child.kill(name),
    async stop() {
      child.kill('SIGKILL');
      await ended;
      await rm(folder, { recursive: true });
    },
    async reload(changed) {
      await writeFile(path, JSON.stringify({ ...config, ...changed }));
      child.kill('SIGHUP');
    },
  };
}

// token signs claims as the server does.
export function token(claims, key = secret) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ user_id: 'story', iat: now - 60, exp: now + 3600, ...claims })}`;
  return `${text}.${createHmac('sha256', key).update(text).digest('base64url')}`;
}

// startProxy stands before a server, under the name localhost. How it misbehaves: "host" sends a Host of its own, "upgrade" takes
// upgrades out, "broken" answers all but the page with 502, "cut" cuts WebSockets at their first frame, "mute" swallows what they carry,
// "old" speaks HTTP/1.0 to the server, "forwarded" says for whom it asks and is otherwise good.
export async function startProxy(server, fault) {
  const page = /^\/(console(\/[a-z]+\.\w+)?)?$/;
  const headersOf = ({ headers, rawHeaders }) => {
    const kept = { ...headers };
    if (fault === 'host') kept.host = `127.0.0.1:${server.port}`;
    if (fault === 'forwarded') kept['x-forwarded-for'] = '127.0.0.1';
    return rawHeaders && kept;
  };
  const forward = (request, response) => {
    if (fault === 'broken' && !page.test(request.url)) return response.writeHead(502).end('bad gateway');
    const headers = headersOf(request);
    if (fault === 'old') return forwardOld(server, request, headers, response);
    const onward = ask({ port: server.port, host: '127.0.0.1', method: request.method, path: request.url, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.writeHead(502).end());
    request.pipe(onward);
  };
  const proxy = createServer(forward);
  const open = new Set();
  proxy.on('connection', (socket) => open.add(socket.on('close', () => open.delete(socket))));
  proxy.on('upgrade', (request, socket, head) => {
    const headers = headersOf(request);
    const taken = fault === 'upgrade' || fault === 'old' || fault === 'broken';
    if (taken) {
      delete headers.upgrade;
      headers.connection = 'close';
    }
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('');
    const onward = connect(server.port, '127.0.0.1', () => onward.write(`GET ${request.url} HTTP/1.${fault === 'old' ? 0 : 1}\r\n${lines}\r\n`));
    open.add(onward);
    onward.on('error', () => socket.destroy());
    socket.on('error', () => onward.destroy());
    onward.on('close', () => socket.destroy());
    onward.pipe(socket);
    if (fault === 'cut') socket.on('data', () => socket.destroy());
    else if (fault === 'mute') socket.on('data', () => {});
    else socket.pipe(onward);
    if (head.length) onward.write(head);
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://localhost:${proxy.address().port}/`,
    stop: () => {
      proxy.close();
      for (const socket of open) socket.destroy();
    },
  };
}

// forwardOld asks over HTTP/1.0, as some proxies do unless told otherwise.
function forwardOld(server, request, headers, response) {
  const onward = connect(server.port, '127.0.0.1');
  const lines = Object.entries({ ...headers, connection: 'close' }).map(([name, value]) => `${name}: ${value}\r\n`).join('');
  onward.write(`${request.method} ${request.url} HTTP/1.0\r\n${lines}\r\n`);
  const parts = [];
  onward.on('data', (part) => parts.push(part));
  onward.on('error', () => response.writeHead(502).end());
  onward.on('end', () => {
    const text = Buffer.concat(parts);
    const end = text.indexOf('\r\n\r\n');
    const [first, ...lines] = text.subarray(0, end).toString().split('\r\n');
    const pairs = lines.map((line) => line.split(': ')).filter(([name]) => !/^(connection|content-length|transfer-encoding)$/i.test(name));
    response.writeHead(Number(first.split(' ')[1]), Object.fromEntries(pairs));
    response.end(text.subarray(end + 4));
  });
}

// openBrowser starts a Chromium that finds no host but this machine; attacker.example leads here too, as its owner can make it.
export function openBrowser() {
  return chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: [
      '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--disable-features=WebRtcHideLocalIpsWithMdns',
      '--host-resolver-rules=MAP attacker.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
    ],
  });
}

// visit opens the console. The page must not throw, break its own policy or ask any other host, or done() says so.
export async function visit(browser, url, { width = 1280, scheme = 'light', locale = 'en-US', webrtc = 'works' } = {}) {
  const context = await browser.newContext({ viewport: { width, height: width > 500 ? 900 : 844 }, colorScheme: scheme, locale, reducedMotion: 'reduce' });
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  if (webrtc === 'gone') await context.addInitScript(() => delete window.RTCPeerConnection);
  if (webrtc === 'blocked') {
    // As privacy extensions do it: nobody learns an address of this machine, so no path is found.
    await context.addInitScript(() => {
      const Real = window.RTCPeerConnection;
      window.RTCPeerConnection = function () {
        return new Real({ iceTransportPolicy: 'relay' });
      };
    });
  }
  const page = await context.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.stack));
  page.on('console', (message) => /Content Security Policy|Trusted Type/.test(message.text()) && complaints.push(message.text()));
  page.on('request', (request) => new URL(request.url()).host !== new URL(url).host && complaints.push(`asks ${request.url()}`));
  page.setDefaultTimeout(patience);
  await page.goto(url);
  await page.waitForFunction(() => !document.getElementById('status').hidden);
  return {
    page,
    // tries presses the button and returns what is said at the end.
    async tries() {
      await page.click('#try');
      await page.waitForFunction(() => document.querySelector('#try').getAttribute('aria-disabled') === 'false' && document.querySelector('.verdict'), null, { timeout: 60_000 });
      return page.locator('#verdict').innerText();
    },
    async done() {
      const stored = await page.evaluate(async () => [localStorage.length, sessionStorage.length, document.cookie, (await indexedDB.databases()).length]);
      if (String(stored) !== '0,0,,0') complaints.push(`something is stored: ${stored}`);
      await context.close();
      if (complaints.length) throw new Error(complaints.join('\n'));
    },
  };
}

// readCode has zbarimg read the QR code in a picture.
export async function readCode(file) {
  const { stdout } = await promisify(execFile)('zbarimg', ['--quiet', '--raw', file]);
  return stdout.trim();
}

// flaws are what a person would mind: text that is hard to read, borders of fields that are hard to see, what sticks out or is cut off.
export function flaws(page) {
  return page.evaluate(() => {
    const found = [];
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const rgba = (color) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data].map((value, i) => (i === 3 ? value / 255 : value));
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((value, i) => value * a + below[i] * (1 - a));
    const ground = (node) => {
      const layers = [];
      for (let at = node; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
      return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const luminance = (color) => {
      const [r, g, b] = color.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (color, below) => {
      const [light, dark] = [luminance(over(rgba(color), below)), luminance(below)].sort((a, b) => b - a);
      return (light + 0.05) / (dark + 0.05);
    };
    const demand = (what, color, below, least) => {
      const ratio = contrast(color, below);
      if (ratio < least) found.push(`contrast ${ratio.toFixed(2)} of ${what}`);
    };
    const shown = (node) => node.checkVisibility() && !node.closest('.unseen, .skip');
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || !shown(node) || node.closest('noscript, option')) continue;
      demand(`“${walker.currentNode.data.trim().slice(0, 40)}”`, getComputedStyle(node).color, ground(node), 4.5);
    }
    for (const field of document.querySelectorAll('input:not([type=radio]), select')) {
      if (!shown(field)) continue;
      demand(`the value of #${field.id}`, getComputedStyle(field).color, ground(field), 4.5);
      demand(`the placeholder of #${field.id}`, getComputedStyle(field, '::placeholder').color, ground(field), 4.5);
      demand(`the border of #${field.id}`, getComputedStyle(field).borderTopColor, ground(field.parentElement), 3);
    }
    for (const icon of document.querySelectorAll('.icon, .outline')) demand('a drawing', getComputedStyle(icon).stroke, ground(icon.closest('div, li')), 3);
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > width) found.push(`the page is ${document.documentElement.scrollWidth} wide`);
    for (const node of document.querySelectorAll('body *')) {
      if (!shown(node)) continue;
      const box = node.getBoundingClientRect();
      if (box.right > width + 0.5 || box.left < -0.5) found.push(`sticks out: ${node.tagName} ${node.id} ${node.className}`);
      const style = getComputedStyle(node);
      if (!/INPUT|SELECT/.test(node.tagName) && style.display !== 'inline' && style.overflowX === 'visible' && node.scrollWidth > node.clientWidth + 1 && node.clientWidth) {
        found.push(`overflows: ${node.tagName} ${node.id} ${node.getAttribute('class')} by ${node.scrollWidth - node.clientWidth}`);
      }
      if (/^(BUTTON|INPUT|SELECT)$/.test(node.tagName) && node.type !== 'radio' && box.height < 32) found.push(`too small to touch: ${node.id}`);
    }
    for (const control of document.querySelectorAll('button, input, select')) {
      const name = control.getAttribute('aria-label') || [...(control.labels ?? [])].map((label) => label.textContent).join('') || control.textContent;
      if (!name.trim()) found.push(`no label: ${control.outerHTML.slice(0, 80)}`);
    }
    for (const picture of document.querySelectorAll('svg:not([aria-hidden]), img:not([alt=""])')) {
      if (!picture.getAttribute('aria-label')) found.push(`a picture without a label: ${picture.outerHTML.slice(0, 60)}`);
    }
    return found;
  });
}
