// What is looked at into the part of the address after #, and back.

export const SETTINGS = {
  k: "10", category: "", exclude_seen: "", diversity: "0", strategy: "greedy", seed: "0", coverage: "", at: "",
};

const list = (ids) => ids.map((id) => encodeURIComponent(String(id))).join(",");
const unlist = (text) => (text ? text.split(",").map(decode) : []);

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a stray % that somebody typed
  }
}

/** The address part for a history (or null) and settings; what is usual is left out. */
export function written(history, settings) {
  const parts = [];
  if (history?.user !== null && history?.user !== undefined) {
    const { without, added, of } = history.edits;
    parts.push(`user=${encodeURIComponent(String(history.user))}`);
    if (without.length) parts.push(`without=${without.join(",")}`);
    if (added.length) parts.push(`added=${added.map(([position, id]) => `${position}:${encodeURIComponent(id)}`).join(",")}`);
    if (without.length + added.length) parts.push(`of=${of}`);
  } else if (history) {
    parts.push(`history=${list(history.items)}`);
  }
  for (const [name, usual] of Object.entries(SETTINGS)) {
    if (settings[name] !== usual) parts.push(`${name}=${encodeURIComponent(settings[name])}`);
  }
  return parts.length ? `#${parts.join("&")}` : "";
}

/** `user` and `history` are null where the address names none. */
export function read(hash) {
  const pairs = hash.replace(/^#/, "").split("&").map((part) => [part.split("=", 1)[0], part.slice(part.indexOf("=") + 1)]);
  const raw = new Map(pairs.filter(([name]) => name !== ""));
  const settings = { ...SETTINGS };
  for (const name of Object.keys(SETTINGS)) if (raw.has(name)) settings[name] = decode(raw.get(name));
  return {
    user: raw.has("user") ? decode(raw.get("user")) : null,
    history: raw.has("history") ? unlist(raw.get("history")) : null,
    edits: {
      without: unlist(raw.get("without")).map(Number),
      added: (raw.get("added") || "").split(",").filter(Boolean).map((one) => {
        const colon = one.indexOf(":");
        return [Number(one.slice(0, colon)), decode(one.slice(colon + 1))];
      }),
      of: Number(raw.get("of") ?? 0),
    },
    settings,
  };
}
