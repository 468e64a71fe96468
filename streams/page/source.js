// One source: where its clock is, in words and numbers; its offset with its bound over time, and each event.

import { dated, fill, h, severity, text } from "./dom.js";
import { cause } from "./fleet.js";
import * as format from "./format.js";
import { get } from "./net.js";
import { Table } from "./table.js";

const pointsMax = 3000;
const listed = 100;
/** Spans of history that are asked for, the first that is whole is taken: a busy source fills a page in seconds. */
const spans = ["15m", "3m", "30s", "5s"];
const repeatedFlags = 2 | 4;

const columns = [
  { name: "sequence", label: "Sequence", kind: "number", cell: (r) => format.count(r.sequence) },
  { name: "time", label: "Arrived", kind: "time", title: "When the broker appended it", text: (r) => `${format.zone()} ${r.authority_ms}`, cell: (r) => dated(r.authority_ms) },
  { name: "delta", label: "Delta ms", kind: "number", title: "Stamped minus arrived", cell: (r) => format.fixed(r.delta_ms, 0, true) },
  { name: "severity", label: "Severity", text: (r) => r.severity, cell: (r) => severity(r.severity) },
  { name: "cause", label: "Cause", wide: 1, text: (r) => `${r.cause} ${r.repeated}`, cell: (r) => (r.repeated ? h("span", { class: "none", title: "Seen before: it says nothing of the clock" }, "repeated") : cause(r.cause)) },
  { name: "offset", label: "Offset ms", kind: "number", wide: 2, title: "The estimate after it", cell: (r) => format.offset(r.offset_ms) },
  { name: "bound", label: "± ms", kind: "number", wide: 2, cell: (r) => format.bound(r.bound_ms) },
];

export class SourceView {
  constructor(page, _state, [partition, source]) {
    Object.assign(this, { page, partition: Number(partition), source, events: new Map(), clock: null, stopped: false });
    this.title = h("h1", { id: "title", class: "mono" }, format.plain(source));
    this.marks = h("p", { class: "marks" });
    this.words = h("p", { class: "words" }, "Loading …");
    this.facts = h("dl", { class: "cards" });
    this.holder = h("div", { class: "chart", role: "img", "aria-label": `Offset of the clock of ${format.plain(source)} over time; the table below lists the events` });
    this.readout = h("p", { class: "readout" });
    this.fit = h("button", { type: "button", "aria-pressed": "false", title: "Scale to the clock alone, or to all events", onclick: () => this.refit() }, "Fit to the clock");
    this.note = h("p", { class: "note", hidden: true });
    this.table = new Table({ columns, caption: "Events, the newest first", link: "sequence", rowClass: (row) => `row-${row.severity}` });
    this.element = h("section", { "aria-labelledby": "title", class: "one" },
      h("p", { class: "back" }, h("a", { href: page.fleetHash() }, "← Fleet")),
      h("div", { class: "head" }, this.title, this.marks), this.words, this.facts,
      h("figure", {}, h("figcaption", {}, legend(), this.fit), this.holder, this.readout), this.note,
      h("div", { class: "bar" }, h("h2", {}, "Events"), page.csvButton(() => this.path("csv"))),
      this.table.element);
    this.load();
  }

  query() {
    return new URLSearchParams({ partition: String(this.partition), source: this.source });
  }

  path(kind = "live") {
    return `/${kind}/source?${this.query()}`;
  }

  async load() {
    const { Chart } = await import("./chart.js");
    if (this.stopped) return;
    this.chart = new Chart(this.holder, (point) => this.say(point));
    this.paint();
  }

  /** What the hot tier has: of the longest span that fits. */
  async history() {
    for (const last of spans) {
      const query = new URLSearchParams({ source: this.source, partition: String(this.partition), frame: "authority", last, limit: String(pointsMax), explain: "1" });
      try {
        const lines = (await (await get(`/range?${query}`)).text()).trimEnd().split("\n").map((line) => JSON.parse(line));
        const ending = lines.pop();
        if (ending.more && last !== spans.at(-1)) continue;
        for (const line of lines) if (line.severity) this.take(earlier(line));
        this.note.hidden = true;
        return;
      } catch (error) {
        text(this.note, `Without history: ${error.message}`);
        this.note.hidden = false;
        return;
      }
    }
  }

  /** The page was cut off, or paused: what came meanwhile the hot tier has. */
  again() {
    this.asked = undefined;
  }

  /** Ask for what was before, once the stream follows the source: by its number, if it has one. So nothing falls in between. */
  async before(number) {
    if (this.asked === number) return;
    this.asked = number;
    await this.history();
    if (!this.stopped) this.paint();
  }

  take(row) {
    const known = this.events.get(row.sequence);
    if (!known || known.offset_ms === null) this.events.set(row.sequence, row);
  }

  show(view) {
    const { facts } = view;
    for (const key of view.order) this.take(view.rows.get(key));
    text(this.words, facts.error || (facts.at_ms === null ? "Loading …" : format.plain(facts.words || "")));
    if (facts.number !== null || facts.error) this.before(facts.number);
    this.clock = facts.clock;
    if (facts.clock) this.tell(facts.clock);
    this.paint();
  }

  tell(clock) {
    fill(this.marks,
      clock.alert ? [severity(clock.alert), cause(clock.cause), " clock alert "] : null,
      clock.late ? [severity(clock.late), " its events are late "] : null,
      !clock.alert && !clock.late ? [severity("GREEN"), " no alert open "] : null,
      h("span", { class: "none" }, `partition ${clock.partition}`));
    const cards = [
      ["Offset", clock.offset_ms === null ? "–" : `${format.offset(clock.offset_ms)} ms`, "How far the clock is off"],
      ["Within", clock.bound_ms === null ? "–" : `± ${format.bound(clock.bound_ms)} ms`, "The truth is that near"],
      ["Skew", clock.skew_ppm === null ? "–" : `${format.fixed(clock.skew_ppm, 1, true)} ± ${format.fixed(clock.skew_error_ppm, 1)} ppm`, "What the clock gains"],
      ["Within 1 s for", clock.coherent_s ? format.duration(clock.coherent_s) : "–", "At least so long, at that skew"],
      ["Method", clock.method === "NONE" ? "–" : clock.method.replace("_", "-").toLowerCase(), "Two-way: by round trips; one-way: by events alone"],
      ["Readings", format.count(clock.samples), "Events that the estimate rests on"],
      ["Steps", clock.disturbances ? `${clock.disturbances}, last ${format.span(clock.step_ms)}` : "none", "How often the clock was set"],
    ];
    fill(this.facts, cards.map(([name, value, title]) => h("div", { class: "card", title }, h("dt", {}, name), h("dd", {}, value))));
  }

  paint() {
    const sequences = [...this.events.keys()].sort((a, b) => a - b);
    for (const old of sequences.splice(0, Math.max(0, sequences.length - pointsMax))) this.events.delete(old);
    const rows = sequences.map((sequence) => this.events.get(sequence));
    const newest = sequences.slice(-listed).reverse();
    this.table.update(newest.map(String), new Map(newest.map((sequence) => [String(sequence), this.events.get(sequence)])));
    if (!this.chart) return;
    const points = rows.filter((row) => !row.repeated).map((row) => ({ t: row.authority_ms / 1000, delta: row.delta_ms, severity: row.severity, offset: row.offset_ms, bound: row.bound_ms, row }));
    points.sort((a, b) => a.t - b.t);
    const clock = this.clock;
    const first = clock && this.events.get(clock.step_sequence);
    const at = first ? first.authority_ms : clock && clock.step_at ? Date.parse(clock.step_at) : NaN;
    this.chart.show(points, Number.isNaN(at) ? [] : [{ t: at / 1000, ms: clock.step_ms }]);
    if (!this.shown) text(this.readout, points.length ? "Point at the chart to read an event; drag to zoom, double-click for all of it." : "No event in the last minutes.");
  }

  say(point) {
    this.shown = point;
    if (!point) return;
    const known = point.offset === null || point.offset === undefined ? "" : `; clock ${format.offset(point.offset)} ± ${format.bound(point.bound)} ms`;
    text(this.readout, `${format.instant(point.t * 1000)}  event ${format.fixed(point.delta, 0, true)} ms ${point.severity}${known}`);
  }

  refit() {
    if (!this.chart) return;
    this.chart.toClock = !this.chart.toClock;
    this.fit.setAttribute("aria-pressed", String(this.chart.toClock));
    this.chart.draw();
  }

  recolour() {
    if (this.chart) this.chart.draw();
  }

  rezone(view) {
    for (const shown of this.table.rows.values()) shown.row = null;
    this.show(view);
    this.recolour();
  }

  stop() {
    this.stopped = true;
    if (this.chart) this.chart.stop();
  }
}

/** A row of /range as a row of the stream. What was not known then is null. */
function earlier(row) {
  const known = row.bound_us !== null && row.bound_us !== undefined;
  return {
    sequence: row.sequence,
    authority_ms: row.authority_timestamp_ms,
    delta_ms: row.delta_ms,
    severity: row.severity,
    cause: row.cause && row.cause !== "NONE" ? row.cause : null,
    offset_ms: known ? row.offset_us / 1000 : null,
    bound_ms: known ? row.bound_us / 1000 : null,
    repeated: (row.flags & repeatedFlags) !== 0,
  };
}

function legend() {
  return h("span", { class: "legend" },
    h("span", { class: "key" }, h("span", { class: "swatch line", "aria-hidden": "true" }), "clock"),
    h("span", { class: "key" }, h("span", { class: "swatch band", "aria-hidden": "true" }), "its bound"),
    ["GREEN", "YELLOW", "RED"].map((name) => h("span", { class: "key" }, severity(name), " event")));
}
