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

/** All ids are requested and sent as text: as numbers, those above 2^53 would lose digits here. */
const AS_TEXT = { ids_as_text: true };

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

  users = (prefix, signal) => this.get("users", { prefix, limit: 12, ...AS_TEXT }, signal);
  user = (id, signal) => this.get(`users/${encodeURIComponent(id)}`, AS_TEXT, signal);
  items = (search, limit, signal) => this.get("items", { search, limit, ...AS_TEXT }, signal);
  similar = (id, k) => this.get(`items/${encodeURIComponent(id)}/similar`, { k, ...AS_TEXT });
  map = () => this.get("items/map", AS_TEXT);
  model = () => this.get("model", {});
  /** The picture of an item as a Blob; null where it has none. */
  async picture(id) {
    const response = await fetch(new URL(`items/${encodeURIComponent(id)}/image`, ROOT), { headers: this.authorization, credentials: "same-origin" });
    if (response.ok) return response.blob();
    if (response.status === 404) return null;
    throw new ApiError("The picture cannot be had now.", response.status);
  }

  get authorization() {
    const key = sessionStorage.getItem(STORED_KEY);
    return key === null ? {} : { Authorization: `Bearer ${key}` };
  }

  recommend = (body, signal) => this.request("recommend", { method: "POST", body: JSON.stringify({ ...body, ...AS_TEXT }), signal });

  get(path, parameters, signal) {
    const query = new URLSearchParams(parameters).toString();
    return this.request(query ? `${path}?${query}` : path, { signal });
  }

  async request(path, options) {
    const key = sessionStorage.getItem(STORED_KEY);
    const headers = { Accept: "application/json", ...this.authorization };
    if (options.body) headers["Content-Type"] = "application/json";
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
      return JSON.parse(await response.text());
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
