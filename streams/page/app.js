// The page: which view is shown, its stream, and what stands around it.

import { AlertsView } from "./alerts.js";
import { fill, h, text } from "./dom.js";
import { FleetView } from "./fleet.js";
import * as format from "./format.js";
import { keep, kept } from "./kept.js";
import { LifecycleView } from "./lifecycle.js";
import { LogView } from "./log.js";
import { RefusedError, Stream, save, setToken, takeToken } from "./net.js";
import { SourceView } from "./source.js";
import { StatusView } from "./status.js";

const views = { fleet: FleetView, alerts: AlertsView, log: LogView, status: StatusView, lifecycle: LifecycleView, source: SourceView };
const names = { fleet: "Fleet", alerts: "Alerts", log: "Drift log", status: "Partitions", lifecycle: "Tiers", source: "Source" };
const themes = ["auto", "light", "dark"];
const at = (id) => document.getElementById(id);

class Page {
  constructor() {
    this.paused = false;
    this.state = "connecting";
    this.theme = kept("localStorage", "driftledger-theme") || "auto";
    format.setLocal(kept("localStorage", "driftledger-zone") === "local");
    at("pause").addEventListener("click", () => this.pause(!this.paused));
    at("zone").addEventListener("click", () => this.turnZone());
    at("theme").addEventListener("click", () => this.turnTheme());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
    addEventListener("hashchange", () => this.route());
    addEventListener("online", () => this.stream && this.stream.retry());
    // A page that one may come back to keeps its connection, of which there are six to a worker.
    addEventListener("pagehide", () => this.stream && this.stream.stop());
    addEventListener("pageshow", (event) => event.persisted && !this.paused && this.resume());
    addEventListener("keydown", (event) => this.key(event));
    this.paintTools();
    this.route();
  }

  // ------------------------------------------------------------------------------------------------ which view

  route() {
    if (this.settingHash === location.hash) {
      this.settingHash = null;
      return;
    }
    if (location.hash === "#main" && this.view) return; // the skip link
    const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
    const [wanted, ...rest] = path.split("/");
    const name = Object.hasOwn(views, wanted) && (wanted !== "source" || rest.length > 1) ? wanted : "fleet";
    const parts = rest.map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
    if (this.view) this.view.stop();
    this.found = null;
    this.name = name;
    this.view = new views[name](this, Object.fromEntries(new URLSearchParams(query || "")), parts);
    if (this.name === "fleet") this.lastFleet = location.hash;
    for (const link of document.querySelectorAll(".tabs a")) {
      if (link.dataset.view === (this.name === "source" ? "fleet" : this.name)) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    fill(at("main"), this.view.element);
    scrollTo(0, 0);
    this.open();
    this.retitle();
  }

  fleetHash() {
    return this.lastFleet || "#/fleet";
  }

  /** A view asks for something else: the address says it, too. */
  asked(view, query) {
    const hash = `#/${this.name}${String(query) ? `?${query}` : ""}`;
    if (hash !== location.hash) {
      history.replaceState(null, "", hash);
      if (this.name === "fleet") this.lastFleet = hash;
    }
    this.open();
  }

  // ------------------------------------------------------------------------------------------------ its stream

  open(from = {}) {
    if (this.stream) this.stream.stop();
    const view = this.view;
    this.stream = new Stream(view.path(), (found) => {
      if (this.view !== view) return;
      this.found = found;
      this.head(found.facts);
      view.show(found);
    }, (state, why, status) => this.view === view && this.link(state, why, status),
    () => this.view === view && view.again && view.again(), from);
    if (this.paused) this.pause(false);
  }

  pause(paused) {
    this.paused = paused;
    if (paused) this.stream.stop();
    else if (this.stream.stopped) this.resume();
    this.paintTools();
    this.link(this.paused ? "paused" : this.stream.failures ? "lost" : this.state);
  }

  /** Go on where the page was: the stream is told what it saw last. */
  resume() {
    this.open({ lastId: this.stream.lastId, view: this.stream.view });
  }

  link(state, why = "", status = 0) {
    if (this.paused && state !== "paused") return;
    this.state = state;
    const words = { connecting: "connecting", live: "live", late: "late", lost: "disconnected", paused: "paused", refused: "refused", failed: "failed" };
    at("link").className = `link link-${state}`;
    text(at("link-text"), words[state]);
    const banner = at("banner");
    banner.hidden = !["lost", "refused", "failed"].includes(state);
    banner.className = `banner banner-${state}`;
    if (state === "lost") text(banner, `Disconnected, trying again. ${why ? `${why[0].toUpperCase()}${why.slice(1)}. ` : ""}What is shown is from before.`);
    if (state === "failed") text(banner, `The worker cannot make this view now, and tries again: ${format.plain(why)}. What is shown is from before.`);
    if (state === "refused") this.refused(why, status);
    document.body.classList.toggle("old", ["lost", "failed"].includes(state));
    this.tick();
    this.retitle();
  }

  refused(why, status) {
    if (status !== 401) {
      text(at("banner"), `The worker refuses: ${why}`);
      return;
    }
    const field = h("input", { type: "password", id: "token", autocomplete: "off", "aria-label": "Token of the worker" });
    const enter = (event) => {
      event.preventDefault();
      setToken(field.value.trim());
      this.route();
    };
    fill(at("banner"), h("form", { class: "login", onsubmit: enter }, h("label", { for: "token" }, "This worker asks for its token (http_token):"), field, h("button", { type: "submit" }, "Enter")));
    field.focus();
  }

  // ------------------------------------------------------------------------------------------------ around it

  head(facts) {
    this.facts = facts;
    const badge = at("badge-alerts");
    const open = facts.severities.RED + facts.severities.YELLOW;
    badge.hidden = !open;
    badge.className = `badge ${facts.severities.RED ? "badge-RED" : "badge-YELLOW"}`;
    text(badge, open ? format.count(open) : "");
    badge.title = `${open} sources with an open alert`;
    const halts = at("badge-halts");
    halts.hidden = facts.halted === 0 && facts.healthy;
    halts.className = "badge badge-RED";
    text(halts, halts.hidden ? "" : facts.halted ? format.count(facts.halted) : "!");
    text(at("foot-worker"), facts.worker);
    const missing = Object.entries(facts.missing);
    at("missing").hidden = !missing.length;
    text(at("missing"), missing.map(([partition, why]) => `The sources of partition ${partition} are not among those shown: ${format.plain(why)}. It is tried again.`).join(" "));
    this.retitle();
    this.tick();
  }

  /** The title tells the worst that there is, for a tab that nobody looks at. */
  retitle() {
    const { severities, halted } = this.facts || {};
    const worst = [];
    if (this.state === "lost") worst.push("disconnected");
    if (halted) worst.push(`${halted} halted`);
    if (severities && severities.RED) worst.push(`▲ ${format.count(severities.RED)} RED`);
    if (severities && severities.YELLOW) worst.push(`◆ ${format.count(severities.YELLOW)} YELLOW`);
    if (severities && !worst.length) worst.push("● GREEN");
    document.title = [...worst, names[this.name], "driftledger"].join(" · ");
  }

  /** Of when what is shown is. */
  tick() {
    const facts = this.facts;
    text(at("foot-at"), facts && facts.at_ms !== null ? `Broker's time ${format.instant(facts.at_ms)} ${format.zone()}` : "");
    at("foot-at").classList.toggle("stale", ["late", "lost", "failed"].includes(this.state));
  }

  paintTools() {
    at("pause").setAttribute("aria-pressed", String(this.paused));
    text(at("pause"), this.paused ? "Resume" : "Pause");
    text(at("zone"), format.zone() === "UTC" ? "UTC" : "Local");
    text(at("theme"), { auto: "Auto", light: "Light", dark: "Dark" }[this.theme]);
    if (this.theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.theme;
  }

  turnZone() {
    format.setLocal(format.zone() === "UTC");
    keep("localStorage", "driftledger-zone", format.zone());
    this.paintTools();
    if (this.found) this.view.rezone(this.found);
    this.tick();
  }

  turnTheme() {
    this.theme = themes[(themes.indexOf(this.theme) + 1) % themes.length];
    keep("localStorage", "driftledger-theme", this.theme);
    this.recolour();
  }

  recolour() {
    this.paintTools();
    if (this.view.recolour) this.view.recolour();
  }

  /** / goes to the search, p pauses; not while somebody types. */
  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "/" && at("search")) {
      event.preventDefault();
      at("search").focus();
    }
    if (event.key === "p") this.pause(!this.paused);
  }

  /** A button, and a line that says why there is no file. */
  csvButton(path) {
    const why = h("p", { class: "unsaved", role: "status", hidden: true });
    const button = h("button", { type: "button", class: "csv", title: "Save the whole list as a CSV file", onclick: async () => {
      button.disabled = true;
      why.hidden = true;
      text(button, "CSV …");
      try {
        await save(path());
        text(button, "CSV");
      } catch (error) {
        text(button, "CSV failed");
        text(why, `No file was saved: ${format.plain(error instanceof RefusedError ? error.message : "the worker does not answer")}.`);
        why.hidden = false;
      }
      button.disabled = false;
    } }, "CSV");
    return [button, why];
  }
}

takeToken();
new Page();
