// Calls the REST API with the key or token of whoever is signed in. It is kept for this tab only, and sent in a header, so that no other
// page can make the browser send it.

const KEY = "triggercast.authorization";
const FOLDER = "triggercast.folder";

/** A call that failed: words for people, the HTTP status, the API's code if it was the API that answered, and what is wrong with which field. */
export class ApiError extends Error {
  constructor(status, message, fields = [], code = undefined) {
    super(message);
    this.status = status;
    this.fields = fields;
    this.code = code;
  }

  /** The server does not have this call; another 404 is of what the call is about. */
  get isAbsent() {
    return this.status === 501 || (this.status === 404 && this.code === undefined);
  }
}

export const session = {
  get authorization() {
    return sessionStorage.getItem(KEY);
  },
  signIn(authorization) {
    sessionStorage.setItem(KEY, authorization);
  },
  signOut() {
    sessionStorage.removeItem(KEY);
    sessionStorage.removeItem(FOLDER);
  },
  get folder() {
    return sessionStorage.getItem(FOLDER) ?? "default";
  },
  set folder(id) {
    sessionStorage.setItem(FOLDER, id);
  },
};

/** What is done when the server no longer knows who calls; app.js sets it. */
export const whenUnknown = { do: () => {} };

/** Longest wait for an answer, in milliseconds. */
const PATIENCE = 20_000;

/** Calls. `path` parts that come from elsewhere must be encoded: see `at`. `authorization` is another than the session's. */
export async function call(verb, path, { query = {}, body, signal, authorization = session.authorization } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const url = given.length ? `${path}?${new URLSearchParams(given)}` : path;
  const headers = { Authorization: authorization ?? "" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(url, {
      method: verb,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)].filter(Boolean)),
      credentials: "omit",
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer.");
  }
  const answer = await said(response);
  if (response.ok) return answer;
  const fields = [answer.details ?? []].flat().flatMap((detail) => detail.fieldViolations ?? []);
  const error = new ApiError(response.status, answer.message ?? `The server answers ${response.status}.`, fields, answer.code);
  if (response.status === 401 && authorization && authorization === session.authorization) whenUnknown.do(error);
  throw error;
}

/** The object that an answer is. One that is broken, or not the API's, is a fault, unless it tells of one anyway. */
async function said(response) {
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  if (answer && typeof answer === "object") return answer;
  if (response.ok) throw new ApiError(0, "The answer cannot be read.");
  return {};
}

/** A path of literal and other parts: at`/a/${id}:pause`. */
export const at = (words, ...ids) => words.reduce((path, word, n) => path + encodeURIComponent(ids[n - 1]) + word);

export const get = (path, query, signal) => call("GET", path, { query, signal });

/** A call that changes something: what it has come to. */
export async function change(verb, path, body) {
  const operation = await call(verb, path, { body });
  if (operation.error) throw new ApiError(400, operation.error.message);
  return operation.response ?? operation;
}

/** All pages of a list, up to 1,000 of what it lists under `name`. */
export async function all(path, query, name, signal) {
  const answer = await get(path, { ...query, pageSize: 1000 }, signal);
  return answer[name] ?? [];
}

/** A gateway's paths, as they are declared, and what they do. */
export const pathsOf = async (gatewayId, signal) => (await get(at`/triggercast/v1/gateways/${gatewayId}/activity`, {}, signal)).paths ?? [];

/** Does something now and again `every` so many milliseconds while the page can be seen, until `signal` ends it. */
export function poll(every, signal, what) {
  let timer;
  let running = false;
  let isAsked = false;
  const turn = async () => {
    clearTimeout(timer);
    if (running) return void (isAsked = true);
    if (signal.aborted || document.hidden) return;
    running = true;
    isAsked = false;
    try {
      await what();
    } catch (error) {
      if (error.name !== "AbortError") console.warn(error);
    } finally {
      running = false;
      // What was asked for meanwhile is about something else than what has been answered.
      if (!signal.aborted) timer = setTimeout(turn, isAsked ? 0 : every);
    }
  };
  document.addEventListener("visibilitychange", turn, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  turn();
  return turn;
}

/** Where WebSockets of a gateway's path are. */
export function socketUrl(gateway, path, query = {}) {
  const [scheme, address] = document.querySelector("meta[name=gateway]").content.split("://");
  const host = address.startsWith(":") ? location.hostname + address : address;
  const url = new URL(`${scheme}://${host}/${encodeURIComponent(gateway)}${path}`);
  for (const [name, value] of Object.entries(query)) if (value) url.searchParams.set(name, value);
  return url;
}
