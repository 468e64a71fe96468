// What lies where, by age, and the entropy of hours: pictures on a canvas, in the page's colours, by pointer and by keys.

import { h } from "./dom.js";
import * as format from "./format.js";

export const grains = ["hourly", "daily", "monthly", "yearly"];
const names = { hot: "Hot", live: "Live", recent: "Recent", historical: "Historical", deep: "Deep" };
const moves = { seal: "▼", compact: "◆", demote: "→", promote: "←", prune: "✕", restore: "+" };
const ticks = [
  [60, "1 min"], [3600, "1 h"], [6 * 3600, "6 h"], [86400, "1 d"], [7 * 86400, "1 w"], [31 * 86400, "1 mo"],
  [91 * 86400, "3 mo"], [366 * 86400, "1 y"], [3 * 366 * 86400, "3 y"], [10 * 366 * 86400, "10 y"], [30 * 366 * 86400, "30 y"],
];
const day = 86400;
const plain = "12px system-ui, sans-serif";
const top = 20;
const gap = 10;
const rowOfMoves = 18;
const hint = "Point at anything, or go there with Tab and the arrows, to read what it is.";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A canvas that is as wide as its place, takes the focus, and is drawn anew when either changes. */
class Picture {
  constructor(label, describedBy, readout) {
    this.readout = readout;
    this.spots = [];
    this.chosen = null;
    readout(hint);
    this.canvas = h("canvas", { class: "picture", tabindex: "0", role: "application", "aria-roledescription": "picture", "aria-label": label, "aria-describedby": describedBy, onkeydown: (event) => this.key(event), onblur: () => this.choose(null) });
    this.canvas.addEventListener("pointermove", (event) => this.choose(this.under(event)));
    this.canvas.addEventListener("pointerleave", () => document.activeElement !== this.canvas && this.choose(null));
    this.canvas.addEventListener("pointerdown", (event) => this.choose(this.under(event)));
    this.element = h("div", { class: "strips" }, this.canvas);
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.element);
  }

  stop() {
    this.resized.disconnect();
  }

  show(facts) {
    // What did not change is the same object.
    if (this.facts && this.facts.picture === facts.picture && this.facts.entropy === facts.entropy && this.facts.now_ms === facts.now_ms && this.facts.limits === facts.limits) return;
    this.facts = facts;
    this.draw();
  }

  /** Draw all of it; `paint` gives the spots that one may point at. */
  draw() {
    const width = this.element.clientWidth;
    if (!this.facts || !width) return;
    const ratio = devicePixelRatio || 1;
    const tall = this.height();
    this.canvas.style.height = `${tall}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(tall * ratio);
    const ctx = this.canvas.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.font = plain;
    ctx.textBaseline = "middle";
    const before = this.chosen === null ? null : this.spots[this.chosen];
    this.spots = [];
    this.paint(ctx, width, tall);
    this.canvas.dataset.spots = String(this.spots.length);
    this.kept = h("canvas", { width: this.canvas.width, height: this.canvas.height });
    this.kept.getContext("2d").drawImage(this.canvas, 0, 0);
    const again = before && this.spots.findIndex((spot) => spot.key === before.key);
    this.chosen = null;
    if (before && again >= 0) this.choose(again);
    else if (before) this.readout(hint);
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    let best = null;
    let least = 5;
    this.spots.forEach((spot, number) => {
      if (y < spot.y - 1 || y > spot.y + spot.h + 1) return;
      const far = x < spot.x ? spot.x - x : x > spot.x + spot.w ? x - spot.x - spot.w : 0;
      if (far < least) { least = far; best = number; }
    });
    return best;
  }

  choose(number) {
    if (number === this.chosen) return;
    const ctx = this.canvas.getContext("2d");
    this.wipe(ctx);
    this.chosen = number;
    const spot = number === null ? null : this.spots[number];
    this.readout(spot ? spot.told() : hint);
    if (!spot) return;
    ctx.strokeStyle = colour("--ink");
    ctx.lineWidth = 2;
    ctx.strokeRect(spot.x - 1.5, spot.y - 1.5, Math.max(spot.w, 1) + 3, spot.h + 3);
  }

  /** Without what was chosen. */
  wipe(ctx) {
    if (!this.kept) return;
    ctx.save();
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
    ctx.drawImage(this.kept, 0, 0);
    ctx.restore();
  }

  /** Left and right along a row, up and down to the next one, there to what is nearest. */
  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !this.spots.length) return;
    const now = this.chosen === null ? null : this.spots[this.chosen];
    const rows = [...new Set(this.spots.map((spot) => spot.row))];
    const row = now ? now.row : rows[0];
    const along = this.spots.map((spot, number) => number).filter((number) => this.spots[number].row === row).sort((a, b) => this.spots[a].x - this.spots[b].x);
    const at = along.indexOf(this.chosen);
    let next;
    if (event.key === "ArrowLeft") next = now ? along[Math.max(0, at - 1)] : along[along.length - 1];
    else if (event.key === "ArrowRight") next = now ? along[Math.min(along.length - 1, at + 1)] : along[0];
    else if (event.key === "Home") next = along[0];
    else if (event.key === "End") next = along[along.length - 1];
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const other = rows[Math.max(0, Math.min(rows.length - 1, rows.indexOf(row) + (event.key === "ArrowDown" ? 1 : -1)))];
      const x = now ? now.x : Infinity;
      next = this.spots.map((spot, number) => number).filter((number) => this.spots[number].row === other).reduce((a, b) => (Math.abs(this.spots[a].x - x) <= Math.abs(this.spots[b].x - x) ? a : b));
    } else return;
    event.preventDefault();
    this.choose(next);
  }
}

/** Strips of tiers by age, a line of each for a partition, blocks by grain; below them what was moved, by when. */
export class Strips extends Picture {
  constructor(readout) {
    super("What lies in which tier, by age: arrow keys go from block to block, the line below tells what it is", "strips-words", readout);
  }

  kinds() {
    return Object.keys(moves).filter((name) => this.facts.picture.moved.some((moved) => moved[0] === name));
  }

  tall() {
    return Math.max(30, Math.min(80, this.facts.picture.lines * 7));
  }

  height() {
    const strips = Object.keys(this.facts.picture.strips).length;
    return top + strips * (this.tall() + gap) + (this.kinds().length ? 8 + this.kinds().length * rowOfMoves : 0) + 6;
  }

  paint(ctx, width, tall) {
    const { picture, limits } = this.facts;
    const now = this.facts.now_ms / 1000;
    const left = width < 560 ? 62 : 84;
    const span = Math.log1p(Math.max(now - picture.begins_s, 3600) / 3600);
    const x = (at) => left + (width - left - 8) * (1 - Math.log1p(Math.max(now - at, 0) / 3600) / span);
    const [ink, dim, line, wash] = ["--ink", "--ink-2", "--line", "--paper-2"].map(colour);
    const fills = grains.map((name) => colour(`--${name}`));
    this.axis(ctx, x, now, left, width, tall, dim, line);
    let y = top;
    const each = this.tall() / picture.lines;
    for (const [name, blocks] of Object.entries(picture.strips)) {
      ctx.fillStyle = wash;
      ctx.fillRect(left, y, width - left - 8, this.tall());
      ctx.fillStyle = ink;
      ctx.textAlign = "left";
      ctx.fillText(names[name] || name, 0, y + this.tall() / 2);
      for (const [row, start, end, grain, segments, rows, bytes] of blocks) {
        const a = x(start);
        const b = Math.min(x(end), width - 8);
        const w = Math.max(b - a - (b - a > 3 ? 1 : 0), 1);
        const spot = { key: `${name} ${row} ${grain} ${start}`, row: `${name} ${row}`, x: a, y: y + row * each, w, h: Math.max(each - (each > 3 ? 1 : 0), 1) };
        ctx.fillStyle = fills[grain];
        ctx.fillRect(spot.x, spot.y, spot.w, spot.h);
        spot.told = () => this.block(name, row, start, end, grains[grain], segments, rows, bytes);
        this.spots.push(spot);
      }
      y += this.tall() + gap;
    }
    this.bounds(ctx, x, now, y - gap, limits);
    y += 8;
    for (const kind of this.kinds()) {
      ctx.fillStyle = dim;
      ctx.textAlign = "left";
      ctx.fillText(kind, 0, y + rowOfMoves / 2);
      ctx.strokeStyle = line;
      ctx.lineWidth = 1;
      ctx.beginPath();
      ctx.moveTo(left, Math.round(y + rowOfMoves / 2) + 0.5);
      ctx.lineTo(width - 8, Math.round(y + rowOfMoves / 2) + 0.5);
      ctx.stroke();
      ctx.textAlign = "center";
      ctx.fillStyle = colour("--accent");
      ctx.font = "bold 14px system-ui, sans-serif";
      for (const moved of this.facts.picture.moved) {
        const [move, ms, commits, count, rows, bytes] = moved;
        if (move !== kind) continue;
        const at = Math.max(Math.min(x(Math.min(ms / 1000, now)), width - 14), left + 6);
        ctx.fillText(moves[kind], at, y + rowOfMoves / 2);
        this.spots.push({ key: `${move} ${ms} ${count}`, row: `moves ${kind}`, x: at - 5, y: y + 2, w: 10, h: rowOfMoves - 4, told: () => `${kind}: ${format.count(count)} files or hours, ${format.count(rows)} rows, ${format.bytes(bytes)}, in ${format.count(commits)} moves from ${format.instant(ms).slice(0, 16)} ${format.zone()} on` });
      }
      ctx.font = plain;
      y += rowOfMoves;
    }
  }

  block(name, row, start, end, grain, segments, rows, bytes) {
    const { partitions, lines } = this.facts.picture;
    const where = lines > 1 || partitions > 1 ? `, ${partitions > 1 ? `line ${row + 1} of ${lines}` : `partition ${row}`}` : "";
    const what = segments === 1 ? grain : `${format.count(segments)} × ${grain}`;
    return `${names[name] || name}${where}: ${what}, ${format.instant(start * 1000).slice(0, 16)} to ${format.instant(end * 1000).slice(0, 16)} ${format.zone()}, ${format.count(rows)} rows, ${format.bytes(bytes)}`;
  }

  axis(ctx, x, now, left, width, tall, dim, line) {
    let before = Infinity;
    ctx.textAlign = "center";
    for (const [age, label] of [[0, "now"], ...ticks]) {
      const at = x(now - age);
      const half = ctx.measureText(label).width / 2;
      const middle = Math.min(at, width - 8 - half);
      if (at < left || middle + half + 6 > before || middle - half < left - 10) continue;
      before = middle - half;
      ctx.strokeStyle = line;
      ctx.lineWidth = 1;
      ctx.beginPath();
      ctx.moveTo(Math.round(at) - 0.5, top - 4);
      ctx.lineTo(Math.round(at) - 0.5, tall - 6);
      ctx.stroke();
      ctx.fillStyle = dim;
      ctx.fillText(label, middle, 8);
    }
    ctx.textAlign = "left";
    ctx.fillStyle = dim;
    ctx.fillText("ago", 0, 8);
  }

  /** Where the rules have data become older than: archived, of months, of years, deep. */
  bounds(ctx, x, now, bottom, limits) {
    const { begins_s } = this.facts.picture;
    ctx.strokeStyle = colour("--ink-2");
    ctx.lineWidth = 1;
    ctx.setLineDash([4, 3]);
    for (const days of [limits.recent_days, limits.monthly_days, limits.yearly_days, limits.deep_days]) {
      if (days === null || now - days * day < begins_s) continue;
      const at = Math.round(x(now - days * day)) - 0.5;
      ctx.beginPath();
      ctx.moveTo(at, top - 4);
      ctx.lineTo(at, bottom);
      ctx.stroke();
    }
    ctx.setLineDash([]);
  }
}

/** S of hours by when they ended: of those that are hot, and of those that are away and were read. */
export class Entropy extends Picture {
  constructor(readout) {
    super("Entropy of hours: arrow keys go from hour to hour, the line below tells how it stands", "entropy-words", readout);
  }

  height() {
    return 180;
  }

  paint(ctx, width, tall) {
    const { entropy, limits } = this.facts;
    const all = [...entropy.hot, ...entropy.away];
    if (!all.length) return;
    const [left, bottom] = [44, tall - 22];
    const times = all.map((point) => point[0]);
    const [from, to] = [Math.min(...times) - 3600, Math.max(...times, this.facts.now_ms / 1000)];
    const low = Math.min(0, limits.return_bits, ...all.map((point) => point[1]));
    const high = Math.max(limits.leave_bits * 1.15, ...all.map((point) => point[2])) + 0.5;
    const x = (at) => left + ((at - from) / Math.max(to - from, 1)) * (width - left - 8);
    const y = (value) => bottom - ((value - low + 0.3) / (high - low + 0.6)) * (bottom - 12);
    const [dim, line, accent, red, green] = ["--ink-2", "--line", "--accent", "--red-dot", "--green-dot"].map(colour);
    ctx.lineWidth = 1;
    ctx.textAlign = "right";
    const step = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500].find((size) => (high - low) / size <= 6) || 1000;
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
      ctx.strokeStyle = line;
      ctx.beginPath();
      ctx.moveTo(left, Math.round(y(value)) + 0.5);
      ctx.lineTo(width - 8, Math.round(y(value)) + 0.5);
      ctx.stroke();
      ctx.fillStyle = dim;
      ctx.fillText(format.fixed(value, step < 1 ? 1 : 0), left - 6, y(value));
    }
    this.days(ctx, x, from, to, bottom, dim, width);
    for (const [value, label, name] of [[limits.leave_bits, "leaves above", red], [limits.return_bits, "comes back below", green]]) {
      ctx.strokeStyle = name;
      ctx.fillStyle = dim;
      ctx.setLineDash([5, 3]);
      ctx.beginPath();
      ctx.moveTo(left, y(value));
      ctx.lineTo(width - 8, y(value));
      ctx.stroke();
      ctx.setLineDash([]);
      ctx.textAlign = "left";
      ctx.fillText(label, left + 4, y(value) - 7);
    }
    for (const [kind, points] of Object.entries(entropy)) {
      for (const [end, least, most, hours] of points) {
        const spot = { key: `${kind} ${end}`, row: kind, x: x(end) - 2, y: y(most) - 2, w: 4, h: Math.max(4, y(least) - y(most) + 4) };
        ctx.fillStyle = kind === "hot" ? accent : dim;
        if (kind === "hot") ctx.fillRect(spot.x, spot.y, spot.w, spot.h);
        else ctx.strokeRect(spot.x + 0.5, spot.y + 0.5, spot.w - 1, spot.h - 1);
        spot.told = () => `${kind === "hot" ? "Hot" : "In the archive, and read"}: ${hours === 1 ? "the hour" : `${format.count(hours)} hours`} to ${format.instant(end * 1000).slice(0, 16)} ${format.zone()}, S ${least === most ? format.fixed(least, 2) : `${format.fixed(least, 2)} to ${format.fixed(most, 2)}`} bits`;
        this.spots.push(spot);
      }
    }
  }

  days(ctx, x, from, to, bottom, dim, width) {
    const most = Math.max(2, Math.floor(width / 170));
    ctx.fillStyle = dim;
    for (let number = 0; number <= most; number += 1) {
      const at = from + ((to - from) * number) / most;
      ctx.textAlign = number === 0 ? "left" : number === most ? "right" : "center";
      ctx.fillText(format.instant(at * 1000).slice(5, 16), x(at), bottom + 13);
    }
  }
}
