// A history and the attention of an answer into a time line that is zoomed, moved and walked through.

import { drawn, element, setAttribute } from "./dom.js";
import { positions, ticks, whole } from "./scale.js";
import { eventWords, nameOf } from "./words.js";

const HEIGHT = 208, AXIS = 26, LABELS = 52, LEAST_STEM = 9, HEAD_ROOM = 7;
const MOST_ZOOM = 20000;
const SHAPES = [
  (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  (r) => `M${-r} ${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (r) => `M0 ${-r * 1.3}L${r * 1.3} 0 0 ${r * 1.3} ${-r * 1.3} 0z`,
  (r) => `M0 ${-r * 1.2}L${r * 1.2} ${r} ${-r * 1.2} ${r}z`,
];

export const shapeOf = (kind, radius) => SHAPES[kind % SHAPES.length](radius);

export class Timeline {
  /** `onPick(event)` when one is chosen, `onStrike(event)` when it is to be struck out or put back. */
  constructor(root, { onPick, onStrike }) {
    Object.assign(this, { root, onPick, onStrike, events: [], at: [], weights: new Map(), kinds: [] });
    Object.assign(this, { scale: "order", view: [0, 1], marked: new Set(), picked: null, pointed: null, frame: 0, gap: null });
    this.svg = drawn("svg", { class: "timeline", height: HEIGHT, "aria-hidden": "true" });
    this.slider = element("div", { class: "timeline-frame", tabindex: 0, role: "slider", "aria-label": "Event on the time line" }, this.svg);
    root.replaceChildren(this.slider);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(root);
  }

  /** `weights` is a Map of event key to attention or null, `kinds` the behaviors in the order of their shapes. */
  show(events, weights, kinds) {
    const isWhole = String(this.view) === String(whole(this.at, this.scale));
    Object.assign(this, { events: [...events], weights, kinds, at: positions(events, this.scale, this.gap) });
    if (!events.includes(this.picked)) this.picked = null;
    if (isWhole) this.all();
    else this.draw();
  }

  setScale(scale) {
    this.scale = scale;
    this.all();
  }

  /** Events of a visit, at most `gap` milliseconds apart, are one mark; null where the log has no visits. */
  setVisits(gap) {
    this.gap = gap;
    this.all();
  }

  mark(keys) {
    this.marked = keys;
    this.draw();
  }

  pick(event) {
    this.picked = event;
    const at = this.at[this.events.indexOf(event)];
    const [from, to] = this.view;
    if (at < from || at > to) this.moveTo(at - (to - from) / 2, to - from);
    this.draw();
  }

  all() {
    this.at = positions(this.events, this.scale, this.gap);
    this.view = whole(this.at, this.scale);
    this.draw();
  }

  /** Zooms by a factor around a position, the picked event, or the middle. */
  zoom(factor, around = null) {
    const [from, to] = this.view;
    const [first, last] = whole(this.at, this.scale);
    const length = Math.min(Math.max((to - from) / factor, (last - first) / MOST_ZOOM), last - first);
    const picked = this.at[this.events.indexOf(this.picked)];
    const middle = around ?? (picked >= from && picked <= to ? picked : (from + to) / 2);
    const share = (middle - from) / (to - from);
    this.moveTo(middle - share * length, length);
  }

  moveTo(from, length) {
    const [first, last] = whole(this.at, this.scale);
    const start = Math.min(Math.max(from, first), last - length);
    this.view = [start, start + length];
    this.draw();
  }

  listen() {
    let drag = null;
    this.slider.addEventListener("keydown", (press) => this.press(press));
    this.svg.addEventListener("pointerdown", (press) => (drag = { x: press.offsetX, view: this.view, isMoved: false }));
    this.svg.addEventListener("pointermove", (move) => {
      if (drag && Math.abs(move.offsetX - drag.x) > 4) {
        drag.isMoved = true;
        this.svg.setPointerCapture(move.pointerId);
      }
      if (drag?.isMoved) {
        const length = drag.view[1] - drag.view[0];
        this.moveTo(drag.view[0] - ((move.offsetX - drag.x) / this.width) * length, length);
      } else this.point(this.eventAt(move.offsetX));
    });
    this.svg.addEventListener("pointerup", (press) => {
      const one = drag && !drag.isMoved ? this.eventAt(press.offsetX) : null;
      drag = null;
      if (one) this.choose(one);
    });
    for (const end of ["pointercancel", "pointerleave"]) this.svg.addEventListener(end, () => {
      drag = null;
      this.point(null);
    });
    this.svg.addEventListener("wheel", (turn) => {
      if (!turn.ctrlKey) return; // without the key the page is scrolled
      turn.preventDefault();
      const [from, to] = this.view;
      this.zoom(turn.deltaY < 0 ? 1.25 : 0.8, from + (turn.offsetX / this.width) * (to - from));
    }, { passive: false });
  }

  press(press) {
    if (press.ctrlKey || press.metaKey || press.altKey || !this.events.length) return;
    const last = this.events.length - 1;
    const now = this.picked ? this.events.indexOf(this.picked) : last;
    const to = { ArrowLeft: now - (this.picked ? 1 : 0), ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, Home: 0, End: last }[press.key];
    if (to !== undefined) this.choose(this.events[Math.min(Math.max(to, 0), last)]);
    else if (press.key === "+" || press.key === "=") this.zoom(1.6);
    else if (press.key === "-") this.zoom(0.625);
    else if (press.key === "0") this.all();
    else if ((press.key === "Delete" || press.key === "Enter") && this.picked) this.onStrike(this.picked);
    else return;
    press.preventDefault();
  }

  choose(event) {
    this.pick(event);
    this.onPick(event);
  }

  point(event) {
    if (event === this.pointed) return;
    this.pointed = event;
    this.draw();
  }

  get width() {
    return Math.max(this.root.clientWidth, 1);
  }

  x(at) {
    return ((at - this.view[0]) / (this.view[1] - this.view[0])) * this.width;
  }

  /** The event that is nearest to a position in pixels; of several there, the one most attended to. */
  eventAt(x) {
    let best = null;
    this.events.forEach((event, index) => {
      const far = Math.abs(this.x(this.at[index]) - x) - 3 * (this.share(event) ?? 0);
      if (far < 24 && (!best || far < best.far)) best = { event, far };
    });
    return best?.event ?? null;
  }

  /** Attention as a share of the strongest. */
  share(event) {
    const weight = this.weights.get(event.key) ?? null;
    return weight === null ? null : weight / (this.strongest || 1);
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.strongest = Math.max(0, ...[...this.weights.values()].map((weight) => weight ?? 0));
    const ground = HEIGHT - AXIS;
    setAttribute(this.svg, "width", this.width);
    const seen = this.events.map((event, index) => ({ event, x: this.x(this.at[index]) })).filter(({ x }) => x > -8 && x < this.width + 8);
    const isRaised = ({ event }) => event === this.picked || event === this.pointed || this.marked.has(event.key);
    const order = [...seen.filter((one) => !isRaised(one)), ...seen.filter(isRaised)];
    let earlier = -Infinity;
    const crowded = new Set();
    for (const { event, x } of [...seen].sort((a, b) => a.x - b.x)) {
      if (x - earlier < 5 && !((this.share(event) ?? 0) > 0.5)) crowded.add(event.key);
      else earlier = x;
    }
    this.svg.replaceChildren(
      drawn("line", { class: "ground", x1: 0, x2: this.width, y1: ground + 0.5, y2: ground + 0.5 }),
      ...this.axis(ground),
      ...order.map((one) => this.stem(one, ground, crowded.has(one.event.key) && !isRaised(one))),
      ...this.labels(order.filter(isRaised), ground),
    );
    this.announce();
  }

  axis(ground) {
    return ticks(this.view, this.scale, Math.max(2, Math.floor(this.width / 120))).flatMap(([at, words]) => {
      const x = this.x(at);
      const anchor = x < 36 ? "start" : x > this.width - 36 ? "end" : "middle";
      return [
        drawn("line", { class: "tick", x1: x, x2: x, y1: ground, y2: ground + 5 }),
        drawn("text", { class: "tick-words", x: Math.min(Math.max(x, 0), this.width), y: HEIGHT - 6, "text-anchor": anchor }, words),
      ];
    });
  }

  top(event, ground) {
    const share = event.struck ? 0 : this.share(event) ?? 0;
    return ground - LEAST_STEM - share * (ground - LABELS - LEAST_STEM - HEAD_ROOM);
  }

  stem({ event, x }, ground, isCrowded) {
    const kind = Math.max(this.kinds.indexOf(event.behavior), 0);
    const names = ["event", `kind-${kind % 4}`];
    if (event.struck) names.push("struck");
    if (!event.known) names.push("unknown");
    if (!event.isReal) names.push("supposed");
    if (this.marked.has(event.key)) names.push("marked");
    if (event === this.picked) names.push("picked");
    const top = this.top(event, ground);
    const radius = this.radius(event);
    const head = !isCrowded && drawn("path", { class: "head", d: shapeOf(kind, radius), transform: `translate(${x} ${top})` });
    const cross = event.struck && !isCrowded && drawn("path", { class: "cross", d: "M-5 5L5-5", transform: `translate(${x} ${top})` });
    return drawn("g", { class: names.join(" "), "data-key": event.key }, drawn("line", { class: "stem", x1: x, x2: x, y1: ground, y2: top }), head || null, cross || null);
  }

  /** Values are sizes: the smallest of the history is small, the largest large. */
  radius(event) {
    if (event.value === null) return 4;
    const values = this.events.map((one) => one.value).filter((value) => value !== null);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    return most === least ? 4.5 : 2.6 + (3.4 * (event.value - least)) / (most - least);
  }

  labels(raised, ground) {
    const most = Math.max(12, Math.floor(this.width / 8));
    return raised.slice(-3).flatMap(({ event, x }, row) => {
      const others = this.gap === null ? 0 : this.at.filter((at) => at === this.at[this.events.indexOf(event)]).length - 1;
      const name = nameOf(event) + (others ? ` and ${others} more` : "");
      const anchor = x < this.width * 0.3 ? "start" : x > this.width * 0.7 ? "end" : "middle";
      const y = 13 + row * 16;
      return [
        drawn("line", { class: "leader", x1: x, x2: x, y1: y + 4, y2: this.top(event, ground) - 7 }),
        drawn("text", { class: "label", x, y, "text-anchor": anchor }, name.length > most ? `${name.slice(0, most - 1)}…` : name),
      ];
    });
  }

  /** The picked event in the words of a slider. */
  announce() {
    const index = this.picked ? this.events.indexOf(this.picked) : this.events.length - 1;
    const words = this.picked ? eventWords(this.picked, this.weights.get(this.picked.key) ?? null) : "none picked";
    const values = { min: 1, max: Math.max(this.events.length, 1), now: Math.max(index + 1, 1), text: `${index + 1} of ${this.events.length}: ${words}` };
    for (const [name, value] of Object.entries(values)) setAttribute(this.slider, `aria-value${name}`, value);
  }
}
