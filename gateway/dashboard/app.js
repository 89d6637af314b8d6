// The dashboard: one feed of states, shown by each part of the page.

import { follow, useToken } from "./api.js";
import { Cards } from "./cards.js";
import { byId, put, set } from "./dom.js";
import { bytes, figures, instant } from "./format.js";
import { Jobs } from "./jobs.js";
import { Log } from "./log.js";
import { NetworkMap, standing } from "./map.js";
import { Panel } from "./panel.js";
import { Photographs } from "./photographs.js";
import { Tables } from "./tables.js";

const RATE_OVER_S = 5;

const log = new Log();
const panel = new Panel((text) => log.say(log.now, text));
const map = new NetworkMap(byId("map"), choose);
const parts = [map, panel, new Cards(choose), new Photographs(choose), new Tables(), log];
new Jobs(); // asks for itself, while it is seen
let last = null;

function choose(chosen) {
  panel.choose(chosen);
  map.choose(chosen);
  byId("panel").scrollIntoView({ block: "nearest" });
}

const counted = []; // [now, kept in all], of the last seconds

function head(state) {
  put(byId("run-name"), state.run.name);
  document.title = `${state.run.name} · Birdhouse`;
  put(byId("fabric"), state.run.fabric);
  const running = state.devices.filter((device) => standing(device) === "up").length;
  put(byId("count-up"), running);
  put(byId("count-down"), state.devices.length - running);
  byId("down-fact").hidden = running === state.devices.length;
  put(byId("traffic"), `${bytes(state.links.reduce((sum, link) => sum + link.bytes_per_s, 0))}/s`);
  put(byId("clock"), state.now < 1e9 ? `${instant(state.now)} since the start` : instant(state.now));
  const kept = state.devices.reduce((sum, device) => sum + device.kept, 0);
  if (counted.length && counted.at(-1)[0] > state.now) counted.length = 0;
  counted.push([state.now, kept]);
  while (counted.length > 2 && counted[0][0] < state.now - RATE_OVER_S) counted.shift();
  const [since, before] = counted[0];
  put(byId("rate"), state.now > since ? figures(Math.max(0, kept - before) / (state.now - since)) : "–");
}

function onState(state) {
  last = state;
  for (const part of [{ show: head }, ...parts]) {
    try {
      part.show(state);
    } catch (error) {
      reportError(error); // a defect of one part: seen on the console, and no reason to lose the others
    }
  }
}

function onFeed(feed) {
  if (document.body.dataset.feed === feed) return;
  set(document.body, "data-feed", feed);
  put(byId("feed"), feed);
  const banner = byId("banner");
  const shown = last ? ` What you see is from ${instant(last.now)}.` : "";
  if (feed === "lost") put(banner, `The gateway does not answer.${shown} Trying again…`);
  banner.hidden = feed !== "lost";
  byId("token-form").hidden = feed !== "denied";
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("token").value.trim());
});

follow(onState, onFeed);
