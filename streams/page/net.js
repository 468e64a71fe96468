// Asking the worker: with the token where it wants one, streams by fetch, since EventSource cannot send a header.

import { keep, kept } from "./kept.js";

const key = "driftledger-token";
/** Where nothing changes a comment comes, two seconds after what came before as a rule: after this one is missing. */
const lateMs = 3000;
const silentMs = 10000;
const waits = [500, 1000, 2000, 4000, 5000];

/** Take the token of #token=... out of the address, so that it is neither seen nor kept in the history. */
export function takeToken() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return;
  try {
    setToken(decodeURIComponent(found[1]));
  } catch {
    setToken(found[1]); // a % that stands for itself
  }
  history.replaceState(null, "", location.pathname);
}

/** Keep the token; what is none, for no header could hold it, is forgotten: the worker then asks again. */
export function setToken(token) {
  keep("sessionStorage", key, /^[\x21-\x7e]+$/.test(token) ? token : null);
}

function headers(more = {}) {
  const token = kept("sessionStorage", key);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

/** What is wrong, as the worker says it. */
export class RefusedError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** GET a path; raises RefusedError where it is not answered with 200. */
export async function get(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: headers(options.headers), cache: "no-store", credentials: "omit" });
  if (answer.ok) return answer;
  let message = `the worker answers ${answer.status}`;
  try {
    message = (await answer.json()).error || message;
  } catch { /* no JSON: the status is all there is to say */ }
  throw new RefusedError(answer.status, message);
}

/**
 * Save what a path answers as a file, by the name that the worker gives it. Raises RefusedError, too, where it breaks off: a part
 * is no file.
 */
export async function save(path) {
  const answer = await get(path);
  let content;
  try {
    content = await answer.blob();
  } catch {
    throw new RefusedError(answer.status, "the file broke off before its end. Ask again in a moment");
  }
  const url = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = url;
  link.download = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition"))[1];
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Server-sent events out of pieces of text. */
export class EventParser {
  constructor(onEvent) {
    this.onEvent = onEvent;
    this.rest = "";
    this.clear();
  }

  clear() {
    this.id = null;
    this.name = "message";
    this.data = [];
  }

  feed(piece) {
    const lines = (this.rest + piece).split("\n");
    this.rest = lines.pop();
    for (const line of lines) this.line(line.endsWith("\r") ? line.slice(0, -1) : line);
  }

  line(line) {
    if (line === "") {
      if (this.data.length) this.onEvent(this.name, this.id, this.data.join("\n"));
      this.clear();
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") this.id = value;
    else if (name === "event") this.name = value;
    else if (name === "data") this.data.push(value);
  }
}

/** What a stream has said so far: facts, and rows by key in their order. */
export function apply(view, said) {
  const before = said.whole || !view ? { facts: {}, order: [], rows: new Map() } : view;
  const order = said.order || before.order;
  const rows = new Map();
  for (const name of order) {
    const news = said.rows[name];
    const known = before.rows.get(name);
    rows.set(name, news ? { ...known, ...news } : known);
  }
  return { facts: { ...before.facts, ...said.facts }, order, rows };
}

/**
 * A stream that comes back by itself, and goes on where it was; then it calls onAgain. States: connecting, live, late, lost,
 * refused, and failed: the worker cannot make the view now, and tries again.
 */
export class Stream {
  constructor(path, onView, onState, onAgain, { lastId = null, view = null } = {}) {
    Object.assign(this, { path, onView, onState, onAgain, view, lastId, failures: 0, stopped: false, late: false, failed: null });
    this.run();
  }

  stop() {
    this.stopped = true;
    this.unwatch();
    if (this.waiting) this.waiting();
    if (this.abort) this.abort.abort();
  }

  /** Try again now. */
  retry() {
    if (this.waiting) this.waiting();
  }

  async run() {
    while (!this.stopped) {
      this.onState(this.failures ? "lost" : "connecting", this.why);
      try {
        await this.read();
        this.why = "the worker ended the stream";
      } catch (error) {
        this.why = error instanceof RefusedError ? error.message : "the worker does not answer";
        if (error instanceof RefusedError && error.status !== 503 && !this.stopped) {
          this.onState("refused", error.message, error.status);
          return;
        }
      }
      this.unwatch();
      this.late = false;
      if (this.stopped) return;
      this.failures += 1;
      this.onState("lost", this.why);
      await this.pause(waits[Math.min(this.failures, waits.length) - 1]);
    }
  }

  pause(ms) {
    return new Promise((done) => {
      const timer = setTimeout(done, ms);
      this.waiting = () => { clearTimeout(timer); done(); };
    });
  }

  async read() {
    this.abort = new AbortController();
    this.watch();
    const resume = this.lastId ? { "Last-Event-ID": this.lastId } : {};
    const answer = await get(this.path, { signal: this.abort.signal, headers: resume });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    this.failed = null;
    if (this.lastId) this.onAgain();
    const parser = new EventParser((name, id, data) => {
      this.failures = 0;
      this.failed = name === "failed" ? JSON.parse(data).error : null;
      if (this.failed !== null) {
        this.onState("failed", this.failed);
        return;
      }
      this.view = apply(this.view, JSON.parse(data));
      this.lastId = id;
      this.onState("live");
      try {
        this.onView(this.view);
      } catch (error) {
        reportError(error); // a defect of the page, not of the connection
      }
    });
    for (;;) {
      const { value, done } = await reader.read();
      if (done || this.stopped) return;
      this.watch();
      parser.feed(value);
    }
  }

  /** Who says nothing for a while is late, and then gone. */
  watch() {
    this.unwatch();
    if (this.late) this.onState(this.failed === null ? "live" : "failed", this.failed || "");
    this.late = false;
    this.timers = [
      setTimeout(() => { this.late = true; this.onState("late"); }, lateMs),
      setTimeout(() => this.abort && this.abort.abort(), silentMs),
    ];
  }

  unwatch() {
    for (const timer of this.timers || []) clearTimeout(timer);
  }
}
