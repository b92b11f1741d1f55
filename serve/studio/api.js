import { readEvents } from "./events.js";

/** A reply that is no success, or none at all (`status` 0). `message` says what to do. */
export class ApiError extends Error {
  constructor({ kind, message, request_id: requestId = "" }, status = 0, retrySeconds = 0) {
    super(message);
    Object.assign(this, { kind, requestId, status, retrySeconds });
  }
}

export const unreachable = () =>
  new ApiError({
    kind: "Unreachable",
    message: "the service does not answer. Check that it runs and that you are connected, then try again",
  });

async function ask(url, options) {
  let reply;
  try {
    reply = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  if (reply.ok) return reply;
  const body = await reply.json().catch(() => null);
  const told = body?.error ?? {
    kind: "HTTPError",
    message: `the service answered with status ${reply.status}. Try again`,
  };
  throw new ApiError(told, reply.status, Number(reply.headers.get("retry-after")) || 0);
}

/** The preset that this page's address names; "" for the service's first, or where it has none. */
const preset = new URLSearchParams(location.search).get("preset") ?? "";

const ofPreset = (path) => (preset ? `${path}?preset=${encodeURIComponent(preset)}` : path);

export const models = async () => (await ask(ofPreset("/v1/models"))).json();

export const pictureUrl = (seed) => ofPreset(`/v1/pictures/${seed}`);

export const sample = async (url, signal) => (await ask(url, { signal })).blob();

export async function listen(sound, top, signal) {
  const form = new FormData();
  form.append("audio", sound);
  form.append("top", top);
  if (preset) form.append("preset", preset);
  return (await ask("/v1/listen", { method: "POST", body: form, signal })).json();
}

/** Begin an edit and read its events. The same `key` never begins it twice. */
export async function begin(form, key, signal) {
  const headers = { Accept: "text/event-stream", "Idempotency-Key": key };
  if (preset) form.append("preset", preset);
  return readEvents(await ask("/v1/edits", { method: "POST", body: form, headers, signal }));
}

/** Read the events of an edit after the one numbered `after` (-1: all). */
export async function watch(id, after, signal) {
  const headers = { Accept: "text/event-stream" };
  if (after >= 0) headers["Last-Event-ID"] = String(after);
  return readEvents(await ask(`/v1/edits/${encodeURIComponent(id)}`, { headers, signal }));
}

export const cancel = (id) => ask(`/v1/edits/${encodeURIComponent(id)}`, { method: "DELETE", keepalive: true });
