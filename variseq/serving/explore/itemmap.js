// A map of items with positions: colored by category or by content, with the history and the recommendations marked.

import { element, setAttribute } from "./dom.js";
import { nameOf } from "./words.js";

const MOST_GROUPS = 8, LONGEST_NAME = 40;
const MARGIN = 22, NEAR = 14, MANY = 150;
const OTHER = "other";

export class ItemMap {
  /** `parts`: canvas, tip and legend; `onPick(item)` when one is chosen. */
  constructor(parts, onPick) {
    Object.assign(this, parts, { onPick, items: [], positions: new Map(), only: null, picked: null, pointed: null, reasons: [], focus: null });
    Object.assign(this, { history: new Set(), ranks: new Map(), frame: 0 });
    this.canvas.addEventListener("pointermove", (move) => this.point(this.itemAt(move.offsetX, move.offsetY)));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("click", (press) => {
      const item = this.itemAt(press.offsetX, press.offsetY);
      if (item) this.onPick(item);
    });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    document.addEventListener("themechange", () => this.draw());
  }

  /** `clusters` are the titles of the most central items of the clusters by content. Returns the categories. */
  load(items, clusters) {
    Object.assign(this, { items, clusters });
    this.positions = new Map(items.map((item) => [String(item.item_id), item]));
    const [xs, ys] = [items.map((item) => item.x), items.map((item) => item.y)];
    this.edges = { left: Math.min(...xs), right: Math.max(...xs), low: Math.min(...ys), high: Math.max(...ys) };
    this.colorBy("category");
    return [...new Set(items.map((item) => item.category).filter(Boolean))].sort();
  }

  /** Colors the groups with most items: those of "category", or of "content". */
  colorBy(what) {
    this.groupOf = (item) => (what === "content" ? item.cluster : item.category);
    this.only = null;
    const count = new Map();
    for (const group of this.items.map(this.groupOf)) if (group !== null) count.set(group, (count.get(group) ?? 0) + 1);
    const all = [...count].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    this.groups = all.slice(0, MOST_GROUPS).map(([group]) => group);
    this.showLegend(count, (group) => (typeof group === "number" ? `like ${shortened(this.clusters[group])}` : group));
    this.draw();
  }

  showLegend(count, wordsOf) {
    const shown = this.groups.map((group) => [group, count.get(group)]);
    const rest = this.items.length - shown.reduce((sum, [, number]) => sum + number, 0);
    if (rest && shown.length) shown.push([OTHER, rest]);
    const buttons = shown.map(([group, number]) => element("button", {
      type: "button", class: "quiet", "aria-pressed": "false", onclick: (press) => this.toggle(group, press.currentTarget),
    }, element("span", { class: `dot category-${this.color(group)}` }), `${wordsOf(group)} ${number}`));
    const marks = [["mark-history", "in the history"], ["mark-recommended", "recommended"]];
    this.legend.replaceChildren(...marks.map(([name, words]) => element("span", { class: "mark" }, element("span", { class: name }), words)), ...buttons);
  }

  toggle(group, button) {
    this.only = this.only === group ? null : group;
    for (const one of this.legend.querySelectorAll("button")) setAttribute(one, "aria-pressed", one === button && this.only !== null ? "true" : "false");
    this.draw();
  }

  /** The number of a color; that of all other groups is 0. */
  color(group) {
    return this.groups.indexOf(group) + 1;
  }

  /** `history` are ids as text, `ranks` a Map of ids as text to ranks. Returns how many of each have no position. */
  mark(history, ranks) {
    Object.assign(this, { history, ranks, focus: null, reasons: [] });
    this.draw();
    const missing = (ids) => [...ids].filter((id) => !this.positions.has(id)).length;
    return { history: missing(history), recommended: missing(ranks.keys()) };
  }

  /** Lines from a recommendation to its reasons; null takes them away. */
  connect(item, reasons) {
    Object.assign(this, { focus: item === null ? null : String(item), reasons });
    this.draw();
  }

  pick(item) {
    this.picked = item;
    this.draw();
  }

  point(item) {
    if (item === this.pointed) return;
    this.pointed = item;
    this.canvas.style.cursor = item ? "pointer" : "";
    this.tip.hidden = item === null;
    if (item) {
      const [x, y] = this.at(item);
      const rank = this.ranks.get(String(item.item_id));
      const marks = [this.history.has(String(item.item_id)) && "in the history", rank && `recommended, rank ${rank}`].filter(Boolean);
      this.tip.replaceChildren(element("strong", {}, nameOf(item)), ...[item.category, ...marks].filter(Boolean).map((words) => element("span", {}, words)));
      const isRight = x > this.canvas.clientWidth / 2;
      Object.assign(this.tip.style, { top: `${y}px`, left: isRight ? "" : `${x + 12}px`, right: isRight ? `${this.canvas.clientWidth - x + 12}px` : "" });
    }
    this.draw();
  }

  at(item) {
    const { left, right, low, high } = this.edges;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const across = (item.x - left) / (right - left || 1), up = (item.y - low) / (high - low || 1);
    return [MARGIN + across * (width - 2 * MARGIN), height - MARGIN - up * (height - 2 * MARGIN)];
  }

  isShown(item) {
    const group = this.groupOf(item);
    return this.only === null || group === this.only || (this.only === OTHER && this.color(group) === 0);
  }

  itemAt(x, y) {
    let best = null;
    for (const item of this.items) {
      const id = String(item.item_id);
      const isMarked = this.ranks.has(id) || this.history.has(id);
      if (!isMarked && !this.isShown(item)) continue;
      const [ownX, ownY] = this.at(item);
      const far = Math.hypot(ownX - x, ownY - y) - (isMarked ? 4 : 0);
      if (far < NEAR && (!best || far < best.far)) best = { item, far };
    }
    return best?.item ?? null;
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.items.length && this.canvas.clientWidth && this.paint());
  }

  paint() {
    const { canvas } = this;
    const sharpness = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * sharpness);
    canvas.height = Math.round(canvas.clientHeight * sharpness);
    const pen = canvas.getContext("2d");
    pen.scale(sharpness, sharpness);
    this.paintItems(pen, this.colors());
  }

  /** The colors of the theme, as the legend and the page have them. */
  colors() {
    const probe = element("span", { hidden: true });
    this.legend.append(probe);
    const of = (name) => {
      probe.className = name;
      return getComputedStyle(probe).color;
    };
    const found = { categories: Array.from({ length: MOST_GROUPS + 1 }, (_, number) => of(`category-${number}`)) };
    for (const name of ["ink", "paper", "accent", "on-accent", "reason"]) found[name] = of(`paint-${name}`);
    probe.remove();
    return found;
  }

  paintItems(pen, colors) {
    const dot = (item, radius, fill, edge = null, width = 1.5) => {
      const [x, y] = this.at(item);
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      if (fill) Object.assign(pen, { fillStyle: fill }), pen.fill();
      if (edge) Object.assign(pen, { strokeStyle: edge, lineWidth: width }), pen.stroke();
    };
    for (const item of this.items) {
      pen.globalAlpha = this.isShown(item) ? 0.62 : 0.08;
      dot(item, 2.6, colors.categories[this.color(this.groupOf(item))]);
    }
    pen.globalAlpha = 1;
    const located = (ids) => [...ids].map((id) => this.positions.get(id)).filter(Boolean);
    const [radius, edge] = this.history.size > MANY ? [3, 1] : [4.6, 2];
    for (const item of located(this.history)) dot(item, radius, colors.categories[this.color(this.groupOf(item))], colors.ink, edge);
    this.paintReasons(pen, colors, located(this.reasons), dot);
    pen.font = "600 11px system-ui, sans-serif";
    Object.assign(pen, { textAlign: "center", textBaseline: "middle" });
    for (const item of located([...this.ranks.keys()].reverse())) {
      const [x, y] = this.at(item);
      dot(item, 9, colors.accent, colors.paper, 2);
      pen.fillStyle = colors["on-accent"];
      pen.fillText(String(this.ranks.get(String(item.item_id))), x, y + 0.5);
    }
    for (const item of [this.picked, this.pointed]) if (item) dot(item, 12, null, colors.ink, 1.5);
  }

  paintReasons(pen, colors, reasons, dot) {
    const focus = this.positions.get(this.focus);
    if (!focus) return;
    Object.assign(pen, { strokeStyle: colors.reason, lineWidth: 2 });
    for (const reason of reasons) {
      pen.beginPath();
      pen.moveTo(...this.at(focus));
      pen.lineTo(...this.at(reason));
      pen.stroke();
      dot(reason, 6, colors.reason, colors.paper, 2);
    }
    dot(focus, 13, null, colors.reason, 3);
  }
}

const shortened = (text) => (text.length > LONGEST_NAME ? `${text.slice(0, LONGEST_NAME - 1)}…` : text);
