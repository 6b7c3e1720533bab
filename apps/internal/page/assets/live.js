// What every page does: ask its program once a second while somebody looks,
// and show who is who, what is wrong, and for how long. The rhythm is the
// program's: each answer tells when there will be news.

const patience = 8000; // ms; longer than a program needs for an answer

export const byId = (id) => document.getElementById(id);
export const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

// live asks url, for ever. It hands each answer to show, and to lost a problem
// when the program does not answer; words say what that means. tick is called
// often with the program's time, in ms.
export function live({ url, show, lost, words, tick }) {
  let offset = 0; // the program's clock minus this browser's, in ms
  let since = null; // since when the program does not answer
  let asking = false, timer = 0;
  const now = () => Date.now() + offset;

  async function ask() {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    asking = true;
    let pause = 1000, answer = null;
    try {
      const response = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(patience) });
      if (!response.ok) throw new Error(`the program answered ${response.status}`);
      answer = await response.json();
      pause = Math.max(250, (answer.nextInMillis || 0) + 15);
      offset = Date.parse(answer.now) - Date.now();
      since = null;
    } catch (error) {
      since ??= new Date(now()).toISOString();
      lost({ ...words, detail: String(error), since });
    }
    asking = false;
    timer = setTimeout(ask, pause);
    if (answer) show(answer);
    tick(now());
  }

  setInterval(() => document.hidden || tick(now()), 250);
  document.addEventListener("visibilitychange", ask);
  ask();
}

// showState says in one word how things are: live, stale or offline.
export function showState(state, text) {
  document.body.dataset.state = state;
  set("status", text);
}

export function showProblem(problem) {
  byId("error").hidden = !problem;
  if (!problem) return;
  byId("error").dataset.class = problem.class;
  set("error-class", problem.class);
  set("error-what", problem.what);
  set("error-look", problem.look);
  set("error-detail", problem.detail);
  byId("error-since").dateTime = problem.since;
}

// showSince renews how long there has been a problem.
export function showSince(now) {
  const since = byId("error-since").dateTime;
  if (since) set("error-since", `${clock.format(Date.parse(since))}, for ${span(now - Date.parse(since))}`);
}

// showPeer shows who answered, in the colour of their trust domain; own is ours.
export function showPeer(peer, own) {
  showIdentity("peer", peer);
  if (!peer) return;
  byId("peer").style.setProperty("--hue", hueOf(peer.trustDomain, own));
  set("peer-bundle", peer.verifiedBy?.trustDomain ?? "");
  set("peer-authority", peer.verifiedBy?.subjectKeyID ?? "");
  set("peer-authority-subject", peer.verifiedBy?.subject ?? "");
}

export function showSelf(self) {
  showIdentity("self", self);
  const bundles = self?.bundles ?? [];
  if (!self || byId("self-bundles").textContent === bundles.join(", ")) return;
  const names = bundles.map((name) => {
    const domain = named("span", name, self.trustDomain);
    domain.dataset.bundle = name;
    return domain;
  });
  byId("self-bundles").replaceChildren(...names.flatMap((name, i) => (i ? [", ", name] : [name])));
}

// showFacts says of each of the three facts that a call across trust domains rests
// on whether it holds, as far as a workload can know. The Workload API hands out
// the bundle of another trust domain when the registration entry federates with it
// and the SPIRE server holds the bundle: who has it knows both, who has it not
// knows only that one of them is missing. What a server does to renew a bundle, no
// workload sees. domains are those that are called; expected are those among them
// that are not to be federated.
export function showFacts(self, domains, expected = []) {
  const own = self?.trustDomain, others = [...new Set(domains)].filter((domain) => domain && domain !== own).sort();
  const told = JSON.stringify([own, self?.bundles, others, expected]);
  if (byId("facts").dataset.told === told) return;
  byId("facts").dataset.told = told;
  const held = others.filter((domain) => self?.bundles?.includes(domain)), absent = others.filter((domain) => !held.includes(domain));
  const refused = absent.filter((domain) => expected.includes(domain)), missing = absent.filter((domain) => !expected.includes(domain));
  const say = (id, ...facts) => byId(id).replaceChildren(...facts.filter(([, , domains]) => domains.length).map(([state, text, domains]) => {
    const fact = element("li", "fact", `${text}: `);
    fact.dataset.state = state;
    fact.append(...domains.flatMap((domain, i) => (i ? [", ", named("b", domain, own)] : [named("b", domain, own)])));
    return fact;
  }));
  const unknown = "not known without an identity";
  say("fact-relationship", ["unknown", "cannot be seen from here", others]);
  if (!self) {
    say("fact-bundle", ["unknown", unknown, others]);
    say("fact-federates", ["unknown", unknown, others]);
    return;
  }
  say("fact-bundle", ["holds", "handed out", held], ["refused", "none, as it should be", refused], ["missing", "not handed out", missing]);
  say("fact-federates", ["holds", "yes, since the bundle came", held], ["refused", "none is needed", refused], ["unknown", "not known, since no bundle came", missing]);
}

// named returns an element with the name of a trust domain and its colour.
export function named(kind, domain, own) {
  const name = element(kind, "domain-name", domain);
  name.style.setProperty("--hue", hueOf(domain, own));
  return name;
}

// hueOf returns the hue of a trust domain, which it keeps as long as the page is
// open: our own has the first, and no two have the same.
const hues = new Map();
export function hueOf(domain, own) {
  if (domain === own) return 310;
  // Steps of the golden angle leave the largest gaps between any number of them.
  if (!hues.has(domain)) hues.set(domain, Math.round(310 + 137.5 * (hues.size + 1)) % 360);
  return hues.get(domain);
}

function showIdentity(who, svid) {
  byId(who).dataset.known = Boolean(svid);
  const id = byId(`${who}-id`), name = svid?.id ?? "";
  if (id.dataset.id !== name) {
    id.dataset.id = name;
    id.replaceChildren(...(svid ? spelled(name) : [id.dataset.none]));
  }
  if (!svid) return;
  set(`${who}-trust-domain`, svid.trustDomain);
  set(`${who}-serial`, svid.serial);
  byId(`${who}-expiry`).dateTime = svid.notAfter;
}

// spelled returns what shows a SPIFFE ID, with its trust domain made to stand
// out.
export function spelled(id) {
  const [scheme, , domain, ...path] = id.split("/");
  return [`${scheme}//`, element("b", "", domain), ["", ...path].join("/")];
}

// showLife renews how long the SVID of who ("peer", "self") is still valid.
export function showLife(who, svid, now) {
  if (!svid) return;
  const begin = Date.parse(svid.notBefore), end = Date.parse(svid.notAfter);
  set(`${who}-expires-in`, now < end ? span(end - now) : "expired");
  set(`${who}-expiry`, `at ${clock.format(end)}`);
  byId(`${who}-life`).value = Math.min(1, Math.max(0, (end - now) / (end - begin)));
}

export function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000)), m = Math.floor(s / 60), h = Math.floor(m / 60);
  if (h >= 48) return `${Math.floor(h / 24)} days`;
  if (h) return `${h} h ${m % 60} min`;
  return m ? `${m} min ${s % 60} s` : `${s} s`;
}

// set leaves equal text alone, so that a screen reader is not told it again.
// It takes an element or its id.
export function set(id, text) {
  const place = typeof id === "string" ? byId(id) : id;
  if (place.textContent !== text) place.textContent = text;
}

export function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

// trend returns a line of the last values, of which length fit into its width,
// and what draws it.
export function trend(length) {
  const svg = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);
  const box = svg("svg"), line = svg("polyline");
  box.setAttribute("class", "trend");
  box.setAttribute("viewBox", `0 0 ${length - 1} 20`);
  box.setAttribute("preserveAspectRatio", "none");
  box.setAttribute("aria-hidden", "true");
  box.append(line);
  return { box, draw: (values, low = Math.min(...values)) => line.setAttribute("points", points(values, length, low)) };
}

// points draws values so that the newest is at the right edge.
function points(values, length, low) {
  const range = Math.max(...values) - low || 1;
  const first = length - values.length;
  return values.map((value, i) => `${first + i},${19 - (18 * (value - low)) / range}`).join(" ");
}
