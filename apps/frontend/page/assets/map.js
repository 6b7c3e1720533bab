// Draws trust domains around a rectangle, and an arrow from each that calls to
// each that is called.

const bend = 0.13; // how far an arrow swerves, as a share of its length
const steps = 80; // points of a curve

const map = document.getElementById("map");
const edges = new Map(); // what shows the calls between two domains, by their names
let drawn = ""; // what the map is laid out for
let last = null; // what drawMap was given

new ResizeObserver(() => last && drawMap(...last)).observe(map);

export const domainOf = (id) => id.split("/")[2] || "no identity yet";

// ownFirst returns each of the domains once, by name, but our own first.
export const ownFirst = (domains, own) => [...new Set(domains)].sort((a, b) => (b === own) - (a === own) || a.localeCompare(b));

// drawMap shows calls; own is the trust domain of whoever watches, millis puts
// a latency into words.
export function drawMap(calls, own, millis) {
  last = [calls, own, millis];
  const between = Map.groupBy(calls, (call) => `${domainOf(call.caller)} ${domainOf(call.server)}`);
  const domains = ownFirst(calls.flatMap((call) => [domainOf(call.caller), domainOf(call.server)]), own);
  const size = { width: map.clientWidth, height: map.clientHeight };
  if (!size.width) return; // it is hidden where there is no room for it
  const layout = JSON.stringify([own, domains, [...between.keys()].sort(), size]);
  if (layout !== drawn) lay(domains, own, [...between.keys()], size);
  drawn = layout;
  for (const [key, here] of between) show(edges.get(key), here, millis);
}

function show(edge, calls, millis) {
  const inState = (state) => calls.filter((call) => call.state === state);
  const state = ["failed", "answered", "refused", "waiting"].find((state) => inState(state).length);
  const answered = inState("answered"), refused = inState("refused");
  const mean = answered.reduce((sum, call) => sum + call.millis, 0) / answered.length;
  const text = { answered: millis(mean), refused: "refused", failed: "fails" }[state] ?? "…";
  edge.text.textContent = edge.within ? `within: ${text}` : text;
  edge.group.dataset.state = state;
  if (edge.within) return;
  edge.refused.textContent = state !== "refused" && refused.length ? `${refused.length} refused` : "";
  edge.profile.textContent = [...new Set(calls.map((call) => call.profile).filter(Boolean))].join(", ");
  delete edge.group.dataset.beat;
  if (state !== "answered") return;
  void edge.group.getBoundingClientRect(); // lets the same animation start again
  edge.group.dataset.beat = "";
}

function lay(domains, own, keys, { width, height }) {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const box = { w: rem * (1.6 + 0.63 * Math.max(...domains.map((domain) => domain.length))), h: rem * 3.3 };
  // Our own is at the left, or at the upper left where four have the corners.
  const first = Math.PI * (domains.length === 4 ? 1.25 : 1);
  const at = new Map(domains.map((domain, i) => {
    const angle = first + (2 * Math.PI * i) / domains.length, x = Math.cos(angle), y = Math.sin(angle);
    const out = domains.length === 1 ? 0 : 1 / Math.max(Math.abs(x), Math.abs(y));
    return [domain, { x: width / 2 + (x * out * (width - box.w)) / 2, y: height / 2 + (y * out * (height - box.h - 3 * rem)) / 2 }];
  }));
  edges.clear();
  document.getElementById("nodes").replaceChildren(...domains.map((domain) => {
    const key = `${domain} ${domain}`;
    return node(domain, at.get(domain), box, domain === own, keys.includes(key) ? key : "");
  }));
  document.getElementById("edges").replaceChildren(...keys.flatMap((key) => {
    const [from, to] = key.split(" ");
    return from === to ? [] : [arrow(key, at.get(from), at.get(to), box, rem)];
  }));
}

function node(domain, { x, y }, { w, h }, own, within) {
  const group = draw("g", { class: own ? "node own" : "node" });
  const name = draw("text", { x, y: within ? y - h * 0.04 : y + h * 0.11 });
  name.textContent = domain;
  group.append(draw("rect", { x: x - w / 2, y: y - h / 2, width: w, height: h, rx: h / 5 }), name);
  if (within) {
    const text = draw("text", { class: "within", x, y: y + h * 0.32 });
    group.append(text);
    edges.set(within, { group, text, within });
  }
  return group;
}

function arrow(key, a, b, { w, h }, rem) {
  // The curve swerves to the right of its way, so that there and back differ.
  const length = Math.hypot(b.x - a.x, b.y - a.y) || 1, swerve = Math.max(bend, (2.2 * rem) / length);
  const middle = { x: (a.x + b.x) / 2 - (b.y - a.y) * swerve, y: (a.y + b.y) / 2 + (b.x - a.x) * swerve };
  const inside = (p, node) => Math.abs(p.x - node.x) < w / 2 + 5 && Math.abs(p.y - node.y) < h / 2 + 5;
  const points = Array.from({ length: steps + 1 }, (_, i) => {
    const t = i / steps, s = 1 - t;
    return { x: s * s * a.x + 2 * s * t * middle.x + t * t * b.x, y: s * s * a.y + 2 * s * t * middle.y + t * t * b.y };
  }).filter((p) => !inside(p, a) && !inside(p, b));
  const way = `M${points.map((p) => `${p.x.toFixed(1)} ${p.y.toFixed(1)}`).join("L")}`;
  const end = points.at(-1), before = points.at(-4) ?? points[0];
  const angle = (Math.atan2(end.y - before.y, end.x - before.x) * 180) / Math.PI;
  // The words are nearer to the caller, where arrows that cross are apart, and
  // outside of the pair that two arrows up and down make.
  const side = Math.abs(b.y - a.y) < Math.abs(b.x - a.x) ? "" : b.y > a.y ? " left" : " right";
  const label = points[Math.floor(points.length * (side ? 0.3 : 0.36))];
  const x = label.x + { "": 0, " left": -8, " right": 8 }[side];

  const group = draw("g", { class: "edge" }), beat = draw("circle", { r: rem * 0.28 });
  const line = (name, n) => draw("text", { class: name + side, x, y: label.y + n * rem });
  const text = line("outcome", 0), profile = line("profile", 0.95), refused = line("refused", 1.9);
  beat.style.offsetPath = `path("${way}")`;
  group.append(draw("path", { d: way }), draw("polygon", { points: "2,0 -11,-5.5 -11,5.5", transform: `translate(${end.x} ${end.y}) rotate(${angle})` }), beat, text, profile, refused);
  edges.set(key, { group, text, profile, refused });
  return group;
}

function draw(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}
