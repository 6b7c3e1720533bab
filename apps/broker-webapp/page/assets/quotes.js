// Asks the broker for quotes once a second and shows what it says. The rhythm
// is the broker's: each answer tells when there will be news.

const byId = (id) => document.getElementById(id);
const history = 60; // prices in the line of the last minute
const patience = 8000; // ms; longer than the broker needs for an answer
const money = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

const rows = new Map(); // by symbol
let shown = null; // the broker's last answer
let offset = 0; // the broker's clock minus this browser's, in ms
let lost = null; // since when the broker does not answer
let asking = false;

async function ask() {
  if (asking || document.hidden) return;
  asking = true;
  let pause = 1000;
  try {
    const response = await fetch("/api/quotes", { cache: "no-store", signal: AbortSignal.timeout(patience) });
    if (!response.ok) throw new Error(`the broker answered ${response.status}`);
    const answer = await response.json();
    pause = Math.max(250, answer.nextInMillis + 15);
    offset = Date.parse(answer.now) - Date.now();
    lost = null;
    if (answer.changed !== shown?.changed) showQuotes(answer.quotes);
    shown = answer;
    showIdentity("peer", answer.peer);
    showIdentity("self", answer.self);
    showTrust(answer);
    showProblem(answer.error);
  } catch (error) {
    lost ??= new Date(Date.now() + offset).toISOString();
    showProblem({
      class: "broker-unreachable",
      what: "This page cannot reach its broker, so nobody knows whether the quotes server answers.",
      look: "The broker's pod, and the port that leads from this browser to it.",
      detail: String(error),
      since: lost,
    });
  }
  showTime();
  asking = false;
  setTimeout(ask, pause);
}

function showQuotes(quotes) {
  for (const quote of quotes) {
    if (!rows.has(quote.symbol)) rows.set(quote.symbol, addRow(quote));
    const row = rows.get(quote.symbol);
    const before = row.prices.at(-1);
    row.prices.push(quote.priceCents);
    if (row.prices.length > history) row.prices.shift();

    row.price.textContent = money.format(quote.priceCents / 100);
    row.price.dataset.cents = quote.priceCents;
    delete row.price.dataset.move;
    if (before !== undefined && before !== quote.priceCents) {
      void row.price.offsetWidth; // lets the same animation start again
      row.price.dataset.move = quote.priceCents > before ? "up" : "down";
    }

    const change = quote.changeCents, opening = quote.priceCents - change;
    const sign = change > 0 ? "up" : change < 0 ? "down" : "even";
    row.change.dataset.sign = sign;
    row.change.textContent = { up: "▲ +", down: "▼ −", even: "" }[sign] + money.format(Math.abs(change / opening) * 100) + " %";
    row.line.setAttribute("points", points(row.prices));
  }
}

function addRow(quote) {
  const tr = byId("quotes").tBodies[0].insertRow();
  tr.dataset.symbol = quote.symbol;
  const symbol = document.createElement("th");
  symbol.scope = "row";
  symbol.textContent = quote.symbol;
  tr.append(symbol);
  const cell = (field) => {
    const td = tr.insertCell();
    td.className = td.dataset.field = field;
    return td;
  };
  cell("company").textContent = quote.company;
  const svg = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);
  const trend = svg("svg"), line = svg("polyline");
  trend.setAttribute("viewBox", `0 0 ${history - 1} 20`);
  trend.setAttribute("preserveAspectRatio", "none");
  trend.setAttribute("aria-hidden", "true");
  trend.append(line);
  cell("trend").append(trend);
  return { price: cell("price"), change: cell("change"), line, prices: [] };
}

// points draws prices so that the newest is at the right edge.
function points(prices) {
  const low = Math.min(...prices), span = Math.max(...prices) - low || 1;
  const first = history - prices.length;
  return prices.map((price, i) => `${first + i},${19 - (18 * (price - low)) / span}`).join(" ");
}

function showIdentity(who, svid) {
  byId(who).dataset.known = Boolean(svid);
  if (!svid) return;
  const id = byId(`${who}-id`);
  if (id.dataset.id !== svid.id) {
    id.dataset.id = svid.id;
    const domain = document.createElement("b");
    domain.textContent = svid.trustDomain;
    id.replaceChildren("spiffe://", domain, svid.id.slice("spiffe://".length + svid.trustDomain.length));
  }
  set(`${who}-trust-domain`, svid.trustDomain);
  set(`${who}-serial`, svid.serial);
  byId(`${who}-expiry`).dateTime = svid.notAfter;
}

function showTrust({ peer, self }) {
  if (peer) {
    set("peer-bundle", peer.verifiedBy.trustDomain);
    set("peer-authority", peer.verifiedBy.subjectKeyID);
    set("peer-authority-subject", peer.verifiedBy.subject);
  }
  if (self && byId("self-bundles").textContent !== self.bundles.join(", ")) {
    const names = self.bundles.map((name) => {
      const domain = document.createElement("span");
      domain.className = name === self.trustDomain ? "domain" : "domain other";
      domain.dataset.bundle = domain.textContent = name;
      return domain;
    });
    byId("self-bundles").replaceChildren(...names.flatMap((name, i) => (i ? [", ", name] : [name])));
  }
}

function showProblem(problem) {
  byId("error").hidden = !problem;
  document.body.dataset.state = lost ? "offline" : problem ? "stale" : "live";
  set("status", lost ? "Broker not reached" : problem ? "No new quotes" : "Live");
  set("peer-title", problem ? "Who answered last" : "Who answered");
  if (!problem) return;
  byId("error").dataset.class = problem.class;
  set("error-class", problem.class);
  set("error-what", problem.what);
  set("error-look", problem.look);
  set("error-detail", problem.detail);
  byId("error-since").dateTime = problem.since;
}

// showTime renews all that counts up or down, by the broker's clock.
function showTime() {
  const now = Date.now() + offset;
  if (shown?.changed) {
    const age = now - Date.parse(shown.changed), changed = byId("last-changed");
    changed.hidden = false;
    changed.dateTime = shown.changed;
    changed.textContent = `last changed ${clock.format(Date.parse(shown.changed))}` + (age < 3000 ? "" : `, ${span(age)} ago`);
  }
  const since = byId("error-since").dateTime;
  if (since) set("error-since", `${clock.format(Date.parse(since))}, for ${span(now - Date.parse(since))}`);
  showLife("peer", shown?.peer, now);
  showLife("self", shown?.self, now);
}

function showLife(who, svid, now) {
  if (!svid) return;
  const begin = Date.parse(svid.notBefore), end = Date.parse(svid.notAfter);
  set(`${who}-expires-in`, now < end ? span(end - now) : "expired");
  set(`${who}-expiry`, `at ${clock.format(end)}`);
  byId(`${who}-life`).value = Math.min(1, Math.max(0, (end - now) / (end - begin)));
}

function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000)), m = Math.floor(s / 60), h = Math.floor(m / 60);
  if (h >= 48) return `${Math.floor(h / 24)} days`;
  if (h) return `${h} h ${m % 60} min`;
  return m ? `${m} min ${s % 60} s` : `${s} s`;
}

// set leaves equal text alone, so that a screen reader is not told it again.
function set(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

setInterval(() => document.hidden || showTime(), 250);
document.addEventListener("visibilitychange", ask);
ask();
