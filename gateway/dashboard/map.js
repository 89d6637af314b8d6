// The network, drawn: who is up, which link carries what, what is lost, what is cut. Devices and links are
// buttons. Elements are made when a device or link first appears and then only changed.

import { Keyed, draw, put, set } from "./dom.js";
import { bytes, figures } from "./format.js";
import { places } from "./layout.js";

const LABELLED_MAX = 24;
const MARGIN_PX = 34;

export const linkKey = (link) => JSON.stringify([link.a, link.b]);
// Whether observations may be expected of it: a birdhouse, or one that only the gateway has heard of.
export const sends = (device) => device.kept > 0 || !device.role || device.role === "birdhouse";
export const standing = (device) => (!device.up ? "down" : device.paused ? "paused" : "up");

export class NetworkMap {
  constructor(box, onChoose) {
    this.onChoose = onChoose;
    this.svg = draw("svg", { role: "group", "aria-label": "Map of the network" });
    const [lines, marks] = [draw("g"), draw("g")];
    this.svg.append(lines, marks);
    box.append(this.svg);
    this.links = new Keyed(lines, (link) => this.#buildLink(link), (part, link) => this.#showLink(part, link));
    this.devices = new Keyed(marks, (one) => this.#buildDevice(one), (part, one) => this.#showDevice(part, one));
    this.box = box;
    this.network = "";
    new ResizeObserver(() => this.#resize()).observe(box);
  }

  show(state) {
    this.state = state;
    const network = JSON.stringify([
      state.devices.map((device) => [device.name, device.x, device.y]),
      state.links.map((link) => [link.a, link.b]),
    ]);
    if (network !== this.network) {
      this.network = network;
      this.unit = places(state.devices, state.links);
      this.#resize();
      return;
    }
    this.#update();
  }

  choose(chosen) {
    for (const [kind, list] of [["device", this.devices], ["link", this.links]]) {
      for (const [key, part] of list.parts) {
        set(part.node, "aria-pressed", chosen?.kind === kind && chosen.key === key);
      }
    }
  }

  #update() {
    if (!this.state || !this.width) return;
    const { devices, links } = this.state;
    this.crowded = devices.length > LABELLED_MAX || this.width / Math.sqrt(devices.length) < 80;
    this.most = Math.max(1, ...links.map((link) => link.bytes_per_s));
    this.links.show(links.filter(({ a, b }) => this.unit.has(a) && this.unit.has(b)), linkKey);
    this.devices.show(devices, (device) => device.name);
  }

  #resize() {
    const width = this.box.clientWidth;
    if (!width || !this.unit) return;
    this.width = width;
    this.height = Math.round(Math.min(Math.max(width * 0.72, 300), 560));
    set(this.svg, "viewBox", `0 0 ${this.width} ${this.height}`);
    this.moved = true;
    this.at = new Map(
      [...this.unit].map(([name, [x, y]]) => [
        name,
        [MARGIN_PX + x * (this.width - 2 * MARGIN_PX), this.height - MARGIN_PX - y * (this.height - 2 * MARGIN_PX)],
      ]),
    );
    this.#update();
  }

  #button(kind, key, ...children) {
    const node = draw("g", { class: kind, role: "button", tabindex: "0", "aria-pressed": "false" }, ...children);
    const choose = () => this.onChoose({ kind, key });
    node.addEventListener("click", choose);
    node.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose();
    });
    return node;
  }

  #buildLink(link) {
    const lines = ["halo", "base", "carries", "loses"].map((name) => draw("path", { class: `line ${name}` }));
    const [halo, base, carries, loses] = lines;
    const cross = draw("path", { class: "cross", d: "M-6 -6L6 6M6 -6L-6 6" });
    const label = draw("text", { class: "lost", "text-anchor": "middle" });
    const node = this.#button("link", linkKey(link), ...lines, cross, label);
    return { node, halo, base, carries, loses, cross, label };
  }

  #showLink(part, link) {
    const [[x1, y1], [x2, y2]] = [this.at.get(link.a), this.at.get(link.b)];
    const line = `M${x1.toFixed(1)} ${y1.toFixed(1)}L${x2.toFixed(1)} ${y2.toFixed(1)}`;
    for (const path of [part.halo, part.base, part.carries, part.loses]) set(path, "d", line);
    const middle = `translate(${((x1 + x2) / 2).toFixed(1)} ${((y1 + y2) / 2).toFixed(1)})`;
    set(part.cross, "transform", middle);
    set(part.label, "transform", middle);
    const state = linkState(link);
    const flowing = link.up && link.bytes_per_s > 0;
    const width = flowing ? (1.2 + 8 * Math.sqrt(link.bytes_per_s / this.most)).toFixed(1) : "0";
    set(part.carries, "stroke-width", width);
    set(part.loses, "stroke-width", state === "losing" ? Math.max(3, Number(width)).toFixed(1) : "0");
    set(part.node, "data-state", state);
    put(part.label, state === "losing" && link.lost_per_s >= 0.05 ? `−${figures(link.lost_per_s)}/s` : "");
    set(part.node, "aria-label", `Link ${link.a} to ${link.b}, ${linkWords(link)}`);
  }

  #buildDevice(device) {
    const square = ["sink", "storage", "gateway"].includes(device.role);
    const radius = { hub: 11, sink: 11, gateway: 11, cache: 9 }[device.role] ?? 7.5;
    const shape = square
      ? draw("rect", { x: -radius, y: -radius, width: 2 * radius, height: 2 * radius, rx: 2 })
      : draw("circle", { r: radius });
    set(shape, "class", "shape");
    const beat = draw("circle", { class: "beat", r: radius });
    const target = draw("circle", { class: "target", r: 20 });
    const arm = radius * 0.55;
    const cross = draw("path", { class: "cross", d: `M${-arm} ${-arm}L${arm} ${arm}M${arm} ${-arm}L${-arm} ${arm}` });
    const bars = draw("path", { class: "bars", d: `M-2.4 ${-arm}V${arm}M2.4 ${-arm}V${arm}` });
    const label = draw("text", { "text-anchor": "middle", y: radius + 15 });
    put(label, device.name);
    const node = this.#button("device", device.name, target, beat, shape, cross, bars, label);
    set(node, "data-role", device.role);
    return { node, beat, kept: device.kept, odd: false };
  }

  #showDevice(part, device) {
    const [x, y] = this.at.get(device.name);
    const state = standing(device);
    set(part.node, "transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    set(part.node, "data-state", state);
    set(part.node, "data-quiet", this.crowded && device.role === "birdhouse" ? "" : null);
    set(part.node, "aria-label", `${device.name}, ${device.role}, ${state}`);
    if (device.kept > part.kept) set(part.beat, "data-beat", (part.odd = !part.odd) ? "1" : "2");
    part.kept = device.kept;
  }
}

// A link to a device that is down carries nothing, and is whole: "dead", and not "cut".
export function linkState(link) {
  if (!link.up) return link.cut ? "cut" : "dead";
  return link.lost_per_s > 0 ? "losing" : link.bytes_per_s > 0 ? "carrying" : "idle";
}

export function linkWords(link) {
  const state = linkState(link);
  if (state === "dead") return "whole, a device at its end is down";
  if (state === "cut" || state === "idle") return state;
  const lost = link.lost_per_s ? `, loses ${figures(link.lost_per_s)} frames/s` : "";
  return `carries ${bytes(link.bytes_per_s)}/s${lost}`;
}
