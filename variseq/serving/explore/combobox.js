// A text field and a search into suggestions that are chosen by mouse or keyboard.

import { element, setAttribute, setText } from "./dom.js";

const PAUSE_MILLISECONDS = 120;

/**
 * Connects `input`, its `options` list and its `hint`. `search(text, signal)` promises [{label, detail, ...}],
 * `choose(option)` gets the chosen option, `enter(text)` (if given) the text that was entered without choosing.
 */
export function combobox({ input, options, hint, search, choose, enter, empty }) {
  let found = [];
  let active = -1;
  let timer = 0;
  let waiting = null;

  function close() {
    clearTimeout(timer);
    waiting?.abort();
    options.hidden = true;
    active = -1;
    setAttribute(input, "aria-expanded", "false");
    setAttribute(input, "aria-activedescendant", null);
  }

  function activate(position) {
    active = position;
    [...options.children].forEach((row, index) => setAttribute(row, "aria-selected", index === position ? "true" : "false"));
    const row = options.children[position];
    setAttribute(input, "aria-activedescendant", row?.id ?? null);
    row?.scrollIntoView({ block: "nearest" });
  }

  function take(position) {
    const option = found[position];
    close();
    input.value = "";
    setText(hint, "");
    choose(option);
  }

  function row(option, position) {
    const detail = option.detail && element("span", { class: "detail" }, option.detail);
    const attributes = { role: "option", id: `${options.id}-${position}`, "aria-selected": "false" };
    return element("li", {
      ...attributes,
      onmousedown: (press) => press.preventDefault(),
      onclick: () => take(position),
    }, element("span", {}, option.label), detail);
  }

  function show(list) {
    found = list;
    active = -1;
    options.replaceChildren(...list.map(row));
    options.hidden = list.length === 0;
    setAttribute(input, "aria-expanded", list.length ? "true" : "false");
    setAttribute(input, "aria-activedescendant", null);
    setText(hint, list.length ? "" : empty(input.value.trim()));
  }

  async function look() {
    waiting?.abort();
    waiting = new AbortController();
    const { signal } = waiting;
    try {
      const list = await search(input.value.trim(), signal);
      if (!signal.aborted && document.activeElement === input) show(list);
    } catch (error) {
      if (error.name === "AbortError" || signal.aborted) return;
      close();
      setText(hint, error.message);
    }
  }

  async function pressEnter() {
    const text = input.value.trim();
    if (active >= 0) take(active);
    else if (enter && text) {
      close();
      input.value = "";
      enter(text);
    } else if (text) {
      clearTimeout(timer);
      await look();
      if (found.length) take(0);
    }
  }

  const moves = { ArrowDown: 1, ArrowUp: -1 };
  input.addEventListener("keydown", (press) => {
    if (press.key in moves) {
      press.preventDefault();
      if (options.hidden) look();
      else if (active < 0) activate(press.key === "ArrowUp" ? found.length - 1 : 0);
      else activate((active + moves[press.key] + found.length) % found.length);
    } else if (press.key === "Enter") {
      press.preventDefault();
      pressEnter();
    } else if (press.key === "Escape") close();
  });
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, PAUSE_MILLISECONDS);
  });
  input.addEventListener("focus", look);
  input.addEventListener("click", () => options.hidden && look());
  input.addEventListener("blur", close);

  const roles = { role: "combobox", "aria-expanded": "false", "aria-autocomplete": "list", "aria-controls": options.id };
  for (const [name, value] of Object.entries(roles)) setAttribute(input, name, value);
  setAttribute(options, "role", "listbox");
  setAttribute(options, "tabindex", -1); // what scrolls would otherwise be a stop of the tab key
  setAttribute(options, "aria-label", "Suggestions");
}
