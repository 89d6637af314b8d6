// Storage groups, routes and destinations as tables.

import { Keyed, byId, make, put, set } from "./dom.js";
import { bytes, duration, figures } from "./format.js";

// Makes a Keyed of table rows, whose first column is their head; `text` names the columns that are no numbers.
export function rows(id, columns, text) {
  const build = () => {
    const cells = columns.map((name, i) => make(i ? "td" : "th", text.includes(name) ? { class: "text" } : {}));
    set(cells[0], "scope", "row");
    return { node: make("tr", {}, ...cells), cells: Object.fromEntries(columns.map((name, i) => [name, cells[i]])) };
  };
  return (update) => new Keyed(byId(id), build, (part, item) => update(part.cells, item));
}

const STORAGE = ["name", "leader", "replicas", "slots", "log_end", "lag"];
const ROUTES = ["name", "to", "matched", "written", "waiting", "dropped", "dead_lettered", "refused", "terms"];
const DESTINATIONS = ["name", "type", "taken", "delivered", "failures", "waiting", "oldest", "trouble"];

export class Tables {
  constructor() {
    this.storage = rows("storage", STORAGE, ["leader", "replicas"])(showGroup);
    this.routes = rows("routes", ROUTES, ["to", "terms"])(showRoute);
    this.destinations = rows("destinations", DESTINATIONS, ["type", "trouble"])(showDestination);
  }

  show(state) {
    byId("storage-part").hidden = state.storage.length === 0;
    byId("routes-part").hidden = state.routes.length === 0;
    byId("destinations-part").hidden = state.destinations.length === 0;
    this.storage.show(state.storage, (group) => group.name);
    this.routes.show(state.routes, (route) => route.name);
    this.destinations.show(state.destinations, (destination) => destination.name);
  }
}

export function alerting(cell, text, bad) {
  put(cell, text);
  cell.classList.toggle("alert", bad);
}

function showGroup(cells, group) {
  put(cells.name, group.name);
  alerting(cells.leader, group.leader || "none known", !group.leader);
  const silent = group.replicas.filter((replica) => !replica.answers);
  const all = group.replicas.map(({ address, answers }) => (answers ? `● ${address}` : `✕ ${address} is silent`));
  alerting(cells.replicas, all.join("   "), silent.length > 0);
  put(cells.slots, figures(group.slots));
  put(cells.log_end, figures(group.log_end));
  put(cells.lag, figures(group.lag));
}

function showRoute(cells, route) {
  put(cells.name, route.name);
  put(cells.to, route.to);
  put(cells.matched, figures(route.matched));
  put(cells.written, figures(route.written));
  put(cells.waiting, figures(route.waiting));
  alerting(cells.dropped, figures(route.dropped), route.dropped > 0);
  alerting(cells.dead_lettered, figures(route.dead_lettered), route.dead_lettered > 0);
  alerting(cells.refused, figures(route.refused), route.refused > 0);
  put(cells.terms, terms(route));
}

// What the user chose for it, where that is not the default.
function terms(route) {
  const said = [];
  if (route.priority) said.push(`priority ${route.priority}`);
  if (route.rate_limit_per_s !== null) said.push(`${route.rate_limit_per_s}/s`);
  if (route.overflow !== "spool") said.push(route.overflow);
  return said.join(", ");
}

function showDestination(cells, destination) {
  put(cells.name, destination.name);
  put(cells.type, destination.type);
  put(cells.taken, figures(destination.taken));
  put(cells.delivered, figures(destination.delivered));
  put(cells.failures, figures(destination.failures));
  const waiting = `${figures(destination.waiting)} (${bytes(destination.waiting_bytes)})`;
  put(cells.waiting, destination.waiting ? waiting : "0");
  put(cells.oldest, destination.waiting ? duration(destination.oldest_s) : "");
  alerting(cells.trouble, destination.trouble || "none", Boolean(destination.trouble));
}
