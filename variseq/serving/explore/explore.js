// The address, and what a person does, into questions to the server; its answers into the page.

import { Api } from "./api.js";
import { AnswerPanel } from "./answerpanel.js";
import { Catalog } from "./catalog.js";
import { combobox } from "./combobox.js";
import { byId, element, errorBox, placeholder, setText } from "./dom.js";
import { History } from "./history.js";
import { HistoryPanel } from "./historypanel.js";
import { askForKey } from "./keydialog.js";
import * as link from "./link.js";
import { MapPanel } from "./mappanel.js";
import { showModel } from "./modelhealth.js";
import { showPictures } from "./pictures.js";
import { Settings } from "./settings.js";
import { nameOf, plural } from "./words.js";

const MOST_OFFERED = 6;

class Explorer {
  constructor() {
    this.api = new Api(askForKey);
    this.catalog = new Catalog(this.api);
    this.history = null;
    this.insertAfter = null;
    this.opening = null;
    this.mapPanel = new MapPanel(this.api, (item) => this.add(item));
    this.historyPanel = new HistoryPanel({
      strike: (event) => this.edit(() => this.history.strike(event)),
      remove: (event) => this.edit(() => this.history.remove(event)),
      insertAfter: (event) => this.aimAt(event),
    });
    this.settings = new Settings(byId("settings-form"), byId("settings-words"), () => this.ask());
    this.answer = new AnswerPanel(this.api, {
      onMark: (one) => this.mark(one),
      onAdd: (item) => this.add(item),
      onAnswer: (answer) => this.answered(answer),
    });
    this.connect();
  }

  connect() {
    const items = async (text, signal) => (await this.catalog.search(text, signal)).map((item) => ({ ...item, label: nameOf(item), detail: String(item.item_id) }));
    const users = async (text, signal) => (await this.api.users(text, signal)).users.map((id) => ({ id, label: String(id) }));
    combobox({
      input: byId("user-input"), options: byId("user-options"), hint: byId("user-hint"), search: users,
      choose: ({ id }) => this.openUser(id), enter: (text) => this.openUser(text),
      empty: (text) => (text ? `No user id starts with ${text}.` : "No users yet: no events were sent."),
    });
    combobox({
      input: byId("item-input"), options: byId("item-options"), hint: byId("item-hint"), search: items,
      choose: (item) => this.add(item, this.insertAfter),
      empty: (text) => (text ? `Nothing is called ${text}.` : "The catalog is empty."),
    });
    byId("undo-edits").addEventListener("click", () => {
      this.edit(() => this.history.undo());
      byId("history-heading").focus();
    });
    byId("start-over").addEventListener("click", () => {
      this.close();
      byId("user-input").focus();
    });
    byId("reload").addEventListener("click", () => this.reload());
    byId("copy-link").addEventListener("click", () => this.copyLink());
    byId("against").addEventListener("change", () => this.ask());
    byId("forget-key").addEventListener("click", () => {
      this.api.forgetKey();
      location.reload();
    });
    addEventListener("popstate", () => this.restore());
  }

  async start() {
    byId("map-message").replaceChildren(placeholder(4));
    byId("model-message").replaceChildren(placeholder(4));
    this.loadModel();
    this.catalog.loaded = this.loadMap();
    await this.restore();
  }

  async loadMap() {
    const show = (...nodes) => byId("map-message").replaceChildren(...nodes);
    try {
      const { items, clusters } = await this.api.map();
      show();
      this.catalog.learn(items);
      this.settings.offerCategories(this.mapPanel.load(items, clusters));
      this.mapPanel.mark(this.history?.items ?? [], this.answer.list);
    } catch (error) {
      show(errorBox(error.message, () => this.loadMap()));
    }
  }

  async loadModel() {
    const show = (...nodes) => byId("model-message").replaceChildren(...nodes);
    try {
      const health = await this.api.model();
      show();
      if (health.has_images) showPictures((id) => this.api.picture(id));
      this.answer.numItems = health.network?.num_items ?? null;
      const gap = health.visit_gap_seconds ?? null;
      this.historyPanel.setVisits(gap === null ? null : gap * 1000);
      showModel(byId("model-body"), health);
    } catch (error) {
      show(errorBox(error.message, () => this.loadModel()));
    }
    byId("forget-key").hidden = !this.api.hasKey;
  }

  /** What the address says. */
  async restore() {
    const { user, history, edits, settings } = link.read(location.hash);
    this.settings.set(settings);
    if (user !== null) await this.openUser(user, edits);
    else if (history !== null) await this.openItems(history);
    else this.close();
  }

  async openUser(id, edits = null) {
    await this.load(`User ${id}`, () => this.api.user(id), async (answer) => {
      const history = History.ofUser(answer);
      if (!edits) return [history, null];
      const items = await this.catalog.find(edits.added.map(([, item]) => item));
      const added = edits.added.map(([place], index) => [place, items[index]]);
      const words = "The history has grown since this link was made, so its edits are left out.";
      return [history, history.apply({ ...edits, added }) ? null : words];
    });
  }

  async openItems(ids) {
    await this.load("Composed", () => this.catalog.find(ids), async (items) => [History.ofItems(items), null]);
  }

  /** Opens what is fetched; where another is opened meanwhile, that one stays. */
  async load(what, fetched, made) {
    setText(byId("history-facts"), what);
    const opening = (this.opening = {});
    this.answer.forget();
    byId("history-body").hidden = true;
    byId("history-message").replaceChildren(placeholder(5));
    try {
      const [history, notice] = await made(await fetched());
      if (opening !== this.opening) return;
      byId("history-message").replaceChildren(...(notice ? [element("p", { class: "notice" }, notice)] : []));
      this.open(history);
    } catch (error) {
      if (opening !== this.opening) return;
      const isPassing = error.status === 0 || error.status === 429 || error.status >= 500;
      this.close(errorBox(error.message, isPassing ? () => this.load(what, fetched, made) : null));
      setText(byId("history-facts"), what);
    }
  }

  open(history) {
    this.history = history;
    this.historyPanel.weights = new Map();
    this.historyPanel.open(history);
    this.aimAt(null);
    this.changed();
  }

  /** Nothing is looked at; what there is to say stands where the history would. */
  close(message = null) {
    this.history = null;
    this.opening = null;
    this.answer.forget();
    for (const id of ["history-body", "what-if", "reload", "start-over"]) byId(id).hidden = true;
    setText(byId("history-facts"), "");
    byId("history-message").replaceChildren(...(message ? [message] : []), this.welcome());
    this.aimAt(null);
    this.mapPanel.mark([], []);
    if (message === null) window.history.replaceState(null, "", location.pathname + location.search + link.written(null, this.settings.values));
  }

  welcome() {
    const some = element("div", { class: "picked-buttons" });
    this.api.users("").then(({ users }) => some.replaceChildren(...users.slice(0, MOST_OFFERED).map((id) =>
      element("button", { type: "button", onclick: () => this.openUser(id) }, `User ${id}`)))).catch(() => {});
    return element("div", { class: "welcome" },
      element("p", {}, "Find a user by the start of the id, or compose a history: search for titles and choose one after another."),
      element("p", { class: "fine" }, "Every event can then be struck out and items added, and the list is made again at once."),
      some,
      element("button", { type: "button", class: "quiet", onclick: () => this.open(History.ofItems([])) }, "Start with an empty history"));
  }

  async reload() {
    const { user } = this.history;
    const before = this.answer.first;
    const num = this.history.events.length;
    await this.openUser(user);
    if (this.history?.user === user && this.history.events.length !== num) this.ask(before);
  }

  edit(change) {
    change();
    this.historyPanel.show(null);
    this.changed();
  }

  /** Puts an item at the end of the history, or after an event. */
  add(item, after = null) {
    byId("history-message").replaceChildren();
    if (this.history === null) this.open(History.ofItems([]));
    this.edit(() => {
      const added = this.history.insert(item, after);
      if (after !== null) this.insertAfter = added;
    });
  }

  /** The next item that is chosen goes after this event; null: at the end. */
  aimAt(event) {
    this.insertAfter = event;
    const place = event ? this.history.events.indexOf(event) + 1 : 0;
    const usual = this.history === null ? "Compose a history" : "Add an item (what if)";
    setText(byId("between"), this.history === null ? "or" : "then");
    setText(byId("item-label"), event ? `Add an item after event ${place}, ${nameOf(event)}` : usual);
    if (event) byId("item-input").focus();
  }

  changed() {
    const { history: now } = this;
    if (this.insertAfter && !now.events.includes(this.insertAfter)) this.aimAt(null);
    else if (!this.insertAfter) this.aimAt(null);
    byId("reload").hidden = now.user === null || now.isEdited;
    byId("start-over").hidden = false;
    byId("what-if").hidden = !now.isEdited;
    const parts = [now.numStruck && `${plural(now.numStruck, "event")} struck out`, now.numSupposed && `${plural(now.numSupposed, "item")} added`];
    setText(byId("what-if-text"), `What if: ${parts.filter(Boolean).join(" and ")}.`);
    this.ask();
  }

  ask(shownBefore = null) {
    const address = location.pathname + location.search + link.written(this.history, this.settings.values);
    const isOther = link.read(location.hash).user !== (this.history?.user === null || !this.history ? null : String(this.history.user));
    window.history[isOther ? "pushState" : "replaceState"](null, "", address);
    if (this.history) this.answer.ask(this.history, this.settings.question, shownBefore);
  }

  answered(answer) {
    this.historyPanel.show(answer?.attention ?? []);
    this.mapPanel.mark(this.history.items, this.answer.list);
    byId("forget-key").hidden = !this.api.hasKey;
  }

  /** Marks the events that are the reasons of a recommendation. */
  mark(one) {
    if (!this.history) return;
    const reasons = new Set(one?.reasons ?? []);
    const events = this.history.events.filter((event) => !event.struck && reasons.has(nameOf(event)));
    this.historyPanel.mark(new Set(events.map((event) => event.key)));
    this.mapPanel.map.connect(one?.item_id ?? null, events.map((event) => String(event.item_id)));
  }

  async copyLink() {
    const button = byId("copy-link");
    try {
      await navigator.clipboard.writeText(location.href);
      setText(button, "Link copied");
    } catch {
      setText(button, "Copy the address above");
    }
    setTimeout(() => setText(button, "Copy link"), 2500);
  }
}

new Explorer().start();
