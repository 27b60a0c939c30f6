// The page: what the server tells it, the two languages, and the three cards.

import { $, write } from './dom.js';
import { Doing } from './doing.js';
import { Paste } from './paste.js';
import { language, say, speak } from './texts.js';
import { Trying } from './trying.js';

const retry = 3_000; // ms until the server is asked again for what it did not answer

// The page may lie below a path of a proxy, as / or as /console.
const base = new URL('.', location.href).href;

// post asks the server for one of the console's answers: its status and the body, or status 0 when nobody answers.
async function post(path, token) {
  try {
    const answer = await fetch(`${base}console/${path}`, { method: 'POST', cache: 'no-store', headers: token ? { Authorization: `Bearer ${token}` } : {} });
    return { status: answer.status, body: answer.ok ? await answer.json() : null };
  } catch {
    return { status: 0, body: null };
  }
}

let state = null; // the console's report
let reachable = true;

const paste = new Paste(base);
const trying = new Trying(base, { token: () => paste.token, ably: () => state?.ably ?? { enabled: false, key: '' }, onmissing: () => paste.ask() });
const doing = new Doing(post, (answers) => {
  reachable = answers;
  showStatus();
});

function showStatus() {
  const status = $('status');
  status.hidden = !state && reachable;
  status.classList.toggle('bad', !reachable);
  status.textContent = !reachable ? say('status_gone') : say(state?.version ? 'status_version' : 'status_here', state ?? {});
}

// render says everything in the language in force.
function render() {
  document.documentElement.lang = language() === 'zh' ? 'zh-CN' : 'en';
  for (const node of document.querySelectorAll('[data-text]')) write(node, say(node.dataset.text));
  for (const node of document.querySelectorAll('[data-label]')) node.setAttribute('aria-label', say(node.dataset.label));
  for (const node of document.querySelectorAll('[data-hint]')) node.placeholder = say(node.dataset.hint);
  for (const button of document.querySelectorAll('[data-language]')) button.setAttribute('aria-pressed', String(button.dataset.language === language()));
  showStatus();
  for (const card of [trying, paste, doing]) card.render();
}

for (const button of document.querySelectorAll('[data-language]')) {
  button.addEventListener('click', () => {
    speak(button.dataset.language);
    render();
  });
}

async function load() {
  const { status, body } = await post('state');
  reachable = status === 200;
  if (!reachable) setTimeout(load, retry);
  else {
    state = body;
    paste.take(state);
    doing.take(state);
    trying.render();
  }
  showStatus();
}

render();
load();
