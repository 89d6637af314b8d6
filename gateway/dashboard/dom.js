// Touching the page: making elements, changing only what differs, lists kept by key.
// Data reaches the page as text and attributes only, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export const byId = (id) => document.getElementById(id);

export function put(node, text) {
  text = String(text);
  if (node.textContent !== text) node.textContent = text;
}

// null removes the attribute.
export function set(node, name, value) {
  if (value === null) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

// Children of `parent`, one for each item, in the items' order. A child is built once for its key and then
// updated in place; one whose item is gone is removed.
export class Keyed {
  constructor(parent, build, update) {
    Object.assign(this, { parent, build, update });
    this.parts = new Map();
  }

  show(items, keyOf) {
    const wanted = new Set();
    let place = this.parent.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      if (wanted.has(key)) continue;
      wanted.add(key);
      let part = this.parts.get(key);
      if (!part) this.parts.set(key, (part = this.build(item, key)));
      if (part.node === place) place = place.nextElementSibling;
      else this.parent.insertBefore(part.node, place);
      this.update(part, item, key);
    }
    for (const [key, part] of this.parts) {
      if (wanted.has(key)) continue;
      part.node.remove();
      this.parts.delete(key);
    }
  }
}

// A Keyed over [name, value] pairs, in a <dl>.
export function factsIn(list) {
  const build = ([name]) => {
    const value = make("dd");
    return { node: make("div", {}, make("dt", {}, name), value), value };
  };
  const keyed = new Keyed(list, build, (part, [, value]) => put(part.value, value));
  return { show: (pairs) => keyed.show(pairs, ([name]) => name) };
}
