// Where devices are drawn: at the places the run gives them, else where a deterministic spring layout puts them.
// Places are in the unit square, y up, as in the report.

const ROUNDS = 200;

export function places(devices, links) {
  const given = devices.every((device) => Number.isFinite(device.x) && Number.isFinite(device.y));
  const raw = given ? new Map(devices.map((d) => [d.name, [d.x, d.y]])) : springs(devices, links);
  const xs = [...raw.values()].map(([x]) => x);
  const ys = [...raw.values()].map(([, y]) => y);
  const [x0, y0] = [Math.min(...xs), Math.min(...ys)];
  const [width, height] = [Math.max(...xs) - x0, Math.max(...ys) - y0];
  const scaled = (value, low, extent) => (extent > 1e-9 ? (value - low) / extent : 0.5);
  return new Map([...raw].map(([name, [x, y]]) => [name, [scaled(x, x0, width), scaled(y, y0, height)]]));
}

// Fruchterman and Reingold (1991), from a circle, so that the same network always looks the same.
function springs(devices, links) {
  const count = devices.length;
  const index = new Map(devices.map((device, i) => [device.name, i]));
  const edges = links.map(({ a, b }) => [index.get(a), index.get(b)]).filter(([a, b]) => a >= 0 && b >= 0);
  const at = devices.map((_, i) => {
    const angle = i * 2.399963; // the golden angle: no two start in one place
    const radius = Math.sqrt((i + 0.5) / count);
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
  const ideal = Math.sqrt(2 / Math.max(1, count));
  for (let round = 0; round < ROUNDS; round++) {
    const move = at.map(([x, y]) => [-x * 0.05, -y * 0.05]);
    const push = (i, j, force) => {
      const [dx, dy] = [at[i][0] - at[j][0], at[i][1] - at[j][1]];
      const distance = Math.max(0.01, Math.hypot(dx, dy));
      const size = force(distance) / distance;
      move[i][0] += dx * size;
      move[i][1] += dy * size;
      move[j][0] -= dx * size;
      move[j][1] -= dy * size;
    };
    for (let i = 0; i < count; i++) {
      for (let j = i + 1; j < count; j++) push(i, j, (distance) => (ideal * ideal) / distance);
    }
    for (const [a, b] of edges) push(a, b, (distance) => -(distance * distance) / ideal);
    const heat = 0.1 * (1 - round / ROUNDS);
    at.forEach((place, i) => {
      const size = Math.hypot(...move[i]) || 1;
      place[0] += (move[i][0] / size) * Math.min(size, heat);
      place[1] += (move[i][1] / size) * Math.min(size, heat);
    });
  }
  return new Map(devices.map((device, i) => [device.name, at[i]]));
}
