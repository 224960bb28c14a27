// An answer, and what moved since another one, into rows with probability bars.

import { element, setText } from "./dom.js";
import { picture } from "./pictures.js";
import { nameOf, percent, points } from "./words.js";

const MOVE_MILLISECONDS = 260;
const SAME = { kind: "none", places: 0, from: null, before: null };

export class Recommendations {
  /** `onMark(recommendation or null)` as rows are pointed at or focused, `onAdd(recommendation)` for "what if". */
  constructor(root, gone, { onMark, onAdd }) {
    Object.assign(this, { root, gone, onMark, onAdd, rows: new Map() });
    root.addEventListener("pointerleave", () => this.onMark(this.focused()));
    root.addEventListener("focusout", (move) => root.contains(move.relatedTarget) || this.onMark(null));
  }

  /** `changes` is of `compare`, or null; `struck` are ids, as text, of items that are struck out in the history. */
  show(list, changes, struck) {
    const places = this.places();
    const focused = this.root.contains(document.activeElement) ? document.activeElement.closest("li")?.dataset.item : null;
    const most = Math.max(...list.map((one) => Math.max(one.probability_high, one.probability)), ...(changes?.gone ?? []).map((one) => one.probability), 1e-9);
    const rows = list.map((one) => {
      const id = String(one.item_id);
      return [id, this.row(one, changes?.of.get(id) ?? SAME, most, struck.has(id))];
    });
    this.rows = new Map(rows);
    this.root.replaceChildren(...this.rows.values());
    if (focused !== null) (this.rows.get(focused) ?? this.root.firstElementChild)?.focus();
    this.glide(places);
    this.showGone(changes?.gone ?? []);
  }

  focused() {
    const row = this.root.contains(document.activeElement) ? document.activeElement.closest("li") : null;
    return row?.recommendation ?? null;
  }

  row(one, change, most, isStruck) {
    const mark = () => this.onMark(one);
    const add = element("button", { type: "button", class: "add", "aria-label": `What if they take ${nameOf(one)} next`, title: "Put this at the end of the history", onclick: () => this.onAdd(one) }, "What if");
    const node = element("li", {
      tabindex: 0, class: `change-${change.kind}`, "data-item": String(one.item_id), "aria-label": rowWords(one, change),
      onpointerenter: mark, onfocusin: mark,
    },
      element("span", { class: "rank" }, String(one.rank), moveBadge(change)),
      element("span", { class: "what" }, picture(one),
        element("span", { class: "title" }, nameOf(one), isStruck ? element("span", { class: "badge" }, "struck out in the history") : null),
        propensities(one), reasons(one)),
      bar(one, change, most),
      element("span", { class: "probability" },
        element("strong", {}, percent(one.probability)),
        element("span", { class: "interval" }, `${percent(one.probability_low)} – ${percent(one.probability_high)}`),
        change.before === null || change.before === undefined ? null : element("span", { class: "difference" }, points(one.probability - change.before))),
      add);
    node.recommendation = one;
    return node;
  }

  showGone(gone) {
    this.gone.hidden = gone.length === 0;
    const rows = gone.map((one) => element("li", {}, element("span", { class: "rank" }, String(one.rank)), element("span", { class: "title" }, nameOf(one)), element("span", {}, `was ${percent(one.probability)}`)));
    this.gone.replaceChildren(element("h3", {}, "No longer in the list"), element("ul", { class: "gone" }, ...rows));
  }

  places() {
    return new Map([...this.rows].map(([id, node]) => [id, node.getBoundingClientRect().top]));
  }

  /** Rows that were there before glide from their old place, unless less motion is wanted. */
  glide(before) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const after = this.places();
    for (const [id, node] of this.rows) {
      if (!before.has(id)) node.animate([{ opacity: 0 }, { opacity: 1 }], MOVE_MILLISECONDS);
      else if (before.get(id) !== after.get(id)) {
        const way = before.get(id) - after.get(id);
        node.animate([{ transform: `translateY(${way}px)` }, { transform: "none" }], { duration: MOVE_MILLISECONDS, easing: "ease-out" });
      }
    }
  }
}

function moveBadge({ kind, places }) {
  const text = { new: "new", up: `▲ ${places}`, down: `▼ ${-places}`, same: "=" }[kind];
  return text ? element("span", { class: `move ${kind}`, "aria-hidden": "true" }, text) : null;
}

function moveWords({ kind, from }) {
  return { new: "new in the list", up: `up from rank ${from}`, down: `down from rank ${from}`, same: "same rank" }[kind];
}

function reasons(one) {
  const because = one.reasons ?? [];
  return because.length ? element("span", { class: "because" }, "because of ", because.join(", ")) : null;
}

/** Low to high as a band, the probability as a bar on it, and what it was before as a notch; all of one scale. */
function bar(one, change, most) {
  const part = (name, from, to) => {
    const node = element("span", { class: name });
    node.style.left = `${(100 * from) / most}%`;
    node.style.width = `${(100 * Math.max(to - from, 0)) / most}%`;
    return node;
  };
  const before = change.before === null || change.before === undefined ? null : part("before", change.before, change.before);
  return element("span", { class: "bar", "aria-hidden": "true" }, part("band", one.probability_low, one.probability_high), part("filled", 0, one.probability), before);
}

/** With which probabilities a list that was drawn has the item; nothing in other lists. */
function propensities(one) {
  if (one.propensity_at_rank === undefined) return null;
  return element("span", { class: "propensity" }, `drawn with ${percent(one.propensity_at_rank)} at this rank, ${percent(one.propensity_in_list)} in the list`);
}

function rowWords(one, change) {
  const because = one.reasons?.length ? `because of ${one.reasons.join(", ")}` : null;
  const chance = `probability ${percent(one.probability)}, between ${percent(one.probability_low)} and ${percent(one.probability_high)}`;
  return [`Rank ${one.rank}: ${nameOf(one)}`, chance, moveWords(change), because].filter(Boolean).join("; ");
}

/** The words of what changed, read out when they do. */
export function showChanges(root, words) {
  setText(root, words ?? "");
}
