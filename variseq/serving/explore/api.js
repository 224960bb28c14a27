// Questions into requests to /v1 of the same server, and answers or errors back.

const ROOT = new URL("../v1/", import.meta.url);
const STORED_KEY = "variseq-key";

/** What the server, or the way to it, says went wrong. `status` is 0 where no answer came. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Ids beyond 2^53 stay exact: they are read as BigInt from the text of the answer. */
export function parse(text) {
  return JSON.parse(text, (name, value, context) => {
    const isTooLarge = typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value);
    return isTooLarge && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;
  });
}

/** The reverse of `parse`. */
export function write(body) {
  return JSON.stringify(body, (name, value) => {
    if (typeof value !== "bigint") return value;
    return JSON.rawJSON ? JSON.rawJSON(String(value)) : Number(value);
  });
}

export class Api {
  /** `askForKey(message)` promises a key, or null where none is given. */
  constructor(askForKey) {
    this.askForKey = askForKey;
    this.asking = null;
  }

  get hasKey() {
    return sessionStorage.getItem(STORED_KEY) !== null;
  }

  forgetKey() {
    sessionStorage.removeItem(STORED_KEY);
  }

  users = (prefix, signal) => this.get("users", { prefix, limit: 12 }, signal);
  user = (id, signal) => this.get(`users/${encodeURIComponent(String(id))}`, {}, signal);
  items = (search, limit, signal) => this.get("items", { search, limit }, signal);
  similar = (id, k) => this.get(`items/${encodeURIComponent(String(id))}/similar`, { k });
  map = () => this.get("items/map", {});
  model = () => this.get("model", {});
  recommend = (body, signal) => this.request("recommend", { method: "POST", body: write(body), signal });

  get(path, parameters, signal) {
    const query = new URLSearchParams(parameters).toString();
    return this.request(query ? `${path}?${query}` : path, { signal });
  }

  async request(path, options) {
    const key = sessionStorage.getItem(STORED_KEY);
    const headers = { Accept: "application/json" };
    if (options.body) headers["Content-Type"] = "application/json";
    if (key !== null) headers.Authorization = `Bearer ${key}`;
    const response = await this.send(path, { ...options, headers });
    const content = await this.content(response);
    if (response.ok) return content;
    const message = content?.error?.message ?? `The server answered ${response.status} without saying why.`;
    if (response.status === 401 && (await this.newKey(message, key))) return this.request(path, options);
    throw new ApiError(message, response.status);
  }

  async send(path, options) {
    try {
      return await fetch(new URL(path, ROOT), { ...options, cache: "no-store", credentials: "same-origin" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server does not answer. See that it is running, then try again.", 0);
    }
  }

  async content(response) {
    try {
      return parse(await response.text());
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (response.ok) throw new ApiError("The server's answer could not be read.", response.status);
      return null;
    }
  }

  /** Asks once for all requests that wait for a key; true where there is another one than `refused`. */
  async newKey(message, refused) {
    if (sessionStorage.getItem(STORED_KEY) !== refused) return true;
    this.asking ??= this.askForKey(message).finally(() => (this.asking = null));
    const key = await this.asking;
    if (key === null) return false;
    sessionStorage.setItem(STORED_KEY, key);
    return true;
  }
}
