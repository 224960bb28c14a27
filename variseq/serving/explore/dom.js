// Names, attributes and children into elements. Text becomes text nodes, never markup: titles and ids are not trusted.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An HTML element; functions among the attributes listen to the event of their name ("onclick"). */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else setAttribute(node, name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

/** Sets an attribute; null and false take it away, true sets it without a value. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : String(value));
}

/** Replaces text only where it differs, so that nothing is read out twice. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A box that says what went wrong, with a way on. */
export function errorBox(message, again) {
  const button = again && element("button", { type: "button", onclick: again }, "Try again");
  return element("div", { class: "notice error", role: "alert" }, element("p", {}, message), button);
}

/** Grey rows where a list is about to be. */
export function placeholder(rows) {
  const lines = Array.from({ length: rows }, () => element("li", {}));
  return element("ul", { class: "placeholder", "aria-label": "Loading" }, ...lines);
}
