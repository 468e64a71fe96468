// Alerts of the ledger: the open ones, the worst first, and those that were closed.

import { h, severity, text } from "./dom.js";
import { cause, sourceLink } from "./fleet.js";
import * as format from "./format.js";
import { Table } from "./table.js";

const kinds = [["", "All"], ["1", "Open"], ["0", "Closed"]];

const columns = [
  { name: "severity", label: "Severity", title: "Of an open alert now, of a closed one when it closed", text: (r) => r.severity, cell: (r) => severity(r.severity) },
  { name: "state", label: "State", wide: 2, text: (r) => r.state, cell: (r) => h("span", { class: `state state-${r.state}` }, r.state === "CLOSED" ? "closed" : "open") },
  { name: "subject", label: "Of", wide: 2, title: "Whose clock: of a source, of a broker, or of a worker. A source may call itself what it likes", text: (r) => r.subject, cell: (r) => r.subject.toLowerCase() },
  { name: "source", label: "Source", text: (r) => `${r.subject} ${r.source}`, cell: (r) => (r.subject === "SOURCE" ? sourceLink(r) : h("span", { class: "source" }, format.plain(r.source))) },
  { name: "cause", label: "Cause", text: (r) => r.cause, cell: (r) => cause(r.cause) },
  { name: "text", label: "What is wrong", kind: "prose", cell: (r) => format.plain(r.text) },
  { name: "worst", label: "At worst", kind: "number", wide: 2, title: "The largest distance while it was open", cell: (r) => format.span(r.worst_value_ms) },
  { name: "opened", label: "Opened", kind: "time", wide: 3, title: "Authority time of the event that opened it", text: (r) => `${format.zone()} ${r.opened_ms}`, cell: (r) => format.instant(r.opened_ms) },
  { name: "closed", label: "Closed", kind: "time", wide: 4, text: (r) => `${format.zone()} ${r.closed_ms} ${r.state}`, cell: (r) => (r.state === "CLOSED" ? format.instant(r.closed_ms) : "–") },
  { name: "events", label: "Events", kind: "number", wide: 4, title: "Of the source, since the first that was over a limit", cell: (r) => format.count(r.events) },
];

export class AlertsView {
  constructor(page, state) {
    this.page = page;
    this.state = { open: "", search: "", ...state };
    this.search = h("input", { type: "search", id: "search", placeholder: "Search alerts", autocomplete: "off", spellcheck: "false", "aria-label": "Search alerts by source or text", oninput: () => this.typed() });
    this.search.value = this.state.search;
    this.kinds = kinds.map(([value, label]) => {
      const count = h("span", { class: "count" });
      return { value, count, button: h("button", { type: "button", class: "chip", "aria-pressed": String(value === this.state.open), onclick: () => this.set({ open: value }) }, label, count) };
    });
    this.table = new Table({ columns, caption: "Alerts", link: "source", rowClass: (row) => (row.state === "CLOSED" ? "past" : `row-${row.severity}`) });
    this.note = h("p", { class: "note", role: "status" }, "Loading …");
    this.element = h("section", { "aria-labelledby": "title", class: "alerts" },
      h("div", { class: "head" }, h("h1", { id: "title" }, "Alerts"), (this.tally = h("p", { class: "sub" }))),
      h("div", { class: "bar" }, this.search, h("div", { class: "chips", role: "group", "aria-label": "State" }, this.kinds.map((kind) => kind.button)), page.csvButton(() => this.path("csv"))),
      this.note, this.table.element);
  }

  query() {
    return new URLSearchParams(Object.entries(this.state).filter(([, value]) => value !== ""));
  }

  path(kind = "live") {
    return `/${kind}/alerts?${this.query()}`;
  }

  set(change) {
    this.state = { ...this.state, ...change };
    for (const kind of this.kinds) kind.button.setAttribute("aria-pressed", String(kind.value === this.state.open));
    this.page.asked(this, this.query());
  }

  typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.set({ search: this.search.value.trim() }), 200);
  }

  show(view) {
    const { facts } = view;
    const counts = { "": facts.open + facts.closed, 1: facts.open, 0: facts.closed };
    for (const kind of this.kinds) text(kind.count, facts.loaded ? format.count(counts[kind.value]) : "");
    const kept = facts.full ? `; of those that were closed the newest ${format.count(facts.closed)}` : "";
    text(this.tally, facts.loaded ? `${format.count(facts.open)} open${kept}${facts.found > view.order.length ? `; the first ${view.order.length} of ${format.count(facts.found)} are shown` : ""}` : "");
    this.table.update(view.order, view.rows);
    this.note.hidden = view.order.length > 0;
    this.table.element.hidden = view.order.length === 0;
    const nothing = this.state.search || this.state.open ? "No alert is like that." : "No alert, open or closed: every clock is right.";
    text(this.note, facts.error || (facts.loaded ? nothing : "Reading the alerts topic …"));
  }

  rezone(view) {
    for (const shown of this.table.rows.values()) shown.row = null;
    this.show(view);
  }

  stop() {
    clearTimeout(this.timer);
  }
}
