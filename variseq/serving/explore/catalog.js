// Ids of items, as text of a link, into items with their titles and the ids as the server has them.

const SEARCHES_AT_ONCE = 4;
const OFFERED = 20, LOOKED_THROUGH = 1000;

/** `loaded` is a promise that is waited for before ids are looked up one by one: that of the item map. */
export class Catalog {
  constructor(api) {
    Object.assign(this, { api, known: new Map(), loaded: null });
  }

  learn(items) {
    for (const item of items) this.known.set(String(item.item_id), item);
  }

  async search(text, signal, limit = OFFERED) {
    const { items } = await this.api.items(text, limit, signal);
    this.learn(items);
    return items;
  }

  get(id) {
    return this.known.get(String(id));
  }

  /** An item for each id, in order; what the server does not find is an item that is not known. */
  async find(ids) {
    if (ids.length) await this.loaded;
    const missing = [...new Set(ids.map(String))].filter((id) => !this.known.has(id));
    for (let first = 0; first < missing.length; first += SEARCHES_AT_ONCE) {
      await Promise.all(missing.slice(first, first + SEARCHES_AT_ONCE).map((id) => this.search(id, null, LOOKED_THROUGH)));
    }
    return ids.map((id) => this.known.get(String(id)) ?? { item_id: id, title: null, known: false });
  }
}
