// The drift log: the newest verdicts, bound to the chain, as they were a second ago.

import { dated, h, severity, text } from "./dom.js";
import { cause, sourceLink } from "./fleet.js";
import * as format from "./format.js";
import { Table } from "./table.js";

const hashShown = 16;

const columns = [
  { name: "time", label: "Time", kind: "time", title: "When the broker appended it", text: (r) => `${format.zone()} ${r.created_at_ms}`, cell: (r) => dated(r.created_at_ms) },
  { name: "source", label: "Source", text: (r) => r.source, cell: (r) => (r.reading === "DATA" ? sourceLink(r) : h("span", { class: "source" }, format.plain(r.source))) },
  { name: "delta", label: "Delta ms", kind: "number", title: "Stamped minus appended", cell: (r) => (r.drift_delta_ms === null ? "-" : format.fixed(r.drift_delta_ms, 0, true)) },
  { name: "severity", label: "Severity", text: (r) => r.severity, cell: (r) => severity(r.severity) },
  { name: "cause", label: "Cause", wide: 2, title: "Why it is beyond a limit, as judge saw it then", text: (r) => r.cause || "", cell: (r) => cause(r.cause) },
  { name: "clock", label: "Clock ms", kind: "number", wide: 3, title: "The estimate of its clock after the event, and within which the truth is", text: (r) => `${r.offset_ms} ${r.bound_ms}`, cell: estimate },
  { name: "hash", label: "Phase hash", kind: "code", wide: 2, title: "The chain hash of its entry", text: (r) => r.phase_lock_hash || "NULL", cell: (r) => (r.phase_lock_hash ? h("span", { title: r.phase_lock_hash }, r.phase_lock_hash.slice(0, hashShown), h("span", { class: "error" }, "…")) : "NULL") },
  { name: "reading", label: "Reading", wide: 4, title: "Of an event, of an anchor, or of a clock that was verified", cell: (r) => r.reading },
  { name: "id", label: "Entry", kind: "number", wide: 4, title: "partition:index", cell: (r) => `${r.partition}:${r.index}` },
];

function estimate(row) {
  if (row.offset_ms === null) return "–";
  return [format.fixed(row.offset_ms, 0, true), h("span", { class: "error" }, ` ± ${format.fixed(row.bound_ms, 0)}`)];
}

/** Of partitions that are longer than can be looked through each second: how far that was. */
function stopped(indexes) {
  const entries = Object.entries(indexes).map((place) => place.join(":"));
  if (!entries.length) return null;
  return `Looked back as far as entry ${entries.join(", ")} and not beyond: there may be older ones. The CSV goes back to the beginning.`;
}

export class LogView {
  constructor(page, state) {
    this.page = page;
    this.state = { source: "", ...state };
    this.source = h("input", { type: "search", id: "search", placeholder: "One source, by its whole name", autocomplete: "off", spellcheck: "false", "aria-label": "Show one source, by its whole name", oninput: () => this.typed() });
    this.source.value = this.state.source;
    this.table = new Table({ columns, caption: "Drift log, the newest entry first", link: "source", rowClass: (row) => `row-${row.severity}` });
    this.note = h("p", { class: "note", role: "status" }, "Loading …");
    this.element = h("section", { "aria-labelledby": "title", class: "log" },
      h("div", { class: "head" }, h("h1", { id: "title" }, "Drift log"), (this.age = h("p", { class: "sub" }))),
      h("div", { class: "bar" }, this.source, page.csvButton(() => this.path("csv"))),
      this.note, this.table.element);
  }

  query() {
    return new URLSearchParams(Object.entries(this.state).filter(([, value]) => value !== ""));
  }

  path(kind = "live") {
    const query = this.query();
    if (kind === "live") query.set("limit", "100");
    return `/${kind}/log?${query}`;
  }

  typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.state = { ...this.state, source: this.source.value };
      this.page.asked(this, this.query());
    }, 300);
  }

  show(view) {
    this.table.update(view.order, view.rows);
    const nothing = this.state.source ? "No entry of this source is hot." : "No entry yet.";
    const note = [view.facts.error, stopped(view.facts.stopped)].filter(Boolean).join(" ");
    this.note.hidden = view.order.length > 0 && !note;
    this.table.element.hidden = view.order.length === 0;
    text(this.note, note || nothing);
    text(this.age, `the newest ${view.order.length} entries, the newest first, of the partitions served here`);
  }

  rezone(view) {
    for (const shown of this.table.rows.values()) shown.row = null;
    this.show(view);
  }

  stop() {
    clearTimeout(this.timer);
  }
}
