// Storage groups and routes as tables.

import { Keyed, byId, make, put, set } from "./dom.js";
import { bytes, duration, figures } from "./format.js";

function rows(id, columns, text) {
  const build = () => {
    const cells = columns.map((name, i) => make(i ? "td" : "th", text.includes(name) ? { class: "text" } : {}));
    set(cells[0], "scope", "row");
    return { node: make("tr", {}, ...cells), cells: Object.fromEntries(columns.map((name, i) => [name, cells[i]])) };
  };
  return (update) => new Keyed(byId(id), build, (part, item) => update(part.cells, item));
}

const STORAGE = ["name", "leader", "replicas", "slots", "log_end", "lag"];
const ROUTES = ["name", "to", "taken", "delivered", "dropped", "failures", "waiting", "oldest", "trouble"];

export class Tables {
  constructor() {
    this.storage = rows("storage", STORAGE, ["leader", "replicas"])(showGroup);
    this.routes = rows("routes", ROUTES, ["to", "trouble"])(showRoute);
  }

  show(state) {
    byId("storage-part").hidden = state.storage.length === 0;
    byId("routes-part").hidden = state.routes.length === 0;
    this.storage.show(state.storage, (group) => group.name);
    this.routes.show(state.routes, (route) => route.name);
  }
}

function alerting(cell, text, bad) {
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
  put(cells.taken, figures(route.taken));
  put(cells.delivered, figures(route.delivered));
  alerting(cells.dropped, figures(route.dropped), route.dropped > 0);
  put(cells.failures, figures(route.failures));
  put(cells.waiting, route.waiting ? `${figures(route.waiting)} (${bytes(route.waiting_bytes)})` : "0");
  put(cells.oldest, route.waiting ? duration(route.oldest_s) : "");
  alerting(cells.trouble, route.trouble || "none", Boolean(route.trouble));
}
