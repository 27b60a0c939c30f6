// Small words for building the page.

export const $ = (id) => document.getElementById(id);

// element makes an element: attributes by name, on… as listeners, and children as nodes or text.
export function element(name, attributes = {}, ...children) {
  return dress(document.createElement(name), attributes, children);
}

// drawing is element for SVG.
export function drawing(name, attributes = {}, ...children) {
  return dress(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children);
}

function dress(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

// write puts a text into an element; what stands in `backticks` is code.
export function write(node, text) {
  node.replaceChildren(...text.split('`').map((part, i) => (i % 2 ? element('code', {}, part) : part)));
  return node;
}
