// The card of the item map: the picked item, and the map as a list.

import { byId, element, setText } from "./dom.js";
import { ItemMap } from "./itemmap.js";
import { picture } from "./pictures.js";
import { nameOf, plural } from "./words.js";

const MOST_LISTED = 50, MOST_SIMILAR = 5;

export class MapPanel {
  /** `onAdd(item)` when an item is to be put at the end of the history. */
  constructor(api, onAdd) {
    Object.assign(this, { api, onAdd, items: [], picked: null });
    this.map = new ItemMap({ canvas: byId("map"), tip: byId("map-tip"), legend: byId("map-legend") }, (item) => this.pick(item));
    byId("map-list").open = matchMedia("(min-width: 64rem)").matches;
    byId("map-filter").addEventListener("input", () => this.list());
    for (const radio of document.querySelectorAll("input[name=map-color]")) radio.addEventListener("change", () => this.map.colorBy(radio.value));
  }

  /** Takes the items of the server and the names of their clusters by content, and returns the names of their categories. */
  load(items, clusters) {
    this.items = items;
    byId("map-body").hidden = items.length === 0;
    if (!items.length) {
      byId("map-message").replaceChildren(element("p", { class: "fine" }, "This model has no map of its items."));
      return [];
    }
    const categories = this.map.load(items, clusters);
    byId("map-colors").hidden = !clusters.length;
    setText(byId("map-facts"), `${plural(items.length, "item")}; near each other: likely for the same people`);
    this.list();
    return categories;
  }

  /** Marks a history (its items) and a list of recommendations. */
  mark(items, recommendations) {
    const ranks = new Map(recommendations.map((one) => [String(one.item_id), one.rank]));
    const missing = this.map.mark(new Set(items.map(String)), ranks);
    const absent = [missing.recommended && `${plural(missing.recommended, "recommendation")}`, missing.history && `${plural(missing.history, "item")} of the history`].filter(Boolean);
    const more = absent.length ? `. Not on the map: ${absent.join(" and ")}` : "";
    if (this.items.length) setText(byId("map-facts"), `${plural(this.items.length, "item")}; near each other: likely for the same people${more}`);
    this.list();
  }

  pick(item) {
    this.picked = item;
    this.map.pick(item);
    const similar = element("div", {});
    byId("map-picked").replaceChildren(
      element("p", { class: "what" }, picture(item), element("span", {}, element("strong", {}, nameOf(item)), item.category ? ` ${item.category}` : "")),
      element("p", { class: "picked-buttons" },
        element("button", { type: "button", onclick: () => this.onAdd(item) }, "What if they take this next"),
        element("button", { type: "button", onclick: () => this.showSimilar(item, similar) }, "Similar items")),
      similar);
  }

  async showSimilar(item, root) {
    try {
      const answer = await this.api.similar(item.item_id, MOST_SIMILAR);
      const rows = (answer.similar ?? answer.items).map((one) => element("li", {}, element("span", { class: "what" }, picture(one), element("span", { class: "title" }, nameOf(one)))));
      root.replaceChildren(element("ol", { class: "similar" }, ...rows));
    } catch (error) {
      root.replaceChildren(element("p", { role: "alert" }, error.message));
    }
  }

  /** What the filter finds; without one, what is marked. */
  list() {
    const text = byId("map-filter").value.trim().toLowerCase();
    const { ranks, history } = this.map;
    const of = (item) => String(item.item_id);
    const found = this.items.filter((item) => text ? `${nameOf(item)} ${item.category ?? ""}`.toLowerCase().includes(text) : ranks.has(of(item)) || history.has(of(item)));
    found.sort((a, b) => (ranks.get(of(a)) ?? Infinity) - (ranks.get(of(b)) ?? Infinity) || 0);
    const rows = found.slice(0, MOST_LISTED).map((item) => {
      const rank = ranks.get(of(item));
      const marks = [item.category, rank && `recommended, rank ${rank}`, history.has(of(item)) && "in the history"].filter(Boolean);
      return element("li", {}, element("button", { type: "button", class: "quiet", onclick: () => this.pick(item) }, nameOf(item)), element("span", { class: "details" }, marks.join(" · ")));
    });
    const rest = found.length > MOST_LISTED ? element("li", { class: "details" }, `and ${found.length - MOST_LISTED} more; narrow the search`) : null;
    const none = found.length ? null : element("li", { class: "details" }, text ? "Nothing on the map contains this." : "Nothing is marked yet. Type to look for items.");
    byId("map-items").replaceChildren(...[...rows, rest, none].filter(Boolean));
  }
}
