// Draws trust domains around a rectangle, and an arrow from each that calls to
// each that is called.

import { hueOf } from "./live.js";

const bend = 0.13; // how far an arrow swerves, as a share of its length
const steps = 80; // points of a curve
const shares = [0.34, 0.28, 0.4, 0.22, 0.46, 0.52, 0.58, 0.64, 0.16, 0.7, 0.76, 0.1, 0.82, 0.9]; // of an arrow, at which its words are tried
const gap = 6; // px that words keep from what is around them

const map = document.getElementById("map");
const edges = new Map(); // what shows the calls between two domains, by their names
let drawn = ""; // what the map is laid out for
let last = null; // what drawMap was given

new ResizeObserver(() => last && drawMap(...last)).observe(map);

export const domainOf = (id) => id?.split("/")[2] || "no identity yet";

// pair is the key of what is between two domains. What is written for one without
// an identity has spaces.
const pair = (from, to) => JSON.stringify([from, to]);

// ownFirst returns each of the domains once, by name, but our own first.
export const ownFirst = (domains, own) => [...new Set(domains)].sort((a, b) => (b === own) - (a === own) || a.localeCompare(b));

// drawMap shows calls; own is the trust domain of whoever watches, millis puts
// a latency into words.
export function drawMap(calls, own, millis) {
  last = [calls, own, millis];
  const between = Map.groupBy(calls, (call) => pair(domainOf(call.caller), domainOf(call.server)));
  const domains = ownFirst(calls.flatMap((call) => [domainOf(call.caller), domainOf(call.server)]), own);
  const size = { width: map.clientWidth, height: map.clientHeight };
  if (!size.width) return; // it is hidden where there is no room for it
  const words = new Map([...between].map(([key, here]) => [key, wordsOf(here, millis)]));
  // The first line of words has the room of the longest that it may come to say.
  const layout = JSON.stringify([own, domains, size, [...words].map(([key, w]) => [key, w.profile, w.refused])]);
  if (layout !== drawn) lay(domains, own, words, size);
  drawn = layout;
  for (const [key, said] of words) show(edges.get(key), said);
}

// wordsOf says in a few words how the calls between two domains stand.
function wordsOf(calls, millis) {
  const inState = (state) => calls.filter((call) => call.state === state);
  const state = ["failed", "answered", "refused"].find((state) => inState(state).length) ?? "waiting";
  const answered = inState("answered"), refused = inState("refused");
  const mean = answered.reduce((sum, call) => sum + (call.millis ?? 0), 0) / answered.length;
  return {
    state,
    outcome: { answered: millis(mean), refused: "refused", failed: "fails" }[state] ?? "…",
    refused: state !== "refused" && refused.length ? `${refused.length} refused` : "",
    profile: [...new Set(calls.map((call) => call.profile).filter(Boolean))].join(", "),
  };
}

function show(edge, said) {
  edge.text.textContent = edge.within ? `within: ${said.outcome}` : said.outcome;
  edge.group.dataset.state = said.state;
  if (edge.within) return;
  delete edge.group.dataset.beat;
  if (said.state !== "answered") return;
  void edge.group.getBoundingClientRect(); // lets the same animation start again
  edge.group.dataset.beat = "";
}

function lay(domains, own, words, { width, height }) {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const nodes = document.getElementById("nodes"), arrows = document.getElementById("edges");
  nodes.replaceChildren();
  arrows.replaceChildren();
  edges.clear();

  // Boxes are as large as their names need, which take lines where they are long.
  const most = Math.min(17 * rem, width * (domains.length > 2 ? 0.3 : 0.36)) - 1.6 * rem;
  const names = domains.map((domain) => nameOf(nodes, domain, most));
  const lines = Math.max(...names.map((name) => name.childNodes.length));
  const box = {
    w: Math.max(7 * rem, ...names.map((name) => name.getBBox().width)) + 1.6 * rem,
    h: (1.25 * lines + 2.3) * rem,
  };
  // Our own is at the left; two others have the corners at the right, and three all
  // corners with it.
  // Around them is room for the words of arrows that swerve outwards.
  const first = Math.PI * (domains.length === 4 ? 1.25 : 1), margin = { x: width > 2 * box.w + 14 * rem ? 3.5 * rem : 0, y: 5.5 * rem };
  const at = new Map(domains.map((domain, i) => {
    const angle = domains.length === 3 ? Math.PI * [1, 1.75, 0.25][i] : first + (2 * Math.PI * i) / domains.length, x = Math.cos(angle), y = Math.sin(angle);
    const out = domains.length === 1 ? 0 : 1 / Math.max(Math.abs(x), Math.abs(y));
    return [domain, { x: width / 2 + (x * out * (width - box.w - margin.x)) / 2, y: height / 2 + (y * out * (height - box.h - margin.y)) / 2 }];
  }));
  domains.forEach((domain, i) => {
    const key = pair(domain, domain);
    node(nodes, names[i], at.get(domain), box, { hue: hueOf(domain, own), own: domain === own, within: words.has(key) ? key : "", rem });
  });

  const taken = [...at.values()].map(({ x, y }) => around(x, y, box.w, box.h));
  const drawnArrows = [...words.keys()].filter((key) => JSON.parse(key)[0] !== JSON.parse(key)[1]).map((key) => {
    const [from, to] = JSON.parse(key);
    return arrow(arrows, key, at.get(from), at.get(to), box, rem);
  });
  // All arrows first, then their words, which keep clear of them.
  for (const made of drawnArrows) label(arrows, made, words.get(made.key), drawnArrows, taken, { width, height, rem });
}

// nameOf writes a name in as many lines as it needs to be no wider than most: it
// breaks before a dot or after a hyphen, or anywhere where there is none.
function nameOf(nodes, domain, most) {
  const text = nodes.appendChild(draw("text", { class: "name" }));
  const wide = (line) => {
    text.textContent = line;
    return text.getComputedTextLength() > most;
  };
  const lines = [""];
  for (const part of domain.split(/(?=[.])|(?<=-)/)) {
    if (!wide(lines.at(-1) + part)) {
      lines.push(lines.pop() + part);
      continue;
    }
    if (lines.at(-1)) lines.push("");
    for (const letter of part) {
      if (wide(lines.at(-1) + letter)) lines.push("");
      lines.push(lines.pop() + letter);
    }
  }
  text.replaceChildren(...lines.map((line, i) => {
    const span = draw("tspan", { x: 0, dy: i ? "1.25rem" : 0 });
    span.textContent = line;
    return span;
  }));
  return text;
}

function node(nodes, name, { x, y }, { w, h }, { hue, own, within, rem }) {
  const group = nodes.appendChild(draw("g", { class: own ? "node own" : "node" }));
  group.style.setProperty("--hue", hue);
  const lines = name.childNodes.length, below = within ? 1.2 * rem : 0;
  const top = y - (1.25 * rem * (lines - 1) + below) / 2 + 0.35 * rem;
  for (const line of name.childNodes) line.setAttribute("x", x);
  name.setAttribute("y", top);
  group.append(draw("rect", { x: x - w / 2, y: y - h / 2, width: w, height: h, rx: 0.6 * rem }), name);
  if (within) {
    const text = draw("text", { class: "within", x, y: top + 1.25 * rem * (lines - 1) + below });
    group.append(text);
    edges.set(within, { group, text, within });
  }
}

function arrow(arrows, key, a, b, { w, h }, rem) {
  // The curve swerves to the right of its way, so that there and back differ.
  const length = Math.hypot(b.x - a.x, b.y - a.y) || 1, swerve = Math.max(bend, (2.2 * rem) / length);
  const middle = { x: (a.x + b.x) / 2 - (b.y - a.y) * swerve, y: (a.y + b.y) / 2 + (b.x - a.x) * swerve };
  const inside = (p, node) => Math.abs(p.x - node.x) < w / 2 + 5 && Math.abs(p.y - node.y) < h / 2 + 5;
  const curve = Array.from({ length: steps + 1 }, (_, i) => {
    const t = i / steps, s = 1 - t;
    return { x: s * s * a.x + 2 * s * t * middle.x + t * t * b.x, y: s * s * a.y + 2 * s * t * middle.y + t * t * b.y };
  });
  let points = curve.filter((p) => !inside(p, a) && !inside(p, b));
  if (points.length < 5) points = curve; // the boxes leave no room between them
  const way = `M${points.map((p) => `${p.x.toFixed(1)} ${p.y.toFixed(1)}`).join("L")}`;
  const end = points.at(-1), before = points.at(-4);
  const angle = (Math.atan2(end.y - before.y, end.x - before.x) * 180) / Math.PI;

  const group = arrows.appendChild(draw("g", { class: "edge" })), beat = draw("circle", { r: rem * 0.28 });
  group.dataset.edge = JSON.parse(key).join(" to ");
  beat.style.offsetPath = `path("${way}")`;
  group.append(draw("path", { d: way }), draw("polygon", { points: "2,0 -11,-5.5 -11,5.5", transform: `translate(${end.x} ${end.y}) rotate(${angle})` }), beat);
  return { key, group, points };
}

// label writes the words of an arrow next to it: at the first place that is free of
// boxes, other words and arrows, nearer to the caller and outside of the curve if
// that can be had. Where no place is free, the words cover what is below them.
function label(arrows, { key, group, points }, words, all, taken, { width, height, rem }) {
  const box = group.appendChild(draw("g", { class: "words" })), ground = box.appendChild(draw("rect", { rx: 4 }));
  const line = (name, text) => {
    const made = box.appendChild(draw("text", { class: name, x: 0 }));
    made.textContent = text;
    return made;
  };
  const text = line("outcome", "refused"), more = [["profile", words.profile], ["refused", words.refused]].filter(([, text]) => text).map((one) => line(...one));
  const w = Math.max(...[text, ...more].map((line) => line.getComputedTextLength())) + 4, h = (1.15 + 0.95 * more.length) * rem;
  [text, ...more].forEach((line, i) => line.setAttribute("y", -h / 2 + (0.85 + 0.95 * i) * rem));
  for (const [name, value] of Object.entries({ x: -w / 2, y: -h / 2, width: w, height: h })) ground.setAttribute(name, value);
  edges.set(key, { group, text });

  const others = all.flatMap((other) => other.points);
  const cost = (place) => {
    const hits = (one) => place.left < one.right && one.left < place.right && place.top < one.bottom && one.top < place.bottom;
    const edge = 0.5 * rem; // of the card around the map
    const outside = place.left < -edge || place.top < -edge || place.right > width + edge || place.bottom > height + edge;
    const under = others.filter((p) => p.x > place.left && p.x < place.right && p.y > place.top && p.y < place.bottom).length;
    return (outside ? 1e6 : 0) + taken.filter(hits).length * 1e4 + under;
  };
  let best = null;
  for (const [order, share] of shares.entries()) {
    const i = Math.min(points.length - 2, Math.max(1, Math.round(share * (points.length - 1))));
    const p = points[i], dx = points[i + 1].x - points[i - 1].x, dy = points[i + 1].y - points[i - 1].y, n = Math.hypot(dx, dy) || 1;
    for (const side of [1, -1]) {
      const out = { x: (-dy / n) * side, y: (dx / n) * side };
      for (const more of [0, 8, 18, 30]) {
        const far = Math.abs(out.x) * w / 2 + Math.abs(out.y) * h / 2 + gap + more;
        const x = p.x + out.x * far, y = p.y + out.y * far, place = around(x, y, w + gap, h + gap);
        const c = cost(place) + order / 50 + more / 100 + (side < 0 ? 0.6 : 0);
        if (!best || c < best.c) best = { c, x, y, place };
      }
    }
  }
  box.setAttribute("transform", `translate(${best.x.toFixed(1)} ${best.y.toFixed(1)})`);
  taken.push(best.place);
}

const around = (x, y, w, h) => ({ left: x - w / 2, right: x + w / 2, top: y - h / 2, bottom: y + h / 2 });

function draw(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}
