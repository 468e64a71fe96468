// A table whose rows come and go by key: what did not change is not touched, so focus and selection stay.

import { fill, h } from "./dom.js";

/**
 * columns: {name, label, title, sort, kind, wide, cell(row)}; `cell` gives text or a node, `text` what tells whether it
 * changed, where it gives a node. `link` names the column whose link takes the focus; arrows move it from row to row.
 */
export class Table {
  constructor({ columns, caption, link, onSort, rowClass, onEdge }) {
    Object.assign(this, { columns, link, rowClass, onEdge, rows: new Map(), current: null });
    this.heads = new Map();
    const heads = columns.map((column) => this.head(column, onSort));
    this.body = h("tbody", { onkeydown: (event) => this.key(event), onfocusin: (event) => this.focused(event) });
    this.table = h("table", { class: "grid" }, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, heads)), this.body);
    this.element = h("div", { class: "scroll" }, this.table);
  }

  head(column, onSort) {
    const inside = column.sort && onSort
      ? h("button", { type: "button", class: "sort", title: column.title, onclick: () => onSort(column.sort) }, h("span", { class: "label" }, column.label), h("span", { class: "arrow", "aria-hidden": "true" }))
      : h("span", { class: "label" }, column.label);
    const head = h("th", { scope: "col", class: classes(column), title: column.title }, inside);
    if (column.sort) this.heads.set(column.sort, head);
    return head;
  }

  /** Say by what is sorted. */
  sorted(by, descending) {
    for (const [name, head] of this.heads) {
      if (name === by) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  /** Show these rows, in this order. */
  update(order, rows) {
    const active = document.activeElement;
    const held = this.body.contains(active) ? active.closest("tr").dataset.key : null;
    const gone = new Set(this.rows.keys());
    let cursor = this.body.firstChild;
    for (const key of order) {
      gone.delete(key);
      const shown = this.rows.get(key) || this.make(key);
      this.show(shown, rows.get(key));
      if (shown.tr === cursor) cursor = cursor.nextSibling;
      else this.body.insertBefore(shown.tr, cursor);
    }
    for (const key of gone) {
      this.rows.get(key).tr.remove();
      this.rows.delete(key);
    }
    this.order = order;
    if (held && document.activeElement !== active) this.focus(this.rows.has(held) ? held : order[0]);
    if (!this.rows.has(this.current)) this.point(order[0]);
  }

  make(key) {
    const tr = h("tr", { "data-key": key });
    const cells = this.columns.map((column) => h("td", { class: classes(column), "data-label": column.label }));
    tr.append(...cells);
    const shown = { tr, cells, texts: [], row: null };
    this.rows.set(key, shown);
    return shown;
  }

  show(shown, row) {
    if (shown.row === row) return;
    shown.row = row;
    const name = this.rowClass ? this.rowClass(row) : "";
    if (shown.tr.className !== name) shown.tr.className = name;
    this.columns.forEach((column, number) => {
      const text = column.text ? column.text(row) : column.cell(row);
      if (shown.texts[number] === text) return;
      shown.texts[number] = text;
      fill(shown.cells[number], column.cell(row));
    });
    const link = this.linkOf(shown);
    if (link) link.tabIndex = shown.tr.dataset.key === this.current ? 0 : -1;
  }

  linkOf(shown) {
    return shown ? shown.tr.querySelector("a, button") : null;
  }

  /** Which row Tab goes to. */
  point(key) {
    for (const at of [this.current, key]) {
      const link = this.linkOf(this.rows.get(at));
      if (link) link.tabIndex = at === key ? 0 : -1;
    }
    this.current = key ?? null;
  }

  focus(key) {
    this.point(key);
    const link = this.linkOf(this.rows.get(key));
    if (link) link.focus({ preventScroll: false });
  }

  focused(event) {
    const tr = event.target.closest("tr");
    if (tr) this.point(tr.dataset.key);
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const at = this.order.indexOf(this.current);
    const last = this.order.length - 1;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: last, PageDown: at + 10, PageUp: at - 10 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    if (this.onEdge && ((to > last && at === last) || (to < 0 && at === 0))) {
      this.onEdge(to > last ? 1 : -1);
      return;
    }
    this.focus(this.order[Math.max(0, Math.min(last, to))]);
  }
}

function classes(column) {
  return [column.kind || "", column.wide ? `wide${column.wide}` : "", `c-${column.name}`].join(" ").trim();
}
