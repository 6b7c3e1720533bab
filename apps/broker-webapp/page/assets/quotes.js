// Shows the broker's quotes, who gave them, and why that is believed.

import { byId, clock, live, set, showFacts, showLife, showPeer, showProblem, showSelf, showSince, showState, span, trend } from "./live.js";

const history = 60; // prices in the line of the last minute
const money = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

const rows = new Map(); // by symbol
let shown = null; // the broker's last answer

live({
  url: "/api/quotes",
  show(answer) {
    if (answer.changed !== shown?.changed) showQuotes(answer.quotes);
    shown = answer;
    showPeer(answer.peer, answer.self?.trustDomain);
    showSelf(answer.self);
    showFacts(answer.self, [answer.server.id.split("/")[2]]);
    showProblem(answer.error);
    showState(answer.error ? "stale" : "live", answer.error ? "No new quotes" : "Live");
    set("peer-title", answer.error ? "Who answered last" : "Who answered");
  },
  words: {
    class: "broker-unreachable",
    what: "This page cannot reach its broker, so nobody knows whether the quotes server answers.",
    look: "The broker's pod, and the port that leads from this browser to it.",
  },
  lost(problem) {
    showProblem(problem);
    showState("offline", "Broker not reached");
    set("peer-title", "Who answered last");
  },
  tick(now) {
    if (shown?.changed) {
      const age = now - Date.parse(shown.changed), changed = byId("last-changed");
      changed.hidden = false;
      changed.dateTime = shown.changed;
      changed.textContent = `last changed ${clock.format(Date.parse(shown.changed))}` + (age < 3000 ? "" : `, ${span(age)} ago`);
    }
    showSince(now);
    showLife("peer", shown?.peer, now);
    showLife("self", shown?.self, now);
  },
});

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
    row.draw(row.prices);
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
  const { box, draw } = trend(history);
  cell("trend").append(box);
  return { price: cell("price"), change: cell("change"), draw, prices: [] };
}
