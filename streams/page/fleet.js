// All sources: sorted, searched, chosen and cut by the worker; here are at most a hundred of them.

import { fill, h, severity, text } from "./dom.js";
import * as format from "./format.js";
import { Table } from "./table.js";

const pageRows = 100;
const severities = ["RED", "YELLOW", "GREEN"];
export const causes = ["AHEAD", "BEHIND", "STEP", "BACKLOG", "AUTHORITY", "UNKNOWN"];
const firstUp = new Set(["source", "partition"]);

export const causeTitles = {
  AHEAD: "The clock is ahead: events arrived before they were made",
  BEHIND: "The clock is behind",
  STEP: "The clock was set",
  BACKLOG: "The clock is right; its events are late on their way",
  AUTHORITY: "The broker's clock is off, not the source's",
  UNKNOWN: "Too few events agree to tell a slow clock from a slow way",
};

export function cause(name) {
  return name ? h("span", { class: "cause", title: causeTitles[name] || null }, name) : h("span", { class: "none" }, "–");
}

export function sourceLink(row) {
  return h("a", { href: `#/source/${row.partition}/${encodeURIComponent(row.source)}`, class: "source", title: format.plain(row.source) }, format.plain(row.source));
}

const columns = [
  { name: "alert", label: "Alert", sort: "state", title: "Severity of the open alert: about the clock, or about events that arrive late", text: (r) => r.state, cell: (r) => severity(r.state) },
  { name: "source", label: "Source", sort: "source", title: "Whose clock it is", text: (r) => r.source, cell: sourceLink },
  { name: "cause", label: "Cause", sort: "cause", title: "Why the alert is open", text: (r) => r.cause || "", cell: (r) => cause(r.cause) },
  { name: "offset", label: "Offset ms", sort: "offset", kind: "number", title: "How far its clock is off, by all its events; positive is ahead", cell: (r) => format.offset(r.offset_ms) },
  { name: "bound", label: "± ms", sort: "bound", kind: "number", wide: 1, title: "The truth is within so much of the offset", cell: (r) => format.bound(r.bound_ms) },
  { name: "skew", label: "Skew ppm", sort: "skew", kind: "number", wide: 3, title: "What the clock gains, in microseconds a second, and how far the truth may be from that", text: (r) => `${r.skew_ppm} ${r.skew_error_ppm}`, cell: skew },
  { name: "delta", label: "Last event ms", sort: "delta", kind: "number", wide: 2, title: "Stamped minus arrived, of its last event: clock and way together", text: (r) => `${r.delta_ms} ${r.severity}`, cell: lastEvent },
  { name: "last", label: "Arrived", sort: "last", kind: "number", wide: 3, title: "When the broker appended its last event", text: (r) => `${format.zone()} ${r.last_ms}`, cell: (r) => format.time(r.last_ms) },
  { name: "method", label: "By", wide: 4, title: "TWO_WAY: round trips bound the offset from both sides; ONE_WAY: events alone", text: (r) => r.method, cell: (r) => (r.method === "NONE" ? "–" : r.method.replace("_", "-").toLowerCase()) },
  { name: "samples", label: "Readings", sort: "samples", kind: "number", wide: 4, title: "Events that the estimate rests on", cell: (r) => format.count(r.samples) },
  { name: "steps", label: "Steps", kind: "number", wide: 4, title: "How often the clock was set", cell: (r) => (r.disturbances ? format.count(r.disturbances) : "–") },
  { name: "sequence", label: "Sequence", sort: "sequence", kind: "number", wide: 3, title: "Of its last event", cell: (r) => format.count(r.sequence) },
  { name: "partition", label: "Part.", sort: "partition", kind: "number", wide: 2, title: "Partition", cell: (r) => String(r.partition) },
];

function skew(row) {
  if (row.skew_ppm === null) return "–";
  return [format.fixed(row.skew_ppm, 1, true), h("span", { class: "error" }, ` ± ${format.fixed(row.skew_error_ppm, 1)}`)];
}

function lastEvent(row) {
  if (row.delta_ms === null) return "–";
  return h("span", { class: `delta delta-${row.severity}`, title: row.severity }, format.fixed(row.delta_ms, 0, true));
}

export class FleetView {
  constructor(page, state) {
    this.page = page;
    this.state = { sort: "state", desc: "1", search: "", severity: "", cause: "", offset: "0", ...state };
    this.search = h("input", { type: "search", id: "search", placeholder: "Search sources", autocomplete: "off", spellcheck: "false", "aria-label": "Search sources by name", oninput: () => this.typed() });
    this.search.value = this.state.search;
    this.chips = severities.map((name) => this.chip(name));
    this.cause = h("select", { "aria-label": "Cause", onchange: () => this.set({ cause: this.cause.value }) }, h("option", { value: "" }, "Any cause"), causes.map((name) => h("option", { value: name }, name)));
    this.cause.value = this.state.cause;
    this.part = h("button", { type: "button", class: "chip", title: "Show all partitions", onclick: () => this.set({ partition: "" }) });
    this.table = new Table({ columns, caption: "Sources", link: "source", onSort: (by) => this.sort(by), rowClass: (row) => `row-${row.state}`, onEdge: (way) => this.turn(way) });
    this.note = h("p", { class: "note", role: "status" }, "Loading …");
    this.where = h("span", { class: "where", "aria-live": "off" });
    this.back = h("button", { type: "button", onclick: () => this.turn(-1) }, "Previous");
    this.next = h("button", { type: "button", onclick: () => this.turn(1) }, "Next");
    this.element = h("section", { "aria-labelledby": "title" },
      h("div", { class: "head" }, h("h1", { id: "title" }, "Fleet"), (this.tally = h("p", { class: "sub" }))),
      h("div", { class: "bar" }, this.search, h("div", { class: "chips", role: "group", "aria-label": "Severity of the open alert" }, this.chips.map((chip) => chip.button)), this.cause, this.part, page.csvButton(() => this.path("csv"))),
      this.note, this.table.element,
      h("div", { class: "pager" }, this.back, this.where, this.next));
    this.table.sorted(this.state.sort, this.state.desc === "1");
    this.pressed();
  }

  chip(name) {
    const count = h("span", { class: "count" }, "0");
    const button = h("button", { type: "button", class: `chip chip-${name}`, "aria-pressed": "false", onclick: () => this.toggle(name) }, severity(name), count);
    return { name, button, count };
  }

  query() {
    const wanted = Object.entries(this.state).filter(([name, value]) => value !== "" && !(name === "offset" && value === "0"));
    return new URLSearchParams(wanted);
  }

  path(kind = "live") {
    const query = this.query();
    if (kind === "csv") query.delete("offset");
    else query.set("limit", String(pageRows));
    return `/${kind}/fleet?${query}`;
  }

  /** Ask for something else; from the first row on unless told otherwise. */
  set(change) {
    this.state = { ...this.state, offset: "0", ...change };
    this.table.sorted(this.state.sort, this.state.desc === "1");
    this.pressed();
    this.page.asked(this, this.query());
  }

  sort(by) {
    const desc = this.state.sort === by ? (this.state.desc === "1" ? "0" : "1") : firstUp.has(by) ? "0" : "1";
    this.set({ sort: by, desc });
  }

  typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.set({ search: this.search.value.trim() }), 200);
  }

  chosen() {
    return new Set(this.state.severity.split(",").filter(Boolean));
  }

  toggle(name) {
    const chosen = this.chosen();
    if (!chosen.delete(name)) chosen.add(name);
    this.set({ severity: severities.filter((one) => chosen.has(one)).join(",") });
  }

  pressed() {
    const chosen = this.chosen();
    for (const chip of this.chips) chip.button.setAttribute("aria-pressed", String(chosen.has(chip.name)));
    this.part.hidden = !this.state.partition;
    text(this.part, `Partition ${this.state.partition || ""} ×`);
  }

  turn(way) {
    const offset = Number(this.state.offset) + way * pageRows;
    if (offset < 0 || offset >= (this.found || 0)) return;
    this.set({ offset: String(offset) });
  }

  show(view) {
    const { facts } = view;
    this.found = facts.found;
    for (const chip of this.chips) text(chip.count, format.count(facts.severities[chip.name]));
    for (const option of this.cause.options) if (option.value) text(option, `${option.value} (${format.count(facts.causes[option.value])})`);
    text(this.tally, facts.sources ? `${format.count(facts.sources)} sources in ${facts.served} of ${facts.partitions} partitions` : "");
    this.table.update(view.order, view.rows);
    const first = facts.offset + 1;
    text(this.where, facts.found ? `${format.count(first)}–${format.count(first + view.order.length - 1)} of ${format.count(facts.found)}` : "");
    this.back.disabled = facts.offset === 0;
    this.next.disabled = facts.offset + view.order.length >= facts.found;
    this.note.hidden = view.order.length > 0;
    this.table.element.hidden = view.order.length === 0;
    text(this.note, this.why(facts));
    if (view.order.length === 0 && facts.found > 0 && facts.offset > 0) this.set({ offset: "0" });
  }

  why(facts) {
    if (facts.at_ms === null) return facts.served ? "Loading …" : "This worker serves no partition yet.";
    if (!facts.sources) return "No source has sent an event yet.";
    return "No source is like that. Choose fewer conditions.";
  }

  /** Instants are written anew. */
  rezone(view) {
    for (const shown of this.table.rows.values()) shown.row = null;
    this.show(view);
  }

  stop() {
    clearTimeout(this.timer);
  }
}
