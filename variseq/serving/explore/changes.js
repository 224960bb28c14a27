// Two lists of recommendations into what moved between them.

import { plural, nameOf } from "./words.js";

/** `of` holds a change for each item of the new list, `gone` the items of the old list that are not in the new. */
export function compare(before, after) {
  const old = new Map(before.map((one) => [String(one.item_id), one]));
  const now = new Set(after.map((one) => String(one.item_id)));
  const of = new Map(after.map((one) => [String(one.item_id), change(old.get(String(one.item_id)), one)]));
  const gone = before.filter((one) => !now.has(String(one.item_id)));
  return { of, gone, words: words([...of.values()], gone.length, before[0], after[0]) };
}

function change(old, one) {
  if (!old) return { kind: "new", places: 0, from: null, before: null };
  const places = old.rank - one.rank;
  return { kind: places > 0 ? "up" : places < 0 ? "down" : "same", places, from: old.rank, before: old.probability };
}

function words(changes, numGone, oldFirst, newFirst) {
  const count = (kind) => changes.filter((one) => one.kind === kind).length;
  const parts = [
    [count("new"), `${count("new")} new`],
    [numGone, `${numGone} gone`],
    [count("up"), `${count("up")} up`],
    [count("down"), `${count("down")} down`],
  ];
  const summaries = parts.filter(([number]) => number > 0).map(([, text]) => text);
  if (!summaries.length) return `The same ${plural(changes.length, "item")} in the same order.`;
  const isNewFirst = newFirst && String(oldFirst?.item_id) !== String(newFirst.item_id);
  return `${summaries.join(", ")}.${isNewFirst ? ` Now first: ${nameOf(newFirst)}.` : ""}`;
}
