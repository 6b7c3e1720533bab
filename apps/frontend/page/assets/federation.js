// Shows who calls whom: the trust domains and the calls between them as a map,
// and each call with what became of it as a list.

import { domainOf, drawMap, ownFirst } from "./map.js";
import { byId, element, live, named, set, showFacts, showLife, showPeer, showProblem, showSelf, showSince, showState, spelled, trend } from "./live.js";

const history = 60; // latencies in the line of the last minute

const entries = new Map(); // the calls in the list, by key
let shown = null; // the frontend's last answer
let listed = ""; // what the list is laid out for
let chosen = null; // the key of the call that is looked at

live({
  url: "/api/calls",
  show(answer) {
    shown = answer;
    showCalls(answer);
    drawMap(answer.calls, answer.self?.trustDomain, millis);
    showChosen();
    showSelf(answer.self);
    const ours = answer.calls.filter((call) => !call.reported);
    showFacts(answer.self, ours.map((call) => domainOf(call.server)), ours.filter((call) => call.expect === "not-federated").map((call) => domainOf(call.server)));
    const failed = answer.calls.filter((call) => call.state === "failed");
    showProblem(failed.find((call) => call.problem)?.problem);
    if (failed.length) showState("trouble", failed.length === 1 ? "One call fails" : `${failed.length} calls fail`);
    else showState("live", "Live");
  },
  words: {
    class: "frontend-unreachable",
    what: "This page cannot reach its frontend, so nobody knows whether the calls come through.",
    look: "The frontend's pod, and the port that leads from this browser to it.",
  },
  lost(problem) {
    showProblem(problem);
    showState("offline", "Frontend not reached");
  },
  tick(now) {
    showSince(now);
    showLife("peer", chosenCall()?.peer, now);
    showLife("self", shown?.self, now);
  },
});

const millis = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
const keyOf = (call) => [call.caller, call.server, call.name].join(" ");
const chosenCall = () => shown?.calls.find((call) => keyOf(call) === chosen);

function showCalls({ calls, self }) {
  const layout = JSON.stringify([self?.trustDomain, calls.map(keyOf)]);
  if (layout !== listed) list(calls, self?.trustDomain);
  listed = layout;
  for (const call of calls) showCall(entries.get(keyOf(call)), call);
}

// list lays out the list by trust domains that call, our own first.
function list(calls, own) {
  const before = new Map(entries);
  entries.clear();
  const callers = ownFirst(calls.map((call) => domainOf(call.caller)), own);
  byId("calls").replaceChildren(...callers.map((caller) => {
    const group = document.createElement("li"), head = element("h2", caller === own ? "own" : "");
    const items = element("ul", "");
    head.append(named("b", caller, own), " calls");
    for (const call of calls.filter((call) => domainOf(call.caller) === caller)) {
      items.append(entry(call, own, before.get(keyOf(call))?.values).item);
    }
    group.append(head, items);
    return group;
  }));
  if (!entries.has(chosen)) chosen = calls.length ? keyOf(calls[0]) : null;
}

function entry(call, own, values = []) {
  const key = keyOf(call), item = element("li", "call"), button = element("button", ""), name = element("span", "name");
  const made = { item, button, values, took: element("span", "took"), why: element("span", "why"), line: trend(history), details: null };
  button.type = "button";
  item.dataset.call = call.name;
  name.append(element("b", "", call.name), " → ", named("i", domainOf(call.server), own));
  button.append(name, made.line.box, made.took, made.why);
  button.addEventListener("click", () => {
    chosen = key;
    showChosen();
  });
  item.append(button);
  entries.set(key, made);
  return made;
}

function showCall(entry, call) {
  const ended = call.state === "answered" || call.state === "refused";
  entry.item.dataset.state = call.state;
  set(entry.took, { answered: millis(call.millis ?? 0), refused: "refused", failed: "fails" }[call.state] ?? "…");
  set(entry.why, call.problem?.what ?? "");
  entry.values.push(ended ? (call.millis ?? 0) : 0);
  if (entry.values.length > history) entry.values.shift();
  entry.line.draw(entry.values, 0);
}

// showChosen opens the chosen call, and shows who answered it.
function showChosen() {
  const call = chosenCall();
  for (const [key, { item, button, details }] of entries) {
    button.setAttribute("aria-expanded", key === chosen);
    if (key !== chosen && details) {
      details.remove();
      entries.get(key).details = null;
    }
  }
  if (!call) return;
  const entry = entries.get(chosen);
  entry.details ??= entry.item.appendChild(element("dl", ""));
  const facts = {
    Caller: spelled(call.caller),
    Server: spelled(call.server),
    Presents: [call.token ? "a JWT-SVID" : "an X509-SVID"],
    Relationship: [call.profile || (domainOf(call.caller) === domainOf(call.server) ? "none needed: one trust domain" : "none")],
    Answer: [answerOf(call)],
  };
  const text = JSON.stringify([facts.Presents, facts.Relationship, facts.Answer]);
  if (entry.details.dataset.text !== text) {
    entry.details.dataset.text = text;
    entry.details.replaceChildren(...Object.entries(facts).map(([term, what]) => {
      const row = document.createElement("div"), fact = element("dd", what.length > 1 ? "id" : "");
      fact.append(...what);
      row.append(element("dt", "", term), fact);
      return row;
    }));
  }
  set("peer-title", call.state === "failed" ? "Who answered last" : `Who answered “${call.name}”`);
  showPeer(call.peer, shown.self?.trustDomain);
}

// classOf is why a call did not come through. A program that reports its calls may
// leave it out.
const classOf = (call) => call.problem?.class || "no reason given";

function answerOf(call) {
  const told = call.reported ? ", as its caller tells" : "";
  switch (call.state) {
    case "answered": return [call.type, call.records && `${call.records.toLocaleString("en")} records`].filter(Boolean).join(", ") || "yes" + told;
    case "refused": return `${classOf(call)}, as it should be${told}`;
    case "failed": return classOf(call) + told;
    default: return "not known";
  }
}
