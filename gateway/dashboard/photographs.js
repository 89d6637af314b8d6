// The latest photographs, newest first, drawn on canvases.

import { picture } from "./api.js";
import { Keyed, byId, make, put, set } from "./dom.js";
import { duration } from "./format.js";

const SHOWN_MAX = 12;
const WIDTH_PX = 320;

export class Photographs {
  constructor(onChoose) {
    this.list = new Keyed(byId("photographs"), (shot) => build(shot, onChoose), (part, shot) => {
      show(part, shot, this.now);
    });
  }

  show(state) {
    this.now = state.now;
    const shots = [];
    for (const device of state.devices) {
      const latest = device.latest.filter((one) => one.object_key).sort((a, b) => b.t_event - a.t_event)[0];
      if (latest) shots.push({ device, latest });
    }
    byId("photographs-part").hidden = shots.length === 0;
    // In the devices' order, which stays: pictures that change places cannot be compared.
    this.list.show(shots.slice(0, SHOWN_MAX), (shot) => shot.device.name);
  }
}

function build({ device }, onChoose) {
  const canvas = make("canvas", { role: "img", width: WIDTH_PX, height: 240 });
  const name = make("button", { type: "button", class: "name" }, device.name);
  name.addEventListener("click", () => onChoose({ kind: "device", key: device.name }));
  const when = make("span", { class: "age" });
  const node = make("li", {}, canvas, make("p", {}, name, when));
  return { node, canvas, when, key: null };
}

function show(part, { device, latest }, now) {
  put(part.when, `${duration(now - latest.t_gen)} old`);
  set(part.canvas, "aria-label", `${latest.kind} ${latest.id} from ${device.name}`);
  if (part.key === latest.object_key) return;
  part.key = latest.object_key;
  fetchInto(part, latest.object_key);
}

async function fetchInto(part, key) {
  try {
    const bitmap = await picture(key);
    if (part.key !== key) return; // a newer one came while this one was on its way
    part.canvas.height = Math.round((WIDTH_PX * bitmap.height) / bitmap.width);
    part.canvas.getContext("2d").drawImage(bitmap, 0, 0, WIDTH_PX, part.canvas.height);
    set(part.node, "data-missing", null);
    bitmap.close();
  } catch {
    set(part.node, "data-missing", "");
    set(part.canvas, "aria-label", "The photograph could not be fetched");
  }
}
