// Tiers: what lies where and how old it is, one picture of it, and the jobs that move it.

import { fill, h, text } from "./dom.js";
import * as format from "./format.js";
import { Entropy, Strips, grains } from "./strips.js";
import { Table } from "./table.js";

const runsShown = 100;

const bits = (value) => (value === null || value === undefined ? "–" : format.fixed(value, 1));
const place = (row) => (row.store === "hot" ? "hot store" : "archive");

const tierColumns = [
  { name: "tier", label: "Tier", title: "Where data of an age belongs", text: (r) => `${r.tier} ${r.store}`, cell: (r) => [h("span", { class: "tier" }, r.tier), h("span", { class: "error where-it-is" }, ` ${place(r)}`)] },
  { name: "segments", label: "Segments", kind: "number", title: "Hours of the hot store of this worker, or files of the archive", cell: (r) => format.count(r.segments) },
  { name: "grains", label: "Of", wide: 3, title: "How many are of an hour, a day, a month, a year", text: (r) => JSON.stringify(r.grains), cell: (r) => Object.entries(r.grains).map(([grain, count]) => `${format.count(count)} ${grain}`).join(", ") || "–" },
  { name: "rows", label: "Rows", kind: "number", wide: 1, title: "Events", cell: (r) => format.count(r.rows) },
  { name: "bytes", label: "Bytes", kind: "number", title: "On disk; of the hot store in proportion to its rows", text: (r) => String(r.size_bytes), cell: (r) => h("span", { title: format.count(r.size_bytes) }, format.bytes(r.size_bytes)) },
  { name: "oldest", label: "Oldest", kind: "number", title: "How long ago its oldest entry was appended", text: (r) => `${format.zone()} ${r.segments} ${r.oldest_ms} ${r.now_ms}`, cell: (r) => ago(r, r.oldest_ms) },
  { name: "newest", label: "Newest", kind: "number", wide: 2, title: "How long ago its newest entry was appended", text: (r) => `${format.zone()} ${r.segments} ${r.newest_ms} ${r.now_ms}`, cell: (r) => ago(r, r.newest_ms) },
  { name: "entropy", label: "Entropy, bits", kind: "number", wide: 2, title: "S of its hours: their age in half-lives, less for each that was read", text: (r) => `${r.entropy_min} ${r.entropy_max}`, cell: (r) => (r.entropy_min === null ? "–" : bits(r.entropy_min) === bits(r.entropy_max) ? bits(r.entropy_min) : `${bits(r.entropy_min)} to ${bits(r.entropy_max)}`) },
];

function ago(row, ms) {
  return row.segments ? h("span", { title: `${format.instant(ms)} ${format.zone()}` }, format.age((row.now_ms - ms) / 1000)) : "–";
}

const marks = { planned: "○", running: "▶", done: "●", failed: "▲", cancelled: "◆", lost: "▲" };

function state(row) {
  return h("span", { class: `run run-${row.state}` }, h("span", { "aria-hidden": "true", class: "shape" }, marks[row.state] || ""), h("span", { class: "word" }, row.state));
}

function took(row) {
  const end = row.ended_ms ?? row.heard_ms;
  const ms = end - row.started_ms;
  return ms < 0 ? "–" : ms < 120000 ? `${format.fixed(ms / 1000, 1)} s` : format.duration(ms / 1000);
}

function progress(row) {
  if (row.done === null) return "–";
  const words = row.of === null ? `${format.count(row.done)} ${format.plain(row.unit)}` : `${format.count(row.done)} of ${format.count(row.of)} ${format.plain(row.unit)}`;
  if (!row.of || row.state !== "running") return h("span", { title: words }, format.count(row.done), h("span", { class: "unit" }, ` ${format.plain(row.unit)}`));
  const part = Math.min(1, row.done / row.of);
  return h("span", { class: "going", title: words }, h("progress", { max: "1", value: String(part), "aria-label": `${row.job}: ${words}` }), h("span", { class: "percent" }, `${Math.floor(part * 100)} %`));
}

function files(row) {
  return row.added || row.dropped ? `+${format.count(row.added)} −${format.count(row.dropped)}` : "–";
}

const runColumns = (open) => [
  { name: "run", label: "State", title: "How the run stands; lost: it has no end, and was not heard of for 15 s", text: (r) => r.state, cell: state },
  { name: "job", label: "Job", title: "What it did", text: (r) => r.job, cell: (r) => h("button", { type: "button", class: "linky", title: "All that is known of this run", onclick: () => open(r.id) }, format.plain(r.job)) },
  { name: "began", label: "Began", kind: "time", wide: 2, title: "By the clock of its host", text: (r) => `${format.zone()} ${r.started_ms}`, cell: (r) => format.instant(r.started_ms).slice(0, 19) },
  { name: "took", label: "Took", kind: "number", title: "Until its end, or until it was heard of last", cell: took },
  { name: "progress", label: "Done", kind: "number", title: "How much of what it is to do", text: (r) => `${r.state} ${r.done} ${r.of}`, cell: progress },
  { name: "read", label: "Read", kind: "number", wide: 3, title: "Bytes of what its steps were about", cell: (r) => (r.bytes_in ? format.bytes(r.bytes_in) : "–") },
  { name: "files", label: "Files", kind: "number", wide: 3, title: "That came, and that went", cell: files },
  { name: "by", label: "By", wide: 4, title: "Host and process", text: (r) => r.by, cell: (r) => h("span", { class: "source", title: format.plain(r.by) }, format.plain(r.by)) },
  { name: "why", label: "Error", wide: 2, title: "Why it failed, or did not begin", text: (r) => r.error || "", cell: (r) => (r.error ? h("span", { class: "short", title: format.plain(r.error) }, format.plain(r.error)) : "–") },
];

export class LifecycleView {
  constructor(page) {
    this.page = page;
    this.opened = null;
    this.tiers = new Table({ columns: tierColumns, caption: "Tiers" });
    this.runs = new Table({ columns: runColumns((id) => this.turn(id)), caption: "Runs of jobs, what began last first", link: "job", rowClass: (row) => (["failed", "lost"].includes(row.state) ? "row-RED" : "") });
    this.note = h("p", { class: "note", role: "status" }, "Loading …");
    this.trouble = h("p", { class: "banner trouble", role: "status", hidden: true });
    this.words = h("p", { class: "words", id: "strips-words" });
    this.readout = h("p", { class: "readout", role: "status" });
    this.strips = new Strips((told) => text(this.readout, told));
    this.bits = h("p", { class: "readout", role: "status" });
    this.entropy = new Entropy((told) => text(this.bits, told));
    this.limits = h("p", { class: "sub", id: "entropy-words" });
    this.none = h("p", { class: "note" }, "No job has run yet.");
    this.detail = h("article", { class: "card detail", role: "status", hidden: true });
    this.figure = h("figure", {},
      h("figcaption", {}, h("h2", {}, "What lies where"), h("div", { class: "legend" }, grains.map((name) => h("span", { class: "key" }, h("span", { class: `swatch grain-${name}` }), name)), h("span", { class: "key" }, h("span", { class: "swatch rule" }), "age of a rule"))),
      this.words, this.strips.element, this.readout);
    this.chart = h("figure", {},
      h("figcaption", {}, h("h2", {}, "Entropy of hours"), this.limits),
      this.entropy.element, this.bits);
    this.body = h("div", { hidden: true }, this.tiers.element, this.figure, this.chart,
      h("div", { class: "head runs" }, h("h2", {}, "Jobs"), (this.known = h("p", { class: "sub" }))), this.detail, this.none, this.runs.element);
    this.element = h("section", { "aria-labelledby": "title", class: "tiers" },
      h("div", { class: "head" }, h("h1", { id: "title" }, "Tiers"), (this.tally = h("p", { class: "sub" })), page.csvButton(() => "/csv/lifecycle")),
      this.trouble, this.note, this.body);
  }

  query() {
    return new URLSearchParams();
  }

  path() {
    return `/live/lifecycle?limit=${runsShown}`;
  }

  show(view) {
    const { facts } = view;
    this.trouble.hidden = !facts.error;
    text(this.trouble, facts.error ? `Not all of this can be read now: ${format.plain(facts.error)}. It is tried again.` : "");
    this.note.hidden = facts.tiers !== null;
    this.body.hidden = facts.tiers === null;
    if (facts.tiers === null) {
      text(this.note, facts.error ? "Nothing is known yet." : "Loading …");
      return;
    }
    const rows = new Map(facts.tiers.map((row) => [`${row.tier}:${row.store}`, { ...row, now_ms: facts.now_ms }]));
    this.tiers.update([...rows.keys()], rows);
    const archived = facts.tiers.filter((row) => row.store === "archive");
    const sum = (name) => archived.reduce((all, row) => all + row[name], 0);
    text(this.tally, `${format.count(sum("segments"))} files of ${format.bytes(sum("size_bytes"))} in the archive, after ${format.count(facts.commit)} commits`);
    text(this.words, this.told(facts));
    this.strips.show(facts);
    this.entropy.show(facts);
    this.chart.hidden = !facts.entropy.hot.length && !facts.entropy.away.length;
    const { leave_bits, return_bits, half_life_s } = facts.limits;
    text(this.limits, `An archived hour leaves the hot store above ${bits(leave_bits)} bits, and comes back below ${bits(return_bits)}; one more each ${format.duration(half_life_s)}, less for what is read`);
    const runs = new Map(view.order.map((id) => [id, { ...view.rows.get(id), id }]));
    this.shown = runs;
    this.runs.update(view.order, runs);
    this.none.hidden = runs.size > 0;
    this.runs.element.hidden = runs.size === 0;
    const many = facts.cut || facts.found > runs.size ? `the newest ${format.count(runs.size)} of ${facts.cut ? "many" : format.count(facts.found)} runs` : `${format.count(runs.size)} runs`;
    const last = facts.jobs.map((job) => `${job.job} ${job.state} ${format.age((facts.now_ms - job.heard_ms) / 1000)} ago`);
    text(this.known, runs.size ? `${many}; last: ${last.join(", ")}` : "");
    this.detailed();
  }

  /** The picture in words, for who does not see it. */
  told(facts) {
    const rows = facts.tiers.filter((row) => row.segments);
    if (!rows.length) return "Nothing is hot or archived yet.";
    const held = rows.map((row) => `${row.tier} ${row.store === "hot" ? "(hot)" : "(archive)"} from ${format.age((facts.now_ms - row.oldest_ms) / 1000)} to ${format.age((facts.now_ms - row.newest_ms) / 1000)} ago`);
    return `${held.join("; ")}.`;
  }

  turn(id) {
    this.opened = this.opened === id ? null : id;
    this.detailed();
  }

  /** All of one run, also where the table has no room for it. */
  detailed() {
    const row = this.shown && this.shown.get(this.opened);
    this.detail.hidden = !row;
    if (!row) return;
    const said = JSON.stringify(row);
    if (this.said === said + format.zone()) return;
    this.said = said + format.zone();
    const facts = [
      ["Run", row.id], ["State", row.state], ["By", row.by], ["Began", format.instant(row.started_ms)],
      ["Ended", format.instant(row.ended_ms)], ["Heard of", format.instant(row.heard_ms)],
      ["Did", `${format.count(row.rows)} rows in ${format.count(row.commits)} commits, ${format.bytes(row.bytes_in)} read, ${format.bytes(row.bytes_out)} written, files +${format.count(row.added)} −${format.count(row.dropped)}`],
      ["Error", row.error], ["What to do", row.remedy],
    ];
    fill(this.detail, h("h2", {}, `${format.plain(row.job)}`), h("dl", { class: "facts" }, facts.filter(([, value]) => value && value !== "–").map(([name, value]) => [h("dt", {}, name), h("dd", {}, format.plain(value))]).flat()));
  }

  recolour() {
    this.strips.draw();
    this.entropy.draw();
  }

  rezone(view) {
    for (const shown of [...this.tiers.rows.values(), ...this.runs.rows.values()]) shown.row = null;
    this.show(view);
    this.recolour();
  }

  stop() {
    this.strips.stop();
    this.entropy.stop();
  }
}
