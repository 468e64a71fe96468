// Partitions: how far each is, what waits, what is halted and what to do.

import { fill, h, text } from "./dom.js";
import * as format from "./format.js";
import { Table } from "./table.js";

const columns = [
  { name: "partition", label: "Partition", text: (r) => String(r.partition), cell: (r) => h("a", { href: `#/fleet?partition=${r.partition}` , title: "Its sources" }, String(r.partition)) },
  { name: "lane", label: "Lane", kind: "number", wide: 2, cell: (r) => String(r.lane) },
  { name: "state", label: "State", text: (r) => r.state, cell: (r) => h("span", { class: `state state-${r.state}` }, r.state) },
  { name: "sequence", label: "Sequence", kind: "number", title: "Of the last event", cell: (r) => format.count(r.sequence) },
  { name: "rate", label: "Events/s", kind: "number", wide: 1, title: "Over the last five seconds", text: (r) => String(r.rate), cell: (r) => (r.rate === null ? "–" : format.fixed(r.rate, r.rate < 10 ? 1 : 0)) },
  { name: "index", label: "Index", kind: "number", wide: 3, title: "Of the last entry", cell: (r) => format.count(r.index) },
  { name: "position", label: "Input position", kind: "number", wide: 3, cell: (r) => format.count(r.input_position) },
  { name: "lag", label: "Lag", kind: "number", title: "Input offsets that are not in the ledger yet, read every five seconds", cell: (r) => format.count(r.input_lag) },
  { name: "hot", label: "Hot tier", wide: 2, title: "Whether events can be asked for", text: (r) => `${r.hot} ${r.hot_error}`, cell: (r) => (r.hot ? h("span", { title: r.hot_error }, r.hot) : "–") },
  { name: "windows", label: "Windows", kind: "number", wide: 3, title: "In force, and those that are suspended", text: (r) => `${r.windows} ${r.suspended}`, cell: (r) => (r.suspended ? `${r.windows}, suspended: ${r.suspended}` : String(r.windows)) },
  { name: "locked", label: "Lock", title: "What is locked, and how it is released", text: (r) => r.locked ?? "", cell: (r) => (r.locked ? h("span", { class: "state", title: r.locked }, "locked") : "–") },
];
const rateMs = 5000;

const rowsLocked = (rows) => [...rows.values()].filter((row) => row.locked);

export class StatusView {
  constructor(page) {
    this.page = page;
    this.seen = [];
    this.table = new Table({ columns, caption: "Partitions", link: "partition", rowClass: (row) => (row.state === "live" ? "" : "row-RED") });
    this.cards = h("dl", { class: "cards" });
    this.halts = h("div");
    this.note = h("p", { class: "note", role: "status" }, "Loading …");
    this.element = h("section", { "aria-labelledby": "title" },
      h("div", { class: "head" }, h("h1", { id: "title" }, "Partitions"), h("p", { class: "sub" }, "Sequence, lag and halts of the partitions that this worker serves"), page.csvButton(() => "/csv/status")),
      this.cards, this.halts,
      this.note, this.table.element);
  }

  query() {
    return new URLSearchParams();
  }

  path() {
    return "/live/status";
  }

  show(view) {
    const { facts } = view;
    const rates = this.rates(view);
    const rows = new Map(view.order.map((key) => [key, { ...view.rows.get(key), rate: rates.get(key) ?? null }]));
    const sum = (name) => [...rows.values()].reduce((all, row) => all + (row[name] || 0), 0);
    const cards = [
      ["Health", facts.healthy ? "healthy" : "not well", facts.healthy ? "good" : "bad"],
      ["Broker", facts.broker === "answers" ? "answers" : "away", facts.broker === "answers" ? "good" : "bad", facts.broker],
      ["Group", facts.member ? "member" : "no member", facts.member ? "good" : "bad"],
      ["Served here", `${facts.served} of ${facts.partitions}`, ""],
      ["Events/s", rates.size ? format.count(Math.round(sum("rate"))) : "–", ""],
      ["Lag", format.count(sum("input_lag")), ""],
      ["Halted", format.count(facts.halted), facts.halted ? "bad" : "good"],
    ];
    fill(this.cards, cards.map(([name, value, kind, title]) => h("div", { class: `card ${kind}`, title }, h("dt", {}, name), h("dd", {}, value))));
    const troubles = facts.lanes.filter((lane) => lane.error);
    fill(this.halts,
      facts.halts.map((halt) => h("article", { class: "halt" }, h("h2", {}, `Partition ${halt.partition} is halted: ${halt.code}`), h("p", {}, halt.detail), h("p", {}, h("strong", {}, "What to do: "), halt.remedy))),
      rowsLocked(rows).map((row) => h("article", { class: "halt" }, h("h2", {}, `Partition ${row.partition} is locked`), h("p", {}, row.locked))),
      troubles.map((lane) => h("article", { class: "halt" }, h("h2", {}, `Lane ${lane.lane} is ${lane.state}`), h("p", {}, lane.error))));
    this.table.update(view.order, rows);
    this.note.hidden = view.order.length > 0;
    this.table.element.hidden = view.order.length === 0;
    text(this.note, "This worker serves no partition yet.");
  }

  /** Events a second of each partition, from sequences seen at different times. */
  rates(view) {
    const now = performance.now();
    this.seen.push([now, new Map(view.order.map((key) => [key, view.rows.get(key).sequence]))]);
    while (this.seen.length > 2 && now - this.seen[1][0] >= rateMs) this.seen.shift();
    const [then, first] = this.seen[0];
    const found = new Map();
    if (now - then < 500) return found;
    for (const key of view.order) {
      if (first.has(key)) found.set(key, ((view.rows.get(key).sequence - first.get(key)) * 1000) / (now - then));
    }
    return found;
  }

  rezone() {}

  stop() {}
}
