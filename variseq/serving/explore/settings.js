// The controls of a list into the fields of a question.

import { element, setText } from "./dom.js";
import { SETTINGS } from "./link.js";
import { plural } from "./words.js";

const SEEN = [["", "as the log suggests"], ["true", "leave out"], ["false", "may come again"]];
const STRATEGIES = [["greedy", "what is likeliest"], ["softmax", "a draw with known propensities"], ["thompson", "one draw of the posterior"]];
const COVERAGES = [["", "off"], ["0.5", "holds the next in 50 %"], ["0.8", "in 80 %"], ["0.9", "in 90 %"], ["0.95", "in 95 %"], ["0.99", "in 99 %"]];
const PAUSE_MILLISECONDS = 150;

export class Settings {
  constructor(form, words, onChange) {
    Object.assign(this, { form, words, onChange, values: { ...SETTINGS }, timer: 0 });
    this.categories = element("datalist", { id: "category-names" });
    form.append(...this.fields(), this.categories);
    form.addEventListener("submit", (press) => press.preventDefault());
    form.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.take(), PAUSE_MILLISECONDS);
    });
    this.set(SETTINGS);
  }

  fields() {
    const options = (list) => list.map(([value, words]) => element("option", { value }, words));
    const again = element("button", { type: "button", class: "quiet", onclick: () => this.drawAgain() }, "Draw again");
    this.spread = element("output", { for: "set-diversity" });
    return [
      field("Number of items", element("input", { id: "set-k", name: "k", type: "number", min: 1, max: 1000, step: 1, required: true })),
      field("Category", element("input", { id: "set-category", name: "category", type: "text", list: "category-names", placeholder: "any", autocomplete: "off" })),
      field("Items in the history", element("select", { id: "set-exclude_seen", name: "exclude_seen" }, ...options(SEEN))),
      field(["Diversity ", this.spread], element("input", { id: "set-diversity", name: "diversity", type: "range", min: 0, max: 1, step: 0.05 })),
      field("Order by", element("select", { id: "set-strategy", name: "strategy" }, ...options(STRATEGIES))),
      field("Seed of the draw", element("input", { id: "set-seed", name: "seed", type: "number", min: 0, step: 1, required: true }), again),
      field("Set instead of a list", element("select", { id: "set-coverage", name: "coverage" }, ...options(COVERAGES))),
      field("Wanted at", element("input", { id: "set-at", name: "at", placeholder: "now, 2026-11-24T08:00Z" })),
      element("p", { class: "usual" }, element("button", { type: "button", class: "quiet", onclick: () => this.reset() }, "Usual settings")),
    ];
  }

  offerCategories(names) {
    this.categories.replaceChildren(...names.map((name) => element("option", { value: name })));
  }

  /** Shows values, as of a link, without telling anybody. */
  set(values) {
    for (const name of Object.keys(SETTINGS)) this.fill(name, values[name]);
    this.read();
  }

  /** A value that the control does not take, as of a mistyped link, becomes the usual one. */
  fill(name, value) {
    const input = this.form.elements[name];
    input.value = value;
    if (input.value !== value || !input.checkValidity()) input.value = SETTINGS[name];
  }

  reset() {
    this.set(SETTINGS);
    this.onChange();
  }

  drawAgain() {
    this.form.elements.seed.value = String(Number(this.values.seed) + 1);
    this.take();
  }

  take() {
    if (!this.form.reportValidity()) return;
    this.read();
    this.onChange();
  }

  read() {
    const inputs = this.form.elements;
    this.values = Object.fromEntries(Object.keys(SETTINGS).map((name) => [name, inputs[name].value.trim()]));
    const isSet = this.values.coverage !== "";
    for (const name of ["k", "strategy"]) inputs[name].disabled = isSet; // a set has no number and no other order
    inputs.diversity.disabled = isSet || this.values.strategy === "softmax"; // it would change the propensities
    const isDrawn = this.values.strategy !== "greedy";
    inputs.seed.disabled = isSet || !isDrawn;
    inputs.seed.parentElement.hidden = !isDrawn;
    setText(this.spread, this.values.diversity);
    setText(this.words, this.inWords());
  }

  inWords() {
    const { k, category, exclude_seen: seen, diversity, strategy, seed, coverage, at } = this.values;
    const first = coverage ? `the smallest set that holds the next item in ${Math.round(coverage * 100)} % of cases` : plural(Number(k), "item");
    const parts = [first, category && `in ${category}`, at && `wanted at ${at}`, seen && `history: ${SEEN.find(([value]) => value === seen)[1]}`];
    if (!coverage && strategy !== "softmax") parts.push(Number(diversity) > 0 && `diversity ${diversity}`);
    if (!coverage && strategy !== "greedy") parts.push(`${strategy === "softmax" ? "softmax" : "posterior"} draw ${seed}`);
    return parts.filter(Boolean).join(", ");
  }

  /** The fields of a request; what is usual is left to the server. */
  get question() {
    const { k, category, exclude_seen: seen, diversity, strategy, seed, coverage, at } = this.values;
    const asked = { attention: true, log_exposure: false };
    if (category) asked.categories = [category];
    if (at) asked.at = at;
    if (seen) asked.exclude_seen = seen === "true";
    if (coverage) return { ...asked, conformal_level: Number(coverage) };
    asked.k = Number(k);
    if (Number(diversity) > 0 && strategy !== "softmax") asked.diversity = Number(diversity);
    asked.strategy = strategy; // not that of the server, which may draw
    if (strategy !== "greedy") asked.seed = Number(seed);
    return asked;
  }
}

function field(label, input, more = null) {
  return element("div", { class: "field" }, element("label", { for: input.id }, ...[label].flat()), input, more);
}
