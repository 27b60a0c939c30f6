// The card "What do I paste into the app?".

import { $, drawing, write } from './dom.js';
import { encode } from './qr.js';
import { say } from './texts.js';

const quiet = 4; // light modules around a QR code, which readers need
const copiedFor = 2_000; // ms that a button says so

export class Paste {
  // base is the server's HTTP URL with a slash at its end.
  constructor(base) {
    this.url = base.replace(/^http/, 'ws');
    this.state = null;
    this.given = ''; // the token that the server has filled in
    $('url').value = this.url;
    $('token').addEventListener('input', () => this.render());
    for (const choice of document.getElementsByName('qr')) choice.addEventListener('change', () => this.renderCode());
    for (const field of [$('url'), $('command')]) field.addEventListener('focus', () => field.select());
    for (const button of document.querySelectorAll('[data-copy]')) button.addEventListener('click', () => this.copy(button));
  }

  get token() {
    return $('token').value.trim();
  }

  // take takes the server's report.
  take(state) {
    this.state = state;
    if (!this.token) $('token').value = this.given = state.token;
    this.render();
  }

  // ask leads to where a token is missing.
  ask() {
    $('token').focus();
  }

  render() {
    for (const button of document.querySelectorAll('[data-copy]')) button.textContent = say('copy');
    const hints = [];
    const { hostname, protocol } = new URL(this.url);
    const loopback = /^(localhost|127\..*|\[::1\])$/.test(hostname);
    if (loopback) hints.push(say('loopback'));
    else if (protocol === 'ws:') hints.push(say('plain'));
    $('url-hint').hidden = !hints.length;
    write($('url-hint'), hints.join(' '));
    const withheld = this.state?.withheld;
    $('withheld').hidden = !withheld;
    if (withheld) write($('withheld-why'), say(`withheld_${withheld}`));
    const theirs = this.given && this.token === this.given;
    write($('token-hint'), theirs ? say('token_hours', this.state) : say('token_yours'));
    this.renderCode();
  }

  renderCode() {
    const what = document.querySelector('[name=qr]:checked').value;
    const text = what === 'url' ? this.url : this.token;
    const modules = text ? encode(text) : null;
    write($('qr-hint'), say(modules ? 'qr_hint' : text ? 'qr_long' : 'qr_none'));
    $('qr').replaceChildren(modules ? code(modules, say('qr_image', { what: say(`qr_${what}`) })) : '');
    $('qr').classList.toggle('empty', !modules);
  }

  async copy(button) {
    const field = $(button.dataset.copy);
    let done = false;
    try {
      await navigator.clipboard.writeText(field.value);
      done = true;
    } catch {
      // Without https a browser may have no clipboard for pages; a selected field can be copied by hand.
      field.select();
      done = document.execCommand('copy');
    }
    button.textContent = say(done ? 'copied' : 'copy_failed');
    setTimeout(() => (button.textContent = say('copy')), copiedFor);
  }
}

// code draws a QR code. It is dark on light in every theme: not all readers take it the other way round.
function code(modules, label) {
  const size = modules.length + 2 * quiet;
  let path = '';
  modules.forEach((row, y) => row.forEach((dark, x) => (path += dark ? `M${x + quiet} ${y + quiet}h1v1h-1z` : '')));
  return drawing('svg', { viewBox: `0 0 ${size} ${size}`, role: 'img', 'aria-label': label, 'shape-rendering': 'crispEdges' },
    drawing('rect', { width: size, height: size, fill: '#fff' }),
    drawing('path', { d: path, fill: '#000' }));
}
