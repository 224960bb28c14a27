// A history into rows, newest first, in which each event can be struck out; arrow keys go from row to row.

import { element, setAttribute, setText } from "./dom.js";
import { picture } from "./pictures.js";
import { moment, nameOf, percent, plain } from "./words.js";

export class EventList {
  /** `onPick(event)` when a row gets the focus, `onStrike(event)` and `onRemove(event)` when a button is pressed. */
  constructor(root, { onPick, onStrike, onRemove }) {
    Object.assign(this, { root, onPick, onStrike, onRemove, rows: new Map(), events: [], current: null });
    root.addEventListener("keydown", (press) => this.press(press));
  }

  /** `differing` is in what events differ: { origin: whether some were added, kind: whether they are of several kinds }. */
  show(events, weights, differing) {
    const hadFocus = this.root.contains(document.activeElement);
    const strongest = Math.max(0, ...[...weights.values()].map((weight) => weight ?? 0)) || 1;
    const rows = new Map(events.map((event) => [event.key, this.rows.get(event.key) ?? this.row(event, differing)]));
    const isSame = rows.size === this.rows.size && events.every((event, index) => event === this.events[index]);
    this.rows = rows;
    this.events = [...events];
    if (!events.includes(this.current)) this.current = events.at(-1) ?? null;
    if (!isSame) this.root.replaceChildren(...[...events].reverse().map((event) => rows.get(event.key).node));
    events.forEach((event, index) => this.refresh(event, index, weights.get(event.key) ?? null, strongest));
    if (hadFocus && !this.root.contains(document.activeElement) && this.current) this.focus(this.current);
  }

  mark(keys) {
    for (const [key, { node }] of this.rows) node.classList.toggle("marked", keys.has(key));
  }

  pick(event) {
    this.current = event;
    for (const [key, { node, strike }] of this.rows) {
      node.classList.toggle("picked", key === event.key);
      setAttribute(strike, "tabindex", key === event.key ? 0 : -1);
    }
    const { node } = this.rows.get(event.key);
    const [box, own] = [this.root.getBoundingClientRect(), node.getBoundingClientRect()];
    if (own.top < box.top) this.root.scrollTop -= box.top - own.top;
    if (own.bottom > box.bottom) this.root.scrollTop += own.bottom - box.bottom;
  }

  focus(event) {
    this.rows.get(event.key)?.strike.focus();
  }

  row(event, differing) {
    const fill = element("span", { class: "fill" });
    const number = element("span", { class: "number" });
    const share = element("span", { class: "share" });
    const strike = element("button", {
      type: "button", class: "strike", tabindex: -1,
      onclick: () => this.onStrike(event),
      onfocus: () => this.current !== event && this.onPick(event),
    });
    const remove = event.isReal ? null : element("button", {
      type: "button", class: "strike", tabindex: -1, "aria-label": `Remove ${nameOf(event)}`, onclick: () => this.onRemove(event),
    }, "Remove");
    const details = [event.time === null ? null : moment(event.time), differing.kind ? event.behavior : null, event.value === null ? null : plain(event.value)];
    const node = element("li", { "data-key": event.key, onclick: (press) => press.target.closest("button") || this.onPick(event) },
      number,
      element("span", { class: "what" }, event.known ? picture(event) : null,
        element("span", { class: "title" }, nameOf(event)),
        element("span", { class: "details" }, details.filter((one) => one !== null).join(" · "), event.known ? null : " Not in the catalog", event.isReal || !differing.origin ? null : element("span", { class: "badge" }, "added here"))),
      element("span", { class: "strength" }, element("span", { class: "track" }, fill), share),
      element("span", { class: "row-buttons" }, remove, strike));
    return { node, number, fill, share, strike };
  }

  refresh(event, index, weight, strongest) {
    const { node, number, fill, share, strike } = this.rows.get(event.key);
    setText(number, String(index + 1));
    node.classList.toggle("struck", event.struck);
    node.classList.toggle("unknown", !event.known);
    setText(strike, event.struck ? "Put back" : "Strike out");
    setAttribute(strike, "aria-label", `${event.struck ? "Put back" : "Strike out"} event ${index + 1}, ${nameOf(event)}`);
    setAttribute(strike, "tabindex", event === this.current ? 0 : -1);
    fill.style.width = `${weight === null ? 0 : (weight / strongest) * 100}%`;
    setText(share, weight === null || event.struck ? "" : percent(weight));
  }

  press(press) {
    const rows = [...this.events].reverse();
    const now = rows.indexOf(this.current);
    const to = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: rows.length - 1, PageDown: now + 10, PageUp: now - 10 }[press.key];
    if (to !== undefined) {
      const event = rows[Math.min(Math.max(to, 0), rows.length - 1)];
      this.onPick(event);
      this.focus(event);
    } else if (press.key === "Delete" && this.current && !this.current.isReal) this.onRemove(this.current);
    else return;
    press.preventDefault();
  }
}
