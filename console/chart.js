// Small charts of an hour: the newest sample at the right, null where there is none.

import { drawing, element } from './dom.js';
import { say } from './texts.js';

const width = 360;
const height = 64;
const least = 30; // samples across a chart at least: five minutes of a server that has just started

// chart is an area with its axis. label tells those who do not see it.
export function chart(samples, most, label) {
  const across = Math.max(least, samples.length);
  const { outline, area } = paths(samples, across, most);
  const minutes = Math.round(across / 6);
  return element('div', { class: 'chart' },
    drawing('svg', { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
      drawing('path', { d: `M0 ${height - 0.5}H${width}`, class: 'axis' }),
      drawing('path', { d: area, class: 'area' }),
      drawing('path', { d: outline, class: 'outline' })),
    element('div', { class: 'axis-text', 'aria-hidden': 'true' },
      element('span', {}, minutes >= 60 ? say('hour_ago') : say('minutes_ago', { minutes })),
      element('span', {}, say('now'))));
}

// line is a chart for a table: only the shape.
export function line(samples) {
  const { outline, area } = paths(samples, Math.max(least, samples.length), Math.max(1, ...samples));
  return drawing('svg', { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true', class: 'line' },
    drawing('path', { d: area, class: 'area' }), drawing('path', { d: outline, class: 'outline' }));
}

// paths are the line through the samples and the area below it; both break where a sample is missing.
function paths(samples, across, most) {
  const x = (i) => ((i + across - samples.length) / (across - 1)) * width;
  const y = (value) => height - 1 - (value / (most || 1)) * (height - 4);
  let outline = '';
  let area = '';
  for (let from = 0; from < samples.length; from++) {
    if (samples[from] === null) continue;
    let to = from;
    while (to + 1 < samples.length && samples[to + 1] !== null) to++;
    const points = samples.slice(from, to + 1).map((value, i) => `${x(from + i).toFixed(1)} ${y(value).toFixed(1)}`).join('L');
    outline += `M${points}`;
    area += `M${x(from).toFixed(1)} ${height}L${points}L${x(to).toFixed(1)} ${height}z`;
    from = to;
  }
  return { outline, area };
}
