// The few things that the parts need to keep the page equal to the data without rebuilding it: what has focus, is
// hovered or selected stays where it is.

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else attr(node, name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element: h("p", {class: "x", onclick: f}, "text", child). */
export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);

/** An SVG element. */
export const s = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

/** Set, or with null/false remove, an attribute; writes only what differs. */
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

export function text(node, value) {
  const string = String(value);
  if (node.textContent !== string) node.textContent = string;
}

/**
 * Make `parent`'s children match `items`: one node per key, created once, then updated and moved in place. `parent`
 * may be anything that has firstChild and insertBefore.
 */
export function keyed(parent, items, keyOf, create, update) {
  const known = (parent._keyed ??= new Map());
  const wanted = new Set(items.map(keyOf));
  for (const [key, node] of known) {
    if (!wanted.has(key)) {
      node.remove();
      known.delete(key);
    }
  }
  let cursor = parent.firstChild;
  for (const item of items) {
    let node = known.get(keyOf(item));
    if (!node) known.set(keyOf(item), (node = create(item)));
    update?.(node, item);
    if (node === cursor) cursor = cursor.nextSibling;
    else if (node.isConnected && parent.moveBefore) parent.moveBefore(node, cursor); // keeps the focus, where it exists
    else parent.insertBefore(node, cursor);
  }
}

/** The sign of a state; its word always stands beside it. */
export const mark = (name, tone) =>
  s("svg", { class: `mark tone-${tone}`, "aria-hidden": "true" }, s("use", { href: `#mark-${name}` }));

export function setMark(node, name, tone) {
  attr(node, "class", `mark tone-${tone}`);
  attr(node.firstChild, "href", `#mark-${name}`);
}
