// The card "Does it work?".

import { $, drawing, element, write } from './dom.js';
import { say } from './texts.js';
import { protocols, steps, tryOut } from './tryout.js';
import { Failure } from './failure.js';

const icons = {
  waiting: 'M6 12h.01M12 12h.01M18 12h.01',
  running: 'M12 4a8 8 0 1 1-8 8',
  done: 'M5 12.5l4.5 4.5L19 7.5',
  failed: 'M6.5 6.5l11 11M17.5 6.5l-11 11',
  skipped: 'M6 12h12',
};

export class Trying {
  // from has what a try needs: token() and ably() at the time, and onmissing() when there is no token.
  constructor(base, from) {
    this.base = base;
    this.from = from;
    this.forget();
    this.running = false;
    $('try-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.try();
    });
  }

  forget() {
    this.played = new Map(); // by protocol and step: state and result
    this.failures = null; // of the try that has ended
  }

  async try() {
    if (this.running) return;
    this.forget();
    const token = this.from.token();
    const { enabled, key } = this.from.ably();
    const ably = { enabled, key: key || $('ably-key').value.trim() };
    if (!token) {
      this.failures = [new Failure('token_missing')];
      this.render();
      this.from.onmissing();
      return;
    }
    this.running = true;
    this.withAbly = ably.enabled && ably.key !== '';
    this.render();
    const tell = (protocol, step, state, result) => {
      this.played.set(`${protocol} ${step}`, { state, result });
      this.renderSteps();
    };
    this.failures = await tryOut({ base: this.base, token, ably, tell });
    this.running = false;
    this.render();
  }

  render() {
    const button = $('try');
    button.textContent = say(this.running ? 'try_running' : this.failures ? 'try_again' : 'try_button');
    button.setAttribute('aria-disabled', String(this.running));
    const { enabled, key } = this.from.ably();
    $('ably-field').hidden = !enabled || key !== '';
    this.renderVerdict();
    this.renderSteps();
  }

  renderVerdict() {
    const parts = [];
    if (this.failures && !this.failures.length) {
      parts.push(verdict('good', say('all_well'), [say(this.withAbly ? 'all_well_detail' : 'all_well_without_ably')]));
    }
    for (const { name, details } of this.failures ?? []) {
      parts.push(verdict('bad', say('failed'), [say(name, details), say(`${name}_mend`, details)]));
    }
    $('verdict').replaceChildren(...parts);
  }

  renderSteps() {
    $('steps').replaceChildren(...protocols.map((protocol) => {
      const off = protocol === 'ably' && !this.from.ably().enabled;
      return element('section', { 'aria-labelledby': `protocol-${protocol}` },
        element('h3', { id: `protocol-${protocol}` }, say(`protocol_${protocol}`)),
        off ? write(element('p', { class: 'hint' }), say('ably_off'))
          : element('ol', { class: 'steps' }, ...steps.map((step) => this.step(protocol, step))));
    }));
  }

  step(protocol, step) {
    const { state, result } = this.played.get(`${protocol} ${step}`) ?? { state: 'waiting' };
    return element('li', { class: state },
      drawing('svg', { viewBox: '0 0 24 24', class: 'icon', 'aria-hidden': 'true' }, drawing('path', { d: icons[state] })),
      element('span', { class: 'name' }, say(`step_${step}`), element('span', { class: 'unseen' }, ` (${say(`state_${state}`)})`)),
      state === 'done' ? write(element('span', { class: 'result' }), outcome(step, result)) : null,
      result?.messages ? element('ol', { class: 'messages' }, ...result.messages.map(message)) : null);
  }
}

const milliseconds = (ms) => (ms < 100 ? ms.toFixed(1) : Math.round(ms));

function outcome(step, result) {
  if (step === 'direct') return say('result_direct', { open: Math.round(result.open), trip: milliseconds(result.roundTrip) });
  return say(step === 'join' || step === 'talk' ? `result_${step}` : 'result_ms', { ...result, ms: milliseconds(result.ms) });
}

function message({ from, number, ms }) {
  return element('li', { class: from ? 'back' : 'there' },
    element('span', { class: 'who' }, say(`message_${from}`)),
    element('span', { class: 'text' }, say('message_text', { number })),
    element('span', { class: 'ms' }, say('result_ms', { ms: milliseconds(ms) })));
}

function verdict(kind, title, sentences) {
  return element('div', { class: `verdict ${kind}` }, element('strong', {}, title), ...sentences.map((sentence) => write(element('p'), sentence)));
}
