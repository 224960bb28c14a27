// Events of a user, or items chosen one after another, into a history that can be edited, and its edits into a link.

let nextKey = 0;

const FIRST_REAL_TIME = Date.UTC(1971, 0);

/** Milliseconds, or null: a run saved without times has its events a second apart from 1970 on, which is an order only. */
export function realTime(timestamp) {
  const time = timestamp ? Date.parse(timestamp) : NaN;
  return time >= FIRST_REAL_TIME ? time : null;
}

function event(fields) {
  const none = { title: null, time: null, timestamp: null, behavior: null, value: null, known: true, struck: false };
  return { ...none, ...fields, key: `event-${nextKey++}` };
}

/** An event as the API returns it. */
function logged(one) {
  const time = realTime(one.timestamp);
  return event({
    item_id: one.item_id,
    title: one.title ?? null,
    time,
    timestamp: one.timestamp,
    behavior: one.event ?? null,
    value: one.value ?? null,
    known: one.known !== false,
    isReal: true,
  });
}

const supposed = (item) =>
  event({ item_id: item.item_id, title: item.title ?? null, known: item.known !== false, isReal: false });

/** `user` is null for a composed history. `before` is the request for the history before the last edit, or null. */
export class History {
  constructor(user, events) {
    this.user = user;
    this.events = events;
    this.before = null;
  }

  static ofUser = (answer) => new History(answer.user_id, answer.events.map(logged));
  static ofItems = (items) => new History(null, items.map(supposed));

  /** The items that count, oldest first. */
  get items() {
    return this.events.filter((one) => !one.struck).map((one) => one.item_id);
  }

  /** What a request sends: events with their times for a user, bare items where no times are known. */
  get request() {
    return this.asRequest(this.events.filter((one) => !one.struck));
  }

  get realAsked() {
    return this.asRequest(this.events.filter((one) => one.isReal));
  }

  /** An item that was put in takes the time of the event before it, or of the one after. */
  asRequest(events) {
    if (this.user === null) return events.map((one) => one.item_id);
    const first = events.find((one) => one.timestamp)?.timestamp ?? new Date().toISOString();
    let time = first;
    return events.map((one) => {
      time = one.timestamp ?? time;
      return { item_id: one.item_id, timestamp: time, event: one.behavior, value: one.value };
    });
  }

  get isEdited() {
    return this.user !== null && this.events.some((one) => one.struck || !one.isReal);
  }

  get numStruck() {
    return this.events.filter((one) => one.struck).length;
  }

  get numSupposed() {
    return this.events.filter((one) => !one.isReal && !one.struck).length;
  }

  strike(one) {
    this.before = this.request;
    one.struck = !one.struck;
  }

  /** Puts an item after an event, or at the end; returns the new event. */
  insert(item, after = null) {
    this.before = this.request;
    const added = supposed(item);
    const position = after === null ? this.events.length : this.events.indexOf(after) + 1;
    this.events.splice(position, 0, added);
    return added;
  }

  remove(one) {
    this.before = this.request;
    this.events.splice(this.events.indexOf(one), 1);
  }

  undo() {
    this.before = null;
    this.events = this.events.filter((one) => one.isReal);
    for (const one of this.events) one.struck = false;
  }

  /** The edits as parts of a link: numbers of struck events from 1, and what was added after which number. */
  get edits() {
    const without = [];
    const added = [];
    let position = 0;
    for (const one of this.events) {
      if (one.isReal) position += 1;
      if (one.isReal && one.struck) without.push(String(position));
      if (!one.isReal && !one.struck) added.push([position, String(one.item_id)]);
    }
    return { without, added, of: position };
  }

  /** Makes edits of a link again; false where the user's events are no longer those the link was made of. */
  apply({ without, added, of }) {
    if (without.length + added.length === 0) return true;
    const real = [...this.events];
    if (of !== real.length) return false;
    this.before = this.request;
    for (const position of without) if (real[position - 1]) real[position - 1].struck = true;
    for (const [position, item] of added) {
      let index = position === 0 ? 0 : this.events.indexOf(real[position - 1]) + 1;
      while (index < this.events.length && !this.events[index].isReal) index += 1;
      this.events.splice(index, 0, supposed(item));
    }
    return true;
  }

  /** One weight an event, null where the answer gives none. The latest events are those the model attends to. */
  attention(weights) {
    const used = this.events.filter((one) => !one.struck);
    const known = used.filter((one) => one.known);
    const weighed = weights.length === used.length ? used : known;
    const of = new Map(this.events.map((one) => [one.key, null]));
    for (let back = 1; back <= Math.min(weights.length, weighed.length); back += 1) {
      of.set(weighed[weighed.length - back].key, weights[weights.length - back]);
    }
    return of;
  }
}
