// The card "How is it doing?".

import { chart, line } from './chart.js';
import { $, element, write } from './dom.js';
import { language, say } from './texts.js';

const interval = 2_000; // ms between two questions to the server
const logInterval = 10_000; // and of those for the log
const hour = 360; // samples

// The tiles, and where the figure of now stands in the server's answer; null: it is what changed since the last answer.
const tiles = {
  connections: ({ websocket }) => websocket.active_connections,
  rooms: ({ websocket }) => websocket.total_rooms,
  messages_per_second: null,
  deliveries_per_second: null,
  relay_transfers: ({ relay }) => relay.active_transfers,
  ably_channels: ({ ably }) => ably.channels,
  memory_mb: null,
  refused_per_minute: null,
};
const counters = { messages_per_second: 'total_messages', deliveries_per_second: 'deliveries' };

export class Doing {
  // post asks the server; heard(answers) is told whether it answers.
  constructor(post, heard) {
    this.post = post;
    this.heard = heard;
    this.token = ''; // of metrics, in this tab's memory alone
    this.may = false;
    this.notice = null; // name and details of a text
    this.forget();
    $('metrics').addEventListener('submit', (event) => {
      event.preventDefault();
      this.token = $('metrics-token').value.trim();
      if (this.token) this.begin();
    });
    $('log-filter').addEventListener('input', () => this.renderLog());
    $('log-level').addEventListener('change', () => this.renderLog());
    document.addEventListener('visibilitychange', () => !document.hidden && this.may && this.poll());
  }

  forget() {
    this.series = {}; // name: samples, the oldest first
    this.newest = -1; // number of the last sample
    this.last = null; // the answer before
    this.answer = null;
    this.at = null; // when it came
    this.entries = [];
    this.logAt = 0;
  }

  // take takes the server's report: without a right of the page's own a token is asked for, if there can be one.
  take(state) {
    if (!state.withheld) return this.begin();
    $('metrics').hidden = !state.metrics_token;
    if (!state.metrics_token) this.notice = ['metrics_none'];
    this.render();
  }

  begin() {
    this.may = true;
    this.poll();
  }

  // poll asks now, and then again and again while the page is looked at.
  async poll() {
    clearTimeout(this.timer);
    if (document.hidden || this.polling) return;
    this.polling = true;
    const { status, body } = await this.post(`figures?since=${this.newest}`, this.token);
    if (status === 200) this.takeFigures(body);
    if (status === 200 && Date.now() - this.logAt >= logInterval) {
      const log = await this.post('log', this.token);
      if (log.status === 200) [this.entries, this.logAt] = [log.body.entries.map(read), Date.now()];
    }
    this.polling = false;
    this.heard(status === 200 || status === 401);
    this.notice = status === 200 ? null : this.notice;
    if (status === 401) this.refused();
    else if (status !== 200 && this.at) this.notice = ['figures_gone', { time: this.at.toLocaleTimeString(language()) }];
    this.render();
    if (this.may) this.timer = setTimeout(() => this.poll(), interval);
  }

  refused() {
    this.may = false;
    this.forget();
    this.notice = this.token ? ['metrics_wrong'] : ['metrics_none'];
    $('metrics').hidden = false;
    $('metrics-token').focus();
  }

  takeFigures(body) {
    const { history } = body;
    if (history.newest < this.newest) this.series = {}; // the server has started anew: the next answer has it all
    this.newest = history.newest < this.newest ? -1 : history.newest;
    const added = Math.max(0, ...Object.values(history.series).map((samples) => samples.length));
    for (const [name, samples] of Object.entries(history.series)) {
      const known = this.series[name] ?? [];
      this.series[name] = [...known, ...samples].slice(-hour);
    }
    if (added) {
      this.pad();
      this.series.refused_per_minute = this.refusedPerMinute(history.interval_seconds);
    }
    [this.last, this.answer, this.at] = [this.answer, body, new Date()];
  }

  // pad makes all series equally long: one that begins later was 0 before.
  pad() {
    const longest = Math.max(...Object.values(this.series).map((samples) => samples.length));
    for (const samples of Object.values(this.series)) while (samples.length < longest) samples.unshift(0);
  }

  // refusedPerMinute adds up all reasons.
  refusedPerMinute(seconds) {
    const reasons = Object.entries(this.series).filter(([name]) => /^(refusals|drops)\./.test(name)).map(([, samples]) => samples);
    return this.series.connections.map((base, i) => (base === null ? null : reasons.reduce((sum, samples) => sum + (samples[i] ?? 0), 0) * (60 / seconds)));
  }

  render() {
    $('doing-notice').hidden = !this.notice;
    if (this.notice) write($('doing-notice'), say(...this.notice));
    if (this.may && this.answer) $('metrics').hidden = true;
    $('figures').hidden = !this.answer;
    if (!this.answer) return;
    $('tiles').replaceChildren(...Object.keys(tiles).map((name) => this.tile(name)));
    this.renderReasons();
    this.renderLog();
  }

  // now is a figure's value at the last answer.
  now(name) {
    const samples = this.series[name] ?? [];
    const latest = samples.at(-1) ?? 0;
    if (tiles[name]) return tiles[name](this.answer.now);
    if (!counters[name] || !this.last) return latest;
    const count = ({ now }) => now.websocket[counters[name]];
    const seconds = (this.answer.clock_ms - this.last.clock_ms) / 1000;
    return seconds > 0 ? Math.max(0, count(this.answer) - count(this.last)) / seconds : latest;
  }

  tile(name) {
    const now = this.now(name);
    const samples = [...(this.series[name] ?? []), now].slice(-hour);
    const most = Math.max(...samples.filter((value) => value !== null));
    const label = say(`figure_${name}`);
    return element('figure', { class: 'tile', 'data-figure': name },
      element('figcaption', {}, label),
      element('p', {}, element('strong', {}, number(now)), element('span', { class: 'most' }, say('chart_most', { most: number(most) }))),
      chart(samples, most, say('chart', { name: label, now: number(now), most: number(most) })));
  }

  renderReasons() {
    const rows = ['refusals', 'drops'].flatMap((kind) => Object.entries(this.answer.now[kind])
      .filter(([, total]) => total > 0)
      .map(([reason, total]) => {
        const samples = this.series[`${kind}.${reason}`] ?? [];
        // Until the server is an hour old both are the same; the samples come later.
        return { kind, reason, total, samples, hour: this.newest < hour ? total : samples.reduce((sum, value) => sum + (value ?? 0), 0) };
      }));
    rows.sort((a, b) => b.hour - a.hour || b.total - a.total);
    $('reasons').hidden = !rows.length;
    $('no-reasons').hidden = rows.length > 0;
    $('reasons').tBodies[0].replaceChildren(...rows.map(({ kind, reason, total, samples, hour }) => element('tr', {},
      element('th', { scope: 'row' }, element('code', {}, reason), ' ', element('span', { class: 'kind' }, say(`kind_${kind}`))),
      element('td', { class: 'when' }, line(samples)),
      element('td', { class: 'number' }, number(hour)),
      element('td', { class: 'number' }, number(total)))));
  }

  renderLog() {
    const words = $('log-filter').value.toLowerCase().split(/\s+/).filter(Boolean);
    const level = $('log-level').value;
    const shown = this.entries.filter((entry) => (!level || entry.level === level) && words.every((word) => entry.text.includes(word)));
    $('log-count').textContent = this.entries.length ? say('log_count', { shown: shown.length, all: this.entries.length }) : '';
    const nothing = element('li', { class: 'hint' }, say(this.entries.length ? 'log_nothing' : 'log_empty'));
    $('log').replaceChildren(...(shown.length ? shown.map(logEntry) : [nothing]));
  }
}

const number = (value) => new Intl.NumberFormat(language(), { maximumFractionDigits: value < 100 ? 1 : 0 }).format(value);

// read takes an entry of the error log apart.
function read({ time, level, msg, count, last, ...details }) {
  return { at: new Date(last ?? time), level, msg, count, details, text: JSON.stringify([level, msg, details]).toLowerCase() };
}

function logEntry({ at, level, msg, count, details }) {
  const today = at.toDateString() === new Date().toDateString();
  const shown = (value) => (typeof value === 'object' ? JSON.stringify(value) : String(value));
  return element('li', { class: level === 'ERROR' ? 'error' : 'warning' },
    element('time', { datetime: at.toISOString() }, today ? at.toLocaleTimeString(language()) : at.toLocaleString(language())),
    element('span', { class: 'level' }, say(level === 'ERROR' ? 'level_ERROR' : 'level_WARN')),
    element('span', { class: 'msg' }, msg, count > 1 ? element('span', { class: 'count' }, ` · ${say('log_times', { count })}`) : null),
    element('span', { class: 'details' }, ...Object.entries(details).flatMap(([key, value]) => [element('span', {}, `${key} `, element('code', {}, shown(value))), ' '])));
}
