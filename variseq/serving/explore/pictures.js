// Pictures of items, drawn when they come into view. An <img> sends no key, so they are fetched and drawn on a canvas.

import { element } from "./dom.js";

const MOST_KEPT = 500, SHARPEST = 3;

const kept = new Map();
let fetchPicture = null;

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    draw(target);
  }
});

/** Of a fixed size and without a name: the title stands beside it. Before `showPictures` it is hidden and not fetched. */
export function picture(item) {
  const canvas = element("canvas", { class: "picture", "aria-hidden": "true" });
  canvas.itemId = String(item.item_id);
  seen.observe(canvas);
  return canvas;
}

/** `fetched(id)` promises a Blob, or null where an item has no picture. */
export function showPictures(fetched) {
  fetchPicture = fetched;
  document.body.classList.add("has-pictures");
}

async function draw(canvas) {
  const side = canvas.clientWidth * Math.min(window.devicePixelRatio || 1, SHARPEST);
  const bitmap = await bitmapOf(canvas.itemId, side);
  if (bitmap === null) return;
  canvas.width = canvas.height = side;
  const scale = side / Math.max(bitmap.width, bitmap.height);
  const [width, height] = [scale * bitmap.width, scale * bitmap.height];
  canvas.getContext("2d").drawImage(bitmap, (side - width) / 2, (side - height) / 2, width, height);
}

/** Kept, so that a list that is made again asks for nothing; what failed is asked for again, what is missing is not. */
function bitmapOf(id, height) {
  if (kept.size >= MOST_KEPT) kept.clear();
  if (!kept.has(id)) kept.set(id, decoded(id, Math.ceil(height)));
  return kept.get(id);
}

async function decoded(id, height) {
  try {
    const blob = await fetchPicture(id);
    return blob && (await createImageBitmap(blob, { resizeHeight: height, resizeQuality: "high" }));
  } catch {
    kept.delete(id);
    return null;
  }
}
