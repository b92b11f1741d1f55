import * as api from "./api.js";

const TRIES = 5; // a server that restarts is back, or the edit is lost, by then
const PAUSE_MS = 700;
const RESTART_SECONDS = 5;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** One edit on the server: begun or found again, followed to its end over broken lines, cancelled. */
export class Run {
  #stop = new AbortController();
  #last = -1;
  #id;
  #makeForm;
  #key;

  /** `makeForm`: gives what to ask for; `id`: of the edit if it runs already. */
  constructor(makeForm, id) {
    this.#makeForm = makeForm;
    this.#id = id;
    this.#key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
      byte.toString(16).padStart(2, "0"),
    ).join("");
  }

  get cancelled() {
    return this.#stop.signal.aborted;
  }

  /** Call `onEvent` with each event and return the result. Throws ApiError; may be called again after one. */
  async follow(onEvent) {
    for (let failures = 0; failures < TRIES; failures++) {
      try {
        for await (const event of await this.#open()) {
          failures = 0;
          this.#last = Math.max(this.#last, event.number);
          if (event.kind === "error") throw this.#ended(event.data.error);
          if (event.kind === "begun") this.#id = event.data.id;
          onEvent(event);
          if (event.kind === "result") return event.data;
        }
      } catch (error) {
        const lineBroke = !(error instanceof api.ApiError) || error.kind === "Unreachable";
        if (this.cancelled || !lineBroke) throw error;
        if (!this.#id) throw api.unreachable();
      }
      await pause(PAUSE_MS);
    }
    throw new api.ApiError({ kind: "Lost", message: "the connection to this edit is lost. Begin it again" });
  }

  async cancel() {
    this.#stop.abort();
    if (this.#id) await api.cancel(this.#id).catch(() => {}); // it ended meanwhile, or ends when nobody watches
  }

  async #open() {
    const { signal } = this.#stop;
    return this.#id ? api.watch(this.#id, this.#last, signal) : api.begin(await this.#makeForm(), this.#key, signal);
  }

  /** An edit that ended in an error is begun anew when asked again, by itself where its process was lost. */
  #ended(error) {
    this.#id = undefined;
    this.#last = -1;
    return new api.ApiError(error, 0, error.kind === "Unavailable" ? RESTART_SECONDS : 0);
  }
}
