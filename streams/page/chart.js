// One clock over time: its offset with its bound, events as dots, steps as lines. Drawn by uPlot, in the page's colours.

import uPlot from "./vendor/uPlot.esm.js";
import * as format from "./format.js";

const height = () => (innerWidth < 600 ? 260 : 340);
const secondsFromMs = 10000;
const shapes = { GREEN: dot, YELLOW: diamond, RED: triangle };

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function dot(ctx, x, y, r) {
  ctx.moveTo(x + r, y);
  ctx.arc(x, y, r, 0, 2 * Math.PI);
}

function diamond(ctx, x, y, r) {
  const s = r * 1.3;
  ctx.moveTo(x, y - s);
  ctx.lineTo(x + s, y);
  ctx.lineTo(x, y + s);
  ctx.lineTo(x - s, y);
  ctx.closePath();
}

function triangle(ctx, x, y, r) {
  const s = r * 1.35;
  ctx.moveTo(x, y - s);
  ctx.lineTo(x + s, y + s * 0.8);
  ctx.lineTo(x - s, y + s * 0.8);
  ctx.closePath();
}

/** Points of one severity, each by its shape. */
function dots(name) {
  return (u, series, from, to) => {
    const { ctx } = u;
    const radius = 2.6 * devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    ctx.clip();
    ctx.beginPath();
    for (let i = from; i <= to; i += 1) {
      const value = u.data[series][i];
      if (value !== null && value !== undefined) shapes[name](ctx, u.valToPos(u.data[0][i], "x", true), u.valToPos(value, "y", true), radius);
    }
    ctx.fillStyle = colour(`--${name.toLowerCase()}-dot`);
    ctx.fill();
    ctx.restore();
    return null;
  };
}

export class Chart {
  constructor(holder, readout) {
    Object.assign(this, { holder, readout, points: [], steps: [], toClock: false, plot: null });
    this.resized = new ResizeObserver(() => this.plot && this.plot.setSize(this.size()));
    this.resized.observe(holder);
  }

  size() {
    return { width: Math.max(240, this.holder.clientWidth), height: height() };
  }

  /** points: {t (s), delta, severity, offset, bound} in order of time; steps: {t, ms}. */
  show(points, steps) {
    Object.assign(this, { points, steps });
    if (points.length === 0) return;
    if (this.plot) this.plot.setData(this.data());
    else this.draw();
  }

  /** Begin anew: colours, zone or scale are others. */
  draw() {
    if (this.plot) this.plot.destroy();
    this.plot = null;
    if (this.points.length) this.plot = new uPlot(this.options(), this.data(), this.holder);
  }

  stop() {
    this.resized.disconnect();
    if (this.plot) this.plot.destroy();
  }

  data() {
    const of = (name) => this.points.map((p) => (p.severity === name ? p.delta : null));
    const known = (value) => this.points.map((p) => (p.offset === null || p.offset === undefined ? null : value(p)));
    return [
      this.points.map((p) => p.t), known((p) => p.offset + p.bound), known((p) => p.offset - p.bound), known((p) => p.offset),
      of("GREEN"), of("YELLOW"), of("RED"),
    ];
  }

  /** What the y axis spans: all of it, or the clock alone. */
  range() {
    let [low, high] = [Infinity, -Infinity];
    const take = (value) => { low = Math.min(low, value); high = Math.max(high, value); };
    for (const p of this.points) {
      if (p.offset !== null && p.offset !== undefined) { take(p.offset - p.bound); take(p.offset + p.bound); }
      if (!this.toClock) take(p.delta);
    }
    if (low > high) return [-1, 1];
    const room = Math.max((high - low) * 0.08, 0.5);
    return [low - room, high + room];
  }

  options() {
    const line = colour("--line");
    const ink = colour("--ink-2");
    const accent = colour("--accent");
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };
    return {
      ...this.size(),
      ms: 1,
      tzDate: (ts) => (format.zone() === "UTC" ? uPlot.tzDate(new Date(ts * 1000), "Etc/UTC") : new Date(ts * 1000)),
      legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false }, points: { show: false } },
      scales: { x: { time: true }, y: { range: () => this.range() } },
      axes: [
        { ...axis, values: timeValues, space: 70 },
        { ...axis, size: 68, values: (u, ticks) => valueTicks(ticks), label: this.unit(), labelSize: 18, labelFont: "12px system-ui, sans-serif" },
      ],
      series: [
        {},
        { stroke: "transparent", points: { show: false } },
        { stroke: "transparent", points: { show: false } },
        { stroke: accent, width: 2, points: { show: false } },
        { paths: dots("GREEN"), points: { show: false } },
        { paths: dots("YELLOW"), points: { show: false } },
        { paths: dots("RED"), points: { show: false } },
      ],
      bands: [{ series: [1, 2], fill: colour("--band") }],
      hooks: { draw: [(u) => this.drawSteps(u)], setCursor: [(u) => this.read(u)] },
    };
  }

  unit() {
    const [low, high] = this.range();
    return Math.max(Math.abs(low), Math.abs(high)) >= secondsFromMs ? "offset, s" : "offset, ms";
  }

  drawSteps(u) {
    const { ctx } = u;
    const { left, top, width, height: tall } = u.bbox;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = colour("--step");
    ctx.fillStyle = colour("--step");
    ctx.lineWidth = ratio;
    ctx.setLineDash([4 * ratio, 3 * ratio]);
    ctx.font = `${12 * ratio}px system-ui, sans-serif`;
    for (const step of this.steps) {
      const x = u.valToPos(step.t, "x", true);
      if (x < left || x > left + width) continue;
      ctx.beginPath();
      ctx.moveTo(x, top);
      ctx.lineTo(x, top + tall);
      ctx.stroke();
      const right = x > left + width * 0.7;
      ctx.textAlign = right ? "right" : "left";
      ctx.fillText(`step ${format.span(step.ms)}`, x + (right ? -6 : 6) * ratio, top + 14 * ratio);
    }
    // zero: where a clock is right
    const zero = u.valToPos(0, "y", true);
    if (zero > top && zero < top + tall) {
      ctx.setLineDash([]);
      ctx.strokeStyle = colour("--ink-2");
      ctx.globalAlpha = 0.5;
      ctx.beginPath();
      ctx.moveTo(left, zero);
      ctx.lineTo(left + width, zero);
      ctx.stroke();
    }
    ctx.restore();
  }

  read(u) {
    const at = u.cursor.idx;
    this.readout(at === null || at === undefined ? null : this.points[at]);
  }
}

/** Ticks of time: seconds where they are apart by less than a minute. */
function timeValues(u, ticks) {
  const step = ticks.length > 1 ? ticks[1] - ticks[0] : 1;
  return ticks.map((s) => {
    const text = format.time(Math.round(s * 1000));
    return step < 1 ? text : step < 60 ? text.slice(0, 8) : text.slice(0, 5);
  });
}

function valueTicks(ticks) {
  const large = Math.max(...ticks.map(Math.abs)) >= secondsFromMs;
  const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : 1;
  const shown = large ? step / 1000 : step;
  const decimals = Math.max(0, Math.min(3, -Math.floor(Math.log10(shown) + 1e-9)));
  return ticks.map((value) => format.fixed(large ? value / 1000 : value, decimals));
}
