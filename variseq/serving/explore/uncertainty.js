// The uncertainty of an answer into a sentence and a bar.

import { element } from "./dom.js";
import { equallyLikely, plain, whole } from "./words.js";

/** `numItems` is the size of the catalog, or null where it is not known. */
export function showUncertainty(root, { total, aleatoric, epistemic }, numItems) {
  const most = Math.max(numItems ? Math.log(numItems) : 0, total, 1e-9);
  const sentence = element("p", { class: "sentence" },
    "As uncertain as a choice among ", element("strong", {}, equallyLikely(total)), " equally likely items",
    numItems ? ` of ${whole(numItems)}. ` : ". ",
    element("span", { class: "fine" }, `Knowing this person fully would leave ${equallyLikely(aleatoric)}.`));
  const parts = [
    ["aleatoric", aleatoric, "stays however well this person is known"],
    ["epistemic", epistemic, "goes as this person becomes better known"],
  ];
  const bar = element("div", { class: "split", "aria-hidden": "true" }, ...parts.map(([name, nats]) => {
    const part = element("span", { class: name });
    part.style.width = `${(100 * Math.max(nats, 0)) / most}%`;
    return part;
  }));
  const rows = parts.map(([name, nats, words]) =>
    element("div", {}, element("dt", {}, element("span", { class: `key ${name}` }), name), element("dd", {}, `${plain(nats)} nats, ${words}`)));
  root.replaceChildren(sentence, bar, element("dl", {},
    element("div", {}, element("dt", {}, "total"), element("dd", {}, `${plain(total)} nats`, numItems ? ` of at most ${plain(Math.log(numItems))}` : null)), ...rows));
}
