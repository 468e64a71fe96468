// Elements without markup: whatever a value holds, it becomes text. Nothing here, and nothing that uses it, parses HTML.

import { instant } from "./format.js";

/** An element with properties and children; a child that is no node is text, null and false are nothing. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  add(element, children);
  return element;
}

/** Append children, as `h` does. */
export function add(element, children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Replace the children of an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
}

/** Set text where it differs: what did not change is not painted again, nor read out again. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** An instant whose date goes where there is no room for it. */
export function dated(ms) {
  const [date, time] = instant(ms).split(" ");
  return h("span", { title: `${date} ${time}` }, h("span", { class: "date" }, `${date} `), time);
}

const shapes = { RED: "▲", YELLOW: "◆", GREEN: "●" };

/** A severity as a mark: shape, word and colour. */
export function severity(name) {
  if (!name) return h("span", { class: "none" }, "–");
  return h("span", { class: `sev sev-${name}` }, h("span", { "aria-hidden": "true", class: "shape" }, shapes[name] || ""), h("span", { class: "word" }, name));
}
