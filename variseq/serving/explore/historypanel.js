// A history and the attention of an answer into what the history card shows.

import { byId, drawn, element, setText } from "./dom.js";
import { EventList } from "./eventlist.js";
import { shapeOf, Timeline } from "./timeline.js";
import { eventWords, moment, nameOf, percent, plural } from "./words.js";

const MOST_ATTENDED = 3, LEAST_TOLD = 0.005;

export class HistoryPanel {
  /** `edit` has strike, remove and insertAfter, each takes an event. */
  constructor(edit) {
    Object.assign(this, { edit, history: null, weights: new Map(), picked: null });
    const pick = (event) => this.pick(event);
    this.timeline = new Timeline(byId("plot"), { onPick: pick, onStrike: edit.strike });
    this.list = new EventList(byId("events"), { onPick: pick, onStrike: edit.strike, onRemove: edit.remove });
    byId("zoom-in").addEventListener("click", () => this.timeline.zoom(1.6));
    byId("zoom-out").addEventListener("click", () => this.timeline.zoom(0.625));
    byId("zoom-all").addEventListener("click", () => this.timeline.all());
    for (const radio of this.scales) radio.addEventListener("change", () => this.timeline.setScale(radio.value));
  }

  get scales() {
    return document.querySelectorAll("input[name=scale]");
  }

  /** Another history than before: its own scale, nothing picked. */
  open(history) {
    Object.assign(this, { history, picked: null });
    byId("plot").classList.toggle("composed", history.user === null);
    const hasTimes = history.events.some((event) => event.time !== null);
    for (const radio of this.scales) {
      radio.checked = radio.value === (hasTimes ? "time" : "order");
      radio.disabled = !hasTimes && radio.value === "time";
    }
    this.timeline.scale = hasTimes ? "time" : "order";
    this.show(null);
    this.timeline.all();
  }

  setVisits(gap) {
    this.timeline.setVisits(gap);
  }

  /** `weights` is the attention of the answer, or null where there is none yet: the last one is then kept. */
  show(weights) {
    const { history } = this;
    if (weights) this.weights = history.attention(weights);
    const { events } = history;
    if (!events.includes(this.picked)) this.picked = null;
    byId("history-body").hidden = events.length === 0;
    const kinds = [...new Set(events.map((event) => event.behavior).filter((one) => one !== null))];
    this.timeline.show(events, this.weights, kinds);
    this.list.show(events, this.weights, { origin: history.user !== null, kind: kinds.length > 1 });
    this.showLegend(kinds);
    this.showPicked();
    this.showWords();
  }

  showWords() {
    const { events, user } = this.history;
    const times = events.map((event) => event.time).filter((time) => time !== null);
    const span = times.length ? `, ${moment(times[0])} to ${moment(times.at(-1))}` : "";
    const who = user === null ? "Composed" : `User ${user}`;
    setText(byId("history-facts"), `${who}: ${plural(events.length, "event")}${span}`);
    const strongest = events.filter((event) => this.weights.get(event.key) > 0)
      .sort((a, b) => this.weights.get(b.key) - this.weights.get(a.key)).slice(0, MOST_ATTENDED);
    const words = strongest.map((event) => `${nameOf(event)} (${percent(this.weights.get(event.key))})`);
    const start = 1 - [...this.weights.values()].reduce((sum, weight) => sum + (weight ?? 0), 0);
    const rest = start > LEAST_TOLD ? ` The start, before all events: ${percent(start)}.` : "";
    setText(byId("attended"), words.length ? `Attended to most: ${words.join(", ")}.${rest}` : "");
  }

  showLegend(kinds) {
    const keys = kinds.map((kind, position) => element("span", { class: `key kind-${position % 4}` },
      drawn("svg", { viewBox: "-7 -7 14 14", width: 14, height: 14, "aria-hidden": "true" }, drawn("path", { class: "head", d: shapeOf(position, 4.5) })), kind));
    const { events } = this.history;
    const hasWeights = [...this.weights.values()].some((weight) => weight !== null);
    const words = [hasWeights && "Height: attention of the answer.", events.some((event) => event.value !== null) && "Size: value."];
    byId("plot-legend").replaceChildren(...keys, words.filter(Boolean).join(" "));
  }

  pick(event) {
    this.picked = event;
    this.timeline.pick(event);
    this.list.pick(event);
    this.showPicked();
  }

  showPicked() {
    const { picked, edit } = this;
    const hadFocus = byId("picked").contains(document.activeElement);
    if (picked === null) {
      byId("picked").replaceChildren(element("p", { class: "fine" }, "Pick an event to see it, strike it out, or add an item after it."));
      return;
    }
    const number = this.history.events.indexOf(picked) + 1;
    const button = (words, run) => element("button", { type: "button", onclick: () => run(picked) }, words);
    const words = eventWords(picked, this.weights.get(picked.key) ?? null);
    byId("picked").replaceChildren(element("p", {}, element("strong", {}, `${number}. `), words),
      element("p", { class: "picked-buttons" },
        button(picked.struck ? "Put back" : "Strike out", edit.strike), button("Add an item after this", edit.insertAfter),
        picked.isReal ? null : button("Remove", edit.remove)));
    if (hadFocus) byId("picked").querySelector("button").focus();
  }

  mark(keys) {
    this.timeline.mark(keys);
    this.list.mark(keys);
  }
}
