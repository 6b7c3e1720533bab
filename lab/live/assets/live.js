"use strict";
// The table is in the page; each event says what is different in it. What is drawn in the
// circle and the lanes of keys comes as it is shown.
(() => {
  const byId = (id) => document.getElementById(id);
  const table = byId("matrix");
  const rows = table ? [...table.tBodies[0].rows].map((row) => [...row.querySelectorAll("td")]) : [];
  const columns = rows.length ? rows[0].length : 0;
  const cells = rows.flat(), known = cells.map(() => null);
  const large = table !== null && table.classList.contains("large");
  const names = { row: rows.map((row) => row[0].parentNode.cells[0].textContent), column: table ? [...table.tHead.querySelectorAll("th")].map((th) => th.textContent) : [] };
  let at = 0, heard = 0, moves = false, seen = 0, source = null, open = null, current = -1;

  const text = (element, is) => { if (element && element.textContent !== is) element.textContent = is; };
  const drawn = new Map();
  const html = (element, is) => { if (element && drawn.get(element) !== is) { drawn.set(element, is); element.innerHTML = is; } };
  const seconds = (ms) => ms < 100_000 ? Math.round(ms / 1000) + " s" : ms < 6_000_000 ? Math.round(ms / 60_000) + " min" : Math.round(ms / 3_600_000) + " h";

  // A cell is two polls wide, so that one that is late is seen to be. Steps that nobody sees
  // are not drawn: thousands of cells would be, each second.
  const steps = large ? 400 : 40, drawnAge = new Map();
  const age = (i, now) => {
    const { last, next, poll } = known[i], style = cells[i].style;
    const share = (t) => Math.round(Math.min(1, Math.max(0, t / (2 * poll))) * steps) / steps;
    const is = poll && last ? share(now - last) : poll ? 0 : 1, due = poll && next ? share(last ? next - last : poll) : -1;
    if (drawnAge.get(i) !== is + " " + due) {
      drawnAge.set(i, is + " " + due);
      style.setProperty("--age", is);
      style.setProperty("--next", due);
    }
    if (large) cells[i].lastChild.dataset.age = !poll ? "" : last ? seconds(now - last) + " of " + seconds(poll) : "a poll every " + seconds(poll);
  };
  const paint = (i, cell) => {
    const was = known[i], td = cells[i];
    known[i] = cell;
    if (!was || was.class !== cell.class) td.className = cell.class;
    if (!was || was.says !== cell.says) td.setAttribute("aria-label", cell.says);
    if (!was && large && cell.class !== "self" && cell.class !== "none") td.append(...["b", "span", "small"].map((name) => document.createElement(name)));
    if (large && td.lastChild) { td.children[0].dataset.sign = cell.sign; text(td.children[1], cell.word); }
    else td.dataset.sign = cell.sign;
    if (cell.sign) age(i, at);
  };
  const tick = () => {
    const now = at + (moves ? performance.now() - heard : 0);
    for (let i = 0; i < cells.length; i++) if (known[i] && known[i].sign) age(i, now);
  };

  const hear = (event) => {
    const e = JSON.parse(event.data);
    if (e.shape !== document.body.dataset.shape) { location.reload(); return; }
    at = e.at; heard = performance.now(); moves = e.moves;
    document.body.dataset.state = e.problem ? "trouble" : !e.at ? "waiting" : e.replay ? "replay" : "live";
    text(byId("state"), e.problem ? "stale" : !e.at ? "waits for the first look" : e.replay ? "replay" : "live");
    text(byId("time"), e.time);
    text(byId("summary"), e.summary);
    byId("problem").hidden = !e.problem;
    text(byId("problem"), e.problem);
    const doing = (e.doing ?? []).join(" · ");
    byId("doing").hidden = !doing;
    text(byId("doing"), doing);
    for (const i in e.cells) paint(Number(i), e.cells[i]);
    if (!e.moves) tick();
    html(byId("circle"), e.circle);
    html(byId("calls"), e.calls);
    html(byId("lanes"), e.lanes);
    tell(e.news ?? []);
    if (e.replay) follow(e.replay);
  };
  const tell = (news) => {
    const list = byId("news");
    if (!list) return;
    if (news.length === 0 || news[news.length - 1].n < seen) { list.replaceChildren(); seen = 0; }
    for (const { n, time, text: what } of news) {
      if (n <= seen) continue;
      const item = document.createElement("li"), when = document.createElement("time");
      when.textContent = time;
      item.append(when, " " + what);
      list.prepend(item);
      seen = n;
    }
    byId("no-news").hidden = news.length > 0;
  };
  const listen = () => {
    if (source) source.close();
    source = new EventSource("/events" + (open ? "?" + new URLSearchParams(open) : ""));
    source.onmessage = hear;
    source.onerror = () => {
      document.body.dataset.state = "offline";
      text(byId("state"), "fedlab ui does not answer");
    };
  };

  const follow = (replay) => {
    byId("frame").max = replay.of - 1;
    if (document.activeElement !== byId("frame") || replay.running) byId("frame").value = replay.at;
    text(byId("frame-of"), replay.at + 1 + " of " + replay.of);
    text(byId("run"), replay.running ? "Stop" : "Go on");
  };
  const move = (to) => fetch("/replay?" + new URLSearchParams(to), { method: "POST" });
  if (byId("replay")) {
    byId("run").onclick = () => {
      const running = byId("run").textContent !== "Stop", frame = byId("frame");
      move(running && frame.value === frame.max ? { running, at: 0 } : { running });
    };
    byId("frame").oninput = () => move({ at: byId("frame").value, running: false });
  }

  const focus = (i) => {
    if (current >= 0) cells[current].tabIndex = -1;
    current = i;
    cells[i].tabIndex = 0;
  };
  const show = (i) => {
    focus(i);
    open = { truster: names.row[Math.floor(i / columns)], trusted: names.column[i % columns] };
    text(byId("keys-title"), "Keys of " + open.trusted + " on their way to " + open.truster);
    byId("keys").hidden = false;
    byId("keys").focus();
    listen();
  };
  const close = () => {
    open = null;
    byId("keys").hidden = true;
    if (current >= 0) cells[current].focus();
    listen();
  };
  if (table) {
    byId("close").onclick = close;
    document.addEventListener("keydown", (e) => { if (e.key === "Escape" && open) close(); });
    focus(cells.length > 1 ? 1 : 0);
    table.addEventListener("mouseover", (e) => { const td = e.target.closest("td"); if (td) td.title = td.getAttribute("aria-label") ?? ""; });
    table.addEventListener("click", (e) => { const i = cells.indexOf(e.target.closest("td")); if (i >= 0) show(i); });
    table.addEventListener("keydown", (e) => {
      const i = cells.indexOf(e.target), row = Math.floor(i / columns), column = i % columns;
      if (i < 0) return;
      const to = {
        ArrowRight: column < columns - 1 ? i + 1 : i, ArrowLeft: column > 0 ? i - 1 : i,
        ArrowDown: row < rows.length - 1 ? i + columns : i, ArrowUp: row > 0 ? i - columns : i,
        Home: e.ctrlKey ? 0 : i - column, End: e.ctrlKey ? cells.length - 1 : i - column + columns - 1,
      }[e.key];
      if (e.key === "Enter" || e.key === " ") show(i);
      else if (to !== undefined) { focus(to); cells[to].focus(); }
      else return;
      e.preventDefault();
    });
  }
  setInterval(tick, 1000);
  listen();
})();
