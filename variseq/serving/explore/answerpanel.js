// A history and settings into questions to the server, and answers into what the recommendations card shows.

import { compare } from "./changes.js";
import { byId, element, errorBox, placeholder, setText } from "./dom.js";
import { realTime } from "./history.js";
import { Recommendations, showChanges } from "./recommendations.js";
import { showUncertainty } from "./uncertainty.js";
import { ago, plural } from "./words.js";

const WAIT_MILLISECONDS = 200;

export class AnswerPanel {
  /** `onMark` and `onAdd` are those of Recommendations; `onAnswer(answer)` when a first page is shown, of null when none is. */
  constructor(api, { onMark, onAdd, onAnswer }) {
    Object.assign(this, { api, onAnswer, turn: null, list: [], first: [], last: null, numItems: null });
    this.rows = new Recommendations(byId("recommendations"), byId("gone"), { onMark, onAdd });
    byId("more").addEventListener("click", () => this.more());
    this.forget();
  }

  forget() {
    this.turn?.abort();
    Object.assign(this, { list: [], last: null });
    setText(byId("answer-facts"), "");
    byId("answer-body").hidden = true;
    byId("answer-message").replaceChildren(element("p", { class: "fine" }, "Recommendations stand here as soon as there is a history."));
  }

  /** Only the latest request is answered. `shownBefore` is a list to compare with in place of what an edit asks for. */
  async ask(history, settings, shownBefore = null) {
    this.turn?.abort();
    const { signal } = (this.turn = new AbortController());
    const waiting = setTimeout(() => this.wait(), WAIT_MILLISECONDS);
    const isReal = history.user !== null && !history.isEdited;
    const who = isReal ? { user_id: history.user } : { history: history.request };
    const against = shownBefore ? null : this.against(history);
    this.request = { ...settings, ...who };
    this.struck = new Set(history.events.filter((event) => event.struck).map((event) => String(event.item_id)));
    try {
      const [answer, before] = await Promise.all([
        this.api.recommend(this.request, signal),
        against && this.api.recommend({ ...settings, history: against }, signal),
      ]);
      if (!signal.aborted) this.show(answer, shownBefore ?? before?.recommendations ?? null);
    } catch (error) {
      if (error.name === "AbortError" || signal.aborted) return;
      this.fail(error, () => this.ask(history, settings, shownBefore));
    } finally {
      clearTimeout(waiting);
      if (!signal.aborted) byId("answer-body").removeAttribute("aria-busy");
    }
  }

  /** Shows an error; to send the same request again helps only where the server was busy or away. */
  fail(error, again) {
    const isPassing = error.status === 0 || error.status === 429 || error.status >= 500;
    this.list = [];
    byId("answer-body").hidden = true;
    setText(byId("answer-facts"), "");
    byId("answer-message").replaceChildren(errorBox(error.message, isPassing ? again : null));
    this.onAnswer(null);
  }

  /** The items whose list an edit is compared with, or null where nothing was edited. */
  against(history) {
    byId("compare").hidden = !history.isEdited;
    return history.isEdited && byId("against").value === "real" ? history.realAsked : history.before;
  }

  wait() {
    byId("answer-body").setAttribute("aria-busy", "true");
    if (byId("answer-body").hidden) byId("answer-message").replaceChildren(placeholder(8));
  }

  show(answer, before) {
    this.last = answer;
    this.first = this.list = answer.recommendations;
    this.changes = before && compare(before, this.list);
    const fallback = answer.fallback ? element("p", { class: "notice" }, sentence(answer.fallback)) : null;
    const none = this.list.length ? null : element("p", { class: "notice" }, "No item is left to recommend. Allow more: another category, or items of the history.");
    byId("answer-message").replaceChildren(...[fallback, none].filter(Boolean));
    byId("answer-body").hidden = false;
    setText(byId("answer-facts"), facts(answer));
    const tag = byId("model-tag");
    setText(tag, `Model ${answer.model_version}`);
    tag.hidden = false;
    showUncertainty(byId("uncertainty"), answer.uncertainty, this.numItems);
    showChanges(byId("changes"), this.changes?.words);
    this.showRows();
    this.onAnswer(answer);
  }

  showRows() {
    this.rows.show(this.list, this.changes, this.struck);
    byId("more").hidden = !this.last.next_page;
  }

  async more() {
    const { signal } = this.turn;
    try {
      const answer = await this.api.recommend({ ...this.request, page: this.last.next_page }, signal);
      this.last = answer;
      this.list = [...this.list, ...answer.recommendations];
      this.changes = null;
      this.showRows();
    } catch (error) {
      if (error.name !== "AbortError") byId("answer-message").replaceChildren(errorBox(error.message, null));
    }
  }
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!]$/.test(text) ? "" : "."}`;

function facts(answer) {
  const age = answer.latest_event_age_seconds;
  return [
    `from ${plural(answer.num_events_used, "event")}`,
    answer.num_unknown_items ? `${plural(answer.num_unknown_items, "event")} not in the catalog left out` : null,
    typeof age === "number" && realTime(answer.latest_event) !== null ? `the latest ${ago(Math.max(age, 0))}` : null,
    answer.approximate ? "approximate: an index chose the candidates" : null,
  ].filter(Boolean).join(", ");
}
