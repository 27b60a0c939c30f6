// The console as a new host sees it: what works is shown to work, what fails is said with how to mend it, and all of it can be read.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { flaws, openBrowser, readCode, startProxy, startServer, token, visit } from './console.mjs';

const out = (name) => fileURLToPath(new URL(`out/${name}`, import.meta.url));
await mkdir(out(''), { recursive: true });

const production = {
  mode: 'production', console: { enabled: true }, metrics: { token: 'metrics-token-of-the-story' },
  ably: { keys: [{ name: 'app.story', secret: 'a-secret-that-only-the-story-knows' }] },
};

// withServer plays a story with a server and a browser of its own.
async function withServer(settings, story) {
  const [server, browser] = await Promise.all([startServer(settings), openBrowser()]);
  try {
    await story(server, browser);
  } finally {
    await browser.close();
    await server.stop();
  }
}

test('a new host tries the server, and it works', async () => {
  await withServer({}, async (server, browser) => {
    const { page, tries, done } = await visit(browser, server.url);
    assert.match(await tries(), /^Everything works\.\s+Devices that reach this address can use this server\.$/);
    assert.equal(await page.locator('.steps > li').count(), 8);
    assert.equal(await page.locator('.steps > li.done').count(), 8, 'all steps of both protocols');
    const messages = await page.locator('.messages li').allInnerTexts();
    assert.equal(messages.length, 8);
    messages.forEach((text, i) => assert.match(text.replace(/\s+/g, ' '), new RegExp(`^Visitor ${i % 2 ? 'B → A' : 'A → B'} message ${(i % 4) + 1} [\\d.]+ ms$`)));
    assert.match(await page.locator('.steps > li:nth-child(4)').first().innerText(), /round trip [\d.]+ ms/);
    await tries(); // and once more
    await done();
  });
});

test('every failure is said, with how to mend it', async (t) => {
  const story = (name, settings, play) => t.test(name, () => withServer(settings, play));
  // says opens the page, does something to it, tries, and compares what is said.
  const says = async (browser, url, expected, { prepare, ...options } = {}) => {
    const visitor = await visit(browser, url, options);
    await prepare?.(visitor.page);
    const said = await visitor.tries();
    for (const words of expected) assert.ok(said.includes(words), `“${words}” is not in:\n${said}`);
    assert.ok(said.startsWith('This does not work yet.'), said);
    assert.deepEqual(await flaws(visitor.page), []);
    return visitor;
  };
  const paste = (text) => ({ prepare: (page) => page.fill('#token', text) });

  await story('tokens', { ably: { enabled: false } }, async (server, browser) => {
    const now = Math.floor(Date.now() / 1000);
    for (const [text, ...expected] of [
      ['sesame', 'The token is not a token', 'Copy it again'],
      [token({}, 'another secret, of another server'), 'was not made by this server', 'letshare token -user alice -config config.json'],
      [token({ iat: now - 7200, exp: now - 3600 }), 'has expired', 'expired 1h'],
      [token({ iat: now, nbf: now + 3600, exp: now + 7200 }), 'not valid yet', 'clocks'],
      [token({ exp: now + 3600 * 24 * 3650 }), 'does not allow this', 'The server said'],
    ]) {
      const visitor = await says(browser, server.url, expected, paste(text));
      await visitor.done();
    }
    const visitor = await says(browser, server.url, ['A token is needed.', 'letshare token'], paste(' '));
    assert.equal(await visitor.page.evaluate(() => document.activeElement.id), 'token', 'the page leads to where the token is missing');
    await visitor.done();
    // Those checks were many: one more is refused, and that is said too.
    const prepare = async (page) => {
      await page.fill('#token', 'sesame');
      await page.evaluate(() => Promise.all(Array.from({ length: 20 }, () => fetch('/api/check', { method: 'POST' }))));
    };
    await (await says(browser, server.url, ['asked too often', 'Wait 20 seconds'], { prepare })).done();
  });

  await story('tokens that are for one room or bound to one user work', {}, async (server, browser) => {
    for (const claims of [{ room_id: 'lobby' }, { user_id: 'anna', bind_user: true }]) {
      const { page, tries, done } = await visit(browser, server.url);
      await page.fill('#token', token(claims));
      assert.match(await tries(), /^Everything works/);
      await done();
    }
  });

  await story('proxies', {}, async (server, browser) => {
    for (const [fault, ...expected] of [
      ['host', 'The server refuses this page: its origin is http://localhost:', `takes itself for http://127.0.0.1:${server.port}`, '"cors": {"allowed_origins": ["http://localhost:'],
      ['upgrade', 'A proxy has taken the WebSocket upgrade out', 'proxy_set_header Upgrade'],
      ['old', 'A proxy speaks HTTP/1.0', 'proxy_http_version 1.1'],
      ['cut', 'The connection was closed (1006', 'cut on the way'],
      ['mute', 'no answer comes', 'proxy_buffering off'],
      ['broken', 'Something else answers in the server\'s place (status 502)', 'See the proxy\'s log'],
    ]) {
      const proxy = await startProxy(server, fault);
      try {
        const visitor = fault === 'broken' ? await brokenFrom(proxy, browser) : await visit(browser, proxy.url);
        await visitor.page.fill('#token', token({}));
        const said = await visitor.tries();
        for (const words of expected) assert.ok(said.includes(words), `${fault}: “${words}” is not in:\n${said}`);
        await visitor.done();
      } finally {
        proxy.stop();
      }
    }
  });

  await story('limits', { websocket: { max_connections: 1 } }, async (server, browser) => {
    await (await says(browser, server.url, ['origin and token are good', 'websocket.max_connections'])).done();
  });

  await story('a full room', { websocket: { max_room_users: 1 } }, async (server, browser) => {
    await (await says(browser, server.url, ['The server refused a message', 'room_full', 'docs/protocol.md'])).done();
  });

  await story('no WebRTC', {}, async (server, browser) => {
    const visitor = await says(browser, server.url, ['This browser has no WebRTC.', 'relay.enabled'], { webrtc: 'gone' });
    assert.equal(await visitor.page.locator('.steps > li.done').count(), 6, 'messages work over both protocols');
    await visitor.done();
  });

  await story('WebRTC blocked', { ably: { enabled: false } }, async (server, browser) => {
    await (await says(browser, server.url, ['The data channel did not open.', 'a firewall blocks WebRTC'], { webrtc: 'blocked' })).done();
  });

  await story('what nobody expected', { ably: { enabled: false } }, async (server, browser) => {
    const prepare = (page) => page.evaluate(() => (performance.now = () => { throw new Error('the clock is gone'); }));
    await (await says(browser, server.url, ['Something unexpected happened: the clock is gone', 'Reload the page'], { prepare })).done();
  });

  await story('an Ably connection that stays silent', {}, async (server, browser) => {
    // Behind CONNECTED nothing comes over the Ably connections; the LetShare ones work.
    const prepare = (page) => page.evaluate(() => {
      Object.defineProperty(WebSocket.prototype, 'onmessage', {
        set(hear) {
          this.addEventListener('message', (event) => {
            if (!this.url.includes('key=') || event.data.includes('"action":4,')) hear(event);
          });
        },
      });
    });
    const visitor = await says(browser, server.url, ['The connection is open, but no answer comes.', 'proxy_buffering off'], { prepare });
    assert.equal(await visitor.page.locator('.steps > li.done').count(), 5, 'the whole LetShare protocol works, and the Ably connections stand');
    await visitor.done();
  });

  await story('an Ably key that is none', production, async (server, browser) => {
    const prepare = async (page) => {
      await page.fill('#token', token({}));
      await page.fill('#ably-key', 'app.story:a-wrong-secret');
    };
    const visitor = await says(browser, server.url, ['The Ably protocol answered', 'ably.keys'], { prepare });
    await visitor.page.fill('#ably-key', 'app.story:a-secret-that-only-the-story-knows');
    assert.match(await visitor.tries(), /^Everything works/);
    await visitor.page.fill('#ably-key', '');
    assert.match(await visitor.tries(), /The Ably protocol was not tried/);
    await visitor.done();
  });

  await story('a server that stops, and is gone', { server: { drain_seconds: 20 } }, async (server, browser) => {
    const visitor = await visit(browser, server.url);
    // A drain closes one connection every 100 ms at most: a hundred keep the server for ten seconds.
    await visitor.page.evaluate((token) => {
      window.held = Array.from({ length: 100 }, () => new WebSocket(`ws://${location.host}/ws?token=${token}`));
      return Promise.all(window.held.map((socket) => new Promise((resolve) => (socket.onopen = resolve))));
    }, token({}));
    server.signal('SIGTERM');
    await visitor.page.waitForFunction(async () => (await fetch('/health')).status === 503);
    const draining = await visitor.tries();
    assert.ok(draining.includes('The server is stopping.') && draining.includes('Wait until it has restarted'), draining);
    server.signal('SIGKILL');
    await visitor.page.locator('#status.bad').waitFor();
    const gone = await visitor.tries();
    assert.ok(gone.includes('The server does not answer.') && gone.includes('systemctl status letshare'), gone);
    assert.equal(await visitor.page.locator('#status').innerText(), 'Not answering');
    assert.match(await visitor.page.locator('#doing-notice').innerText(), /The server does not answer\. These figures are from/);
    await visitor.page.screenshot({ path: out('console-gone.png'), fullPage: true });
    await visitor.done();
  });
});

// brokenFrom opens a page that never hears of the server's state: it has no right to anything.
async function brokenFrom(proxy, browser) {
  const context = await browser.newContext({ locale: 'en-US' });
  const page = await context.newPage();
  await page.goto(proxy.url);
  return {
    page,
    async tries() {
      await page.click('#try');
      await page.locator('.verdict').waitFor();
      return page.locator('#verdict').innerText();
    },
    done: () => context.close(),
  };
}

test('what to paste into the app', async (t) => {
  await withServer({}, async (server, browser) => {
    const { page, done } = await visit(browser, server.url);
    const url = server.url.replace('http', 'ws');
    assert.equal(await page.inputValue('#url'), url);
    const given = await page.inputValue('#token');
    assert.match(given, /^eyJ[\w-]+\.[\w-]+\.[\w-]+$/);
    await t.test('is copied by its button', async () => {
      for (const [field, value] of [['url', url], ['token', given]]) {
        const button = page.locator(`[data-copy=${field}]`);
        await button.click();
        await button.filter({ hasText: 'Copied' }).waitFor();
        assert.equal(await page.evaluate(() => navigator.clipboard.readText()), value);
      }
    });
    await t.test('is in the QR code', async () => {
      for (const [choice, value] of [['url', url], ['token', given]]) {
        await page.click(`label[for=qr-${choice}]`);
        await page.locator('#qr').screenshot({ path: out(`console-qr-${choice}.png`) });
        assert.equal(await readCode(out(`console-qr-${choice}.png`)), value);
      }
      const long = token({ note: 'x'.repeat(600) });
      await page.fill('#token', long);
      await page.locator('#qr').screenshot({ path: out('console-qr-long.png'), scale: 'css' });
      await page.fill('#token', 'x'.repeat(3000));
      assert.match(await page.locator('#qr-hint').innerText(), /too long/);
      await page.fill('#token', '');
      assert.match(await page.locator('#qr-hint').innerText(), /no token yet/);
    });
    await done();

    await t.test('is not shown to a page that has a name', async () => {
      const { page, done } = await visit(browser, `http://attacker.example:${server.port}/`);
      await page.locator('#withheld').waitFor();
      assert.equal(await page.inputValue('#token'), '');
      assert.match(await page.locator('#withheld-why').innerText(), /Under an IP address or localhost it does/);
      assert.equal(await page.inputValue('#command'), 'letshare token -user alice -config config.json');
      assert.match(await page.locator('#doing-notice').innerText(), /none is set/);
      assert.equal(await page.locator('#figures').isVisible(), false);
      const read = await page.evaluate(async () => {
        const answer = await fetch('/console/state', { method: 'POST', headers: { 'X-Forwarded-Host': 'localhost' }, referrerPolicy: 'no-referrer' });
        return answer.text();
      });
      assert.ok(!read.includes('eyJ') && read.includes('"token":""'), read);
      await done();
    });

    await t.test('is not shown through a proxy that the server does not know, but through one that it does', async () => {
      const proxy = await startProxy(server, 'forwarded');
      const stranger = await visit(browser, proxy.url);
      assert.match(await stranger.page.locator('#withheld-why').innerText(), /server\.trusted_proxies/);
      assert.equal(await stranger.page.inputValue('#token'), '');
      await stranger.done();
      await server.reload({ server: { host: '127.0.0.1', port: '0', trusted_proxies: ['127.0.0.1'] } });
      const known = await eventually(async () => {
        const visitor = await visit(browser, proxy.url);
        if (await visitor.page.inputValue('#token')) return visitor;
        await visitor.done();
      });
      assert.match(await known.tries(), /^Everything works/);
      await known.done();
      proxy.stop();
    });
  });
});

// eventually tries until something comes of it.
async function eventually(attempt) {
  for (let i = 0; i < 50; i++) {
    const result = await attempt();
    if (result) return result;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('nothing came of 50 attempts');
}

test('how the server is doing', async () => {
  await withServer(production, async (server, browser) => {
    const { page, tries, done } = await visit(browser, server.url);
    assert.match(await page.locator('#withheld-why').innerText(), /production mode/);
    assert.equal(await page.locator('#figures').isVisible(), false);
    await page.fill('#metrics-token', 'a wrong one');
    await page.press('#metrics-token', 'Enter');
    await page.locator('#doing-notice').filter({ hasText: 'That is not the metrics token' }).waitFor();
    await page.fill('#metrics-token', production.metrics.token);
    await page.press('#metrics-token', 'Enter');
    await page.locator('#figures').waitFor();
    assert.equal(await page.locator('#metrics').isVisible(), false);
    assert.deepEqual(await page.locator('.tile figcaption').allInnerTexts(), ['Connections', 'Rooms', 'Messages per second', 'Deliveries per second',
      'Relayed files under way', 'Ably channels', 'Memory, MiB', 'Refused or dropped per minute']);

    // A refused token is counted and logged; the newest entry stands first.
    await page.fill('#token', 'sesame');
    await tries();
    await page.evaluate((token) => new WebSocket(`ws://${location.host}/ws?token=${token}&userId=${'n'.repeat(200)}`), token({}));
    await page.locator('#reasons').filter({ hasText: 'token_malformed' }).waitFor();
    await page.locator('#log').filter({ hasText: 'bad_user_id' }).waitFor();
    const entries = await page.locator('#log li').allInnerTexts();
    assert.ok(entries[0].includes('bad_user_id') && entries.at(-1).includes('token_malformed'), entries.join('\n'));
    await page.fill('#log-filter', 'MALFORMED 127.0.0.1');
    assert.equal(await page.locator('#log li').count(), entries.filter((text) => text.includes('token_malformed')).length);
    await page.fill('#log-filter', 'nothing like this');
    assert.equal(await page.locator('#log').innerText(), 'No entry fits the filter.');
    await page.fill('#log-filter', '');
    await page.selectOption('#log-level', 'ERROR');
    assert.equal(await page.locator('#log').innerText(), 'No entry fits the filter.');

    // A connection appears in its chart.
    await page.evaluate((token) => new Promise((resolve) => (window.held = new WebSocket(`ws://${location.host}/ws?token=${token}`)).onopen = resolve), token({}));
    await page.locator('[data-figure=connections] strong').filter({ hasText: /^1$/ }).waitFor();
    assert.match(await page.locator('[data-figure=connections] svg').getAttribute('aria-label'), /^Connections: now 1; in the last hour at most 1$/);
    await done();
  });
  await withServer({ ...production, metrics: undefined }, async (server, browser) => {
    const { page, done } = await visit(browser, server.url);
    assert.match(await page.locator('#doing-notice').innerText(), /none is set\. Set metrics\.token/);
    assert.equal(await page.locator('#metrics').isVisible(), false);
    await done();
  });
});

test('everything can be reached by keyboard, and shows where one is', async () => {
  for (const settings of [{}, production]) {
    await withServer(settings, async (server, browser) => {
      const { page, done } = await visit(browser, server.url);
      await page.locator(settings.mode ? '#metrics' : '#figures').waitFor();
      const wanted = await page.evaluate(() => [...document.querySelectorAll('a[href], button, input, select, [tabindex="0"]')]
        .filter((node) => node.checkVisibility() && (node.type !== 'radio' || node.checked)).map((node) => node.id || node.dataset.copy || node.dataset.language || node.className || node.textContent));
      const reached = [];
      for (let i = 0; i < wanted.length; i++) {
        await page.keyboard.press('Tab');
        const [name, visible] = await page.evaluate(() => {
          const node = document.activeElement;
          const marked = node.type === 'radio' ? node.nextElementSibling : node;
          return [node.id || node.dataset.copy || node.dataset.language || node.className || node.textContent, getComputedStyle(marked).outlineStyle === 'solid'];
        });
        assert.ok(visible, `${name} does not show that it has the focus`);
        reached.push(name);
      }
      assert.deepEqual(reached, wanted);
      await page.focus('#qr-url');
      await page.keyboard.press('ArrowRight');
      assert.equal(await page.isChecked('#qr-token'), true);
      if (!settings.mode) {
        await page.focus('#try');
        await page.keyboard.press('Enter');
        await page.locator('.verdict.good').waitFor();
      }
      await done();
    });
  }
});

test('both languages, both themes, desktop and phone', async () => {
  await withServer({ log: {} }, async (server, browser) => {
    for (let i = 0; i < 3; i++) await fetch(`${server.url}ws?token=sesame`, { headers: { origin: 'https://a-page-with-quite-a-long-name.example.org' } });
    for (const width of [1280, 390]) {
      for (const scheme of ['light', 'dark']) {
        for (const [locale, title, other] of [['en-US', 'Does it work?', 'zh'], ['zh-CN', '能用吗？', 'en']]) {
          const { page, tries, done } = await visit(browser, server.url, { width, scheme, locale });
          assert.equal(await page.locator('#try-title').innerText(), title);
          assert.equal(await page.getAttribute('html', 'lang'), locale === 'zh-CN' ? 'zh-CN' : 'en');
          await page.fill('#token', 'sesame');
          await tries();
          assert.deepEqual(await flaws(page), [], `${width} ${scheme} ${locale}, with a failure`);
          await page.screenshot({ path: out(`console-failed-${width}-${scheme}-${locale}.png`), fullPage: true });
          await page.fill('#token', token({}));
          await tries();
          await page.locator('#reasons').waitFor();
          assert.deepEqual(await flaws(page), [], `${width} ${scheme} ${locale}`);
          await page.screenshot({ path: out(`console-${width}-${scheme}-${locale}.png`), fullPage: true });
          await page.click(`[data-language=${other}]`);
          assert.notEqual(await page.locator('#try-title').innerText(), title);
          await done();
        }
      }
    }
  });
  await withServer(production, async (server, browser) => {
    for (const width of [1280, 390]) {
      const { page, done } = await visit(browser, server.url, { width });
      await page.locator('#metrics').waitFor();
      assert.deepEqual(await flaws(page), [], `production, ${width}`);
      await page.screenshot({ path: out(`console-production-${width}.png`), fullPage: true });
      await done();
    }
  });
});
